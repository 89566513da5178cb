"""What a pass is, and what it says about every place it looked at."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, Protocol

import torch
from torch import fx

Status = Literal["rewritten", "refused", "near miss"]
Probe = Callable[[torch.Generator], Sequence[torch.Tensor]]


@dataclass(kw_only=True)
class Site:
    """One place in a graph that a pass rewrote or declined to rewrite, and why.

    `inputs`, `output` and `replacement` name nodes: the region computes `output` from `inputs` in the graph
    before the pass, and `replacement` from the same `inputs` after it. `verify` runs both on `probes`;
    `also` names further values that the rewrite made anew under the names that they had; they are checked as well.
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
    original_error: float | None = None
    max_error: float | None = None
    bound: float | None = None
    error_norm: Literal["tensor", "row"] = "tensor"

    inputs: tuple[str, ...] = ()
    output: str = ""
    replacement: str = ""
    also: tuple[str, ...] = ()
    probes: Probe | None = field(default=None, repr=False, compare=False)

    @property
    def key(self) -> str:
        """What `Context.denied` holds: the target and the node of the original graph that it was found at."""
        return f"{self.target}:{self.output or (self.nodes[-1] if self.nodes else '')}"


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a pass may know besides the graph: facts handed in by the door, never the door itself.

    Args:
        grad: gradients of the weights are wanted, so nothing may be folded.
        inner: what will run the graph: "eager", "aot_eager" or "inductor".
        denied: keys of sites that `verify` undid; a pass reports them as refused with the given reason.
        keep: module paths, or patterns of them, whose weights are not to be merged.
        untraced: qualified names of weights that others may write without a trace, with the reason; they are kept too.
        machine: the facts for the cost model (`stonefx.passes.linear.cost.Machine`); None for the defaults.
    """

    grad: bool = False
    inner: str = "eager"
    denied: Mapping[str, str] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    untraced: Mapping[str, str] = field(default_factory=dict)
    machine: Any = None

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


def is_weight(node: fx.Node) -> bool:
    """Whether a node is a parameter or buffer of the model (`capture` marks these with `meta["weight"]`)."""
    return "weight" in node.meta


def val(node: fx.Node) -> torch.Tensor:
    """The fake tensor that stands for a node's value."""
    return node.meta["val"]


_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
# Frames of the recording itself; a model whose forward is all torch's own has no others.
_RECORDING = re.compile(r"[/\\]stonefx[/\\]tracing[/\\]")


def source_line(node: fx.Node) -> str:
    """`file.py:line` of the user's code behind a node, or "" where the trace kept none."""
    frames = [
        frame
        for frame in _FRAME.findall(node.meta.get("stack_trace") or "")
        if not _RECORDING.search(frame[0])
    ]
    return f"{frames[-1][0]}:{frames[-1][1]}" if frames else ""


def module_path(node: fx.Node) -> str:
    """Path of the innermost module that a node came from, such as `encoder.layer.0.attention`."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ""
    path = list(stack.values())[-1][0]
    return clean_path(path)


def clean_path(path: str) -> str:
    """Turn Dynamo's spelling `L['self']._modules['a']._modules['0']` into `a.0`."""
    path = re.sub(r"^L\['(\w+)'\]\.?", "", path)
    path = re.sub(r"\._modules\['([^']+)'\]", r".\1", "." + path if path.startswith("_modules") else path)
    path = re.sub(r"\['?([^'\]]+)'?\]", r".\1", path)
    return path.strip(".")
