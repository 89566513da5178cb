"""How a captured model is called, as JSON and back: signature, arguments, conditions, result."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import fx, nn

from ..capture import Capture, Checks, Output, Path, Shape, TensorCheck, Weight
from ..optimized import weight
from ..tracing.arguments import walk
from ..tracing.facts import Fact, is_question
from ..tracing.results import VIEWS
from . import schema
from .classes import Classes, reference
from .decisions import decision_document, decision_of
from .expressions import check, is_symbol, source_of, tree_of
from .values import decode, encode, key_document, key_of

_KINDS = {kind.name: kind for kind in inspect._ParameterKind}


def call_document(capture: Capture, dropped: Collection[str] = ()) -> dict[str, Any]:
    """What `Call` needs to restore everything of a capture but its graph and weights.

    Args:
        capture: the capture.
        dropped: names of weights that were folded away, which nobody can change, so that no fact need be asked of them.

    Raises:
        TypeError: the graph depends on a value of a weight; or a default or constant argument, or a class of a
            container, cannot be found by another process.
    """
    checks = capture.checks
    return {
        "signature": [_parameter(parameter) for parameter in capture.signature.parameters.values()],
        "training": capture.training,
        "aliases": capture.aliases,
        "containers": [
            [path_document(path), reference(kind), [key_document(key) for key in keys]]
            for path, (kind, keys) in checks.containers.items()
        ],
        "tensors": [
            [path_document(path), encode(of.dtype), of.device_type, _sizes(of.sizes), _sizes(of.strides)]
            for path, of in checks.tensors.items()
        ],
        "constants": [[path_document(path), encode(value)] for path, value in checks.constants.items()],
        "symbols": [[name, path_document(path), dim] for name, (path, dim) in checks.symbols.items()],
        "guards": [tree_of(guard) for guard in checks.guards],
        "facts": [
            _fact(fact, _writer(checks))
            for fact in checks.facts
            if not any(isinstance(path, Weight) and path.name in dropped for path in fact.paths)
        ],
        "devices": checks.devices,
        "result": encode(capture.output, _writer(checks)),
    }


def path_document(path: Path) -> list[Any]:
    """A place in a call in JSON's own types."""
    return [path.parameter, [[kind, key_document(key)] for kind, key in path.steps]]


