"""Sizes and conditions on sizes as small trees: read off Python source when saving, never parsed when loading.

A tree is a number, the name of a symbol, or `[operation, operand, ...]`. `source_of` writes a tree as Python; its
names, operators and numbers come out of the tables here, so that the source does arithmetic and nothing else.
"""

from __future__ import annotations

import ast
import functools
import itertools
import math
import operator
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch

from . import schema

Tree = int | float | str | list[Any]

_BINARY: dict[str, tuple[type[ast.operator], Callable[..., Any]]] = {
    "add": (ast.Add, operator.add),
    "sub": (ast.Sub, operator.sub),
    "mul": (ast.Mult, operator.mul),
    "truediv": (ast.Div, operator.truediv),
    "floordiv": (ast.FloorDiv, operator.floordiv),
    "mod": (ast.Mod, operator.mod),
    "pow": (ast.Pow, operator.pow),
}
_COMPARED: dict[str, tuple[type[ast.cmpop], Callable[..., Any]]] = {
    "eq": (ast.Eq, operator.eq),
    "ne": (ast.NotEq, operator.ne),
    "lt": (ast.Lt, operator.lt),
    "le": (ast.LtE, operator.le),
    "gt": (ast.Gt, operator.gt),
    "ge": (ast.GtE, operator.ge),
}
_UNARY: dict[str, tuple[type[ast.unaryop], Callable[..., Any]]] = {
    "neg": (ast.USub, operator.neg),
    "not": (ast.Not, torch.sym_not),
}
_JOINED: dict[str, tuple[type[ast.boolop], Callable[..., Any]]] = {
    "and": (ast.And, operator.and_),
    "or": (ast.Or, operator.or_),
}
_CALLED: dict[str, Callable[..., Any]] = {
    "max": torch.sym_max,
    "min": torch.sym_min,
    "abs": abs,
    "int": torch.sym_int,
    "float": torch.sym_float,
    "round": round,
    "math.floor": math.floor,
    "math.ceil": math.ceil,
    "math.trunc": math.trunc,
    "math.sqrt": math.sqrt,
}
_SYMBOL = re.compile(r"[a-z]{1,8}[0-9]{1,20}")
_LARGEST_POWER = 8


def is_symbol(name: str) -> bool:
    """Whether this is the name of a symbolic size.

    >>> is_symbol("s0"), is_symbol("__import__")
    (True, False)
    """
    return bool(_SYMBOL.fullmatch(name))


def tree_of(source: str | int) -> Tree:
    """The tree of a size, or of a condition on sizes, that capture wrote as Python.

    Raises:
        TypeError: it holds something that is no arithmetic of sizes.

    >>> tree_of("s0 % 2 == 0 and 2*s0 <= 64")
    ['and', ['eq', ['mod', 's0', 2], 0], ['le', ['mul', 2, 's0'], 64]]
    """
    if isinstance(source, int):
        return int(source)
    try:
        tree = _read(ast.parse(source.strip(), mode="eval").body)
        check(tree, "the size", _symbols(tree))
    except (SyntaxError, ValueError, KeyError) as error:
        raise TypeError(f"cannot save the size expression {source!r}: {error}") from error
    return tree


def source_of(tree: Tree) -> str:
    """A tree that was checked, as Python source.

    >>> source_of(["le", ["mul", 2, ["add", "s0", 1]], 64])
    '2 * (s0 + 1) <= 64'
    """
    return ast.unparse(_written(tree))


def value_of(tree: Tree, sizes: Mapping[str, Any]) -> Any:
    """The value of a tree that was checked, for numbers or symbolic sizes."""
    if isinstance(tree, str):
        return sizes[tree]
    if not isinstance(tree, list):
        return tree
    kind, *operands = tree
    values = [value_of(operand, sizes) for operand in operands]
    if kind == "if":
        return values[1] if values[0] else values[2]
    tables = (_BINARY, _COMPARED, _UNARY, _JOINED)
    function = _CALLED.get(kind) or next(table[kind][1] for table in tables if kind in table)
    return functools.reduce(function, values) if len(values) > 1 else function(values[0])


def renamed(tree: Tree, names: Mapping[str, str]) -> Tree:
    """A tree over other symbols.

    >>> renamed(["mul", 2, "s0"], {"s0": "s7"})
    ['mul', 2, 's7']
    """
    if isinstance(tree, list):
        return [tree[0], *(renamed(operand, names) for operand in tree[1:])]
    return names[tree] if isinstance(tree, str) else tree


