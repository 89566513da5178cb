"""Which nodes to take as row vectors: what norms and inner products are taken of, along whichever dimension."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from ...graph.arguments import named_arguments
from ...graph.parts import interval
from ...graph.shapes import same_size
from .evaluate import SPLITS, operator_name
from .operators import CONSTANTS
from .parts import is_space, is_time
from .reductions import dimensions, equation
from .values import WHOLE, Axes, NotRowwise, number_axes, vector_axes

NORMS = ("linalg_vector_norm", "norm", "linalg_norm", "frobenius_norm")
PRODUCTS = {"linalg_vecdot": ("x", "y"), "dot": ("self", "tensor"), "inner": ("self", "other")}
MATRIX_PRODUCTS = {"matmul": ("self", "other"), "mm": ("self", "mat2"), "bmm": ("self", "mat2")}
# What every distance ends with: only then may a product of matrices be one of all pairs of rows.
LOGARITHMS = frozenset({"acosh", "arccosh", "asinh", "arcsinh", "atanh", "arctanh", "log", "log1p"})
# What stands between a norm and its use.
GUARDS = frozenset(
    {"mul", "clamp", "clamp_min", "clip", "sqrt", "add", "maximum", "unsqueeze", "to", "_to_copy"}
)
MOST_ALTERNATIVES = 3
# Between a length and the cosh of it.
MOST_STEPS = 24

Vectors = dict[fx.Node, Axes]


@dataclass(frozen=True)
class _Operand:
    """A node, the dimension of it that the row lies along, and the side of a matrix of pairs that it gives.

    Rows with their time are whole.
    """

    node: fx.Node
    row: int = -1
    side: str | None = None
    whole: bool = False

    def axes(self) -> Axes:
        axes = vector_axes(self.node.meta["val"], self.row, self.side)
        return (*axes[:-1], WHOLE) if self.whole else axes


def candidates(graph: fx.Graph) -> Iterator[list[Vectors]]:
    """For every norm and inner product: the row vectors to try, one or a pair, the nearest first.

    A further alternative looks through a scaling, a negation or a cast of the nearer one.
    """
    pairs = any(operator_name(node) in LOGARITHMS for node in graph.nodes)
    seen: set[tuple[_Operand, ...]] = set()
    # First, since each of the two rows alone would be taken for a map with the other's norm in its curvature.
    for node in graph.nodes if pairs else ():
        operands = _quotient(node)
        if operands and operands not in seen and all(map(_is_row_vector, operands)):
            seen.add(operands)
            yield [_vectors(operands)]
    for node in graph.nodes:
        operands = _reduced(node, pairs)
        if not operands or not all(map(_is_row_vector, operands)) or operands in seen:
            continue
        if len(operands) == 2 and not _same_rows(*operands):
            continue
        seen.add(operands)
        chosen = [_vectors(nearest) for nearest in _alternatives(operands)]
        whole = [each for operand in operands if (each := _whole(operand)) is not None]
        if len(whole) == len(operands):
            if tuple(whole) not in seen:
                chosen.insert(0, _vectors(tuple(whole)))
            seen.add(tuple(whole))
        yield chosen
    for operands in dict.fromkeys(_at_points(graph)):
        if operands not in seen:
            yield [_vectors(operands)]
    for operand in dict.fromkeys(_taken_apart(graph)):
        if (operand,) not in seen:
            yield [_vectors((operand,))]


def _whole(operand: _Operand) -> _Operand | None:
    """The rows with their time of which the operand is the space components, or which the operand is."""
    part = interval(operand.node) if operand.row == -1 else None
    if part is not None and is_space(part):
        return _Operand(part[0], side=operand.side, whole=True)
    parts = (interval(user) for user in operand.node.users) if operand.row == -1 else ()
    if operand.whole:
        return operand
    return replace(operand, whole=True) if any(part and is_time(part) for part in parts) else None


def _taken_apart(graph: fx.Graph) -> Iterator[_Operand]:
    """Rows of which both the time and the space components are read."""
    for node in graph.nodes:
        part = interval(node) if isinstance(node.meta.get("val"), torch.Tensor) else None
        if part is None or not is_space(part) or not part[0].meta["val"].is_floating_point():
            continue
        if operator_name(part[0]) in CONSTANTS:
            continue
        users = [
            u for user in part[0].users for u in (user.users if operator_name(user) in SPLITS else (user,))
        ]
        if any(other and is_time(other) for other in map(interval, users)):
            yield _Operand(part[0], whole=True)


def _at_points(graph: fx.Graph) -> Iterator[tuple[_Operand, ...]]:
    """Rows that are multiplied by the cosh of another row's length: a point, and a vector there."""
    for node in graph.nodes:
        if operator_name(node) != "cosh" or (vector := _measured(node)) is None:
            continue
        for user in node.users:
            given = named_arguments(user) if operator_name(user) in ("mul", "multiply") else {}
            for other in given.values():
                point = _Operand(other, whole=True) if isinstance(other, fx.Node) else None
                if point is None or other is vector.node or not _is_row_vector(point):
                    continue
                if _same_rows(point, vector):
                    yield point, vector