class Call:
    """The call that `call_document` wrote.

    Args:
        document: in JSON's own types.
        classes: those that it may name.

    Raises:
        Malformed: the document is none of `call_document`'s.
        ValueError: a class or function is not there, or may not be used; the message names it.
    """

    def __init__(self, document: Any, classes: Classes) -> None:
        keys = "signature training aliases containers tensors constants symbols guards facts devices result".split()
        record = schema.record(document, "the call", keys)
        self.classes = classes
        self.signature = self._signature(record["signature"])
        self.containers: dict[Path, tuple[type, tuple[Any, ...]]] = {}
        for row in schema.items(record["containers"], "a container"):
            place, name, held = schema.items(row, "a container", 3)
            kind = classes.container(name, "a container")
            found = tuple(key_of(key, "a container") for key in schema.items(held, "a container"))
            self._add(self.containers, self.path(place, "a container"), (kind, found))
        self.symbols = self._symbols(record["symbols"])
        self.tensors: dict[Path, TensorCheck] = {}
        for row in schema.items(record["tensors"], "an argument"):
            place, dtype, device, sizes, strides = schema.items(row, "an argument", 5)
            device = schema.identifier(device, "the device of an argument")
            made = TensorCheck(_dtype(dtype), device, self._shape(sizes), self._strides(strides))
            self._add(self.tensors, self.path(place, "an argument"), made)
        self.constants: dict[Path, Any] = {}
        for row in schema.items(record["constants"], "a constant"):
            place, value = schema.items(row, "a constant", 2)
            self._add(self.constants, self.path(place, "a constant"), decode(value, "a constant", classes))
        for name, (path, dim) in self.symbols.items():
            if path not in self.tensors or dim >= len(self.tensors[path].sizes):
                raise schema.expected("a size of an argument", f"{path}.shape[{dim}]", f"the size {name}")
        self.guards = [
            check(guard, "a condition", self.symbols)
            for guard in schema.items(record["guards"], "the conditions")
        ]
        self.facts = [self._fact(row) for row in schema.items(record["facts"], "the facts")]
        self.devices = schema.flag(record["devices"], "the devices")
        self.training = schema.flag(record["training"], "the training flag")
        self.aliases = _names(record["aliases"], "the other names of weights")
        self.result = decode(record["result"], "the result", classes, self._read)

    def capture(self) -> Capture:
        """A capture without graph, weights and arguments, for `dataclasses.replace` to fill in."""
        checks = Checks(
            tensors=self.tensors,
            containers=self.containers,
            constants=self.constants,
            symbols=self.symbols,
            guards=tuple(map(source_of, self.guards)),
            facts=tuple(self.facts),
            devices=self.devices,
        )
        return Capture(
            module=fx.GraphModule({}, fx.Graph()),
            weights={},
            aliases=self.aliases,
            constants={},
            arguments={},
            sizes={},
            output=self.result,
            checks=checks,
            training=self.training,
            signature=self.signature,
        )

    def check_result(self, outputs: int, source: nn.Module) -> None:
        """Raise `Malformed` where the result holds an output that the graph has not, or a weight that is not there.

        Args:
            outputs: how many the graph has.
            source: holds the weights.
        """
        leaves = [leaf for _, leaf in walk(self.result, Path("result"))]
        leaves += [entry for leaf in leaves if isinstance(leaf, Shape) for entry in leaf.entries]
        for leaf in [*leaves, *(path for fact in self.facts for path in fact.paths)]:
            if isinstance(leaf, Output) and leaf.index >= outputs:
                raise schema.expected(f"one of {outputs} outputs", leaf.index, "the result")
            if isinstance(leaf, Weight):
                try:
                    weight(source, leaf.name)
                except AttributeError as error:
                    raise schema.expected("a weight of the model", leaf.name, "the result") from error

    def path(self, document: Any, where: str) -> Path:
        """A place in the call: a parameter, and steps into containers that hold what is there.

        The generated call writes it as source, so nothing stands in it but names and keys that were looked at.

        Raises:
            Malformed: there is no such place.
        """
        parameter, steps = schema.items(document, where, 2)
        path = Path(schema.word(parameter, where, self.signature.parameters))
        for step in schema.items(steps, where):
            kind, key = schema.items(step, where, 2)
            key = key_of(key, where)
            container, keys = self.containers.get(path, (None, ()))
            by_item = container is not None and issubclass(container, dict | list | tuple)
            if kind != ("item" if by_item else "attr") or not any(_same(key, known) for known in keys):
                raise schema.expected(f"a place inside of {path}", step, where)
            path = path.then(kind, key if by_item else schema.identifier(key, where))
        return path

    def _read(self, kind: str, payload: Any, where: str) -> Any:
        if kind == "output":
            return Output(schema.integer(payload, where, 0))
        if kind == "number":
            return Output(schema.integer(payload, where, 0), item=True)
        if kind == "shape":
            entries = [decode(entry, where, None, self._read) for entry in schema.items(payload, where)]
            if not all(type(entry) in (int, Output, Path) for entry in entries):
                raise schema.expected("sizes", payload, where)
            return Shape(tuple(entries))
        if kind == "size of":
            place, dim = schema.items(payload, where, 2)
            path = self.path(place, where)
            if path not in self.tensors:
                raise schema.expected("a tensor among the arguments", str(path), where)
            dim = schema.integer(dim, where, 0, len(self.tensors[path].sizes) - 1)
            return path.then("attr", "shape").then("item", dim)
        if kind == "weight":
            return Weight(schema.text(payload, where))
        if kind == "path":
            place, view = schema.items(payload, where, 2)
            path = self.path(place, where)
            if path not in self.tensors:
                raise schema.expected("a tensor among the arguments", str(path), where)
            return path if view is None else path.then("attr", schema.word(view, where, VIEWS))
        raise schema.expected("a part of a result", {kind: payload}, where)

    def _signature(self, document: Any) -> inspect.Signature:
        parameters = []
        for row in schema.items(document, "the signature"):
            name, kind, *default = schema.items(row, "the signature")
            if len(default) > 1 or name == "self":
                raise schema.expected("a parameter of forward", row, "the signature")
            made = inspect.Parameter(
                schema.identifier(name, "the signature"), _KINDS[schema.word(kind, "the signature", _KINDS)]
            )
            if default:
                value = decode(default[0], "a default", self.classes)
                try:
                    made = made.replace(default=value)
                except ValueError as error:
                    raise schema.Malformed(f"the signature: {error}") from error
            parameters.append(made)
        try:
            return inspect.Signature(parameters)
        except ValueError as error:
            raise schema.Malformed(f"the signature: {error}") from error

    def _symbols(self, document: Any) -> dict[str, tuple[Path, int]]:
        found: dict[str, tuple[Path, int]] = {}
        for row in schema.items(document, "the sizes"):
            name, place, dim = schema.items(row, "the sizes", 3)
            if not is_symbol(schema.text(name, "the sizes")) or name in {*found, *self.signature.parameters}:
                raise schema.expected("a new name for a size, such as s0", name, "the sizes")
            found[name] = self.path(place, "the sizes"), schema.integer(dim, "the sizes", 0)
        if len({*found.values()}) != len(found):
            raise schema.expected("a size of its own for each name", list(found), "the sizes")
        return found

    def _size(self, document: Any) -> int | str | None:
        if document is None:
            return None
        tree = check(document, "a size", self.symbols)
        return schema.integer(tree, "a size", 0) if isinstance(tree, int) else source_of(tree)

    def _shape(self, document: Any) -> tuple[int | str | None, ...]:
        return tuple(self._size(size) for size in schema.items(document, "an argument"))

    def _strides(self, document: Any) -> tuple[int | str, ...] | None:
        if document is None:
            return None
        strides = tuple(stride for stride in self._shape(document) if stride is not None)
        if len(strides) != len(document):
            raise schema.expected("a stride for each dimension", document, "an argument")
        return strides

    def _fact(self, document: Any) -> Fact:
        """One answer that the graph relies on: of the questions that are known to do nothing but answer."""
        where = "a fact"
        asked, question, arguments, answer, keywords = schema.items(document, where, 5)
        paths = tuple(decode(path, where, None, self._read) for path in schema.items(asked, where))
        if not all(isinstance(path, Weight) or path in self.tensors for path in paths):
            raise schema.expected("tensors among the arguments and weights", asked, where)
        if question == "decision" and all(isinstance(path, Weight) for path in paths):
            (decision,) = schema.items(arguments, where, 1)
            answer = decode(answer, where)
            return Fact(paths, question, (decision_of(decision, len(paths)),), answer)
        if not is_question(schema.text(question, where), len(paths)):
            raise schema.expected("a question that forward may ask of tensors", question, where)
        given = tuple(decode(value, where, self.classes) for value in schema.items(arguments, where))
        if not all(map(_asks_nothing, given)):
            raise schema.expected("classes that answer for themselves", arguments, where)
        named = tuple(
            (schema.identifier(name, where), decode(value, where, self.classes))
            for name, value in (schema.items(pair, where, 2) for pair in schema.items(keywords, where))
        )
        return Fact(paths, question, given, decode(answer, where, self.classes), named)

    def _add(self, table: dict[Path, Any], path: Path, value: Any) -> None:
        if path in table:
            raise schema.expected("each argument once", str(path), "the call")
        table[path] = value


