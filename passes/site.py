"""What a pass is, and what it says about every place it looked at."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import takewhile
from typing import Any, Literal, Protocol

import torch
from torch import fx

from .graph.nodes import module_path, source_line, val
from .graph.weights import leaves, owner
from .refusal import Refusal

Status = Literal["rewritten", "refused", "near miss"]
Probe = Callable[[torch.Generator], Sequence[torch.Tensor]]


@dataclass(kw_only=True)
class Site:
    """One place in a graph that a pass rewrote or declined to rewrite, and why.

    `inputs`, `output` and `replacement` name nodes: the region computes `output` from `inputs` in the graph
    before the pass, and `replacement` from the same `inputs` after it. `verify` runs both on `probes`;
    `also` names further values that the rewrite made anew under the names that they had; they are checked as well.
    `rule` is the identity that made the site of two, if one did: denied, it leaves the two.
    `seconds_before` and `seconds_after` are predicted for one call at the example's sizes, as the region stands and
    rewritten; a refused site says what a rewrite would make of it, and None stands where nothing was predicted.
    `keeps_nan` is False where a NaN may reach less than before, as with two maps that undo each other.
    `original_error`, `max_error` (of the rewritten region) and `bound` are differences from float64, relative to the
    largest magnitude of the whole tensor, or of each row.
    """

    pass_name: str
    target: str
    status: Status
    reason: str = ""
    module_path: str = ""
    source: str = ""
    nodes: tuple[str, ...] = ()
    guards: dict[str, Any] = field(default_factory=dict)
    params_before: int = 0
    params_after: int = 0
    flops_before: int = 0
    flops_after: int = 0
    seconds_before: float | None = None
    seconds_after: float | None = None
    original_error: float | None = None
    max_error: float | None = None
    bound: float | None = None
    error_norm: Literal["tensor", "row"] = "tensor"
    keeps_nan: bool = True

    inputs: tuple[str, ...] = ()
    output: str = ""
    replacement: str = ""
    also: tuple[str, ...] = ()
    rule: str = field(default="", repr=False, compare=False)
    probes: Probe | None = field(default=None, repr=False, compare=False)

    @property
    def code(self) -> str:
        """The code of the reason why the site is left as it is, a key of `refusal.CODES`; empty for any other site."""
        return self.reason.code if isinstance(self.reason, Refusal) else ""

    @property
    def figures(self) -> Mapping[str, Any]:
        """What that reason says, by name."""
        return self.reason.figures if isinstance(self.reason, Refusal) else {}

    @property
    def key(self) -> str:
        """What `Context.denied` holds: the target, the node of the graph that it was found at, and the rule."""
        at = f"{self.target}:{self.output or (self.nodes[-1] if self.nodes else '')}"
        return f"{at}:{self.rule}" if self.rule else at


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a pass may know besides the graph: facts handed in by the door, never the door itself.

    Args:
        grad: gradients of the weights are wanted, so nothing may be folded.
        inner: what will run the graph: "eager", "aot_eager" or "inductor".
        denied: keys of sites that `verify` undid; a pass reports them as refused with the given reason.
        keep: module paths, or patterns of them, whose weights are not to be merged.
        untraced: qualified names of weights that others may write without a trace, with the reason; they are kept too.
        stays: names of the weights that stay in memory whatever is folded, since others hold them; None: all, as under
            `torch.compile`, where the model keeps its own.
        machine: the facts for the cost model (`stonefx.passes.cost.machine.Machine`); None for the defaults.
        look: seconds that every call spends on a folded weight, to see that it has not changed.
        numerics: "strict", or "fast": identities between maps are used where a guard between the two may act, too.
    """

    grad: bool = False
    inner: str = "eager"
    denied: Mapping[str, str] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    untraced: Mapping[str, str] = field(default_factory=dict)
    stays: Collection[str] | None = None
    machine: Any = None
    look: float = 0.0
    numerics: Literal["fast", "strict"] = "strict"

    def keeps(self, weight: str) -> bool:
        """Whether a weight is to stay as it is, by its qualified name."""
        return any(
            fnmatchcase(weight, pattern) or fnmatchcase(weight, f"{pattern}.*") for pattern in self.keep
        )


class Pass(Protocol):
    """A graph-to-graph step. `run` changes the graph in place and returns every site it looked at."""

    @property
    def name(self) -> str:
        """What `PIPELINE` and the `passes` option call it."""

    @property
    def targets(self) -> tuple[str, ...]:
        """What its sites may be."""

    def run(self, module: fx.GraphModule, context: Context) -> list[Site]:
        """Rewrite the graph in place; return every site, rewritten or not."""


class RewriteError(RuntimeError):
    """A pass failed inside. The message names the pass, the node and the line of the user's code."""


# As many layers are named one by one.
_NAMED = 5


def refused_site(
    pass_name: str,
    target: str,
    nodes: Sequence[fx.Node],
    weights: Sequence[fx.Node],
    *,
    line: fx.Node,
    output: fx.Node,
    inputs: Sequence[fx.Node] = (),
    flops: int = 0,
    reason: str = "",
) -> Site:
    """The refused site of some nodes and the weights that they read.

    Args:
        pass_name, target: of the site.
        nodes: the nodes.
        weights: weights, or expressions over weights.
        line: the node whose line of the user's code is named.
        output, inputs: what verification compares, and what it gives the nodes.
        flops: floating-point operations of one call.
        reason: why they are left alone.
    """
    parameters = sum(val(leaf).numel() for leaf in leaves(weights))
    return Site(
        pass_name=pass_name,
        target=target,
        status="refused",
        reason=reason,
        module_path=common_path(nodes, weights),
        source=source_line(line),
        nodes=tuple(node.name for node in nodes),
        params_before=parameters,
        params_after=parameters,
        flops_before=flops,
        flops_after=flops,
        inputs=tuple(node.name for node in inputs),
        output=output.name,
    )


def common_path(nodes: Sequence[fx.Node], weights: Sequence[fx.Node]) -> str:
    """The innermost module that holds all of some nodes, by module stack or else by weight names.

    Where that is the model itself and no line of the user's code is known, as in `nn.Sequential`, the layers are
    named instead: `0, 1`.
    """
    paths: list[Any] = [module_path(node) for node in nodes]
    if not all(paths):
        paths = [owner(node) for node in weights]
    layers = list(dict.fromkeys(paths))
    if len(layers) == 1:
        return layers[0]
    levels = zip(*(path.split(".") for path in paths), strict=False)
    common = ".".join(level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels))
    if common or any(source_line(node) for node in nodes):
        return common
    return ", ".join(layers if len(layers) <= _NAMED else [*layers[: _NAMED - 1], "...", layers[-1]])
