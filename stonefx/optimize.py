"""Door 1: `stonefx.optimize` and `stonefx.explain`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from .capture import Capture, CaptureError, capturable_submodules, from_module
from .optimized import (
    LazyModule,
    OptimizedModule,
    PartlyOptimizedModule,
    Program,
    make_program,
    row_major_arguments,
    run_preserved,
    verify_whole,
    weight,
    with_free_batch,
)
from .options import Options
from .passes.linear.cost import Machine
from .passes.pipeline import FOLDING, RewriteError
from .report import Report
from .rewriting import StonefxWarning, backend_facts, check_required, rewrite_reported, warn_if_nothing
from .tracing.errors import Uncapturable
from .tracing.ownership import owned

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def optimize(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    inner: str = "eager",
    passes: str | Iterable[str] = "all",
    dynamic: bool = True,
    verify: bool = True,
    require: str | Iterable[str] = (),
    on_error: str = "raise",
    keep: str | Iterable[str] = (),
    machine: Machine | str = "measured",
) -> nn.Module:
    """Return a faster model of the same meaning, over its own copy of the weights.

    Linear chains are merged and hyperbolic maps fused; `result.report` says where, and where not and why. The
    original is left as it is. After changing the original, call `optimize` again.

    Args:
        model: the model, in the mode (training or evaluation) that it is to run in.
        example_inputs: one tensor, a tuple or list of positional arguments, or a dict of keyword arguments;
            tensors may be nested in tuples, lists, dicts and dataclasses. None: captured at the first call.
        inner: what runs the rewritten graph: "eager", "aot_eager" or "inductor".
        passes: "all", or names out of `stonefx.passes.PIPELINE`.
        dynamic: batch sizes vary freely; with False every size is the example's.
        verify: compare the rewritten regions with the original on probes, and the whole on the example inputs.
        require: targets that must be rewritten somewhere.
        on_error: "raise", or "eager": after an internal failure the copied original is returned, with a report.
        keep: module paths, or patterns such as "*.lora_*", whose weights stay as they are, to be swapped later.
        machine: what the cost model plans for: "measured" (this machine, measured once and kept in the user's cache
            folder), "default", or a `stonefx.Machine`.

    Raises:
        TypeError: `model` is no `nn.Module`, or an option has the wrong type.
        CaptureError: neither the model nor any of its submodules can be captured.
        RewriteError: a pass failed inside, or the result differs from the original on the example inputs.
        RequiredRewriteMissing: a required target was rewritten nowhere.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(128, 256), nn.Linear(256, 128), nn.Linear(128, 32)).eval()
    >>> fast = optimize(model, torch.ones(4, 128))
    >>> sum(p.numel() for p in fast.parameters()), fast(torch.ones(7, 128)).shape
    (4128, torch.Size([7, 32]))
    """
    options = Options.parse(
        {"inner": inner, "passes": passes, "dynamic": dynamic, "verify": verify, "require": require}
        | {"on_error": on_error, "keep": keep, "machine": machine}
    )
    try:
        source = owned(_checked(model))
    except CaptureError as error:
        if options.on_error == "raise":
            raise
        return _original(model, options, error)
    if example_inputs is None:
        return LazyModule(source, lambda args, kwargs: optimize_owned(source, args, kwargs, options))
    args, kwargs = call_arguments(example_inputs)
    return optimize_owned(source, args, kwargs, options)


def explain(model: nn.Module, example_inputs: Any, *, passes: str | Iterable[str] = "all") -> Report:
    """Report what `optimize` would do to a model, and change nothing.

    Args:
        model: the model, left as it is.
        example_inputs: as for `optimize`.
        passes: "all", or names out of `stonefx.passes.PIPELINE`.

    Raises:
        TypeError, CaptureError, RewriteError: as `optimize`.

    >>> import torch
    >>> report = explain(nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 8)).eval(), torch.ones(2, 8))
    >>> [(site.target, site.status) for site in report.sites]
    [('linear_chain', 'rewritten')]
    """
    options = Options.parse({"inner": "eager", "passes": passes})
    args, kwargs = call_arguments(example_inputs)
    source = owned(_checked(model))
    try:
        return _rewrite(source, from_module(source, args, kwargs), options, "explain")[1]
    except Uncapturable:
        raise
    except CaptureError as error:
        parts, skipped = _parts(source, args, kwargs, options, error)
        reports = {
            path: _rewrite(source.get_submodule(path), capture, options, "explain")[1]
            for path, capture, _, _ in parts
        }
        return _merged(reports, error, skipped)


def optimize_owned(
    source: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
) -> nn.Module:
    """Optimize a model that stonefx owns, whole or else submodule by submodule."""
    result: OptimizedModule | PartlyOptimizedModule
    # Optimizing takes weights away from its model, so a failure on the way must find another one to return.
    spare = owned(source) if options.on_error == "eager" else source
    try:
        try:
            capture = from_module(source, args, kwargs, dynamic=options.dynamic)
        except Uncapturable:
            raise
        except CaptureError as error:
            result = _optimize_parts(source, args, kwargs, options, error)
        else:
            result = _optimize_captured(source, capture, options, (args, kwargs))
    except (CaptureError, RewriteError) as error:
        if options.on_error == "raise":
            raise
        return _original(spare, options, error)
    check_required(result.report, options.require)
    warn_if_nothing(result.report)
    return result


def _original(model: nn.Module, options: Options, error: Exception) -> PartlyOptimizedModule:
    warnings.warn(f"stonefx: the original runs, as on_error='eager' asks: {error}", StonefxWarning, 4)
    notes = [f"the original runs: {error}"]
    return PartlyOptimizedModule(model, Report(notes=notes, backend=backend_facts("optimize", options)))


def _optimize_captured(
    source: nn.Module, capture: Capture, options: Options, example: Arguments
) -> OptimizedModule:
    mode = capture.checks.gradients
    expected = run_preserved(source, example, mode) if options.verify else None
    capture = with_free_batch(capture, source, example)
    program, report = _rewrite(source, capture, options, "optimize")
    report.notes += capture.notes
    fast = OptimizedModule(program.adopt(source), program, report)
    if options.verify:
        verify_whole(expected, run_preserved(fast, example, mode), report)
    return fast


def _optimize_parts(
    source: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options, error: CaptureError
) -> PartlyOptimizedModule:
    expected = run_preserved(source, (args, kwargs)) if options.verify else None
    spare = owned(source) if options.inner == "inductor" else None
    parts, skipped = _parts(source, args, kwargs, options, error)
    reports = {}
    for path, capture, part_args, part_kwargs in parts:
        chosen = options
        if (options.dynamic and _has_fixed_sizes(capture)) or capture.checks.particular:
            # A part of a model is called with whatever sizes the data asks for, and in whatever layout.
            chosen = replace(options, passes=tuple(name for name in options.passes if name not in FOLDING))
        part = _optimize_captured(source.get_submodule(path), capture, chosen, (part_args, part_kwargs))
        source.set_submodule(path, part)
        reports[path] = part.report
    report = _merged(reports, error, skipped)
    fast = PartlyOptimizedModule(source, report)
    if spare is not None and not any(site.status == "rewritten" for site in report.sites):
        # Inductor fuses more where it sees more than a part at once.
        report.notes.append(
            "nothing was rewritten, so that torch.compile runs the model, with its graph breaks"
        )
        run = torch.compile(spare.forward, dynamic=None if options.dynamic else False)
        fast = PartlyOptimizedModule(spare, report, run)
    if options.verify:
        verify_whole(expected, run_preserved(fast, (args, kwargs)), fast.report)
    return fast


def _has_fixed_sizes(capture: Capture) -> bool:
    """Whether no size of any argument may vary."""
    placeholders = [node for node in capture.module.graph.nodes if node.name in capture.arguments]
    return not any(
        isinstance(size, torch.SymInt)
        for node in placeholders
        if isinstance(node.meta.get("val"), torch.Tensor)
        for size in node.meta["val"].shape
    )


def _parts(
    source: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options, error: CaptureError
) -> tuple[list[tuple[str, Capture, tuple[Any, ...], dict[str, Any]]], list[str]]:
    parts, skipped = capturable_submodules(source, args, kwargs, dynamic=options.dynamic)
    if not parts:
        raise CaptureError(
            f"neither the model nor any of its submodules could be captured: {error}\n" + "\n".join(skipped)
        ) from error
    return parts, skipped


def _merged(reports: Mapping[str, Report], error: CaptureError, skipped: Iterable[str]) -> Report:
    report = Report.merge(reports)
    report.notes.insert(0, f"optimized submodule by submodule, since the whole was not captured: {error}")
    report.notes += [f"left out: {reason}" for reason in skipped]
    return report


def _rewrite(source: nn.Module, capture: Capture, options: Options, door: str) -> tuple[Program, Report]:
    values = {name: weight(source, path) for name, path in capture.weights.items()} | capture.constants
    # Lowering depends on whether gradients are wanted, which each call of the module decides anew.
    names = tuple(name for name in options.passes if name != "lower")
    rows = row_major_arguments(capture, options.inner)
    report = rewrite_reported(capture.module, values, replace(options, passes=names), grad=False, door=door)
    program = make_program(capture, options.inner, rows)
    report.weights = program.weights
    return program, report


def call_arguments(example_inputs: Any) -> Arguments:
    """Positional and keyword arguments of an example call.

    >>> call_arguments({"x": 1}), call_arguments((1, 2)), call_arguments(1)
    (((), {'x': 1}), ((1, 2), {}), ((1,), {}))
    """
    if isinstance(example_inputs, Mapping) and all(isinstance(key, str) for key in example_inputs):
        return (), dict(example_inputs)
    if isinstance(example_inputs, tuple | list):
        return tuple(example_inputs), {}
    return (example_inputs,), {}


def _checked(model: Any) -> nn.Module:
    if isinstance(model, nn.Module):
        if getattr(model, "_stone_owns_weights", False):
            raise TypeError("this model came out of stonefx.optimize already; optimize the original instead")
        return model
    raise TypeError(f"optimize expects an nn.Module, got {type(model).__name__}; wrap a function in a module")
