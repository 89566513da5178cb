"""Branches of a forward on the model's own tensors, as graphs that are computed again at the call."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from ..capture import CaptureError, from_dynamo
from ..tracing.decisions import Decision
from . import schema
from .graphs import graph_document, graph_of

# What makes a value to branch on of so many results of a graph; tracing cannot see values, so it stays outside.
_LAST: dict[str, tuple[Any, int]] = {
    "bool": (bool, 1),
    "is_nonzero": (torch.is_nonzero, 1),
    "equal": (torch.equal, 2),
    "allclose": (torch.allclose, 2),
    "value": (None, 1),
}
_SAVED = "stonefx document"


def decision_document(decision: Decision) -> dict[str, Any]:
    """A decision as data.

    Raises:
        TypeError: it reads a tensor that is no weight of the model, or has no notation.
    """
    if any(tensor is not None for tensor in decision.tensors):
        raise TypeError(
            f"cannot save the branch at {decision.place}: it reads a tensor that is neither a parameter nor a buffer; "
            "make it a buffer of the model"
        )
    if _SAVED in decision.module.meta:
        document: dict[str, Any] = decision.module.meta[_SAVED]
        return document
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    graph.graph_copy(decision.module.graph, copies)
    (result,) = decision.module.graph.output_node().all_input_nodes
    last = next((name for name, (function, _) in _LAST.items() if result.target is function), "value")
    operands = [result] if last == "value" else list(result.args)
    graph.output(tuple(copies[node] for node in operands if isinstance(node, fx.Node)))
    if last != "value":
        graph.erase_node(copies[result])
    try:
        module = from_dynamo(fx.GraphModule({}, graph))
        body = graph_document(module, [node.name for node in module.graph.find_nodes(op="placeholder")])
    except (CaptureError, TypeError) as error:
        raise TypeError(f"cannot save the branch at {decision.place}: {error}") from error
    options = [] if last == "value" else [[name, value] for name, value in result.kwargs.items()]
    return {"graph": body, "last": last, "options": options, "place": decision.place}


def decision_of(document: Any, weights: int) -> Decision:
    """The decision that `decision_document` wrote.

    Args:
        document: in JSON's own types.
        weights: how many it reads.

    Raises:
        Malformed: the document is none of `decision_document`'s.
    """
    record = schema.record(document, "a branch", ("graph", "last", "options", "place"))
    module = graph_of(record["graph"], "a branch")
    last = schema.word(record["last"], "a branch", _LAST)
    options = {}
    for pair in schema.items(record["options"], "a branch"):
        name, option = schema.items(pair, "a branch", 2)
        if type(option) not in (int, float, bool):
            raise schema.expected("a number", option, "a branch")
        options[schema.identifier(name, "a branch")] = option
    graph, output = module.graph, module.graph.output_node()
    results: Any = output.args[0]
    inputs, (function, count) = len(graph.find_nodes(op="placeholder")), _LAST[last]
    if inputs != weights or len(results) != count:
        raise schema.expected(f"{weights} inputs and what to branch on", [inputs, len(results)], "a branch")
    with graph.inserting_before(output):
        value = results[0] if function is None else graph.call_function(function, tuple(results), options)
    output.args = (value,)
    module.recompile()
    module.meta[_SAVED] = record
    given_at_the_call: Any = [None] * weights
    return Decision(module, given_at_the_call, schema.text(record["place"], "a branch"))
