"""Door 2: `torch.compile(model, backend="stone")`."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from .capture import CaptureError, from_dynamo
from .inner import compile_inner, static_fake
from .options import Options
from .passes.pipeline import RewriteError
from .report import Report
from .rewriting import StonefxWarning, backend_facts, check_required, rewrite_reported, warn_if_nothing
from .runtime import FreshFolds, split_folds
from .tracing.errors import node_location
from .tracing.names import is_gathered
from .tracing.verbatim import is_verbatim

_REPORTS: deque[Report] = deque(maxlen=64)


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
    """The reports of the newest graphs compiled with `torch.compile(backend="stone")`, oldest first."""
    return list(_REPORTS)


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
    try:
        module = from_dynamo(gm, example_inputs, verbatim=True)
    except CaptureError as error:
        warning = f"stonefx rewrote nothing in this graph, which runs as torch.compile made it: {error}"
        return _compile_original(gm, example_inputs, chosen, mode, error, warning)
    try:
        return _compile(module, example_inputs, chosen, mode)
    except RewriteError as error:
        if chosen.on_error == "raise":
            raise
        warning = f"stonefx: this graph runs unrewritten, as on_error='eager' asks: {error}"
        return _compile_original(gm, example_inputs, chosen, mode, error, warning)


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
    _REPORTS.append(report)
    check_required(report, options.require)
    warnings.warn(warning, StonefxWarning, 3)
    return compile_inner(gm, inputs, options.inner, mode)


def _compile(
    module: fx.GraphModule, inputs: Sequence[Any], options: Options, mode: str | None
) -> Callable[..., Any]:
    placeholders = module.graph.find_nodes(op="placeholder")
    values = {
        node.name: value
        for node, value in zip(placeholders, inputs, strict=True)
        if isinstance(value, torch.Tensor) and "weight" in node.meta
    }
    report = rewrite_reported(module, values, options, grad=wants_gradients(module, inputs), door="compile")
    report.notes += _left_alone(module)
    _REPORTS.append(report)
    check_required(report, options.require)
    warn_if_nothing(report)
    split = split_folds(module)
    kept = [inputs[index] for index in split.kept]
    if split.folds is None:
        return compile_inner(module, kept, options.inner, mode)
    fresh = FreshFolds(split.folds)
    examples = fresh([inputs[index] for index in split.weights])
    for node in module.graph.find_nodes(op="placeholder"):
        if "fold_input" in node.meta:
            node._dynamo_source = None
    compiled = compile_inner(module, kept + [static_fake(fold) for fold in examples], options.inner, mode)
    return _with_folds(compiled, fresh, split.weights, split.kept)


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
    compiled: Callable[..., Any], fresh: FreshFolds, weights: Sequence[int], kept: Sequence[int]
) -> Callable[..., Any]:
    def run(*inputs: Any) -> Any:
        folds = fresh([inputs[index] for index in weights])
        return compiled(*[inputs[index] for index in kept], *folds)

    return run
