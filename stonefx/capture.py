"""Models and Dynamo graphs into the one graph language: functional pre-dispatch ATen, before autograd."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import fx, nn

from .integrations import own_branches, replaces_functions
from .tracing.arguments import Path, Weight, bind, check_leaves, walk_arguments
from .tracing.attempts import attempts, batch_size, signature_of
from .tracing.checks import Checks, TensorCheck, make_checks
from .tracing.compiled import answered
from .tracing.copies import resized
from .tracing.errors import CaptureError, FastPathError, capture_error, first_line
from .tracing.model_state import without_own_hooks
from .tracing.names import constant_name, source_name
from .tracing.ownership import reachable_tensors
from .tracing.recorder import Recording, record
from .tracing.reliance import relied_on
from .tracing.results import Output, Shape, attribute_views, fill, result_template
from .tracing.retrace import from_dynamo
from .tracing.sizes import Dimension, is_stride, read_sizes, source_dimension
from .tracing.submodules import search, submodule_calls

__all__ = [
    "Capture",
    "CaptureError",
    "Checks",
    "Output",
    "Path",
    "Shape",
    "TensorCheck",
    "Weight",
    "capturable_submodules",
    "fill",
    "from_dynamo",
    "from_module",
]


@dataclass(frozen=True)
class Capture:
    """A model's graph ahead of time, with all that is needed to call it in the model's place.

    Attributes:
        module: the graph; the parameters and buffers are placeholders too.
        weights: fully qualified name of the parameter or buffer behind each such placeholder.
        aliases: other names of shared parameters, with the name used in `weights`.
        constants: placeholders that are tensors held by the model outside its parameters and buffers.
        arguments: where the value of each other tensor placeholder lies in a call.
        sizes: for each placeholder that is a size: the dimension, of which argument.
        output: the result with `Output`, `Path` and `Weight` leaves, see `fill`.
        checks: what a call must satisfy for the graph to be valid for it.
        training: the model's flag at capture.
        signature: of the model's `forward`.
        notes: for the report: what the graph has of the model beside parameters and buffers.
        attributes: path and name of each attribute of the model that forward read, so that the graph holds for its
            value; a module that it looked at has the name "".
    """

    module: fx.GraphModule
    weights: dict[str, str]
    aliases: dict[str, str]
    constants: dict[str, torch.Tensor]
    arguments: dict[str, Path]
    sizes: dict[str, Dimension]
    output: Any
    checks: Checks
    training: bool
    signature: inspect.Signature
    notes: tuple[str, ...] = ()
    attributes: frozenset[tuple[str, str]] = frozenset()

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by parameter, defaults filled in; raises `TypeError` as `forward` would."""
        return bind(self.signature, args, kwargs)

    def mismatch(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        weights: Callable[[str], torch.Tensor] | None = None,
    ) -> str | None:
        """Why the graph is not valid for a call: the argument, what was expected and what came; else None."""
        try:
            arguments = self.bind(args, kwargs)
        except TypeError as error:
            return f"the call does not fit the signature of forward: {error}"
        return self.checks.mismatch(arguments, weights)

    def inputs(self, model: nn.Module, arguments: Mapping[str, Any]) -> list[Any]:
        """What to call `module` with, in the order of its placeholders: a slow and plain reading.

        Args:
            model: the holder of parameters and buffers under the names of `weights`.
            arguments: the call's arguments, see `bind`.
        """
        values: list[Any] = []
        for node in self.module.graph.find_nodes(op="placeholder"):
            name = node.name
            if name in self.weights:
                values.append(_attribute(model, self.weights[name]))
            elif name in self.arguments:
                values.append(self.arguments[name].read(arguments))
            elif name in self.sizes:
                path, dim = self.sizes[name]
                values.append(path.read(arguments).shape[dim])
            else:
                values.append(self.constants[name])
        return values


