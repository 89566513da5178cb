"""From a match to nodes: operands brought to the operator's dimensions, the curvature, and the result's shape."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from ..graph.nodes import is_weight
from .find import Found, operand_nodes
from .formulas import FLOOR, FORMULAS
from .read.values import ROWS, Axes, Label, NotRowwise, broadcast, has_time, number_axes, row_of
from .region import full_axes
from .rows.forms import HALF, ONE, Form, Monomial, power_of
from .rows.matching import Match, Operand

aten = torch.ops.aten
Call = tuple[Any, tuple[Any, ...], dict[str, Any]]
LONG = 30.0  # sinh of it is longer than any guard
KEPT = ("stack_trace", "nn_module_stack")


class NoOperand(ValueError):
    """A form is no value that a node of the graph holds or that a few new ones can compute."""


class Builder:
    """Makes the nodes of one formula, before its root.

    Args:
        found: the formula, whose outcome is a match.
    """

    def __init__(self, found: Found) -> None:
        assert isinstance(found.outcome, Match)
        self.match, self.region = found.outcome, found.region
        self.values, self.algebra = found.values, found.algebra
        self.formula = FORMULAS[self.match.target]
        # The curvature may be known from the map alone that made the points.
        self.sources = (found, *found.proofs.values())
        self.axes = full_axes(self.values[self.region.root].axes, self.region.root)
        nodes = operand_nodes(self.match, self.algebra)
        self.operands = list(zip(nodes, self.match.operands, strict=True))
        if self.formula.gives == "pairs" and self._labels()[-1] not in self._held(1):
            self.operands.reverse()  # the matrix has the second points along its rows; a distance has no direction

    def check(self) -> None:
        """Raise `NoOperand` where `build` could not make the nodes."""
        self._check(self.match.curvature, self._numbers())
        for form in self.match.numbers:
            self._check(form, self._factors())
        self._check(self.match.multiple, self.axes)
        for node, operand in self.operands:
            self._check(operand.factor, full_axes(self.values[node].axes, node))
        for index in range(len(self.operands)):
            self._place(index)

    def build(self, grad: bool) -> None:
        """Turn the root into the last of the new nodes, so that its name stays: another formula may read it."""
        root, match = self.region.root, self.match
        vectors = [self._vector(index) for index in range(len(self.operands))]
        steps = self._called(vectors, grad)
        for step, args in self._reshaped():
            dense = {"memory_format": torch.contiguous_format} if step is aten.clone.default else {}
            steps.append((step, (None, *args), dense))
        if match.multiple != ONE:
            number = match.multiple.number
            factor = self._scalar(match.multiple, grad, "factor") if number is None else number
            steps.append((aten.mul.Tensor, (None, factor), {}))
        value: fx.Node | None = None
        for position, (step, args, kwargs) in enumerate(steps):
            given = tuple(
                value if i == 0 and argument is None else argument for i, argument in enumerate(args)
            )
            if position < len(steps) - 1:
                value = self.insert(step, given, kwargs)
                continue
            fake = root.meta["val"]
            with fake.fake_mode, torch.no_grad():
                result = fake.new_empty(fake.shape).requires_grad_(fake.requires_grad)
            root.target, root.args, root.kwargs = step, given, kwargs
            root.meta["val"] = result

    def _called(self, vectors: list[fx.Node], grad: bool) -> list[Call]:
        """The call of the operator; of what a rule left, calls of torch's."""
        match = self.match
        if match.target == "identity":
            return [(aten.clone.default, (*vectors,), {"memory_format": torch.contiguous_format})]
        if match.target == "norm":
            norm: tuple[Any, tuple[Any, ...], dict[str, Any]] = (
                aten.linalg_vector_norm.default,
                (*vectors, 2, [-1]),
                {},
            )
            limit = match.guards.get("max_norm")
            return [norm] if limit is None else [norm, (aten.clamp_max.default, (None, limit), {})]
        if match.target == "radial_cap":
            return self._capped(vectors[0], grad)
        scalars = [self._scalar(match.curvature, grad, "curvature")]
        scalars += [self._scalar(number, grad, "factor") for number in match.numbers]
        target = getattr(torch.ops.stone, match.target).default
        taken = {argument.name for argument in target._schema.arguments}
        guards = {name: value for name, value in match.guards.items() if name in taken}
        behind = [*self._floor(scalars[0]), *self._shortened(vectors, scalars[0])]
        return [(target, (*vectors, *scalars), guards), *behind]

    def _shortened(self, vectors: list[fx.Node], c: fx.Node) -> list[Call]:
        """`min(1, n / least)`, of the logarithm whose direction has the length `n = sinh(s d) / s`."""
        least = self.match.guards.get("min_norm")
        if self.match.target != "lorentz_logmap" or least is None:
            return []
        d = self.insert(torch.ops.stone.lorentz_dist.default, (*vectors, c), {})
        d = self.insert(aten.unsqueeze.default, (d, -1), {})
        number = self.match.curvature.number
        s = self.insert(aten.sqrt.default, (c,), {}) if number is None else number**0.5
        # Bounded, since the derivative of what is infinite would be none behind the clamp.
        u = self.insert(aten.clamp_max.default, (self.insert(aten.mul.Tensor, (d, s), {}), LONG), {})
        n = self.insert(aten.div.Tensor, (self.insert(aten.sinh.default, (u,), {}), s), {})
        n = self.insert(aten.mul.Tensor, (n, 1 / least), {})
        return [(aten.mul.Tensor, (None, self.insert(aten.clamp_max.default, (n, 1.0), {})), {})]

    def _floor(self, c: fx.Node) -> list[Call]:
        """`max(d, least / s)`, which a clamp of the argument of a distance's function from below is."""
        if (least := self.match.guards.get(FLOOR)) is None:
            return []
        if (number := self.match.curvature.number) is not None:
            return [(aten.clamp_min.default, (None, least * number**-0.5), {})]
        if self.formula.gives == "number" and c.meta["val"].ndim:
            # A number of each row has a dimension for the row.
            c = self.insert(aten.squeeze.dim, (c, -1), {})
        scale, dtype = self.insert(aten.rsqrt.default, (c,), {}), self.region.root.meta["val"].dtype
        if scale.meta["val"].ndim and scale.meta["val"].dtype != dtype:
            scale = self.insert(aten._to_copy.default, (scale,), {"dtype": dtype})
        return [(aten.maximum.default, (None, self.insert(aten.mul.Tensor, (scale, least), {})), {})]

    def _capped(self, row: fx.Node, grad: bool) -> list[Call]:
        """`min(1, R / n) x`, spelled so that a NaN reaches the whole row."""
        largest, c = float(self.match.guards["largest"]), self.match.curvature
        if c.number is not None:
            length = self.insert(aten.full.default, ([], largest * c.number**-0.5), self._like(row))
        else:
            root = self.insert(aten.rsqrt.default, (self._scalar(c, grad, "curvature"),), {})
            length = self.insert(aten.mul.Tensor, (root, largest), {})
        norm = self.insert(aten.linalg_vector_norm.default, (row, 2, [-1], True), {})
        # No quotient by a norm of 0, whose gradient would be none.
        factor = self.insert(
            aten.div.Tensor, (length, self.insert(aten.maximum.default, (norm, length), {})), {}
        )
        return [(aten.mul.Tensor, (row, factor), {})]

    @staticmethod
    def _like(row: fx.Node) -> dict[str, Any]:
        value = row.meta["val"]
        return {"dtype": value.dtype, "device": value.device}

    def insert(self, target: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> fx.Node:
        """Add a call before the root, with its fake value."""
        root = self.region.root
        values, keywords = fx.node.map_arg((tuple(args), kwargs), lambda node: node.meta["val"])
        with root.meta["val"].fake_mode:
            value = target(*values, **keywords)
        with root.graph.inserting_before(root):
            node = root.graph.call_function(target, tuple(args), kwargs)
        node.meta = {key: root.meta[key] for key in KEPT if key in root.meta} | {"val": value}
        return node

    def _labels(self) -> list[Label]:
        """The dimensions of the operator's result without the row, those of size 1 included in a row's."""
        if self.formula.gives == "row":
            return [label for label in self.axes if label not in ROWS]
        labels: list[Label] = [label for label in self.axes if label is not None]
        if self.formula.gives == "planes":  # the operator gives those of one point next to each other
            labels.sort(key=lambda label: label in self._held(-1))
        return labels

    def _held(self, index: int) -> set[Label]:
        """The dimensions that an operand's rows have."""
        return set(self.values[self.operands[index][0]].axes)

    def _numbers(self) -> Axes:
        """The dimensions of the rows, where a number of each row has none for the row itself."""
        labels = self._labels()
        if self.formula.gives == "planes":
            return ()
        return (*labels[:-2], None, None) if self.formula.gives == "pairs" else (*labels, None)

    def _factors(self) -> Axes:
        """The dimensions of the operator's further numbers: one for each plane, or each row."""
        return tuple(self._labels()[-1:]) if self.formula.gives == "planes" else self._numbers()

    def _wanted(self, index: int) -> list[Label]:
        labels = self._labels()
        if self.formula.gives == "pairs":
            apart = all((labels[i - 2] in self._held(j)) == (i == j) for i in range(2) for j in range(2))
            if len(labels) < 2 or not apart:
                raise NoOperand("the pairs are not along the last two dimensions")
            return [*labels[:-2], labels[index - 2], self._row(index)]
        if self.formula.gives == "planes":
            alike = all({*labels[-1:]} == self._held(j) - {None, *ROWS} for j in range(1, len(self.operands)))
            if not alike or labels[-1] in self._held(0):
                raise NoOperand("the hyperplanes do not have one dimension that the points have not")
            return [*(labels[-1:] if index else labels[:-1]), self._row(index)]
        return [*labels, self._row(index)]

    def _row(self, index: int) -> Label:
        axes = self.values[self.operands[index][0]].axes
        return axes[row_of(axes) or 0]

    def _place(self, index: int) -> tuple[list[int], list[int], list[int]]:
        """Dimensions to drop, the order of the others, and where to put new ones of size 1."""
        wanted = self._wanted(index)
        node, _ = self.operands[index]
        axes = list(self.values[node].axes)
        short = wanted[len(wanted) - len(axes) :] if len(axes) <= len(wanted) else []
        if short and all(a in (None, b) for a, b in zip(axes, short, strict=True)):
            return [], list(range(len(axes))), []
        drop = [i for i, label in enumerate(axes) if label is None]
        held = [label for label in axes if label is not None]
        if not set(held) <= set(wanted):
            raise NoOperand("a dimension of the rows is none of the result")
        order = [held.index(label) for label in wanted if label in held]
        first = min(wanted.index(label) for label in held)
        return drop, order, [i - first for i, label in enumerate(wanted) if i > first and label not in held]

    def _vector(self, index: int) -> fx.Node:
        """An operand in the operator's dimensions, times its factor."""
        node, operand = self.operands[index]
        drop, order, new = self._place(index)
        if drop:
            node = self.insert(aten.squeeze.dims, (node, drop), {})
        if order != sorted(order):
            node = self.insert(aten.permute.default, (node, order), {})
        for dim in new:
            node = self.insert(aten.unsqueeze.default, (node, dim), {})
        node = self._scaled(node, operand)
        if self.formula.time_in and len(self.algebra.atoms[operand.vector].parts) == 1:
            # The operator takes the time from the space components, and does not look at what stands there.
            node = self.insert(aten.constant_pad_nd.default, (node, [1, 0]), {})
        return node

    def _scaled(self, node: fx.Node, operand: Operand) -> fx.Node:
        factor = operand.factor.number
        if factor == 1:
            return node
        if factor == -1:
            return self.insert(aten.neg.default, (node,), {})
        if factor is None:
            return self.insert(aten.mul.Tensor, (node, self._scalar(operand.factor, True, "factor")), {})
        return self.insert(aten.mul.Tensor, (node, factor), {})

    def _reshaped(self) -> list[tuple[Any, tuple[Any, ...]]]:
        """What brings the operator's result to the root's dimensions."""
        if self.formula.gives == "planes":
            made = self._labels()
            order = [made.index(label) for label in self.axes if label is not None]
            moved = (
                [(aten.permute.default, (order,)), (aten.clone.default, ())] if order != sorted(order) else []
            )
            return moved + [(aten.unsqueeze.default, (dim,)) for dim, a in enumerate(self.axes) if a is None]
        if self.formula.gives != "row":
            return [(aten.unsqueeze.default, (dim,)) for dim, label in enumerate(self.axes) if label is None]
        row, last = row_of(self.axes) or 0, len(self.axes) - 1
        steps: list[tuple[Any, tuple[Any, ...]]] = []
        if self.formula.time_out and not has_time(self.axes):
            steps.append((aten.slice.Tensor, (last, 1, sys.maxsize)))
        if row != last:
            steps.append((aten.permute.default, ([*range(row), last, *range(row, last)],)))
        return [*steps, (aten.clone.default, ())] if steps else []

    def _check(self, form: Form, axes: Axes) -> None:
        if form.number is not None or self._holding(form, axes) or self._holding(self._root(form), axes):
            return
        if len(form) != 1 or any(self._atom(index, axes) is None for index, _ in form.terms[0][0]):
            raise NoOperand(f"no tensor of the graph holds the curvature {self.algebra.describe(form)}")

    def _scalar(self, form: Form, grad: bool, name: str) -> fx.Node:
        """A node that holds a number of each row; a new one that only weights determine is marked as a fold."""
        value = self.region.root.meta["val"]
        if form.number is not None:
            constant = self.insert(
                aten.full.default, ([], form.number), {"dtype": torch.float64, "device": value.device}
            )
            constant.meta["fold"] = name
            return constant
        axes = self._numbers() if name == "curvature" else self._factors()
        axes = self.axes if name != "curvature" and self.match.multiple == form else axes
        if held := self._holding(form, axes):
            return held
        if root := self._holding(self._root(form), axes):
            product = self.insert(aten.mul.Tensor, (root, root), {})
        else:
            product = self._product(*form.terms[0], axes)
        scalars = [node for found in self.sources for node in found.region.scalars]
        trained = grad and any(node.meta["val"].requires_grad for node in scalars)
        if all(map(is_weight, scalars)) and not trained:
            product.meta["fold"] = name
        return product

    def _product(self, monomial: Monomial, coefficient: float, axes: Axes) -> fx.Node:
        product: fx.Node | None = None
        for index, exponent in monomial:
            factor = self._atom(index, axes)
            if exponent != 1:
                factor = self.insert(aten.pow.Tensor_Scalar, (factor, float(exponent)), {})
            product = factor if product is None else self.insert(aten.mul.Tensor, (product, factor), {})
        assert product is not None
        return product if coefficient == 1 else self.insert(aten.mul.Tensor, (product, coefficient), {})

    def _root(self, form: Form) -> Form:
        return self.algebra.power(form, HALF)

    def _atom(self, index: int, axes: Axes) -> fx.Node | None:
        return self._holding(power_of(index), axes)

    def _holding(self, form: Form, axes: Axes) -> fx.Node | None:
        """The first row scalar of the region with this form, whose dimensions lie as the operator's do."""
        held = [(n, s.values.get(n)) for s in self.sources for n in (*s.region.scalars, *s.region.constants)]
        for node, value in held:
            if value is None or not isinstance(node.meta.get("val"), torch.Tensor):
                continue
            plain = number_axes(node.meta["val"]) is not None or (bool(axes) and value.axes == axes)
            if not plain or not self.algebra.equal(value.form, form):
                continue
            try:
                if broadcast(axes, value.axes) == axes:
                    return node
            except NotRowwise:
                continue
        return None
