"""Original and rewritten region on the same probes, both against a float64 evaluation of the original."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import fx

from .rewrite import Site, val

# A rewrite may be this much less accurate than the original spelling itself is before its bound matters: near
# a cancellation no spelling can hold a fixed bound, and the original is what the user accepted.
SLACK = 4.0


class Verifier:
    """Checks rewritten sites on probes.

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
        failed = {}
        for site in sites:
            if site.status == "rewritten" and site.output:
                reason = self.check(before, after, site)
                if reason:
                    failed[site.key] = reason
        return failed

    @torch.no_grad()
    def check(self, before: fx.GraphModule, after: fx.GraphModule, site: Site) -> str | None:
        """Set the errors of a site; return why it must be undone, or None."""
        old, new = nodes_by_name(before), nodes_by_name(after)
        inputs = self.inputs(site, old)
        site.original_error = site.max_error = 0.0
        for name, replacement in ((site.output, site.replacement), *((name, name) for name in site.also)):
            problem = self._compare(before, after, (old[name], new[replacement]), inputs, site)
            if problem:
                return problem
        return None

    def _compare(
        self,
        before: fx.GraphModule,
        after: fx.GraphModule,
        nodes: tuple[fx.Node, fx.Node],
        inputs: Mapping[str, Any],
        site: Site,
    ) -> str | None:
        original = evaluate(before, nodes[0], inputs)
        try:
            rewritten = evaluate(after, nodes[1], inputs)
        except Exception as raised:  # whatever it is, the original gave a value
            return f"verification: the rewritten region raised {type(raised).__name__}: {raised}"
        exact = evaluate(before, nodes[0], {k: double(v) for k, v in inputs.items()}, exact=True)
        if rewritten.shape != original.shape or rewritten.dtype != original.dtype:
            return (
                f"verification: the original gives {original.dtype} {list(original.shape)}, "
                f"the rewritten region {rewritten.dtype} {list(rewritten.shape)}"
            )
        if bool((rewritten.isnan() & ~original.isnan()).any()):
            return "verification: NaN where the original has none"
        error = relative_error(rewritten, exact, site.error_norm)
        site.max_error = max(site.max_error or 0.0, error)
        # Where the original breaks down and exact arithmetic does not, it excuses nothing.
        sound = torch.where(original.isfinite() | ~exact.isfinite(), original.double(), exact)
        accepted = relative_error(sound, exact, site.error_norm)
        site.original_error = max(site.original_error or 0.0, accepted)
        allowed = max(site.bound or 0.0, SLACK * accepted)
        if error <= allowed:
            return None
        return f"verification: relative error {error:.2e} on the probes, allowed {allowed:.2e}"

    def inputs(self, site: Site, nodes: Mapping[str, fx.Node]) -> dict[str, Any]:
        """Weights as they are, symbolic sizes at their hint, every other input from the site's probes."""
        generator = torch.Generator().manual_seed(self.seed)
        free = [name for name in site.inputs if name not in self.values and is_tensor(nodes[name])]
        probes = (
            site.probes(generator) if site.probes else [random_like(val(nodes[n]), generator) for n in free]
        )
        values: dict[str, Any] = {
            name: probe.to(val(nodes[name]).device) for name, probe in zip(free, probes, strict=True)
        }
        for name in site.inputs:
            if not is_tensor(nodes[name]):
                values[name] = hint(nodes[name].meta["val"])
        for name, node in nodes.items():
            if node.op != "placeholder" or name in values:
                continue
            if name in self.values:
                values[name] = self.values[name].detach()
            elif not is_tensor(node) and "val" in node.meta:
                values[name] = hint(node.meta["val"])
        return values


def nodes_by_name(module: fx.GraphModule) -> dict[str, fx.Node]:
    """The nodes of a graph by name."""
    return {node.name: node for node in module.graph.nodes}


def is_tensor(node: fx.Node) -> bool:
    """Whether a node stands for a tensor, not a size or a flag."""
    return isinstance(node.meta.get("val"), torch.Tensor)


def hint(size: Any) -> Any:
    """A symbolic size's example value, read without adding a guard."""
    return size.node.hint if isinstance(size, torch.SymInt | torch.SymFloat | torch.SymBool) else size


def double(value: Any) -> Any:
    """A floating tensor in float64, anything else as it is."""
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def random_like(fake: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A normal (or, for integers, 0-or-1) tensor of a fake tensor's shape at its hints, on the CPU."""
    shape = [hint(size) for size in fake.shape]
    if fake.is_floating_point():
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(fake.dtype)
    return torch.randint(0, 2, shape, generator=generator).to(fake.dtype)


def relative_error(value: torch.Tensor, exact: torch.Tensor, norm: str) -> float:
    """Largest deviation over the largest magnitude: of the whole tensor, or row by row.

    NaN in both places counts as equal; a NaN or infinity in one only counts as infinite error.
    """
    value, exact = value.double(), exact.double()
    same = (value == exact) | (value.isnan() & exact.isnan())
    error = torch.where(same, 0.0, (value - exact).abs().nan_to_num(nan=torch.inf, posinf=torch.inf))
    scale = exact.abs().nan_to_num(nan=0.0, posinf=0.0)
    if error.numel() == 0:
        return 0.0
    if norm == "row" and error.dim():
        error, scale = error.amax(-1), scale.amax(-1)
    else:
        error, scale = error.max(), scale.max()
    return float(torch.where(error == 0, 0.0, error / scale.clamp_min(torch.finfo(torch.float64).tiny)).max())


def evaluate(
    module: fx.GraphModule, root: fx.Node, values: Mapping[str, Any], *, exact: bool = False
) -> torch.Tensor:
    """Compute one node of a graph from the named values, running only what it needs.

    With `exact`, floating dtypes that the region asks for become float64.
    """
    done: dict[fx.Node, Any] = {}
    stack = [root]
    while stack:
        node = stack[-1]
        if node in done:
            stack.pop()
        elif node.name in values:
            done[node] = values[node.name]
        elif missing := [needed for needed in node.all_input_nodes if needed not in done]:
            stack.extend(missing)
        else:
            done[node] = run(module, node, done, exact)
    return done[root]


def run(module: fx.GraphModule, node: fx.Node, done: Mapping[fx.Node, Any], exact: bool) -> Any:
    """Run one node on computed values."""
    if node.op == "get_attr":
        value = getattr(module, str(node.target))
        return double(value) if exact else value
    if node.op != "call_function":
        raise ValueError(f"a region reads {node.op} {node.name!r}, which is not among its inputs")
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), done.__getitem__)
    if exact:
        args, kwargs = fx.node.map_aggregate((args, kwargs), widen)
    return node.target(*args, **kwargs)  # type: ignore[operator]


def widen(value: Any) -> Any:
    """float64 in place of any narrower floating dtype."""
    return torch.float64 if isinstance(value, torch.dtype) and value.is_floating_point else value