def from_module(
    model: nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic: bool = True,
    recurrent: bool = True,
) -> Capture:
    """Capture a whole model ahead of time by running it once on an example call.

    The model comes out as it went in: weights, buffers, flags, attributes, random state and Dynamo's caches are
    unchanged. Gradients are recorded as the model sets them, so that one graph serves inference and training.

    Args:
        model: the module.
        args, kwargs: an example call: tensors and constants in tuples, lists, dicts or dataclasses.
        dynamic: let the most common leading size of the tensor arguments vary, where the model allows it.
        recurrent: take recurrent layers into the graph, as one operator each. A compiler would unroll its steps.

    Raises:
        CaptureError: with the line of the user's code where the trace stopped.

    >>> capture = from_module(nn.Sequential(nn.Linear(4, 2), nn.ReLU()), (torch.ones(3, 4),))
    >>> [node.name for node in capture.module.graph.nodes if node.op == "call_function"]
    ['linear', 'relu']
    >>> capture.mismatch((torch.ones(7, 5),), {})
    'dimension 1 of `input` must be 4, and its shape is [7, 5]'
    """
    kwargs = dict(kwargs or {})
    signature = signature_of(model)
    try:
        arguments = bind(signature, args, kwargs)
    except TypeError as error:
        raise capture_error(
            f"the example call does not fit {type(model).__name__}.forward{signature}",
            "Pass the arguments that forward takes.",
            cause=error,
        ) from error
    check_leaves(arguments)
    with without_own_hooks(model):
        batch = batch_size(arguments) if dynamic else None
        if replaces_functions():
            # A branch on a weight that the capture can decide itself leaves a simpler graph than both its sides.
            try:
                with own_branches():
                    return _capture_call(model, args, kwargs, signature, batch, recurrent)
            except FastPathError:
                raise
            except CaptureError:
                pass
        return _capture_call(model, args, kwargs, signature, batch, recurrent)


def _capture_call(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    signature: inspect.Signature,
    batch: int | None,
    recurrent: bool,
) -> Capture:
    failure: CaptureError | None = None
    first: CaptureError | None = None
    unlike = False
    for exact, gradients, size in attempts((args, kwargs), batch):
        if exact and not unlike:
            break
        call_args, call_kwargs = resized((args, kwargs), 1, 2) if size == 1 else (args, kwargs)
        size = 2 if size == 1 else size
        try:
            options = {"gradients": gradients, "exact": exact, "recurrent": recurrent}
            recording = _recorded(partial(record, model, call_args, call_kwargs, size, **options))
            capture = _capture(model, recording, signature)
            if (mismatch := capture.mismatch(args, kwargs)) is None:
                return (
                    capture if first is None or size is not None or batch is None else _fixed(capture, first)
                )
            unlike = True
            failure = capture_error(
                f"the graph does not hold for the example call itself: {mismatch}",
                "Pass a plain call: contiguous tensors, each once.",
            )
        except FastPathError:
            raise
        except CaptureError as error:
            # A model that cannot be traced at all says so again, and more plainly, with static sizes.
            failure = error
        first = first or failure
    assert failure is not None
    raise failure


def _recorded(run: Callable[[], Recording]) -> Recording:
    """A recording of a forward that is told that it is not compiled, or else that it is, see `tracing.compiled`."""
    with answered(compiled=False) as answer:
        try:
            return run()
        except FastPathError:
            raise
        except CaptureError as error:
            if not answer.may_differ:
                raise
            why = first_line(error)
    with answered(compiled=True):
        recording = run()
    by = ", ".join(answer.asked_by)
    told = f"{by} asks whether it is compiled, and was told so, since it does not trace otherwise: {why}"
    return replace(recording, notes=(*recording.notes, told))


def _fixed(capture: Capture, reason: CaptureError) -> Capture:
    """A capture of the example's sizes alone, with a note that says why."""
    told = f"every call must have the sizes of the example: {first_line(reason)}"
    return replace(capture, notes=(*capture.notes, told))


def capturable_submodules(
    model: nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic: bool = True,
    recurrent: bool = True,
) -> tuple[list[tuple[str, Capture, tuple[Any, ...], dict[str, Any]]], list[str]]:
    """Capture the largest submodules of a model that does not trace as a whole.

    Args:
        model, args, kwargs, dynamic, recurrent: as of `from_module`. The model runs once to see what its parts are
            called with.

    Returns:
        Path, capture and example call of each submodule, none inside another; and for each one that was skipped
        a line with its path and the reason.
    """
    calls = submodule_calls(model, args, kwargs or {})
    found, skipped = search(
        model, calls, lambda module, call: from_module(module, *call, dynamic=dynamic, recurrent=recurrent)
    )
    return [(path, capture, *call) for path, capture, call in found], skipped


