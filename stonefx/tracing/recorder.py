"""One run of a model under Dynamo that records its graph, what went in and what came out."""

from __future__ import annotations

import builtins
import itertools
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from .arguments import Path, rebuild, walk
from .attributes import attributes_read
from .errors import BatchDependentNumber, CaptureError, capture_error, exception_location
from .isolation import no_side_effects, plain_dynamo, preserved_random_state
from .model_state import Substitutes, unchanged_attributes
from .mutation import written_placeholders
from .retrace import from_dynamo

_serial = itertools.count()


@dataclass(frozen=True)
class Recording:
    """A graph and the run it was recorded on.

    Attributes:
        module: the retraced graph.
        inputs: what its placeholders received: tensors of the model or of the copied call, and sizes.
        copies: what it ran on: `inputs`, but with copies for the state that it might write to.
        outputs: the tensors it returned.
        variables: of the recorded function: the copied call's `args` and `kwargs`, and `batched`.
        result: what the model returned.
        attributes: of the model that the recording read, see `attributes_read`.
    """

    module: fx.GraphModule
    inputs: tuple[Any, ...]
    copies: tuple[Any, ...]
    outputs: tuple[Any, ...]
    variables: dict[str, Any]
    result: Any
    attributes: frozenset[tuple[str, str]]


def record(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], batch: int | None = None
) -> Recording:
    """Run a model once on copies of its arguments and record the one graph that Dynamo makes of it.

    Args:
        model: the module; its weights, buffers, attributes and flags are unchanged afterwards.
        args, kwargs: the call.
        batch: the first dimension of tensors with this leading size is one symbol, which the trace may still
            find to be a constant; None for static sizes.

    Raises:
        CaptureError: the model does not trace to one graph, stores into itself, or returns a number that
            depends on the batch size.
    """
    recorder = _Recorder()
    call = _fresh_function()
    compiled = torch.compile(call, backend=recorder, fullgraph=True)
    args, kwargs = copied((args, dict(kwargs)))
    batched = _batched((args, kwargs), batch)
    with preserved_random_state(model), plain_dynamo(), unchanged_attributes(model) as substitutes:
        recorder.substitutes = substitutes
        try:
            for tensor in batched:
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
            with no_side_effects(model):
                result = compiled(model, args, kwargs, batched)
            if batched and (numbers := _numbers(result)):
                doubled = repeated((args, kwargs), batch, 2)
                again = compiled(model, *doubled, _batched(doubled, 2 * batched[0].shape[0]))
                _check_numbers(numbers, _numbers(again), len(recorder.graphs))
        except Exception as error:
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
    variables = {"args": args, "kwargs": kwargs, "batched": batched}
    return Recording(graphs[0], *runs[0], variables, result, recorder.attributes)


def copied(call: Any) -> Any:
    """A call with copies of its tensors, each on its own even where the call passes one tensor twice."""

    def copy(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        with torch.inference_mode(False), torch.enable_grad():
            return _with_history_of(value, value.detach().clone())

    return rebuild(call, copy)


def repeated(call: Any, batch: int | None, times: int) -> Any:
    """A call whose tensors of leading size `batch` are repeated along it."""

    def repeat(value: Any) -> Any:
        if not _has_batch(value, batch):
            return value
        with torch.inference_mode(False), torch.enable_grad():
            return _with_history_of(value, value.detach().repeat(times, *[1] * (value.dim() - 1)))

    return rebuild(call, repeat)


def _with_history_of(original: torch.Tensor, copy: torch.Tensor) -> torch.Tensor:
    """Let a copy require a gradient as `original` does; only where that is no leaf may forward write to it."""
    copy = copy.requires_grad_(original.requires_grad)
    return copy if original.is_leaf else copy.clone()


class _Recorder:
    """A backend that keeps the retraced graph and the tensors of each run."""

    def __init__(self) -> None:
        self.substitutes: Substitutes = {}
        self.attributes: frozenset[tuple[str, str]] = frozenset()
        self.graphs: list[fx.GraphModule] = []
        self.runs: list[tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]] = []

    def __call__(self, gm: fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
        graph = from_dynamo(gm, example_inputs)
        self.graphs.append(graph)
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
            outputs = gm.forward(*copies)
            self.runs.append((inputs, copies, tuple(outputs)))
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
    return [value for _, value in walk(call, Path("call")) if batch is not None and _has_batch(value, batch)]


def _has_batch(value: Any, batch: int | None) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape[0] == batch


def _numbers(result: Any) -> dict[Path, float]:
    return {
        path: value
        for path, value in walk(result, Path("result"))
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _check_numbers(first: dict[Path, float], second: dict[Path, float], graphs: int) -> None:
    if first == second and graphs == 1:
        return
    varying = [f"`{path}` ({first[path]})" for path in first if second.get(path) != first[path]]
    raise capture_error(
        f"the number {', '.join(varying) or 'in the result'} may depend on the batch size",
        "Return tensors, or capture with dynamic=False.",
        kind=BatchDependentNumber,
    )


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
