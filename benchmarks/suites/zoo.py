"""Every architecture of the zoo: eager, inductor, and stonefx over inductor through both doors."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

import stonefx
from stonefx.backend import collected_reports
from stonefx.benchmarks.case import Arm, Case, CaseResult, Planned, Subject, Work
from stonefx.optimized import results_in_float64
from stonefx.passes.verify import SLACK

EAGER, INDUCTOR, OPTIMIZE, COMPILE = "eager", "inductor", "optimize", "compile(stone)"


def zoo_cases(device: str = "cpu") -> Iterator[Planned]:
    """One case an architecture, made when its turn comes.

    Raises:
        ImportError: transformers is not installed.
    """
    from stonefx.benchmarks.zoo import ARCHITECTURES, SMALL

    for name, builder in ARCHITECTURES.items():
        yield Planned(name=name, make=partial(architecture_case, name, partial(builder, SMALL), device))


def architecture_case(
    name: str, builder: Callable[[], tuple[nn.Module, dict[str, Any]]], device: str = "cpu"
) -> Case:
    """The four arms on one model; `facts` says what was rewritten and whether the results agree."""
    torch.compiler.reset()
    model, inputs = builder()
    model = model.to(device)
    inputs = {key: x.to(device) if isinstance(x, torch.Tensor) else x for key, x in inputs.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stonefx.StonefxWarning)
        optimized = stonefx.optimize(model, inputs, inner="inductor")
    report: Any = optimized.report
    models: dict[str, Callable[..., Any]] = {
        EAGER: model,
        INDUCTOR: torch.compile(copy.deepcopy(model), dynamic=False),
        OPTIMIZE: optimized,
        COMPILE: torch.compile(copy.deepcopy(model), dynamic=False, backend="stone"),
    }
    # The first call compiles, in the mode in which the arms run.
    with collected_reports() as through_compile, torch.no_grad():
        floating_results(models[COMPILE], inputs)

    def facts(result: CaseResult) -> dict[str, Any]:
        return {
            OPTIMIZE: _facts(result, OPTIMIZE, [report]),
            COMPILE: _facts(result, COMPILE, through_compile),
        }

    before, after = Work.before_and_after(report.summary())
    works = {EAGER: before, INDUCTOR: before, OPTIMIZE: after}
    return Case(
        name=name,
        arms=[
            Arm(name=arm, call=partial(floating_results, call, inputs), work=works.get(arm))
            for arm, call in models.items()
        ],
        truth=floating_leaves(results_in_float64(model, ((), inputs))),
        synchronize=torch.cuda.synchronize if device == "cuda" else None,
        facts=facts,
        subject=Subject(model=model, kwargs=inputs, tensors=floating_leaves),
    )


def floating_results(call: Callable[..., Any], inputs: dict[str, Any]) -> list[torch.Tensor]:
    """The floating tensors of a call's result."""
    return floating_leaves(call(**inputs))


def floating_leaves(result: Any) -> list[torch.Tensor]:
    """The floating tensors of a result, wherever they lie in it."""
    leaves = pytree.tree_leaves(dict(result) if isinstance(result, dict) else result)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]


def _facts(result: CaseResult, arm: str, reports: list[stonefx.Report]) -> dict[str, Any]:
    """Speed against inductor, sites by status, and the error that the original's own and the bounds allow."""
    errors = {one.name: one.error for one in result.arms}
    sites = [site for report in reports for site in report.sites]
    bound = sum(site.bound or 0.0 for site in sites if site.status == "rewritten")
    allowed = SLACK * max(errors[EAGER], errors[INDUCTOR]) + bound
    return {
        "vs_inductor": result.ratio(INDUCTOR, arm),
        "graphs": len(reports),
        "sites": dict(Counter(site.status for site in sites)),
        "targets": dict(Counter(site.target for site in sites if site.status == "rewritten")),
        "bound": bound,
        "allowed": allowed,
        "agrees": errors[arm] <= allowed,
    }
