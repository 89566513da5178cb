"""One run of a model under Dynamo that records its graph, what went in and what came out."""

from __future__ import annotations

import builtins
import itertools
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch._ops import OpOverload

from stonefx.integrations import LIBRARIES
from stonefx.integrations import notes as integration_notes

from .arguments import Path, walk
from .attributes import attributes_read
from .copies import copied, has_batch, resized
from .decisions import Decisions, decided_branches
from .errors import BatchDependentNumber, CaptureError, capture_error, exception_location
from .fast_paths import refused_fast_paths, relies_on_switch
from .isolation import no_side_effects, plain_dynamo, preserved_random_state
from .model_state import Substitutes, unchanged_attributes
from .mutation import written_placeholders
from .numbers import marked_outputs
from .opaque import noted_functions, traced_functions
from .questions import Question, Questions, noted_questions
from .recurrent import recurrent_layers
from .results import plain_integers
from .retrace import from_dynamo

_serial = itertools.count()
# What notes the questions of a forward is put into Dynamo itself, for one recording at a time.
_lock = threading.RLock()


@dataclass(frozen=True)
class Recording:
    """A graph and the run it was recorded on.

    Attributes:
        module: the retraced graph.
        inputs: what its placeholders received: tensors of the model or of the copied call, and sizes.
        copies: what it ran on: `inputs`, but with copies for the state that it might write to.
        outputs: the tensors and numbers that the graph returned, marked (see `numbers`).
        variables: of the recorded function: `model`, the copied call's `args` and `kwargs`, and `batched`.
        result: what the model returned.
        sizes: where in the result an integer lies that is the varying size of `batched`.
        questions: what forward asked beside values, dtypes and sizes.
        decisions: values of the model's own tensors that it branched on.
        gradients: the gradient mode that it ran in.
        attributes: of the model that the recording read, see `attributes_read`.
        notes: for the report: what of a library was traced in a form of its own.
    """

    module: fx.GraphModule
    inputs: tuple[Any, ...]
    copies: tuple[Any, ...]
    outputs: tuple[Any, ...]
    variables: dict[str, Any]
    result: Any
    sizes: frozenset[Path]
    questions: Questions
    decisions: Decisions
    gradients: bool
    attributes: frozenset[tuple[str, str]]
    notes: tuple[str, ...]


def record(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    batch: int | None,
    *,
    gradients: bool = True,
    exact: bool = False,
    recurrent: bool = True,
) -> Recording:
    """Run a model once on copies of its arguments and record the one graph that Dynamo makes of it.

    Args:
        model: the module; its weights, buffers, attributes and flags are unchanged afterwards.
        args, kwargs: the call.
        batch: the first dimension of tensors with this leading size is one symbol, which the trace may still
            find to be a constant; None for static sizes.
        gradients: the gradient mode to run in.
        exact: run on exact copies of the arguments, see `copied`.
        recurrent: take recurrent layers into the graph.

    Raises:
        CaptureError: the model does not trace to one graph, or stores into itself.
        FastPathError: it calls an attention layer whose fast path a graph does not give.
        BatchDependentNumber: it returns a number of which it cannot be told whether it follows the batch size.
    """
    recorder = _Recorder(inline_checkpoints=not model.training)
    call = _fresh_function()
    compiled = torch.compile(call, backend=recorder, fullgraph=True)
    args, kwargs = copied((args, dict(kwargs)), exact=exact)
    batched = _batched((args, kwargs), batch)
    with (
        _lock,
        preserved_random_state(model),
        plain_dynamo(gradients),
        noted_functions() as functions,
        noted_questions() as questions,
        decided_branches() as decisions,
        refused_fast_paths() as refused,
        recurrent_layers(recurrent),
        unchanged_attributes(model) as substitutes,
    ):
        recorder.substitutes = substitutes
        try:
            for tensor in batched:
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
            with no_side_effects(model):
                result = compiled(model, args, kwargs, batched)
            sizes = frozenset(path for path, number in plain_integers(result).items() if number == batch)
            if sizes:
                sizes = _following(
                    sizes, batch or 0, recorder, lambda call: compiled(model, *call), (args, kwargs)
                )
        except Exception as error:
            if refused:
                raise refused[0] from None
            raise _explain(model, error) from error
        finally:
            torch._dynamo.eval_frame.remove_from_cache(call)
            # Dynamo keeps every backend it has seen, and this one has seen the weights.
            runs, graphs = recorder.runs, recorder.graphs
            recorder.runs, recorder.graphs, recorder.substitutes = [], [], {}
    if not runs:
        raise capture_error(
            f"{type(model).__name__} ran without reaching the compiler",
            "Check that its forward computes with tensors and that TORCHDYNAMO_DISABLE is not set.",
        )
    traced_functions(graphs[0]).extend(functions)
    variables = {"model": model, "args": args, "kwargs": kwargs, "batched": batched}
    if relies_on_switch(model):
        questions.asked.append(Question((), "get_fastpath_enabled", (), False))
    if decisions.taken:
        _remove_unused(graphs[0].graph)
    return Recording(
        graphs[0],
        *runs[0],
        variables,
        result,
        sizes,
        questions,
        decisions,
        gradients,
        recorder.attributes,
        tuple(recorder.notes),
    )


