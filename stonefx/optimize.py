"""Door 1: `stonefx.optimize` and `stonefx.explain`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from .capture import Capture, CaptureError, capturable_submodules, from_module
from .fragments import Fragments, saved
from .integrations import chosen
from .optimized import (
    LazyModule,
    OptimizedModule,
    PartlyOptimizedModule,
    Program,
    held_elsewhere,
    kept_state,
    leave_fast_paths,
    make_program,
    other_sizes_run,
    overlapping_weights,
    plain_twin,
    results_in_float64,
    row_major_arguments,
    run_preserved,
    verify_whole,
    weight,
    with_free_batch,
    written_weights,
)
from .options import Options
from .passes.cost.machine import Machine
from .passes.pipeline import FOLDING
from .report import Report, Totals, graph_text, graph_totals, publish
from .rewriting import (
    StonefxWarning,
    backend_facts,
    check_required,
    differentiated_bodies,
    rewrite_reported,
    warn_if_nothing,
)
from .tracing.errors import Uncapturable, as_capture_errors
from .tracing.opaque import inlined
from .tracing.own_errors import model_error
from .tracing.ownership import Borrowed, check_owned, owned

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Optimized = TypeVar("Optimized", bound="OptimizedModule | PartlyOptimizedModule")


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
    integrations: str | Iterable[str] = "all",
    numerics: str = "strict",
) -> nn.Module:
    """Return a faster model of the same meaning, over its own copy of the weights.

    Linear chains are merged and hyperbolic maps fused; `result.report` says where, and where not and why. The
    original is left as it is. After changing the original, call `optimize` again.

    The result is of the model's class and prints, copies and answers its methods as the model does. Where weights
    were folded away, what needs one of them raises an error that names it; so does setting what the captured graph
    relies on: an attribute that forward read, a hook on a submodule, a submodule of another shape. What is changed
    inside of an attribute, such as an entry of a list or of a configuration, is not seen.
    Messages that a process gives once (`warnings.warn`, cached logging such as `logger.warning_once`) come while the
    model is optimized, and no more after that.

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
        integrations: "all", or names of libraries (geoopt, hypll) whose code is made to reach the graph while it is
            traced; () for none.
        numerics: "strict", or "fast": two maps of hyperbolic geometry that undo each other are taken away also where
            rounding, or a guard between the two, may keep a long vector from coming back.

    Raises:
        TypeError: `model` is no `nn.Module`, or an option has the wrong type.
        CaptureError: a scripted module, tensors on the meta device, or example inputs on which the model itself raises.
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
        | {"integrations": integrations, "numerics": numerics}
    )
    model = _checked(model)
    source, borrowed = model, None
    try:
        if options.inplace:
            check_owned(model)
        elif example_inputs is None:
            source = owned(model)
        else:
            borrowed = Borrowed(model)
            source = borrowed.model
    except CaptureError as error:
        if options.on_error == "raise":
            raise
        return _original(plain_twin(model), options, error)
    if example_inputs is None:
        return LazyModule(source, partial(_optimize_lazily, options=options))
    args, kwargs = call_arguments(example_inputs)
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
    with chosen(options.integrations):
        report = _explained(Borrowed(_checked(model)), args, kwargs, options)
    publish(report)
    return report


