"""What a recorded graph relies on, given what its forward asked and branched on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch._dynamo.source import CallMethodItemSource

from .arguments import Path, Weight
from .errors import capture_error
from .facts import DEVICE, GRADIENT, KINDS, LAYOUT, Fact, Relied
from .mutation import written_placeholders
from .questions import MEMORY, Question
from .recorder import Recording
from .sizes import Sizes, fake_strides, is_stride


def relied_on(
    recording: Recording, tensors: Mapping[Path, torch.Tensor], weights: Mapping[int, str], sizes: Sizes
) -> Relied:
    """All that a recorded graph relies on beside the values, dtypes and sizes of its arguments.

    Args:
        recording: the graph and the run.
        tensors: the tensors of the recorded call by path.
        weights: names of the model's tensors by `id`.
        sizes: the symbolic sizes of the graph.

    Raises:
        CaptureError: it relies on something that no later call can be asked.
    """
    places: dict[int, Path | Weight] = {key: Weight(name) for key, name in weights.items()}
    for path, tensor in reversed(list(tensors.items())):
        places[id(tensor)] = path
    # What does not run with gradients was recorded as it runs without, and says nothing of calls with them.
    facts = [] if recording.gradients else [Fact((), "is_grad_enabled", (), False)]
    layouts: set[Path] = set()
    for question in recording.questions.asked:
        asked = [places.get(id(_read(source, recording.variables))) for source in question.sources]
        if not question.sources:
            facts += _of_the_process(question, recording.gradients)
        elif question.name == "stride" and isinstance(asked[0], Path):
            layouts.add(asked[0])
        elif question.name in MEMORY:
            paths = list(tensors)
            facts += [Fact(tuple(paths[start:]), "apart", (), True) for start in range(len(paths) - 1)]
        elif None not in asked and question.name not in DEVICE:
            answer = _answer(question, _read(question.sources[0], recording.variables))
            facts.append(_fact(tuple(place for place in asked if place is not None), question, answer))
        elif question.name in LAYOUT:
            layouts.update(tensors)
        else:
            facts += _of_what_forward_computed(question, tensors, recording.gradients)
    numbers, strided = _numbers(sizes, recording.variables, places)
    facts += [
        *numbers,
        *_identities(tensors),
        *_apart(recording, places, tensors),
        *_decisions(recording, weights),
    ]
    devices = any(question.name in DEVICE for question in recording.questions.asked)
    return Relied(
        tuple(dict.fromkeys(facts)), _strides(recording, places, layouts | strided, tensors, sizes), devices
    )


def _answer(question: Question, tensor: torch.Tensor) -> Any:
    # Dynamo may answer with all strides of a weight in a form of its own.
    return tensor.stride() if question.name == "stride" else question.answer


def _of_the_process(question: Question, gradients: bool) -> list[Fact]:
    fact = _fact((), question, question.answer)
    # Where the answer is another outside of forward, a line of forward itself has set it.
    outside = gradients if question.name == "is_grad_enabled" else fact.now()
    return [fact] if question.answer == outside else []


def _of_what_forward_computed(
    question: Question, tensors: Mapping[Path, torch.Tensor], gradients: bool
) -> list[Fact]:
    """A tensor that forward computed has what it was asked for from the arguments, so that they are held to theirs."""
    if question.name in GRADIENT:
        wanting = {path: t for path, t in tensors.items() if t.is_floating_point() or t.is_complex()}
        return [
            Fact((), "is_grad_enabled", (), gradients),
            *(Fact((path,), "requires_grad", (), t.requires_grad) for path, t in wanting.items()),
        ]
    if question.name in KINDS:
        return [
            _fact((path,), question, _fact((path,), question, None).now(t)) for path, t in tensors.items()
        ]
    return []


def _fact(paths: tuple[Path | Weight, ...], question: Question, answer: Any) -> Fact:
    return Fact(paths, question.name, question.arguments, answer, question.keywords)


def _numbers(
    sizes: Sizes, call: Mapping[str, Any], places: Mapping[int, Path | Weight]
) -> tuple[list[Fact], set[Path]]:
    """Numbers that the graph assumes to be what they were: values of tensors, and strides of arguments."""
    facts: list[Fact] = []
    strided: set[Path] = set()
    for source in sizes.values:
        tensor = _read(getattr(getattr(source, "base", None), "name", None), call)
        place = places.get(id(tensor))
        if isinstance(source, CallMethodItemSource) and place is not None:
            facts.append(Fact((place,), "item", (), tensor.item()))
        elif is_stride(source) and isinstance(place, Path):
            strided.add(place)
        else:
            raise capture_error(
                f"the graph holds for one value of {source.name} alone, which is no argument",
                "Pass it as an argument, or make it a constant.",
            )
    return facts, strided


def _read(source: str | None, call: Mapping[str, Any]) -> Any:
    """What lies at a source, which is the expression that Dynamo's own guards evaluate."""
    if source is None or not source.startswith("L["):
        return None
    try:
        return eval(source, {"L": dict(call)})
    except Exception:
        return None