def _following(
    sizes: frozenset[Path],
    batch: int,
    recorder: _Recorder,
    run: Callable[[tuple[Any, ...]], Any],
    call: tuple[Any, ...],
) -> frozenset[Path]:
    """Those integers of a result that change with the batch size, found by running the same code at another one."""
    for size in (2 * batch, batch + 1, batch - 1):
        if size < 1:
            continue
        other = resized(call, batch, size)
        try:
            numbers = plain_integers(run((*other, _batched(other, size))))
        except Exception:
            # The model refuses that size.
            numbers = {}
        if len(recorder.graphs) > 1:
            del recorder.graphs[1:]
        elif numbers:
            return frozenset(path for path in sizes if numbers.get(path) == size)
    raise capture_error(
        f"the number {', '.join(f'`{path}` ({batch})' for path in sizes)} may depend on the batch size",
        "Return tensors, or capture with dynamic=False.",
        kind=BatchDependentNumber,
    )


class _Recorder:
    """A backend that keeps the retraced graph and the tensors of each run."""

    def __init__(self, *, inline_checkpoints: bool) -> None:
        self.inline_checkpoints = inline_checkpoints
        self.substitutes: Substitutes = {}
        self.attributes: frozenset[tuple[str, str]] = frozenset()
        self.notes: list[str] = []
        self.graphs: list[fx.GraphModule] = []
        self.runs: list[tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]] = []

    def __call__(self, gm: fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
        graph = from_dynamo(gm, example_inputs, inline_checkpoints=self.inline_checkpoints)
        self.graphs.append(graph)
        self.notes = integration_notes(LIBRARIES)
        self.attributes |= attributes_read("model")
        written = written_placeholders(graph.graph)
        # Batch norm writes to its buffers without saying so in its schema, hence a copy of every buffer.
        copy = [
            "weight" in node.meta and (node in written or not isinstance(example, nn.Parameter))
            for node, example in zip(graph.graph.find_nodes(op="placeholder"), example_inputs, strict=True)
        ]

        def run(*inputs: Any) -> Any:
            copies = tuple(
                value.detach().clone() if wanted else value
                for value, wanted in zip(inputs, copy, strict=True)
            )
            self.substitutes.update((id(c), v) for c, v in zip(copies, inputs, strict=True) if c is not v)
            outputs = marked_outputs(gm.forward(*copies), copies)
            self.runs.append((inputs, copies, outputs))
            return outputs

        return run


def _call(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], batched: list[Any]) -> Any:
    # Compared first, so that the trace knows all batch sizes as one symbol.
    for tensor in batched[1:]:
        if tensor.shape[0] != batched[0].shape[0]:
            raise ValueError("batch sizes differ")
    return model(*args, **kwargs)


def _fresh_function() -> Callable[..., Any]:
    """A function of its own code, so that Dynamo's caches for one capture serve no other."""
    name = f"capture_{next(_serial)}"
    code = _call.__code__.replace(co_name=name)
    return types.FunctionType(code, {"__builtins__": builtins, "__name__": __name__}, name)


def _batched(call: Any, batch: int | None) -> list[torch.Tensor]:
    return [value for _, value in walk(call, Path("call")) if batch is not None and has_batch(value, batch)]


def _remove_unused(graph: fx.Graph) -> None:
    """Remove what nobody reads any more, as what a branch was decided by; random numbers are drawn all the same."""
    for node in reversed(graph.nodes):
        if node.op != "call_function" or node.users or node.is_impure():
            continue
        if isinstance(node.target, OpOverload) and torch.Tag.nondeterministic_seeded not in node.target.tags:
            graph.erase_node(node)


def _explain(model: nn.Module, error: Exception) -> CaptureError:
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, CaptureError):
            return inner
        inner = getattr(inner, "inner_exception", None) or inner.__cause__
    return capture_error(
        f"{type(model).__name__} does not trace to one graph",
        "Change that line, or capture its submodules.",
        exception_location(error),
        error,
    )