def _measured(node: fx.Node) -> _Operand | None:
    """The row with its time that a number is computed from by one length."""
    pending = list(node.all_input_nodes)
    seen: set[fx.Node] = set()
    while pending and len(seen) < MOST_STEPS:
        each = pending.pop(0)
        if each in seen or not isinstance(each.meta.get("val"), torch.Tensor):
            continue
        seen.add(each)
        # Both factors of a square may be slices of their own.
        wholes = {_whole(operand) for operand in _reduced(each, False)} - {None}
        if len(wholes) == 1:
            return wholes.pop()
        pending += each.all_input_nodes
    return None


def _quotient(node: fx.Node) -> tuple[_Operand, ...]:
    """The two rows whose norms a node divides one by the other."""
    if operator_name(node) not in ("div", "divide", "true_divide"):
        return ()
    found = [_normed(argument) for argument in node.args[:2]]
    if None in found or found[0] == found[1] or found[0].row != found[1].row:  # type: ignore[union-attr]
        return ()
    return found[0], found[1]  # type: ignore[return-value]


def _normed(argument: object) -> _Operand | None:
    """The row that a number is the guarded norm of."""
    for _ in range(6):
        if not isinstance(argument, fx.Node) or not isinstance(argument.meta.get("val"), torch.Tensor):
            return None
        if operands := _reduced(argument, False):
            return operands[0] if len(operands) == 1 else None
        if operator_name(argument) not in GUARDS:
            return None
        argument = argument.args[0]
    return None


def _vectors(operands: tuple[_Operand, ...]) -> Vectors:
    based = dict(map(_based, operands))
    # The pairs of one set of points: its two views are told apart.
    return based if len(based) == len(operands) else {operand.node: operand.axes() for operand in operands}


def _based(operand: _Operand) -> tuple[fx.Node, Axes]:
    """An operand's node and axes, before dimensions of size 1 were added, where its norm may be taken, and a sign."""
    node, axes = operand.node, operand.axes()
    while (name := operator_name(node)) in ("unsqueeze", "neg", "negative"):
        if name != "unsqueeze":
            node = node.args[0]  # type: ignore[assignment]
            continue
        dim = named_arguments(node)["dim"] % len(axes)
        if axes[dim] is not None:
            break
        node, axes = node.args[0], axes[:dim] + axes[dim + 1 :]  # type: ignore[assignment]
    return node, axes


def _reduced(node: fx.Node, pairs: bool) -> tuple[_Operand, ...]:
    """The one or two distinct operands whose squares or products a node sums up; none for other nodes."""
    name = operator_name(node)
    if not name:
        return ()
    given = named_arguments(node)
    if name in NORMS:
        source = given.get("self", given.get("A"))
        return _distinct(source, row=_row(source, given.get("dim")))
    if name == "sum":
        return _summed(given["self"], _row(given["self"], given.get("dim")))
    if name == "einsum" and len(given["tensors"]) == 2:
        return _of_einsum(given)
    if name in PRODUCTS:
        return _distinct(*(given[argument] for argument in PRODUCTS[name]))
    if name in MATRIX_PRODUCTS and pairs:
        return _of_matrices(*(given[argument] for argument in MATRIX_PRODUCTS[name]))
    return ()


def _row(source: Any, dim: Any) -> int:
    """The dimension that is reduced, counted from the end; the last, where there are more."""
    if not isinstance(source, fx.Node) or not isinstance(source.meta.get("val"), torch.Tensor):
        return -1
    dims = dimensions(source, dim)
    return dims[0] if len(dims) == 1 else -1


def _summed(node: object, row: int) -> tuple[_Operand, ...]:
    """The rows of whose products a sum is one, over all of the row or over its space components."""
    if operands := _squared(node, row):
        return operands
    if not isinstance(node, fx.Node) or row != -1:
        return ()
    if operator_name(node) == "cat":
        node = named_arguments(node)["tensors"][-1]
    part = interval(node)  # type: ignore[arg-type]
    operands = _squared(part[0], row) if part is not None and is_space(part) else ()
    return tuple(replace(operand, whole=True) for operand in operands)


def _squared(node: object, row: int) -> tuple[_Operand, ...]:
    if not isinstance(node, fx.Node):
        return ()
    name = operator_name(node)
    if name in ("mul", "multiply"):
        given = named_arguments(node)
        return _distinct(given["self"], given["other"], row=row)
    if name == "square" or (name == "pow" and node.args[1:2] == (2,)):
        return _distinct(node.args[0], row=row)
    return ()


