"""Door 1: `stonefx.optimize` and `stonefx.explain`."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from .capture import Capture, CaptureError, capturable_submodules, from_module
from .optimized import (
    Borrowed,
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
    written_weights,
)
from .options import Options
from .passes.linear.cost import Machine
from .passes.pipeline import FOLDING, RewriteError
from .report import Report
from .rewriting import StonefxWarning, backend_facts, check_required, rewrite_reported, warn_if_nothing

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
    release: bool = True,
    inplace: bool = False,
) -> nn.Module:
    """Return a faster model of the same meaning, over its own copy of the weights.

    Linear chains are merged and hyperbolic maps fused; `result.report` says where, and where not and why. The
    original is left as it is. After changing the original, call `optimize` again.

    The result is of the model's class and prints, copies and answers its methods as the model does. Where weights
    were folded away, what needs one of them raises an error that names it; so does setting what the captured graph
    relies on: an attribute that forward read, a hook on a submodule, a submodule of another shape. What is changed
    inside of an attribute, such as an entry of a list or of a configuration, is not seen.

    With `release=False` all of that acts. Calls that were not captured, calls that want gradients of folded weights,
    and all calls after a change that the graph does not hold for run the original forward. The folds follow the
    weights: each call looks whether one was written, as under `torch.compile`, so that small models gain less; after
    a change that no counter shows call `stonefx.invalidate`. The result pickles, and saves checkpoints, as the
    original.

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
        release: free the weights that were folded away; False keeps the whole original beside the fast path.
        inplace: take the model over instead of copying it: the result is `model` itself, and no more memory is needed
            than for one fold. After an error in the last step, which makes the folds, the model is incomplete.

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
        | {"on_error": on_error, "keep": keep, "machine": machine, "release": release, "inplace": inplace}
    )
    if example_inputs is None:
        source = _checked(model) if options.inplace else copy.deepcopy(_checked(model))
        return LazyModule(source, partial(_optimize_lazily, options=options))
    args, kwargs = call_arguments(example_inputs)
    borrowed = None if options.inplace else Borrowed(_checked(model))
    source = _checked(model) if borrowed is None else borrowed.model
    return optimize_owned(source, args, kwargs, options, borrowed)


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
    source = Borrowed(_checked(model)).model
    try:
        return _rewrite(source, from_module(source, args, kwargs), options, "explain")[1]
    except CaptureError as error:
        parts, skipped = _parts(source, args, kwargs, options, error)
        reports = {
            path: _rewrite(source.get_submodule(path), capture, options, "explain")[1]
            for path, capture, _, _ in parts
        }
        return _merged(reports, error, skipped)


def _optimize_lazily(
    source: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
) -> nn.Module:
    return optimize_owned(source, args, kwargs, options)


def optimize_owned(
    source: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: Options,
    borrowed: Borrowed | None = None,
) -> nn.Module:
    """Optimize a model that stonefx owns, whole or else submodule by submodule.

    Args:
        source: the model, which becomes the result.
        args, kwargs: an example call.
        options: see `Options`.
        borrowed: where the weights of `source` are still those of another model.
    """
    result: OptimizedModule | PartlyOptimizedModule
    # Optimizing takes weights away from its model, so a failure on the way must find another one to return.
    spare = Borrowed(source) if options.on_error == "eager" else None
    try:
        try:
            capture = from_module(source, args, kwargs, dynamic=options.dynamic)
        except CaptureError as error:
            if borrowed is not None:
                borrowed.own()
            result = _optimize_parts(source, args, kwargs, options, error)
        else:
            result = _optimize_captured(source, capture, options, (args, kwargs), borrowed)
    except (CaptureError, RewriteError) as error:
        if spare is None:
            raise
        warnings.warn(f"stonefx: the original runs, as on_error='eager' asks: {error}", StonefxWarning, 3)
        notes = [f"the original runs: {error}"]
        if borrowed is not None:
            spare.own()
        return PartlyOptimizedModule(spare.model, Report(notes=notes, backend=backend_facts("optimize", options)))
    check_required(result.report, options.require)
    warn_if_nothing(result.report)
    return result


def _optimize_captured(
    source: nn.Module,
    capture: Capture,
    options: Options,
    example: Arguments,
    borrowed: Borrowed | None = None,
) -> OptimizedModule:
    if borrowed is not None:
        # What forward writes to must be the copy's own before it runs outside of the capture.
        borrowed.own(weight(source, name) for name in written_weights(capture))
    expected = run_preserved(source, example) if options.verify else None
    capture = with_free_batch(capture, source, example)
    program, report = _rewrite(source, capture, options, "optimize")
    program.adopt(source, frozenset() if borrowed is None else borrowed.storages)
    if borrowed is not None:
        borrowed.own()
    fast = OptimizedModule(source, program, report)
    if options.verify:
        verify_whole(expected, run_preserved(fast, example), report)
    return fast


def _optimize_parts(
    source: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options, error: CaptureError
) -> PartlyOptimizedModule:
    expected = run_preserved(source, (args, kwargs)) if options.verify else None
    spare = Borrowed(source) if options.inner == "inductor" else None
    parts, skipped = _parts(source, args, kwargs, options, error)
    reports = {}
    for path, capture, part_args, part_kwargs in parts:
        chosen = options
        if options.dynamic and _has_fixed_sizes(capture):
            # A part of a model is called with whatever sizes the data asks for.
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
        plain = spare.model
        run = torch.compile(plain.forward, dynamic=None if options.dynamic else False)
        fast = PartlyOptimizedModule(plain, report, run)
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
    values = {name: weight(source, path) for name, path in capture.weights.items()}
    # Lowering depends on whether gradients are wanted, which each call of the module decides anew.
    names = tuple(name for name in options.passes if name != "lower")
    rows = row_major_arguments(capture, options.inner)
    report = rewrite_reported(capture.module, values, replace(options, passes=names), grad=False, door=door)
    program = make_program(capture, options.inner, rows, options.release)
    report.weights = program.released
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