def _capture(model: nn.Module, recording: Recording, signature: inspect.Signature) -> Capture:
    arguments = bind(signature, recording.variables["args"], recording.variables["kwargs"])
    tensors = {path: v for path, v in walk_arguments(arguments) if isinstance(v, torch.Tensor)}
    paths: dict[int, Path] = {}
    for path, value in tensors.items():
        paths.setdefault(id(value), path)
    names, aliases = _state_names(model)
    sizes = read_sizes(recording.module, recording.variables, paths)
    relied = relied_on(recording, tensors, names, sizes)
    capture = Capture(
        module=recording.module,
        weights={},
        aliases=aliases,
        constants={},
        arguments={},
        sizes={},
        output=None,
        checks=make_checks(arguments, sizes, relied),
        training=model.training,
        signature=signature,
        attributes=recording.attributes,
    )
    placeholders = recording.module.graph.find_nodes(op="placeholder")
    for node, value in zip(placeholders, recording.inputs, strict=True):
        if not isinstance(value, torch.Tensor):
            if not node.users and is_stride(getattr(node, "_dynamo_source", None)):
                recording.module.graph.erase_node(node)
                continue
            capture.sizes[node.name] = _dimension(node, recording, paths)
        elif id(value) in names:
            capture.weights[node.name] = node.meta["weight"] = names[id(value)]
        elif id(value) in paths:
            capture.arguments[node.name] = paths[id(value)]
            # Dynamo takes a parameter that is passed as an argument for a weight.
            node.meta.pop("weight", None)
        else:
            capture.constants[node.name] = value
            node.meta["weight"] = constant_name(source_name(node))
    object.__setattr__(capture, "notes", (*_notes(model, capture), *recording.notes))
    weights = dict(names)
    for copy, value in zip(recording.copies, recording.inputs, strict=True):
        if id(value) in names:
            weights[id(copy)] = names[id(value)]
    known = {*map(id, recording.outputs), *paths, *weights}
    views = attribute_views(recording.result, arguments, known)
    batched = recording.variables["batched"]
    size = paths[id(batched[0])].then("attr", "shape").then("item", 0) if batched else None
    follow = {path: size for path in recording.sizes if size is not None}
    output = result_template(recording.result, recording.outputs, paths | views, weights, follow)
    object.__setattr__(capture, "output", output)
    return capture


def _notes(model: nn.Module, capture: Capture) -> Iterator[str]:
    own = reachable_tensors(model) if capture.constants else set()
    placeholders = {node.name: node for node in capture.module.graph.find_nodes(op="placeholder")}
    shared = [placeholders[name].meta["weight"] for name, v in capture.constants.items() if id(v) not in own]
    if shared:
        yield (
            f"not part of the model, but of closures, globals or classes: {', '.join(shared)}; the result has copies, "
            "which later changes do not reach"
        )
    for fact in capture.checks.facts:
        if any(isinstance(path, Weight) for path in fact.paths):
            yield f"forward depends on `{fact}`, which is {fact.answer}"


def _dimension(node: fx.Node, recording: Recording, paths: Mapping[int, Path]) -> Dimension:
    dimension = source_dimension(getattr(node, "_dynamo_source", None), recording.variables, paths)
    if dimension is None:
        raise capture_error(
            f"the graph takes the number `{node.name}` from {source_name(node)}, which is no size of an argument",
            "Pass it as a tensor, or make it a constant.",
        )
    return dimension


def _state_names(model: nn.Module) -> tuple[dict[int, str], dict[str, str]]:
    names: dict[int, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]:
        first = names.setdefault(id(tensor), name)
        if first != name:
            aliases[name] = first
    return names, aliases


def _attribute(model: nn.Module, name: str) -> Any:
    value: Any = model
    for part in name.split("."):
        value = getattr(value, part)
    return value
