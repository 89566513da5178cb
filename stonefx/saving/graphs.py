"""A rewritten graph as data: inputs, calls of listed operators in their order, and what comes out; and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import fx

from ..optimized import Program
from . import schema
from .operators import check_call, name_of, operator
from .values import decode, encode


def calls_of(module: fx.GraphModule, given: Mapping[fx.Node, int]) -> dict[str, Any]:
    """The calls of a graph, in its order, and its results.

    A value is named by its number: the inputs come first, then each call has the next one.

    Args:
        module: the graph.
        given: the number of each placeholder and tensor attribute.

    Raises:
        TypeError: a node has no notation; the message names it and says what to do.
    """
    numbers = dict(given)
    count = 1 + max(numbers.values(), default=-1)

    def write(value: Any) -> tuple[str, int] | None:
        return ("node", numbers[value]) if isinstance(value, fx.Node) else None

    calls = []
    for node in module.graph.nodes:
        if node in numbers or node.op in ("placeholder", "output"):
            continue
        try:
            if node.op != "call_function" or (name := name_of(node.target)) is None:
                raise TypeError("it is no operator")
            check_call(node.target, node.args, node.kwargs, name)
            args = [encode(_plain(value), write) for value in node.args]
            kwargs = [[key, encode(_plain(value), write)] for key, value in node.kwargs.items()]
            calls.append([name, args, kwargs])
        except (TypeError, schema.Malformed) as error:
            raise TypeError(
                f"cannot save the call of {node.target} in the graph of this model: {error}. Keep the original model "
                "and its state_dict, and call stonefx.optimize on it after loading"
            ) from error
        numbers[node] = count
        count += 1
    outputs = module.graph.output_node().args[0]
    results = outputs if isinstance(outputs, list | tuple) else [outputs]
    return {"calls": calls, "results": [encode(_plain(value), write) for value in results]}


def graph_of(
    inputs: list[str], document: Any, where: str, trusted: Collection[str]
) -> tuple[fx.GraphModule, list[fx.Node]]:
    """The graph that `calls_of` wrote, and its placeholders.

    Every value is read behind the call that makes it, since a number names an earlier one; names of values are made
    here and not read.

    Args:
        inputs: names for the placeholders.
        document: see `calls_of`.
        where: what it is, for errors.
        trusted: namespaces of operators besides those of torch and stonefx.

    Raises:
        Malformed: the document is none of `calls_of`'s.
        ValueError: an operator is not there or not trusted; the message names it.
    """
    record = schema.record(document, where, ("calls", "results"))
    graph = fx.Graph()
    placeholders = [graph.placeholder(name) for name in inputs]
    nodes = list(placeholders)

    def read(kind: str, payload: Any, where: str) -> fx.Node:
        if kind != "node":
            raise schema.expected("a constant or a value of the graph", {kind: payload}, where)
        return nodes[schema.integer(payload, where, 0, len(nodes) - 1)]

    for position, call in enumerate(schema.items(record["calls"], where)):
        at = f"{where}, call {position}"
        name, args, kwargs = schema.items(call, at, 3)
        target = operator(name, at, trusted)
        positional = tuple(decode(value, at, None, read) for value in schema.items(args, at))
        named = {}
        for pair in schema.items(kwargs, at):
            key, value = schema.items(pair, at, 2)
            named[schema.text(key, at)] = decode(value, at, None, read)
        check_call(target, positional, named, at)
        nodes.append(graph.call_function(target, positional, named))
    results = [decode(value, where, None, read) for value in schema.items(record["results"], where)]
    if not all(value is None or type(value) in (int, float, bool, fx.Node) for value in results):
        raise schema.expected("values of the graph as its results", record["results"], where)
    graph.output(tuple(results))
    return fx.GraphModule({}, graph), placeholders


def _plain(value: Any) -> Any:
    """The lists of a graph, which cannot be changed, as plain ones."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return tuple(_plain(item) for item in value) if type(value) is tuple else value


def input_nodes(program: Program) -> tuple[list[fx.Node], dict[fx.Node, int]]:
    """What a saved graph takes, in order: placeholders, then tensors that the graph holds itself.

    Returns:
        The first node of each input, and for every node that stands for one the number of the input.
    """
    graph = program.module.graph
    nodes = list(graph.find_nodes(op="placeholder"))
    numbers = {node: number for number, node in enumerate(nodes)}
    first: dict[Any, int] = {}
    for node in graph.find_nodes(op="get_attr"):
        if node.target in program.names:
            if node.target not in first:
                first[node.target] = len(nodes)
                nodes.append(node)
            numbers[node] = first[node.target]
    return nodes, numbers