def _asks_nothing(value: Any) -> bool:
    """Whether `isinstance` runs no code that a class brings for it, where the value is a class or several."""
    if isinstance(value, tuple):
        return all(map(_asks_nothing, value))
    kind = type(value)
    return not isinstance(value, type) or kind in (type, abc.ABCMeta) or kind.__module__.startswith("torch.")


def _parameter(parameter: inspect.Parameter) -> list[Any]:
    named = [parameter.name, parameter.kind.name]
    return named if parameter.default is parameter.empty else [*named, encode(parameter.default)]


def _sizes(sizes: Sequence[int | str | None] | None) -> Any:
    return None if sizes is None else [None if size is None else tree_of(size) for size in sizes]


def _fact(fact: Fact, write: Any) -> list[Any]:
    paths = [encode(path, write) for path in fact.paths]
    if fact.question == "decision":
        return [paths, fact.question, [decision_document(fact.arguments[0])], encode(fact.answer), []]
    if not is_question(fact.question, len(fact.paths)):
        raise TypeError(
            f"cannot save a model whose forward depends on `{fact}`, which a file cannot ask; make it a constant of "
            "the model, such as an attribute that is a Python number"
        )
    return [
        paths,
        fact.question,
        [encode(value) for value in fact.arguments],
        encode(fact.answer),
        [[name, encode(value)] for name, value in fact.keywords],
    ]


def _writer(checks: Checks) -> Any:
    def write(value: Any) -> tuple[str, Any] | None:
        if isinstance(value, Output):
            return "number" if value.item else "output", value.index
        if isinstance(value, Shape):
            return "shape", [encode(entry, write) for entry in value.entries]
        if isinstance(value, Weight):
            return "weight", value.name
        if isinstance(value, Path):
            if value in checks.tensors:
                return "path", [path_document(value), None]
            if value.steps[-2:-1] == (("attr", "shape"),):
                return "size of", [path_document(Path(value.parameter, value.steps[:-2])), value.steps[-1][1]]
            # A view of an argument, such as x.mT.
            return "path", [path_document(Path(value.parameter, value.steps[:-1])), value.steps[-1][1]]
        return None

    return write


def _dtype(document: Any) -> torch.dtype:
    dtype = decode(document, "the dtype of an argument")
    if not isinstance(dtype, torch.dtype):
        raise schema.expected("a dtype", document, "an argument")
    return dtype


def _names(document: Any, where: str) -> dict[str, str]:
    if type(document) is not dict:
        raise schema.expected("an object of names", document, where)
    return {name: schema.text(other, where) for name, other in document.items()}


def _same(key: Any, known: Any) -> bool:
    return type(key) is type(known) and bool(key == known)