def _distinct(*arguments: object, row: int = -1) -> tuple[_Operand, ...]:
    return tuple(_Operand(a, row) for a in dict.fromkeys(arguments) if isinstance(a, fx.Node))


def _of_einsum(given: dict[str, Any]) -> tuple[_Operand, ...]:
    """Rows along the index that is summed; where each has one more index of its own, the two sides of pairs."""
    try:
        (first, second), output = equation(given)
    except NotRowwise:
        return ()
    summed = (set(first) & set(second)) - set(output)
    own = [set(letters) - set(other) for letters, other in ((first, second), (second, first))]
    if len(summed) != 1:
        return ()
    (letter,) = summed
    rows = [letters.index(letter) - len(letters) for letters in (first, second)]
    if not own[0] and not own[1] and rows[0] == rows[1]:
        return _distinct(*given["tensors"], row=rows[0])
    if [len(letters) for letters in own] != [1, 1] or min(rows) < -2:
        return ()
    for letters, row, mine in zip((first, second), rows, own, strict=True):
        if letters[-3 - row :][:1] != next(iter(mine)):  # the other one of the last two
            return ()
    return _sides(*(_Operand(n, r) for n, r in zip(given["tensors"], rows, strict=True)))


def _of_matrices(left: object, right: object) -> tuple[_Operand, ...]:
    if not isinstance(left, fx.Node) or not isinstance(right, fx.Node):
        return ()
    values = [node.meta.get("val") for node in (left, right)]
    if not all(isinstance(value, torch.Tensor) and value.ndim >= 2 for value in values):
        return ()
    return _sides(_Operand(left), _untransposed(_Operand(right, -2)))


def _sides(left: _Operand, right: _Operand) -> tuple[_Operand, ...]:
    left, right = _untransposed(left), _untransposed(right)
    if left.node is right.node:  # the pairs of one set of points: which side a norm belongs to is not known
        return ()
    return _Operand(left.node, left.row, "left"), _Operand(right.node, right.row, "right")


def _untransposed(operand: _Operand) -> _Operand:
    """What a matrix is the transpose of, with its rows along the last dimension."""
    node = operand.node
    name = operator_name(node)
    if operand.row != -2 or not node.args or not isinstance(node.args[0], fx.Node):
        return operand
    rank = node.meta["val"].ndim
    if name in ("t", "mT", "numpy_T", "adjoint") and rank == 2:
        return _Operand(node.args[0])
    if name in ("transpose", "swapaxes") and {d % rank for d in node.args[1:3]} == {rank - 1, rank - 2}:
        return _Operand(node.args[0])
    if name == "permute":
        dims = [d % rank for d in named_arguments(node)["dims"]]
        if dims == [*range(rank - 2), rank - 1, rank - 2]:
            return _Operand(node.args[0])
    return operand


def _is_row_vector(operand: _Operand) -> bool:
    value = operand.node.meta.get("val")
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return False
    if operand.row == -1:
        return number_axes(value) is None
    return -value.ndim <= operand.row and not same_size(value.shape[operand.row], 1)


def _same_rows(left: _Operand, right: _Operand) -> bool:
    # Dimensions are counted from the end, as they broadcast.
    sizes = [operand.node.meta["val"].shape[operand.row] for operand in (left, right)]
    return same_size(*sizes)


def _alternatives(operands: tuple[_Operand, ...]) -> Iterator[tuple[_Operand, ...]]:
    chains = [list(_through(operand)) for operand in operands]
    if len(chains) == 1:
        yield from ((operand,) for operand in chains[0])
        yield from _difference(operands[0])
        return
    for left in chains[0]:
        for right in chains[1]:
            if left.node is not right.node:
                yield left, right


def _difference(operand: _Operand) -> Iterator[tuple[_Operand, ...]]:
    """The two rows that a node is the sum or difference of."""
    if operator_name(operand.node) not in ("sub", "subtract", "add", "rsub") or operand.side is not None:
        return
    rows = _distinct(*operand.node.args[:2], row=operand.row)
    if len(rows) == 2 and all(map(_is_row_vector, rows)) and _same_rows(*rows):
        yield rows


def _through(operand: _Operand) -> Iterator[_Operand]:
    """The node, and what it is a multiple or a cast of."""
    yield operand
    node = operand.node
    for _ in range(MOST_ALTERNATIVES - 1):
        name = operator_name(node)
        sources: list[Any] = []
        if name in ("neg", "negative", "to", "_to_copy", "div"):
            sources = [node.args[0]]
        elif name in ("mul", "multiply"):
            sources = list(node.args)
        found = [_Operand(s, operand.row, operand.side) for s in sources if isinstance(s, fx.Node)]
        rank = node.meta["val"].ndim
        rows = [o for o in found if _is_row_vector(o) and o.node.meta["val"].ndim == rank]
        if len(rows) != 1:
            return
        node = rows[0].node
        yield rows[0]
