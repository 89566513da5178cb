"""What both doors do with a captured graph: run the passes on it and record what they did."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import fx

from .machine import machine_for
from .options import Options
from .passes.pipeline import rewrite
from .passes.site import Context
from .passes.verify import Verifier
from .report import Report, graph_text, graph_totals
from .tracing.derived import look_into_derived
from .tracing.errors import node_location
from .tracing.opaque import custom_functions


class StonefxWarning(UserWarning):
    """Something that a user of stonefx would want to know, such as a compile that rewrote nothing."""


class RequiredRewriteMissing(RuntimeError):
    """A target named in `require` was rewritten nowhere; the message has the near misses."""


def rewrite_reported(
    module: fx.GraphModule,
    values: Mapping[str, torch.Tensor],
    options: Options,
    *,
    grad: bool,
    door: str,
    untraced: Mapping[str, str] | None = None,
    stays: Collection[str] | None = None,
    look: float = 0.0,
) -> Report:
    """Rewrite a captured graph in place and return the report.

    Args:
        module: the captured graph.
        values: the real tensor behind each weight placeholder, by node name.
        options: which passes, and whether to verify.
        grad: gradients are wanted, so weights must not be folded.
        door: "compile", "optimize" or "explain", for the report.
        untraced: weights whose memory may be written unseen, with the reason; these are not folded.
        stays: weights that stay in memory whatever is folded; None for all.
        look: seconds that every call spends on a folded weight, to see that it has not changed.
    """
    before, totals_before = graph_text(module), graph_totals(module)
    verifier = Verifier(values) if options.verify else None
    context = Context(
        grad=grad,
        inner=options.inner,
        keep=options.keep,
        untraced=untraced or {},
        stays=stays,
        look=look,
        machine=machine_for(module, options.machine),
        numerics=options.numerics,
    )
    done = rewrite(module, options.passes, context, verifier)
    report = Report(
        sites=done.sites,
        before=before,
        after=graph_text(module),
        seconds=done.seconds,
        totals_before=totals_before,
        totals_after=graph_totals(module),
        backend=backend_facts(door, options),
    )
    return report


def differentiated_bodies(module: fx.GraphModule, options: Options) -> list[str]:
    """With fast numerics, look into custom functions whose backward is their derivative; notes on what was done."""
    whole = custom_functions(module)
    if not whole:
        return []
    if options.numerics != "fast":
        return [
            f"{len(whole)} custom function(s) run whole where gradients are wanted, the first at "
            f'{node_location(whole[0])}; numerics="fast" looks into those whose backward is the derivative of their '
            "forward"
        ]
    places = look_into_derived(module)
    if not places:
        return []
    return [
        f"looked into {len(places)} of {len(whole)} custom function(s), the first at {places[0]}: their backward is "
        "the derivative of their forward; where that is clamped the gradient is now 0"
    ]


def backend_facts(door: str, options: Options) -> dict[str, str]:
    """What a report says of the run: the door, the inner compiler, torch's version."""
    return {"door": door, "inner": options.inner, "torch": torch.__version__}


def check_required(report: Report, require: Iterable[str]) -> None:
    """Raise unless every required target was rewritten somewhere.

    Raises:
        RequiredRewriteMissing: the message lists, for each missing target, what was found and why it was left.
    """
    missing = [target for target in require if not report.rewritten(target)]
    if not missing:
        return
    lines = []
    for target in missing:
        near = [site for site in report.sites if site.target == target]
        lines.append(f"{target}: " + ("no candidate was found" if not near else ""))
        lines += [f"  {site.status} at {site.source or site.module_path}: {site.reason}" for site in near]
    lines += report.notes
    raise RequiredRewriteMissing(
        "expected a rewrite of every target in require, but these were rewritten nowhere:\n"
        + "\n".join(lines)
    )


def warn_if_nothing(report: Report) -> None:
    """Warn, once a place, about a compile that rewrote nothing: it costs and does not help."""
    if not report.rewritten():
        refused = len(report.sites)
        warnings.warn(
            "stonefx rewrote nothing in this graph"
            + (f"; {refused} site(s) were refused, print the report to see why" if refused else ""),
            StonefxWarning,
            3,
        )
