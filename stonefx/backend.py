"""Door 2: `torch.compile(model, backend="stone")`."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

import torch
from torch import fx

from .capture import CaptureError, from_dynamo
from .freezing import bind_weights, freed_with, lift_weights, made_modules
from .inner import compile_inner, compile_later, static_fake
from .integrations import notes as integration_notes
from .memory import unseen_writers
from .options import Options
from .passes.hoist import FoldSplit, evaluate_folds, split_folds
from .report import Report, publish
from .rewriting import (
    RequiredRewriteMissing,
    StonefxWarning,
    backend_facts,
    check_required,
    differentiated_bodies,
    rewrite_reported,
    warn_if_nothing,
)
from .runtime import FreshFolds
from .tracing.errors import node_location
from .tracing.names import is_gathered
from .tracing.verbatim import is_verbatim
from .unchanged import look_seconds

_REPORTS: deque[Report] = deque(maxlen=64)
_COLLECTORS: list[list[Report]] = []


def last_report() -> Report:
    """The report of the newest graph compiled with `torch.compile(backend="stone")`.

    A model with graph breaks is compiled as several graphs: `reports()` has them all.

    Raises:
        RuntimeError: nothing was compiled yet; `torch.compile` compiles at the first call.

    >>> model = torch.compile(torch.nn.Linear(2, 2), backend="stone", options={"inner": "eager"})
    >>> with torch.no_grad(), warnings.catch_warnings(action="ignore"):
    ...     _ = model(torch.ones(1, 2))
    >>> last_report().backend["door"]
    'compile'
    """
    if not _REPORTS:
        raise RuntimeError(
            'nothing was compiled with torch.compile(backend="stone") yet; a compiled model is compiled at its '
            "first call, so call it once before asking for the report"
        )
    return _REPORTS[-1]


def reports() -> list[Report]:
    """The reports of the newest 64 graphs compiled with `torch.compile(backend="stone")`, oldest first.

    `collected_reports` has all that a block of code makes, however many.
    """
    return list(_REPORTS)


@contextmanager
def collected_reports() -> Iterator[list[Report]]:
    """The reports of the graphs compiled inside the block, oldest first; the list grows as they are made.

    >>> model = torch.compile(torch.nn.Linear(2, 2), backend="stone", options={"inner": "eager"})
    >>> with collected_reports() as made, torch.no_grad(), warnings.catch_warnings(action="ignore"):
    ...     _ = model(torch.ones(1, 2))
    >>> [report.backend["door"] for report in made]
    ['compile']
    """
    made: list[Report] = []
    _COLLECTORS.append(made)
    try:
        yield made
    finally:
        # By identity: two lists that hold the same reports are equal.
        _COLLECTORS[:] = [other for other in _COLLECTORS if other is not made]


def _record(report: Report) -> None:
    publish(report)
    _REPORTS.append(report)
    for made in _COLLECTORS:
        made.append(report)


def stone(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
    **unknown: Any,
) -> Callable[..., Any]:
    """Compile one graph for `torch.compile`: capture, rewrite, verify, and hand over to the inner compiler.

    Args:
        gm: the graph as Dynamo made it; it is left as it is.
        example_inputs: the real inputs of the call that is being compiled, parameters among them.
        options: see `stonefx.options.Options`.
        mode: a mode of inductor, such as "reduce-overhead".

    A graph that the graph language cannot say is run by the inner compiler as Dynamo made it, and the report's notes
    say why: that is no failure, whatever `on_error` is.

    Raises:
        TypeError: an unknown option.
        RewriteError: a pass failed inside, with `on_error="raise"`.
        RequiredRewriteMissing: a required target was rewritten nowhere.
    """
    if unknown:
        raise TypeError(
            f"backend 'stone' takes options and mode, got {', '.join(map(repr, unknown))}; pass them as options={{...}}"
        )
    chosen = Options.parse(options)
    if mode is not None and chosen.inner != "inductor":
        raise TypeError(
            f"mode={mode!r} is inductor's, but the inner compiler is {chosen.inner!r}; drop one of them"
        )

    def reported(report: Report) -> None:
        _record(report)
        check_required(report, chosen.require)
        warn_if_nothing(report)

    try:
        return compile_graph(gm, example_inputs, chosen, mode, reported)
    except RequiredRewriteMissing:
        raise
    except CaptureError as error:
        warning = f"stonefx rewrote nothing in this graph, which runs as torch.compile made it: {error}"
        return _compile_original(gm, example_inputs, chosen, mode, error, warning)
    except Exception as error:
        if chosen.on_error == "raise":
            raise
        warning = f"stonefx: this graph runs unrewritten, as on_error='eager' asks: {error}"
        return _compile_original(gm, example_inputs, chosen, mode, error, warning)


def _integrations(passed: Mapping[str, Any]) -> tuple[str, ...]:
    """The libraries whose code is to reach the graphs of a `torch.compile` with these keyword arguments."""
    try:
        return Options.parse(passed.get("options")).integrations
    except (TypeError, ValueError):
        return ()  # `stone` says so


stone.integrations = _integrations  # type: ignore[attr-defined]


def _compile_original(
    gm: fx.GraphModule,
    inputs: Sequence[Any],
    options: Options,
    mode: str | None,
    error: Exception,
    warning: str,
) -> Callable[..., Any]:
    """Hand Dynamo's own graph to the inner compiler; the report's notes and a warning say why."""
    report = Report(notes=[f"the original graph runs: {error}"], backend=backend_facts("compile", options))
    _record(report)
    check_required(report, options.require)
    warnings.warn(warning, StonefxWarning, 3)
    return compile_inner(gm, inputs, options.inner, mode)


def compile_graph(
    gm: fx.GraphModule,
    inputs: Sequence[Any],
    options: Options,
    mode: str | None,
    reported: Callable[[Report], None],
    door: str = "compile",
) -> Callable[..., Any]:
    """Rewrite one graph of Dynamo's and compile it, with folds that are kept while their weights stay as they are.

    Args:
        gm, inputs: what a backend of `torch.compile` receives.
        options, mode: as of `stone`.
        reported: called with the report before the inner compiler runs; it may raise.
        door: for the report.
    """
    lifted, frozen = lift_weights(gm)
    compiled = _compile(lifted, [*inputs, *frozen], options, mode, reported, door, len(frozen))
    return (lambda *values: compiled(*values, *frozen)) if frozen else compiled


def _compile(
    gm: fx.GraphModule,
    inputs: Sequence[Any],
    options: Options,
    mode: str | None,
    reported: Callable[[Report], None],
    door: str,
    frozen: int,
) -> Callable[..., Any]:
    """Compile a graph whose last inputs, `frozen` in number, are weights that torch's freezing holds constant."""
    module = from_dynamo(gm, inputs, verbatim=True)
    differentiated = differentiated_bodies(module, options)
    placeholders = module.graph.find_nodes(op="placeholder")
    values = {
        node.name: value
        for node, value in zip(placeholders, inputs, strict=True)
        if isinstance(value, torch.Tensor) and "weight" in node.meta
    }
    untraced = {
        node.meta["weight"]: reason
        for node in placeholders
        if node.name in values and (reason := unseen_writers(values[node.name]))
    }
    constant = frozen > 0 and options.inner == "inductor"
    report = rewrite_reported(
        module,
        values,
        options,
        grad=wants_gradients(module, inputs),
        untraced=untraced,
        door=door,
        look=0.0 if constant else look_seconds(values.values()),
    )
    report.notes += differentiated + integration_notes(options.integrations) + _left_alone(module)
    reported(report)
    split = split_folds(module)
    kept = [inputs[index] for index in split.kept]
    if constant:
        return _compile_frozen(module, split, inputs, len(inputs) - frozen, mode)
    if split.folds is None:
        return compile_inner(module, kept, options.inner, mode)
    fresh = FreshFolds(split.folds, lambda reason: _note_original(report, reason), owned=door == "optimize")
    weights = [inputs[index] for index in split.weights]
    examples = fresh(weights) or evaluate_folds(split.folds, weights)
    for node in module.graph.find_nodes(op="placeholder"):
        if "fold_input" in node.meta:
            node._dynamo_source = None
    compiled = compile_inner(module, kept + [static_fake(fold) for fold in examples], options.inner, mode)
    original = compile_later(gm, options.inner, mode)
    return _with_folds(compiled, original, fresh, split.weights, split.kept)


