"""An optimized module as a document and a graph archive, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from ..capture import Path, Weight
from ..optimized import OptimizedModule, Program, program_of
from ..report import Report
from ..passes.hoist import FoldSplit
from .calls import call_document, call_of
from .graphs import graph_bytes, graph_inputs, graph_of
from .values import decode, encode


def part_document(part: OptimizedModule) -> dict[str, Any]:
    """All of an optimized module but its graph and weights.

    Raises:
        TypeError: an argument or result has no notation in the file.
    """
    program = program_of(part)
    inputs = [
        [encode(role if isinstance(role, Path) else Weight(role)), name in program.rows]
        for name, role in graph_inputs(program).items()
    ]
    return {
        "inner": program.inner,
        "holder": program.holder,
        "read": program.read,
        "inputs": inputs,
        "call": call_document(program.capture),
        "report": part.report.to_json(),
    }


def part_graph(part: OptimizedModule) -> bytes:
    """The graph of an optimized module as an archive of `torch.export`."""
    return graph_bytes(program_of(part), part)


def part_of(document: dict[str, Any], archive: bytes, source: nn.Module) -> OptimizedModule:
    """The optimized module of a document and an archive.

    Args:
        document: see `part_document`.
        archive: see `part_graph`.
        source: a module with the weights, which becomes the optimized module's own.

    Raises:
        ImportError: a class among the arguments or in the result cannot be imported here.
        ValueError: the archive cannot be read.
    """
    roles = [decode(role) for role, _ in document["inputs"]]
    module = graph_of(archive, len(roles))
    placeholders = [node.name for node in module.graph.find_nodes(op="placeholder")]
    named = dict(zip(placeholders, roles, strict=True))
    weights = {name: role.name for name, role in named.items() if isinstance(role, Weight)}
    capture = replace(
        call_of(document["call"]),
        module=module,
        weights=weights,
        arguments={name: role for name, role in named.items() if isinstance(role, Path)},
    )
    rows = zip(placeholders, document["inputs"], strict=True)
    program = Program(
        capture=capture,
        split=FoldSplit(None, [], list(range(len(roles))), []),
        inner=document["inner"],
        names=weights,
        read=document["read"],
        rows=frozenset(name for name, (_, row_major) in rows if row_major),
        holder=document["holder"],
        has_original=False,
    )
    source.training = capture.training
    return OptimizedModule(source, program, Report.from_json(document["report"]))