def _identities(tensors: Mapping[Path, torch.Tensor]) -> Iterator[Fact]:
    """Which arguments were one tensor in a recording on exact copies: its graph takes them for one."""
    first: dict[int, Path] = {}
    for path, tensor in tensors.items():
        if (known := first.setdefault(id(tensor), path)) is not path:
            yield Fact((known, path), "is", (), True)


def _apart(
    recording: Recording, places: Mapping[int, Path | Weight], tensors: Mapping[Path, torch.Tensor]
) -> Iterator[Fact]:
    """The arguments that forward writes to share no memory with others, or the order of reading would matter."""
    written = written_placeholders(recording.module.graph)
    placeholders = recording.module.graph.find_nodes(op="placeholder")
    for node, value in zip(placeholders, recording.inputs, strict=True):
        path = places.get(id(value))
        others = tuple(other for other, tensor in tensors.items() if tensor is not value)
        if node in written and isinstance(path, Path) and others:
            yield Fact((path, *others), "apart", (), True)


def _decisions(recording: Recording, names: Mapping[int, str]) -> Iterator[Fact]:
    """The branches that forward took on the model's own tensors.

    Raises:
        CaptureError: forward writes to one of these, so that the next call may branch another way.
    """
    placeholders = recording.module.graph.find_nodes(op="placeholder")
    written = written_placeholders(recording.module.graph)
    changed = {
        id(value): node.meta.get("weight", node.name)
        for node, value in zip(placeholders, recording.inputs, strict=True)
        if node in written
    }
    for decision, answer in recording.decisions.taken:
        paths: list[Path | Weight] = []
        for index, tensor in enumerate(decision.tensors):
            if id(tensor) in changed:
                raise capture_error(
                    f"forward branches on `{changed[id(tensor)]}`, to which it writes",
                    "Branch on a number of Python, or let torch.where choose.",
                    decision.place,
                )
            if id(tensor) in names:
                paths.append(Weight(names[id(tensor)]))
                decision.forget(index)
        yield Fact(tuple(paths), "decision", (decision,), answer)


def _strides(
    recording: Recording,
    places: Mapping[int, Path | Weight],
    wanted: Collection[Path],
    tensors: Mapping[Path, torch.Tensor],
    sizes: Sizes,
) -> dict[Path, tuple[int | str, ...]]:
    """The strides that the arguments must have of which forward asked for the layout."""
    strides: dict[Path, tuple[int | str, ...]] = {path: tensors[path].stride() for path in wanted}
    placeholders = recording.module.graph.find_nodes(op="placeholder")
    for node, value in zip(placeholders, recording.inputs, strict=True):
        if isinstance(path := places.get(id(value)), Path) and path in strides:
            strides[path] = fake_strides(node.meta["val"], sizes.symbols)
    return strides