def _compile_frozen(
    module: fx.GraphModule, split: FoldSplit, inputs: Sequence[Any], free: int, mode: str | None
) -> Callable[..., Any]:
    """Compile a graph for inductor's freezing: the folds and the inputs behind the first `free` are constants."""
    folds = evaluate_folds(split.folds, [inputs[index] for index in split.weights]) if split.folds else ()
    placeholders = module.graph.find_nodes(op="placeholder")
    values = [*(inputs[index] for index in split.kept), *folds]
    kept = [index for index in split.kept if index < free]
    constant = zip(placeholders[len(kept) :], values[len(kept) :], strict=True)
    bind_weights(module, {node.name: value for node, value in constant})
    with made_modules() as modules:
        compiled = compile_inner(module, [inputs[index] for index in kept], "inductor", mode)
    return freed_with(lambda *values: compiled(*[values[index] for index in kept]), modules)


def _note_original(report: Report, reason: str) -> None:
    """Say why the folds of some weights are not used."""
    note = f"the original graph runs for some weights: {reason}"
    report.notes.append(note)
    warnings.warn(f"stonefx: {note}", StonefxWarning, 2)


def _left_alone(module: fx.GraphModule) -> list[str]:
    """Notes on what no pass looked at."""
    verbatim: dict[str, list[fx.Node]] = {}
    for node in module.graph.nodes:
        if is_verbatim(node):
            verbatim.setdefault(node.meta["verbatim"], []).append(node)
    notes = []
    for why, nodes in verbatim.items():
        location = next(filter(None, map(node_location, nodes)), "")
        where = f", the first at {location}" if location else ""
        notes.append(f"left as torch.compile made them: {len(nodes)} operation(s) {why}{where}")
    gathered = [node.name for node in module.graph.find_nodes(op="placeholder") if is_gathered(node)]
    if gathered:
        notes.append(f"not folded, since FSDP gathers them for each call: {', '.join(gathered)}")
    return notes


