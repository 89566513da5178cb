"""A graph as readable lines that stay the same from run to run, made to be compared with `diff`."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import fx

from stonefx.passes.graph.nodes import source_line
from stonefx.report.structure import hidden_by_folds, is_fold, is_stored, stored_behind

_DTYPES = {
    torch.float64: "f64",
    torch.float32: "f32",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int16: "i16",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.bool: "bool",
    torch.complex64: "c64",
    torch.complex128: "c128",
}


def graph_text(module: fx.GraphModule) -> str:
    """Write a graph one node a line: `%linear: f32[s0, 32] = aten.linear(%x, head.weight)  # model.py:12`.

    Weights stand by their full name where they are used. A fold is one line that names what it is made of.

    Args:
        module: a graph whose nodes may carry `val`, `weight`, `fold` and `stack_trace`.

    >>> print(graph_text(fx.symbolic_trace(torch.nn.Identity())))
    %input_1 = input
    return %input_1
    """
    return "\n".join(_lines(module, indent=""))


def short_source(source: str) -> str:
    """The last part of `path/to/file.py:line`.

    >>> short_source("/home/me/project/model.py:12")
    'model.py:12'
    """
    return os.path.basename(source.replace("\\", "/"))


def _lines(module: fx.GraphModule, indent: str) -> list[str]:
    hidden = hidden_by_folds(module.graph)
    lines = []
    for node in module.graph.nodes:
        nested = getattr(module, str(node.target), None) if node.op == "get_attr" else None
        if isinstance(nested, fx.GraphModule):
            lines += [f"{indent}{node.target}:", *_lines(nested, indent + "  ")]
        elif node.op == "output":
            lines.append(f"{indent}return {_argument(node.args[0])}")
        elif node not in hidden and (is_fold(node) or not is_stored(node)):
            result = f"{_name(node)}{_type(node.meta.get('val'))}"
            lines.append(f"{indent}{result} = {_expression(node)}{_comment(node)}")
    return lines


def _name(node: fx.Node) -> str:
    if is_fold(node):
        return str(node.meta["fold"])
    if "weight" in node.meta:
        return str(node.meta["weight"])
    if node.op == "get_attr":
        return str(node.target)
    return f"%{node.name}"


def _type(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        name = _DTYPES.get(value.dtype, str(value.dtype).removeprefix("torch."))
        return f": {name}[{', '.join(str(size) for size in value.shape)}]"
    if isinstance(value, torch.SymInt):
        return ": int"
    return ""


def _expression(node: fx.Node) -> str:
    if node.op == "placeholder":
        return "input"
    sources = stored_behind(node) if is_fold(node) else []
    if sources:
        return f"fold({', '.join(_name(source) for source in sources)})"
    arguments = [_argument(argument) for argument in node.args]
    arguments += [f"{name}={_argument(value)}" for name, value in node.kwargs.items()]
    return f"{_operator(node)}({', '.join(arguments)})"


def _operator(node: fx.Node) -> str:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target).removesuffix(".default")
    if isinstance(target, str):
        return target
    return getattr(target, "__name__", str(target))


def _argument(value: Any) -> str:
    if isinstance(value, fx.Node):
        return _name(value)
    if isinstance(value, list | tuple):
        inner = ", ".join(_argument(item) for item in value)
        return f"[{inner}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_argument(item)}" for name, item in value.items()) + "}"
    if isinstance(value, torch.dtype):
        return _DTYPES.get(value, str(value).removeprefix("torch."))
    if isinstance(value, slice):
        return f"slice({_argument(value.start)}, {_argument(value.stop)}, {_argument(value.step)})"
    return str(value)


def _comment(node: fx.Node) -> str:
    source = "" if is_fold(node) or node.op == "placeholder" else short_source(source_line(node))
    return f"  # {source}" if source else ""
