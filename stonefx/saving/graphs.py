"""A rewritten graph as data: calls of listed operators in their order, and what comes out; and back."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import fx

from ..capture import CaptureError, from_dynamo
from ..optimized import Program
from . import schema
from .operators import check_call, is_higher_order, name_of, operator
from .values import decode, encode

# Of a body that is in the graph language, and not Dynamo's own.
_READY = "stonefx body"
_MOST_INPUTS = 10**6


def input_names(program: Program) -> list[str]:
    """What the saved graphs of a program take, in order: placeholders, then tensors that the graphs hold themselves."""
    placeholders = [node.name for node in program.module.graph.find_nodes(op="placeholder")]
    attributes = [
        str(node.target)
        for module in program.graphs
        for node in module.graph.find_nodes(op="get_attr")
        if node.target in program.names
    ]
    return [*placeholders, *dict.fromkeys(attributes)]


def graph_document(module: fx.GraphModule, names: Sequence[str]) -> dict[str, Any]:
    """The calls of a graph, in its order, and its results.

    A value is named by its number: the inputs come first, then each call has the next one. The bodies of a
    higher-order operator, such as a checkpoint, are graphs among its arguments.

    Args:
        module: the graph.
        names: the inputs: placeholders by name, and tensors that the graph holds itself by target.

    Raises:
        TypeError: a node has no notation; the message names it and says what to do.
    """
    number = {name: position for position, name in enumerate(names)}
    numbers = {
        node: number[key]
        for node in module.graph.nodes
        if node.op in ("placeholder", "get_attr") and (key := _input_name(node)) in number
    }

    def write(value: Any) -> tuple[str, Any] | None:
        if not isinstance(value, fx.Node):
            return None
        if value in numbers:
            return "node", numbers[value]
        body = getattr(module, str(value.target), None) if value.op == "get_attr" else None
        if not isinstance(body, fx.GraphModule):
            raise TypeError(f"it takes {value.name}, which is no value of the graph")
        return "body", _body_document(body)

    calls: list[Any] = []
    for node in module.graph.nodes:
        if node in numbers or node.op in ("placeholder", "output", "get_attr"):
            continue
        try:
            if node.op != "call_function" or (name := name_of(node.target)) is None:
                raise TypeError("it is no operator")
            # Operators of another library are for who loads the file to name.
            operator(name, name, {name.partition(".")[0]} - {"aten", "stone"})
            check_call(node.target, node.args, node.kwargs, name)
            args = [encode(_plain(value), write) for value in node.args]
            kwargs = [[key, encode(_plain(value), write)] for key, value in node.kwargs.items()]
        except (TypeError, schema.Malformed, CaptureError) as error:
            raise TypeError(
                f"cannot save the call of {node.target} in the graph of this model: {error}. Keep the original model "
                "and its state_dict, and call stonefx.optimize on it after loading"
            ) from error
        numbers[node] = len(names) + len(calls)
        calls.append([name, args, kwargs])
    outputs = module.graph.output_node().args[0]
    results = outputs if isinstance(outputs, list | tuple) else [outputs]
    return {
        "inputs": len(names),
        "calls": calls,
        "results": [encode(_plain(value), write) for value in results],
    }


def graph_of(document: Any, where: str, trusted: Collection[str] = (), depth: int = 0) -> fx.GraphModule:
    """The graph that `graph_document` wrote, with placeholders `input_0`, `input_1` and so on.

    Every value is read behind the call that makes it, since a number names an earlier one; names of values are made
    here and not read.

    Args:
        document: see `graph_document`.
        where: what it is, for errors.
        trusted: namespaces of operators besides those of torch and stonefx.
        depth: how many bodies it stands in.

    Raises:
        Malformed: the document is none of `graph_document`'s.
        ValueError: an operator is not there or not trusted; the message names it.
    """
    depth = schema.below(depth, where)
    record = schema.record(document, where, ("inputs", "calls", "results"))
    graph = fx.Graph()
    bodies: dict[str, fx.GraphModule] = {}
    count = schema.integer(record["inputs"], where, 0, _MOST_INPUTS)
    nodes = [graph.placeholder(f"input_{number}") for number in range(count)]

    def read(kind: str, payload: Any, where: str) -> fx.Node:
        if kind != "node":
            raise schema.expected("a constant or a value of the graph", {kind: payload}, where)
        return nodes[schema.integer(payload, where, 0, len(nodes) - 1)]

    def read_body(kind: str, payload: Any, where: str) -> fx.Node:
        if kind != "body":
            return read(kind, payload, where)
        name = f"body_{len(bodies)}"
        bodies[name] = graph_of(payload, where, trusted, depth)
        bodies[name].meta[_READY] = True
        return graph.get_attr(name)

    for position, call in enumerate(schema.items(record["calls"], where)):
        at = f"{where}, call {position}"
        name, args, kwargs = schema.items(call, at, 3)
        target = operator(name, at, trusted)
        reader = read_body if is_higher_order(target) else read
        positional = tuple(decode(value, at, None, reader) for value in schema.items(args, at))
        named = {}
        for pair in schema.items(kwargs, at):
            key, value = schema.items(pair, at, 2)
            named[schema.identifier(key, at)] = decode(value, at, None, read)
        check_call(target, positional, named, at)
        nodes.append(graph.call_function(target, positional, named))
    results = [decode(value, where, None, read) for value in schema.items(record["results"], where)]
    if not all(_is_result(value, depth > 1) for value in results):
        raise schema.expected("values of the graph as its results", record["results"], where)
    graph.output(tuple(results))
    return fx.GraphModule(bodies, graph)


def _is_result(value: Any, nested: bool) -> bool:
    if nested and isinstance(value, list | tuple):
        return all(_is_result(item, nested) for item in value)
    return value is None or type(value) in (int, float, bool, fx.Node)


def _body_document(body: fx.GraphModule) -> dict[str, Any]:
    """The body of a higher-order operator, which Dynamo wrote, in the graph language."""
    module = body if _READY in body.meta else from_dynamo(body)
    return graph_document(module, [node.name for node in module.graph.find_nodes(op="placeholder")])


def _input_name(node: fx.Node) -> str:
    return node.name if node.op == "placeholder" else str(node.target)


def _plain(value: Any) -> Any:
    """The lists of a graph, which cannot be changed, as plain ones."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return tuple(_plain(item) for item in value) if type(value) is tuple else value