def _explained(borrowed: Borrowed, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Report:
    source = borrowed.model
    try:
        with as_capture_errors(type(source).__name__):
            capture = from_module(source, args, kwargs)
        return _rewrite(source, capture, options, "explain")[1]
    except Uncapturable:
        raise
    except CaptureError as error:
        borrowed.own()
        if own := model_error(source, args, kwargs):
            raise own from None
        parts, skipped = _parts(source, (args, kwargs), options, "explain")
        fragments, whole = _fragments(source, (args, kwargs), options)
        fragments.close()
        report = _merged({part.path: part.report for part in parts}, error, skipped)
        return _between_breaks(whole, error) if saved(whole) > saved(report) else report


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
    """Optimize a model that stonefx owns, whole or else part by part.

    Args:
        source: the model, which becomes the result.
        args, kwargs: an example call.
        options: see `Options`.
        borrowed: where the weights of `source` are still those of another model.
    """
    with chosen(options.integrations):
        result = _optimized(source, (args, kwargs), options, borrowed)
    publish(result.report)
    check_required(result.report, options.require)
    warn_if_nothing(result.report)
    return result


def _optimized(
    source: nn.Module, example: Arguments, options: Options, borrowed: Borrowed | None
) -> OptimizedModule | PartlyOptimizedModule:
    args, kwargs = example
    # Optimizing takes weights away from its model, so a failure on the way must find another one to return.
    spare = Borrowed(source) if options.on_error == "eager" else None
    try:
        try:
            with as_capture_errors(type(source).__name__):
                capture = from_module(
                    source, args, kwargs, dynamic=options.dynamic, recurrent=options.inner == "eager"
                )
        except Uncapturable:
            raise
        except CaptureError as error:
            if borrowed is not None:
                borrowed.own()
            if own := model_error(source, args, kwargs):
                raise own from None
            return _optimize_parts(source, example, options, error)
        return _optimize_captured(source, capture, options, example, borrowed)
    except Exception as error:
        if spare is None:
            raise
        if borrowed is not None:
            spare.own()
        return _original(spare.model, options, error)


def _original(model: nn.Module, options: Options, error: Exception) -> PartlyOptimizedModule:
    warnings.warn(f"stonefx: the original runs, as on_error='eager' asks: {error}", StonefxWarning, 4)
    notes = [f"the original runs: {error}"]
    return PartlyOptimizedModule(model, Report(notes=notes, backend=backend_facts("optimize", options)))


def _optimize_captured(
    source: nn.Module,
    capture: Capture,
    options: Options,
    example: Arguments,
    borrowed: Borrowed | None = None,
) -> OptimizedModule:
    mode = capture.checks.gradients
    if borrowed is not None:
        # What forward writes to must be the copy's own before it runs outside of the capture.
        borrowed.own(weight(source, name) for name in written_weights(capture))
    expected = run_preserved(source, example, mode) if options.verify else None
    capture = with_free_batch(capture, source, example)
    program, report = _rewrite(source, capture, options, "optimize")
    program.adopt(source, frozenset() if borrowed is None else borrowed.storages)
    if borrowed is not None:
        borrowed.own()
    fast = OptimizedModule(source, program, report)
    original = None if borrowed is None else borrowed.original
    return _verified(fast, expected, example, options, mode, original)


@dataclass(frozen=True)
class _Part:
    """A submodule that was rewritten, and has not given up its weights yet: as one graph, or by Dynamo at each size."""

    path: str
    work: Program | Fragments
    report: Report
    example: Arguments

    def made(self, source: nn.Module) -> OptimizedModule | PartlyOptimizedModule:
        """The optimized module over the weights of the submodule, which it takes over."""
        if isinstance(self.work, Program):
            return OptimizedModule(self.work.adopt(source), self.work, self.report)
        return PartlyOptimizedModule(source, self.report, self.work.bound)


def _optimize_parts(
    source: nn.Module, example: Arguments, options: Options, error: CaptureError
) -> PartlyOptimizedModule:
    """Optimize what lies between the breaks of the model, or else its submodules, whichever saves more."""
    expected, mode = _results(source, example) if options.verify else (None, None)
    parts, skipped = _parts(source, example, options, "optimize")
    fragments, whole = _fragments(source, example, options)
    report = _merged({part.path: part.report for part in parts}, error, skipped)
    # Where as much is saved, submodules that need no guards of Dynamo's are better than one run that does.
    guarded = all(isinstance(part.work, Fragments) for part in parts if part.report.rewritten())
    if saved(whole) < saved(report) or (
        saved(whole) == saved(report) and not (guarded and whole.rewritten())
    ):
        if options.inner == "inductor" and not report.rewritten():
            # Inductor fuses more where it sees more than a part at once.
            report.notes.append(
                "nothing was rewritten, so that torch.compile runs the model, with its graph breaks"
            )
            fragments.close()
            fast = PartlyOptimizedModule(source, report, partial(_compiled, options.dynamic))
            return _verified(fast, expected, example, options, mode)
        restore = kept_state(source)
        _replace_parts(source, parts, options)
        fast = PartlyOptimizedModule(source, _merged({p.path: p.report for p in parts}, error, skipped))
        try:
            _verified(fast, expected, example, options, mode)
            fragments.close()
            return fast
        except Exception as failure:
            # A forward may read a weight that was folded, or count the children of a part.
            restore()
            whole.notes.append(f"the model does not run over optimized submodules: {failure}")
    fast = PartlyOptimizedModule(source, _between_breaks(whole, error), fragments.bound)
    return _verified(fast, expected, example, options, mode)


def _results(source: nn.Module, example: Arguments) -> tuple[Any, bool | None]:
    """What a model gives for the example without gradients, or in the caller's mode where it runs in that alone."""
    try:
        return run_preserved(source, example), None
    except Exception:
        return run_preserved(source, example, torch.is_grad_enabled()), torch.is_grad_enabled()


def _replace_parts(source: nn.Module, parts: Iterable[_Part], options: Options) -> None:
    for part in parts:
        submodule = source.get_submodule(part.path)
        mode = part.work.capture.checks.gradients if isinstance(part.work, Program) else False
        expected = run_preserved(submodule, part.example, mode) if options.verify else None
        _verified(part.made(submodule), expected, part.example, options, mode)


def _verified(
    fast: Optimized,
    expected: Any,
    example: Arguments,
    options: Options,
    mode: bool | None = None,
    original: nn.Module | None = None,
) -> Optimized:
    """The result, after its results were compared with the original's where that is asked for."""
    if options.verify:
        exact = None if original is None else partial(results_in_float64, original, example, mode)
        actual = run_preserved(fast, example, mode)
        verify_whole(
            expected, actual, fast.report, exact, lambda: (example, *fast.parameters(), *fast.buffers())
        )
    return fast


def _compiled(dynamic: bool, forward: Callable[..., Any]) -> Callable[..., Any]:
    run: Callable[..., Any] = torch.compile(forward, dynamic=None if dynamic else False)
    return run


def _fragments(source: nn.Module, example: Arguments, options: Options) -> tuple[Fragments, Report]:
    """Run the model between its breaks once, to see what can be rewritten there where no gradient is wanted."""
    leave_fast_paths(source)
    fragments = Fragments(options)
    try:
        run_preserved(source, example, run=fragments.bound(source.forward))
    except Exception as error:
        return fragments, Report(notes=[f"Dynamo cannot run the model: {error}"])
    if fragments.failure is not None:
        raise fragments.failure
    return fragments, fragments.report()


def _between_breaks(report: Report, error: CaptureError) -> Report:
    report.notes.insert(
        0,
        "optimized between its graph breaks, where Dynamo checks its guards at each call and all weights stay, since "
        f"the whole was not captured: {error}",
    )
    return report


def _parts(
    source: nn.Module, example: Arguments, options: Options, door: str
) -> tuple[list[_Part], list[str]]:
    """The largest submodules that can be captured, rewritten; and why the others were left out."""
    captured, skipped = capturable_submodules(
        source, *example, dynamic=options.dynamic, recurrent=options.inner == "eager"
    )
    parts = []
    for path, capture, args, kwargs in captured:
        chosen, submodule, example = options, source.get_submodule(path), (args, kwargs)
        varies = options.dynamic and other_sizes_run(capture, submodule, example)
        if varies or capture.checks.particular:
            # A part of a model is called with whatever sizes the data asks for, and in whatever layout, and a graph
            # whose weights are folded away holds for its own.
            fragments, report = _fragments(submodule, example, options)
            if report.rewritten():
                parts.append(_Part(path, fragments, report, example))
                continue
            chosen = replace(options, passes=tuple(name for name in options.passes if name not in FOLDING))
        capture = with_free_batch(capture, submodule, example)
        parts.append(_Part(path, *_rewrite(submodule, capture, chosen, door, source), example))
    return parts, skipped


def _merged(reports: Mapping[str, Report], error: CaptureError, skipped: Iterable[str]) -> Report:
    report = Report.merge(reports)
    report.notes.insert(0, f"optimized submodule by submodule, since the whole was not captured: {error}")
    report.notes += [f"left out: {reason}" for reason in skipped]
    return report


def _rewrite(
    source: nn.Module, capture: Capture, options: Options, door: str, whole: nn.Module | None = None
) -> tuple[Program, Report]:
    """Rewrite a captured model, or a captured part of the `whole`."""
    values = {name: weight(source, path) for name, path in capture.weights.items()} | capture.constants
    # Lowering depends on whether gradients are wanted, which each call of the module decides anew.
    names = tuple(name for name in options.passes if name != "lower")
    rows = row_major_arguments(capture, options.inner)
    notes = differentiated_bodies(capture.module, options) if options.numerics == "fast" else []
    unrewritten = inlined(capture.module)
    # A call that wants no gradient looks into custom functions. What it finds there may begin outside of them, so that
    # formulas are looked for in each of the two graphs by itself; what is folded is folded once, for both.
    last = () if unrewritten is None else tuple(name for name in names if name not in FOLDING)
    first = tuple(name for name in names if name not in last or name == "normalize")
    untraced = overlapping_weights(whole or source, source) if options.release else {}
    held = held_elsewhere(whole or source, source)
    report = rewrite_reported(
        capture.module,
        values,
        replace(options, passes=first),
        grad=False,
        door=door,
        untraced=untraced,
        stays=held,
    )
    report.notes += [*notes, *capture.notes]
    program = make_program(capture, options.inner, rows, options.release, held)
    inference = inlined(capture.module)
    if inference is not None and unrewritten is not None:
        values |= program.folded(source)
        chosen = replace(options, passes=last)
        for_gradients, inside = (
            rewrite_reported(module, values, chosen, grad=False, door=door)
            for module in (capture.module, inference)
        )
        program.use_without_gradients(inference)
        before = graph_text(unrewritten), graph_totals(unrewritten)
        report = _of_both(report, for_gradients, inside, *before)
    report.weights = program.released
    program.notes = report.notes
    return program, report


def _of_both(folded: Report, whole: Report, inside: Report, before: str, totals_before: Totals) -> Report:
    """One report of what both graphs share, the graph for gradients, and that without, which shows more."""
    seen = {(site.target, site.output) for site in inside.sites}
    outside = [site for site in whole.rewritten() if (site.target, site.output) not in seen]
    notes = [
        "custom functions and checkpoints are looked into in calls that want no gradient, and run whole in the others"
    ]
    seconds = [*folded.seconds.items(), *whole.seconds.items(), *inside.seconds.items()]
    return replace(
        folded,
        sites=folded.sites + outside + inside.sites,
        before=before,
        after=inside.after,
        seconds={name: sum(each for other, each in seconds if other == name) for name, _ in seconds},
        totals_before=totals_before,
        totals_after=inside.totals_after,
        notes=folded.notes + notes,
    )


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
