"""Original and rewritten region on the same probes, both against a float64 evaluation of the original."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import fx

from .graph.evaluation import Evaluation, example
from .graph.nodes import val
from .graph.weights import leaves
from .probes import draw
from .refusal import Refusal
from .site import Site

# A rewrite may be this much less accurate than the original spelling itself is before its bound matters: near
# a cancellation no spelling can hold a fixed bound, and the original is what the user accepted.
SLACK = 4.0
# Results of this size need no probes of another scale: no finite type is near its limits there.
_USUAL = (2.0**-4, 2.0**8)


class Verifier:
    """Checks rewritten sites on probes.

    A site is compared with the original on values of unit scale; where its results are far from that, on values of the
    scale that brings them back, so that weights that a type can hold and whose product it cannot are found; and with
    single entries NaN or infinite, which must reach the same results.

    Args:
        values: the real tensor behind each weight placeholder, by node name.
        seed: seed of the probes.
    """

    def __init__(self, values: Mapping[str, torch.Tensor], seed: int = 0) -> None:
        self.values = values
        self.seed = seed

    def failures(
        self, before: fx.GraphModule, after: fx.GraphModule, sites: Iterable[Site]
    ) -> dict[str, str]:
        """Measure every rewritten site; return the keys of those outside their bound, with the reason."""
        old, new = Evaluation(before, self.values), Evaluation(after, self.values)
        failed = {}
        for site in sites:
            if site.status == "rewritten" and site.output:
                reason = self._checked(old, new, site)
                if reason:
                    failed[site.key] = reason
        return failed

    def check(self, before: fx.GraphModule, after: fx.GraphModule, site: Site) -> str | None:
        """Set the errors of a site; return why it must be undone, or None."""
        return self._checked(Evaluation(before, self.values), Evaluation(after, self.values), site)

    @torch.no_grad()
    def _checked(self, old: Evaluation, new: Evaluation, site: Site) -> str | None:
        site.original_error = site.max_error = 0.0
        trial = _Trial(old, new, site)
        generator = torch.Generator(device="cpu").manual_seed(self.seed)
        inputs = self._inputs(site, old, generator)
        problem = trial.compare(inputs)
        scale = _scale(trial.largest, inputs) if site.probes is None else 1.0
        if not problem and scale != 1.0:
            scaled = {name: _times(value, scale) for name, value in inputs.items()}
            problem = trial.compare(scaled, f" times {scale:.0e}")
        for planted, turns in ((math.nan, _turns(inputs)), (math.inf, 1)) if site.keeps_nan else ():
            for turn in range(turns):
                problem = problem or trial.spread(_planted(inputs, planted, turn, generator), planted)
        return Refusal("verification", problem=problem) if problem else None

    def _inputs(self, site: Site, graph: Evaluation, generator: torch.Generator) -> dict[str, Any]:
        """Symbolic sizes at their example, every tensor that is no weight from the site's probes.

        What is computed from weights alone, such as indices that are buffers, has the value that it has.
        """
        inputs = [graph.nodes[name] for name in site.inputs]
        nodes = [node for node in inputs if node.name not in self.values and is_tensor(node)]
        values = {node.name: example(node.meta["val"]) for node in inputs if not is_tensor(node)}
        if not site.probes:
            nodes = [node for node in nodes if not all(leaf.name in self.values for leaf in leaves([node]))]
        if site.probes:
            drawn = zip(nodes, site.probes(generator), strict=True)
            probes = {node.name: probe.to(val(node).device) for node, probe in drawn}
        else:
            probes = draw(nodes, graph, site.output, values, generator)
        return values | probes


class _Trial:
    """Runs of one site and of its original on the same inputs."""

    def __init__(self, old: Evaluation, new: Evaluation, site: Site) -> None:
        self.old, self.new, self.site = old, new, site
        self.before = [site.output, *site.also]
        self.after = [site.replacement, *site.also]
        self.largest = 0.0  # of the exact results
        self.rounded: dict[str, _Rounded] = {}  # the folded weights
        self.folds: dict[str, Any] | None = None  # computed once: they depend on no input

    def compare(self, inputs: Mapping[str, Any], where: str = "") -> str | None:
        """Why the site is wrong on some inputs, whose place `where` says."""
        try:
            originals = self.old.compute(self.before, inputs)
        except (RuntimeError, IndexError, ValueError) as raised:  # such as indices out of range
            return f"the original takes no values like the probes: {type(raised).__name__}: {raised}"
        try:
            came = self._rewritten(inputs)
        except Exception as raised:  # whatever it is, the original gave a value
            return f"the rewritten region raised {type(raised).__name__}: {raised}"
        if problem := next(filter(None, (each.problem() for each in self.rounded.values())), None):
            return problem
        exact = self.old.compute(self.before, inputs, exact=True)
        problems = map(self._difference, originals, came, exact, [where] * len(came))
        return next(filter(None, problems), None)

    def _rewritten(self, inputs: Mapping[str, Any]) -> list[Any]:
        if self.folds is None:
            names = self.new.folds(self.after, inputs)
            self.folds = dict(zip(names, self.new.compute(names, inputs, watch=self._watch), strict=True))
        return self.new.compute(self.after, {**inputs, **self.folds}, watch=self._watch)

    def _difference(
        self, original: torch.Tensor, rewritten: torch.Tensor, exact: torch.Tensor, where: str
    ) -> str | None:
        site = self.site
        if rewritten.shape != original.shape or rewritten.dtype != original.dtype:
            return (
                f"the original gives {original.dtype} {list(original.shape)}, "
                f"the rewritten region {rewritten.dtype} {list(rewritten.shape)}"
            )
        if bool((rewritten.isnan() & ~original.isnan()).any()):
            return "NaN where the original has none"
        self.largest = max(self.largest, _largest(exact))
        error = relative_error(rewritten, exact, site.error_norm)
        site.max_error = max(site.max_error or 0.0, error)
        # Where the original breaks down and exact arithmetic does not, it excuses nothing.
        sound = torch.where(original.isfinite() | ~exact.isfinite(), original.double(), exact)
        accepted = relative_error(sound, exact, site.error_norm)
        site.original_error = max(site.original_error or 0.0, accepted)
        allowed = max(site.bound or 0.0, SLACK * accepted)
        if error <= allowed:
            return None
        return f"relative error {error:.2e} on the probes{where}, allowed {allowed:.2e}"

    def spread(self, inputs: Mapping[str, Any], planted: float) -> str | None:
        """Why the site is wrong about which results a NaN or an infinity reaches."""
        found = self._spread(inputs, planted, exact=False)
        # Kernels for half types may read past a row and multiply by zero, so that a NaN gets into the next one; what
        # the graphs themselves say shows in float64.
        return found and self._spread(inputs, planted, exact=True)

    def _spread(self, inputs: Mapping[str, Any], planted: float, exact: bool) -> str | None:
        originals = self.old.compute(self.before, inputs, exact=exact)
        came = self.new.compute(self.after, inputs, exact=True) if exact else self._rewritten(inputs)
        for original, rewritten in zip(originals, came, strict=True):
            # An infinity may well cancel in fewer operations; a NaN may not be lost.
            more = ~rewritten.isfinite() & original.isfinite()
            lost = rewritten.isfinite() & ~original.isfinite() & math.isnan(planted)
            if bool((more | lost).any()):
                verb = "does not reach" if bool(lost.any()) else "reaches"
                count = int((more | lost).sum())
                return f"an entry of the input that is {planted} {verb} {count} results as in the original"
        return None

    def _watch(self, node: fx.Node, source: torch.Tensor, value: torch.Tensor) -> None:
        if node.name not in self.old.nodes:
            self.rounded.setdefault(node.name, _Rounded()).add(source, value)


class _Rounded:
    """How well the dtype of folded weights holds them: products may overflow or vanish."""

    def __init__(self) -> None:
        self.dtype = torch.float64
        self.largest = 0.0
        self.error = 0.0

    def add(self, exact: torch.Tensor, value: torch.Tensor) -> None:
        """Take in some of the weights."""
        self.dtype = value.dtype
        self.largest = max(self.largest, _largest(exact))
        if exact.numel():
            self.error = max(self.error, float(_deviation(value.double(), exact).max()))

    def problem(self) -> str | None:
        """What is wrong, if anything is."""
        error = self.error / max(self.largest, torch.finfo(torch.float64).tiny)
        if error <= torch.finfo(self.dtype).eps:
            return None
        return (
            f"the folded weights go up to {self.largest:.1e}, which {self.dtype} holds with a relative error "
            f"of {error:.1e}"
        )


def _planted(
    inputs: Mapping[str, Any], planted: float, turn: int, generator: torch.Generator
) -> dict[str, Any]:
    """The inputs, one of them with a planted entry at each place of its first axis; they take turns."""
    values = dict(inputs)
    names = [name for name, value in inputs.items() if _plantable(value)]
    for position, name in enumerate(names):
        rows = inputs[name].clone(memory_format=torch.contiguous_format).reshape(len(inputs[name]), -1)
        chosen = torch.arange(len(rows), device="cpu")[
            (torch.arange(len(rows), device="cpu") + turn) % len(names) == position
        ]
        places = torch.randint(rows.shape[1], (len(chosen),), generator=generator, device="cpu")
        rows[chosen, places] = planted
        values[name] = rows.reshape(inputs[name].shape)
    return values


def _turns(inputs: Mapping[str, Any]) -> int:
    """How often to plant, so that a few entries of every input have been tried."""
    rows = [len(value) for value in inputs.values() if _plantable(value)]
    return min(4, max(1, math.ceil(4 * len(rows) / min(rows)))) if rows else 0


def _plantable(value: Any) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.dim() > 0
        and value.numel() > 0
    )


def _scale(largest: float, inputs: Mapping[str, Any]) -> float:
    """What to multiply the inputs by to bring results of a size back to 1, as far as their dtype goes."""
    dtypes = [value.dtype for value in inputs.values() if _plantable(value)]
    if not dtypes or largest == 0 or _USUAL[0] <= largest <= _USUAL[1]:
        return 1.0
    least = max(torch.finfo(dtype).tiny for dtype in dtypes) ** 0.5
    return min(max(1 / largest, least), 1 / least)


def _times(value: Any, scale: float) -> Any:
    return value * scale if _plantable(value) else value


def _largest(value: torch.Tensor) -> float:
    """The largest finite magnitude."""
    return float(value.abs().nan_to_num(nan=0.0, posinf=0.0).max()) if value.numel() else 0.0


def is_tensor(node: fx.Node) -> bool:
    """Whether a node stands for a tensor, not a size or a flag."""
    return isinstance(node.meta.get("val"), torch.Tensor)


def _deviation(value: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """How far the entries are off; infinite where only one is finite."""
    same = (value == exact) | (value.isnan() & exact.isnan())
    return torch.where(same, 0.0, (value - exact).abs().nan_to_num(nan=torch.inf, posinf=torch.inf))


def relative_error(value: torch.Tensor, exact: torch.Tensor, norm: str) -> float:
    """Largest deviation over the largest magnitude: of the whole tensor, or row by row.

    NaN in both places counts as equal; a NaN or infinity in one only counts as infinite error.
    """
    value, exact = value.double(), exact.double()
    error = _deviation(value, exact)
    scale = exact.abs().nan_to_num(nan=0.0, posinf=0.0)
    if error.numel() == 0:
        return 0.0
    if norm == "row" and error.dim():
        error, scale = error.amax(-1), scale.amax(-1)
    else:
        error, scale = error.max(), scale.max()
    return float(torch.where(error == 0, 0.0, error / scale.clamp_min(torch.finfo(torch.float64).tiny)).max())
