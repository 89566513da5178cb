"""The inputs of a saved graph: weights, arguments and sizes, with what an inner compiler must know of each."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv
from torch.utils._sympy.printers import PythonPrinter

from ..capture import Path
from ..optimized import Program, weight
from ..passes.graph.shapes import hint
from ..tracing.state import restored_state
from . import schema
from .calls import Call, path_document
from .expressions import check, renamed, tree_of, value_of
from .graphs import input_names

# Sizes that stand for one that no example is known of.
_TRIED = (2, 4, 8, 16, 3, 5, 6, 7, 9, 10, 12, 24, 32, 64, 128, 256, 1, 0)


@dataclass
class Inputs:
    """The roles of a graph's placeholders, by name."""

    weights: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, Path] = field(default_factory=dict)
    sizes: dict[str, tuple[Path, int]] = field(default_factory=dict)
    rows: set[str] = field(default_factory=set)
    folds: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)


def inputs_document(program: Program) -> dict[str, Any]:
    """What each input of a saved graph is, in the order of `input_names`, and an example of every symbolic size."""
    capture = program.capture
    known = _known_sizes(program)
    # The graph's own symbols, which may have other names than those of the call.
    symbols = {str(size.node.expr): name for name, size in known.items()}
    rows: list[dict[str, Any]] = []
    fakes = {node.name: node.meta.get("val") for node in program.module.graph.find_nodes(op="placeholder")}
    for name in input_names(program):
        if name in program.names:
            rows.append({"weight": program.names[name]})
        elif name in program.followed.operands:
            rows.append({"fold": program.followed.operands.index(name)})
        elif name in capture.sizes:
            path, dim = capture.sizes[name]
            rows.append({"size": [path_document(path), dim]})
        else:
            fake = fakes[name]
            rows.append(
                {
                    "argument": path_document(capture.arguments[name]),
                    "rows": name in program.rows,
                    "shape": [_tree(size, symbols) for size in fake.shape],
                    "stride": [_tree(stride, symbols) for stride in fake.stride()],
                }
            )
    return {"inputs": rows, "hints": _hints(program, known)}


def read_inputs(
    document: Any, hints: Any, call: Call, source: nn.Module, folds: fx.GraphModule, read: Sequence[str]
) -> tuple[Inputs, FakeTensorMode]:
    """The inputs that `inputs_document` wrote, with a fake value for each.

    Args:
        document, hints: see `inputs_document`.
        call: the call of the graph.
        source: holds the weights.
        folds: computes some of the inputs from weights.
        read: the names of these weights.

    Raises:
        Malformed: the document is none of `inputs_document`'s.
    """
    env = ShapeEnv()
    mode = FakeTensorMode(allow_fallback_kernels=False, shape_env=env)
    symbols = _symbols(env, hints, call)
    result = Inputs()
    folded = _folded(folds, read, source, mode)
    places: dict[int, str] = {}
    for number, row in enumerate(schema.items(document, "the inputs")):
        name = f"input_{number}"
        kind = next(iter(row)) if type(row) is dict and row else None
        if kind == "weight":
            path = schema.text(schema.record(row, "an input", ["weight"])["weight"], "an input")
            try:
                value = weight(source, path)
            except AttributeError as error:
                raise schema.expected("a weight of the model", path, "an input") from error
            result.weights[name] = path
            result.values[name] = mode.from_tensor(value.detach(), static_shapes=True)
        elif kind == "fold":
            position = schema.integer(
                schema.record(row, "an input", ["fold"])["fold"], "an input", 0, len(folded) - 1
            )
            if places.setdefault(position, name) != name:
                raise schema.expected("each folded weight once", row, "an input")
            result.values[name] = folded[position]
        elif kind == "size":
            place, dim = schema.items(schema.record(row, "an input", ["size"])["size"], "an input", 2)
            argument = call.path(place, "an input")
            checked = call.tensors.get(argument)
            if checked is None or schema.integer(dim, "an input", 0) >= len(checked.sizes):
                raise schema.expected("a size of an argument", row, "an input")
            result.sizes[name] = argument, dim
            result.values[name] = _size_value(checked.sizes[dim], symbols)
        else:
            record = schema.record(row, "an input", ["argument", "rows", "shape", "stride"])
            argument = call.path(record["argument"], "an input")
            if argument not in call.tensors or argument in result.arguments.values():
                raise schema.expected("a tensor among the arguments, once", str(argument), "an input")
            result.arguments[name] = argument
            if schema.flag(record["rows"], "an input"):
                result.rows.add(name)
            result.values[name] = _fake(record, call.tensors[argument], symbols, mode)
    if len(places) != len(folded):
        raise schema.expected(f"{len(folded)} folded weights", len(places), "the inputs")
    result.folds = [places[position] for position in range(len(folded))]
    return result, mode