def wants_gradients(module: fx.GraphModule, inputs: Sequence[Any]) -> bool:
    """Whether a gradient may flow through the graph: enabled around it or inside, and an input requires one."""
    # What a transform of torch.func enables inside of itself is its own.
    enabled = torch.is_grad_enabled() or any(
        node.target is torch._C._set_grad_enabled and node.args[0] and not is_verbatim(node)
        for node in module.graph.nodes
    )
    return enabled and any(isinstance(value, torch.Tensor) and value.requires_grad for value in inputs)


def _with_folds(
    compiled: Callable[..., Any],
    original: Callable[..., Any],
    fresh: FreshFolds,
    weights: Sequence[int],
    kept: Sequence[int],
) -> Callable[..., Any]:
    # At every call of a model with hundreds of parameters: nothing is done one by one that need not be.
    folded, others = _picker(weights), _picker(kept)

    def run(*inputs: Any) -> Any:
        folds = fresh(folded(inputs))
        if folds is None:
            return original(*inputs)
        return compiled(*others(inputs), *folds)

    return run


def _picker(places: Sequence[int]) -> Callable[[Sequence[Any]], list[Any]]:
    """What takes the values at some places."""
    if len(places) < 2:  # one place would give the value alone
        return lambda values: [values[place] for place in places]
    pick = itemgetter(*places)
    return lambda values: list(pick(values))
