"""An optimized module as a document, and back."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from torch import fx, nn

from ..optimized import Folds, OptimizedModule, Program, program_of
from ..options import INNERS
from ..report import Report
from ..tracing.opaque import traced_functions
from . import schema
from .calls import Call, call_document
from .classes import Classes
from .graphs import graph_document, graph_of, input_names
from .inputs import inputs_document, propagate, read_inputs


def part_document(part: OptimizedModule) -> dict[str, Any]:
    """All of an optimized module but its weights.

    Raises:
        TypeError: an operator, argument or result has no notation in the file.
    """
    program = program_of(part)
    names = input_names(program)
    return {
        "inner": program.inner,
        "holder": program.holder,
        "read": program.owned.read,
        "followed": _followed_document(program.followed),
        "call": call_document(program.capture, program.dropped),
        **inputs_document(program),
        "graph": graph_document(program.module, names),
        "inference": None if program.inference is None else graph_document(program.inference, names),
        "functions": traced_functions(program.module),
        "frozen": [name in program.frozen for name in names],
        "report": part.report.to_json(),
    }


def _followed_document(folds: Folds) -> dict[str, Any]:
    graph = fx.GraphModule({}, _no_folds()) if folds.graph is None else folds.graph
    names = [node.name for node in graph.graph.find_nodes(op="placeholder")]
    results: Any = graph.graph.output_node().args[0]
    return {
        "graph": graph_document(graph, names),
        "read": folds.read,
        # With whether a fold is what the model computes itself, so that its range is the model's own affair.
        "names": [[node.meta["fold"], "as_it_was" in node.meta] for node in results],
    }


def _followed(document: Any, trusted: Collection[str]) -> tuple[fx.GraphModule, list[str]]:
    """The graph of the folds that follow weights, and the names of these."""
    where = "the folded weights"
    record = schema.record(document, where, ("graph", "read", "names"))
    graph = graph_of(record["graph"], where, trusted)
    results: Any = graph.graph.output_node().args[0]
    names = [schema.items(entry, where, 2) for entry in schema.items(record["names"], where)]
    if len(names) != len(results) or not all(isinstance(node, fx.Node) for node in results):
        raise schema.expected(f"{len(names)} values of the graph", len(results), where)
    for node, (name, as_it_was) in zip(results, names, strict=True):
        node.meta["fold"] = schema.text(name, where)
        if schema.flag(as_it_was, where):
            node.meta["as_it_was"] = True
    return graph, schema.names(record["read"], where)


def _no_folds() -> fx.Graph:
    graph = fx.Graph()
    graph.output(())
    return graph


def part_of(
    document: Any, source: nn.Module, classes: Classes, trusted: Collection[str] = ()
) -> OptimizedModule:
    """The optimized module of a document.

    Args:
        document: see `part_document`.
        source: a module with the weights, which becomes the optimized module's own.
        classes: those that the document may name.
        trusted: namespaces of operators that it may call besides those of torch and stonefx.

    Raises:
        Malformed: the document is none of `part_document`'s.
        ValueError: a class or operator is not there or may not be used; the message names it.
    """
    keys = "inner holder read followed call inputs hints graph inference functions frozen report".split()
    record = schema.record(document, "the model", keys)
    inner = schema.word(record["inner"], "the inner compiler", INNERS)
    call = Call(record["call"], classes)
    folds, read = _followed(record["followed"], trusted)
    inputs, mode = read_inputs(record["inputs"], record["hints"], call, source, folds, read)
    module, *others = [
        graph_of(record[key], "the graph", trusted)
        for key in ("graph", "inference")
        if record[key] is not None
    ]
    traced_functions(module).extend(schema.names(record["functions"], "the custom functions"))
    flags = schema.items(record["frozen"], "the inputs without gradient", len(inputs.values))
    frozen = [name for name, flag in zip(inputs.values, flags, strict=True) if schema.flag(flag, "an input")]
    devices = {check.device_type for check in call.tensors.values()}
    for graph in (module, *others):
        placeholders = graph.graph.find_nodes(op="placeholder")
        if len(placeholders) != len(inputs.values):
            raise schema.expected(f"{len(inputs.values)} inputs", len(placeholders), "the graph")
        for node in placeholders:
            node.meta["val"] = inputs.values[node.name]
        if inner != "eager":
            propagate(graph, inputs, mode, devices)
        results: Any = graph.graph.output_node().args[0]
        call.check_result(len(results), source)
    capture = replace(
        call.capture(),
        module=module,
        weights=inputs.weights,
        arguments=inputs.arguments,
        sizes=inputs.sizes,
    )
    report = report_of(record["report"])
    program = Program(
        capture=capture,
        owned=Folds(read=schema.names(record["read"], "the folded weights")),
        followed=Folds(folds if inputs.folds else None, read, inputs.folds),
        inner=inner,
        names=inputs.weights,
        rows=frozenset(inputs.rows),
        holder=schema.text(record["holder"], "the folded weights"),
        has_original=False,
        renamed=report.weights,
        inference=others[0] if others else None,
        frozen=frozenset(frozen),
    )
    source.training = capture.training
    return OptimizedModule(source, program, report)


def report_of(document: Any) -> Report:
    """A report that was written as JSON text.

    Raises:
        Malformed: it is no report.
    """
    text = schema.text(document, "the report")
    try:
        return Report.from_json(text)
    except Exception as error:
        raise schema.Malformed(f"the report: {type(error).__name__}: {error}") from error