def check(tree: Any, where: str, symbols: Collection[str], depth: int = 0) -> Any:
    """The tree itself, where it is one over these symbols.

    Raises:
        Malformed: it is no tree, or names another symbol.
    """
    if type(tree) is str:
        if tree not in symbols or not is_symbol(tree):
            raise schema.expected(f"one of the symbols {', '.join(symbols) or '(none)'}", tree, where)
        return tree
    if type(tree) is float and math.isfinite(tree):
        return tree
    if type(tree) is not list:
        return schema.integer(tree, where)
    depth = schema.below(depth, where)
    kind, *operands = tree or [None]
    wanted = _operands(kind)
    if wanted is None or len(operands) not in wanted:
        raise schema.expected("an operation on sizes with its operands", tree, where)
    if kind == "pow":
        # Powers of sizes are squares and cubes; a tower of them would take all memory.
        schema.integer(operands[1], where, 0, _LARGEST_POWER)
    for operand in operands:
        check(operand, where, symbols, depth)
    return tree


def _operands(kind: Any) -> range | None:
    """How many operands an operation takes."""
    if not isinstance(kind, str):
        return None
    if kind in _BINARY or kind in _COMPARED:
        return range(2, 3)
    if kind in _UNARY:
        return range(1, 2)
    if kind in _JOINED or kind in ("max", "min"):
        return range(2, schema.DEPTH)
    if kind == "if":
        return range(3, 4)
    return range(1, 2) if kind in _CALLED else None


def _symbols(tree: Tree) -> set[str]:
    if isinstance(tree, list):
        return {name for operand in tree[1:] for name in _symbols(operand)}
    return {tree} if isinstance(tree, str) else set()


def _read(node: ast.expr) -> Tree:
    match node:
        case ast.Constant(value=bool() | int() | float() as value):
            return int(value) if isinstance(value, bool) else value
        case ast.Name(id=name):
            return name
        case ast.BinOp(left=left, op=op, right=right):
            return [_kind(_BINARY, op), _read(left), _read(right)]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.UnaryOp(op=op, operand=operand):
            return [_kind(_UNARY, op), _read(operand)]
        case ast.BoolOp(op=op, values=values):
            return [_kind(_JOINED, op), *map(_read, values)]
        case ast.Compare(left=left, ops=ops, comparators=right):
            operands = [_read(left), *map(_read, right)]
            pairs = [
                [_kind(_COMPARED, op), *two]
                for op, two in zip(ops, itertools.pairwise(operands), strict=True)
            ]
            return pairs[0] if len(pairs) == 1 else ["and", *pairs]
        case ast.IfExp(test=test, body=body, orelse=other):
            return ["if", _read(test), _read(body), _read(other)]
        case ast.Call(func=function, args=args, keywords=[]) if ast.unparse(function) in _CALLED:
            return [ast.unparse(function), *map(_read, args)]
    raise ValueError(f"{ast.unparse(node)!r} is no arithmetic of sizes")


def _kind(table: Mapping[str, tuple[type, Any]], op: ast.AST) -> str:
    found = [kind for kind, (cls, _) in table.items() if isinstance(op, cls)]
    if not found:
        raise ValueError(f"{type(op).__name__} is no arithmetic of sizes")
    return found[0]


def _written(tree: Tree) -> ast.expr:
    if isinstance(tree, str):
        return ast.Name(tree, ast.Load())
    if not isinstance(tree, list):
        # A bare negative constant would be written without the parentheses that it may need.
        return ast.Constant(tree) if tree >= 0 else ast.UnaryOp(ast.USub(), ast.Constant(-tree))
    kind = tree[0]
    operands = [_written(operand) for operand in tree[1:]]
    if kind in _BINARY:
        return ast.BinOp(operands[0], _BINARY[kind][0](), operands[1])
    if kind in _COMPARED:
        return ast.Compare(operands[0], [_COMPARED[kind][0]()], [operands[1]])
    if kind in _UNARY:
        return ast.UnaryOp(_UNARY[kind][0](), operands[0])
    if kind in _JOINED:
        return ast.BoolOp(_JOINED[kind][0](), operands)
    if kind == "if":
        return ast.IfExp(*operands)
    function: ast.expr = ast.Name(kind, ast.Load())
    if "." in kind:
        module, name = kind.split(".")
        function = ast.Attribute(ast.Name(module, ast.Load()), name, ast.Load())
    return ast.Call(function, operands, [])
