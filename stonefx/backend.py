"""Door 2: `torch.compile(model, backend="stone")`."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from .capture import from_dynamo
from .inner import compile_inner, static_fake
from .options import Options
from .report import Report
from .rewriting import (
    RequiredRewriteMissing,
    StonefxWarning,
    backend_facts,
    check_required,
    rewrite_reported,
    warn_if_nothing,
)
from .runtime import FreshFolds, split_folds

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

    Raises:
        TypeError: an unknown option.
        CaptureError, RewriteError: an internal failure, with `on_error="raise"`.
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
        _REPORTS.append(report)
        check_required(report, chosen.require)
        warn_if_nothing(report)

    try:
        return compile_graph(gm, example_inputs, chosen, mode, reported)
    except RequiredRewriteMissing:
        raise
    except Exception as error:
        if chosen.on_error == "raise":
            raise
        _REPORTS.append(
            Report(
                notes=[f"the original graph runs: {error}"],
                backend=backend_facts("compile", chosen),
            )
        )
        warnings.warn(
            f"stonefx: this graph runs unrewritten, as on_error='eager' asks: {error}", StonefxWarning, 2
        )
        return compile_inner(gm, example_inputs, chosen.inner, mode)


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
    module = from_dynamo(gm, inputs)
    placeholders = module.graph.find_nodes(op="placeholder")
    values = {
        node.name: value
        for node, value in zip(placeholders, inputs, strict=True)
        if isinstance(value, torch.Tensor) and "weight" in node.meta
    }
    reported(rewrite_reported(module, values, options, grad=wants_gradients(module, inputs), door=door))
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


def wants_gradients(module: fx.GraphModule, inputs: Sequence[Any]) -> bool:
    """Whether a gradient may flow through the graph: enabled around it or inside, and an input requires one."""
    enabled = torch.is_grad_enabled() or any(
        node.target is torch._C._set_grad_enabled and node.args[0] for node in module.graph.nodes
    )
    return enabled and any(isinstance(value, torch.Tensor) and value.requires_grad for value in inputs)


def _with_folds(
    compiled: Callable[..., Any], fresh: FreshFolds, weights: Sequence[int], kept: Sequence[int]
) -> Callable[..., Any]:
    def run(*inputs: Any) -> Any:
        folds = fresh([inputs[index] for index in weights])
        return compiled(*[inputs[index] for index in kept], *folds)

    return run
