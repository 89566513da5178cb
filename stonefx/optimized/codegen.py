"""A graph as a plain Python function: what a careful person would write by hand.

The function closes over the dictionaries that hold the weights, so a parameter that is replaced, moved or
loaded is seen at the next call, and over one callable an operator. There is no attribute chain, no guard
machinery and no pytree work on the way.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from ..passes.graph.effects import ends_of_regions
from .bindings import binding


@dataclass
class Body:
    """Lines of Python, and the objects that they name.

    Args:
        lines: statements, without indentation.
        constants: name -> object, which the enclosing function must have in scope.
        results: one expression an output of the graph.
    """

    lines: list[str] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)
    results: list[str] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.taken |= {"self", *dir(builtins)}

    def constant(self, value: Any, name: str) -> str:
        """A name for an object, the same for the same object."""
        for known, other in self.constants.items():
            if other is value:
                return known
        name = re.sub(r"\W+", "_", name).strip("_") or "constant"
        if name[0].isdigit() or keyword.iskeyword(name):
            name = f"_{name}"
        name = self.variable(name)
        self.constants[name] = value
        return name

    def variable(self, name: str) -> str:
        """A name that is not in use, from now on taken."""
        candidate, number = name, 0
        while candidate in self.taken:
            number += 1
            candidate = f"{name}_{number}"
        self.taken.add(candidate)
        return candidate


def emit(module: fx.GraphModule, inputs: Mapping[str, str], reserved: Iterable[str]) -> Body:
    """Write a graph's operations as statements.

    Args:
        module: a graph of placeholders, `call_function` and `get_attr` nodes.
        inputs: name of a placeholder, or target of a `get_attr` node -> the expression for its value. Other
            attributes become constants.
        reserved: names that are in use where the statements will stand.
    """
    nodes = list(module.graph.nodes)
    local = _local_names(nodes, reserved)
    body = Body(taken={*local.values(), *reserved})
    last_use = _last_uses(nodes)
    names: dict[fx.Node, str] = {}
    ends = ends_of_regions(module.graph)
    if ends:
        around = body.variable("grad_enabled")
        body.lines.append(f"{around} = {body.constant(torch.is_grad_enabled, 'is_grad_enabled')}()")
    for node in nodes:
        if node.op == "placeholder":
            names[node] = inputs[node.name]
        elif node.op == "get_attr":
            known = inputs.get(str(node.target))
            names[node] = known or body.constant(_attribute(module, str(node.target)), str(node.target))
        elif node.op == "call_function":
            function = binding(node)
            called = body.constant(function, getattr(node.target, "__name__", "call").replace(".", "_"))
            arguments = [around] if node in ends else [_format(body, names, arg) for arg in node.args]
            arguments += [f"{key}={_format(body, names, value)}" for key, value in node.kwargs.items()]
            names[node] = local[node]
            keep = f"{local[node]} = " if node.users else ""
            body.lines.append(f"{keep}{called}({', '.join(arguments)})")
            dead = [names[n] for n in last_use.get(node, ()) if n.op == "call_function"]
            if dead:
                body.lines.append(f"del {', '.join(dead)}")
        elif node.op == "output":
            results = node.args[0] if isinstance(node.args[0], tuple | list) else (node.args[0],)
            body.results = [_format(body, names, value) for value in results]
        else:
            raise ValueError(f"cannot write a {node.op} node as Python: {node.format_node()}")
    return body


def _local_names(nodes: list[fx.Node], reserved: Iterable[str]) -> dict[fx.Node, str]:
    """A variable for each operation: the node's name, lengthened where that is in use."""
    taken = set(reserved)
    local = {}
    for node in nodes:
        name = node.name
        while name in taken:
            name += "_"
        taken.add(name)
        local[node] = name
    return local


def _last_uses(nodes: list[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
    """For each node, the values that nobody reads after it."""
    seen: set[fx.Node] = set()
    dead: dict[fx.Node, list[fx.Node]] = {}
    for node in reversed(nodes):
        for value in node.all_input_nodes:
            if value not in seen:
                seen.add(value)
                dead.setdefault(node, []).append(value)
    return dead


def _attribute(module: fx.GraphModule, target: str) -> Any:
    value: Any = module
    for name in target.split("."):
        value = getattr(value, name)
    return value


def _format(body: Body, names: Mapping[fx.Node, str], value: Any) -> str:
    if isinstance(value, fx.Node):
        return names[value]
    if isinstance(value, bool | int | str | type(None)) or (isinstance(value, float) and value - value == 0):
        return repr(value)
    if isinstance(value, list | tuple):
        inner = ", ".join(_format(body, names, item) for item in value)
        if isinstance(value, list):
            return f"[{inner}]"
        return f"({inner},)" if value else "()"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {_format(body, names, v)}" for k, v in value.items()) + "}"
    if isinstance(value, slice):
        parts = (value.start, value.stop, value.step)
        return f"{body.constant(slice, 'slice')}({', '.join(_format(body, names, part) for part in parts)})"
    return body.constant(value, str(value) if isinstance(value, torch.dtype) else type(value).__name__)


def build(source: str, name: str, constants: Mapping[str, Any]) -> Any:
    """Run the source of one function inside a function that has the constants as its locals."""
    inner = "\n".join("    " + line for line in source.splitlines())
    text = f"def build({', '.join(constants)}):\n{inner}\n    return {name}\n"
    scope: dict[str, Any] = {}
    exec(compile(text, f"<stonefx {name}>", "exec"), scope)
    return scope["build"](**constants)