def _folded(
    folds: fx.GraphModule, read: Sequence[str], source: nn.Module, mode: FakeTensorMode
) -> list[torch.Tensor]:
    """Fake values of what a graph of folds computes."""
    placeholders = folds.graph.find_nodes(op="placeholder")
    if len(placeholders) != len(read):
        raise schema.expected(f"{len(placeholders)} weights", list(read), "the folded weights")
    values = Inputs()
    for node, name in zip(placeholders, read, strict=True):
        try:
            values.values[node.name] = mode.from_tensor(weight(source, name).detach(), static_shapes=True)
        except AttributeError as error:
            raise schema.expected("a weight of the model", name, "the folded weights") from error
        node.meta = {"val": values.values[node.name], "weight": name}
    propagate(folds, values, mode, set())
    results: Any = folds.graph.output_node().args[0]
    found = [node.meta["val"] if isinstance(node, fx.Node) else node for node in results]
    if not all(isinstance(value, torch.Tensor) for value in found):
        raise schema.expected("tensors", [type(value).__name__ for value in found], "the folded weights")
    return found


def propagate(module: fx.GraphModule, inputs: Inputs, mode: FakeTensorMode, devices: set[str]) -> None:
    """Give every node of a graph its fake value, which an inner compiler reads.

    Raises:
        Malformed: an operator refuses what it is given.
    """
    values = [inputs.values[node.name] for node in module.graph.find_nodes(op="placeholder")]
    try:
        with restored_state(devices | {"cpu"}), mode, enable_python_dispatcher(), torch.enable_grad():
            _Propagate(module).run(*values)
    except Exception as error:
        raise schema.Malformed(f"the graph: {type(error).__name__}: {error}") from error


class _Propagate(fx.Interpreter):
    def run_node(self, node: fx.Node) -> Any:
        value = super().run_node(node)
        node.meta["val"] = value
        return value


def _symbols(env: ShapeEnv, hints: Any, call: Call) -> dict[str, torch.SymInt]:
    """A symbolic size for each name, about which the conditions of the call are known."""
    known = schema.record(hints, "the example sizes", call.symbols)
    made: dict[str, torch.SymInt] = {}
    for name in call.symbols:
        example = schema.integer(known[name], "an example size", 0, 2**40)
        source = ConstantSource(f"size_{name}")
        symbol = env.create_symbol(
            example, source, dynamic_dim=DimDynamic.DYNAMIC, do_not_specialize_zero_one=True
        )
        made[name] = env.create_symintnode(symbol, hint=example, source=source)  # type: ignore[assignment]
    for guard in call.guards:
        if not _value(guard, made):
            raise schema.Malformed("the example sizes: they break a condition of the graph")
    return made


def _fake(
    record: Mapping[str, Any], checked: Any, symbols: Mapping[str, Any], mode: FakeTensorMode
) -> torch.Tensor:
    rank = len(checked.sizes)
    shape, strides = (
        [
            _value(check(tree, "an input", symbols), symbols)
            for tree in schema.items(record[key], "an input", rank)
        ]
        for key in ("shape", "stride")
    )
    try:
        with mode:
            return torch.empty_strided(shape, strides, dtype=checked.dtype, device=checked.device_type)
    except Exception as error:
        raise schema.expected("the shape and strides of a tensor", dict(record), "an input") from error


def _size_value(size: int | str | None, symbols: Mapping[str, Any]) -> Any:
    return _value(tree_of(size), symbols) if size is not None else 2


def _value(tree: Any, symbols: Mapping[str, Any]) -> Any:
    try:
        return value_of(tree, symbols)
    except Exception as error:
        raise schema.Malformed(f"a size: {type(error).__name__}: {error}") from error


def _tree(size: Any, symbols: Mapping[str, str]) -> Any:
    """A size of a fake tensor as a tree over the symbols of the call, else as its example."""
    if isinstance(size, torch.SymInt):
        formula = size.node.expr
        if {str(symbol) for symbol in formula.free_symbols} <= symbols.keys():
            with contextlib.suppress(TypeError):
                return renamed(tree_of(PythonPrinter().doprint(formula)), symbols)
        return hint(size, 2)
    return size


def _known_sizes(program: Program) -> dict[str, torch.SymInt]:
    """The graph's own value of each symbolic size of the call that one of its inputs has."""
    capture = program.capture
    found: dict[str, torch.SymInt] = {}
    for node in program.module.graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        for name, (path, dim) in capture.checks.symbols.items():
            if capture.arguments.get(node.name) == path:
                size = value.shape[dim]
            elif capture.sizes.get(node.name) == (path, dim):
                size = value
            else:
                continue
            if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol:
                found[name] = size
    return found


def _hints(program: Program, known: Mapping[str, torch.SymInt]) -> dict[str, int]:
    guards = [tree_of(guard) for guard in program.capture.checks.guards]
    found = {name: hint(size, 2) for name, size in known.items()}
    for name in program.capture.checks.symbols:
        if name not in found:
            # Nothing reads this argument; any size will do that the conditions on it alone allow.
            found[name] = next((size for size in _TRIED if _holds(guards, {name: size})), 2)
    return found


def _holds(guards: list[Any], sizes: Mapping[str, int]) -> bool:
    for guard in guards:
        with contextlib.suppress(KeyError):
            if not value_of(guard, sizes):
                return False
    return True
