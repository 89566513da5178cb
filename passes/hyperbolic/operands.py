"""The operands of a recognised map as nodes: the curvature, and row vectors with their sign."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import fx

from ..graph.nodes import is_weight
from .evaluate import Evaluator
from .forms import HALF, Form, Monomial
from .region import Region
from .values import Layout, scalar_layout

aten = torch.ops.aten
KEPT = ("stack_trace", "nn_module_stack")


class NoOperand(ValueError):
    """The curvature is no value that a node of the graph holds or that a few new ones can compute."""


class Operands:
    """Makes the operands of one map, before its root.

    Args:
        evaluator: what knows the forms of the nodes.
        region: the map.
    """

    def __init__(self, evaluator: Evaluator, region: Region) -> None:
        self.evaluator = evaluator
        self.algebra = evaluator.algebra
        self.region = region

    def insert(self, target: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> fx.Node:
        """Add a call before the root, with its fake value."""
        root = self.region.root
        mode = root.meta["val"].fake_mode
        values, keywords = fx.node.map_arg((tuple(args), kwargs), lambda node: node.meta["val"])
        with mode:
            value = target(*values, **keywords)
        with root.graph.inserting_before(root):
            node = root.graph.call_function(target, tuple(args), kwargs)
        node.meta = {key: root.meta[key] for key in KEPT if key in root.meta} | {"val": value}
        return node

    def vector(self, node: fx.Node, sign: int) -> fx.Node:
        """A row vector or its negative."""
        return node if sign > 0 else self.insert(aten.neg.default, (node,), {})

    def check(self, form: Form) -> None:
        """Raise `NoOperand` where `curvature` could not make the operand."""
        if form.number is not None or self._holding(form) or self._holding(self._root(form)):
            return
        if len(form) != 1 or any(self._atom(index) is None for index, _ in form.terms[0][0]):
            raise NoOperand(f"no tensor of the graph holds the curvature {self.algebra.describe(form)}")

    def curvature(self, form: Form, grad: bool) -> fx.Node:
        """A node that holds the curvature `c`; a new one that only weights determine is marked as a fold."""
        device = self.region.root.meta["val"].device
        if form.number is not None:
            constant = self.insert(
                aten.full.default, ([], form.number), {"dtype": torch.float64, "device": device}
            )
            constant.meta["fold"] = "curvature"
            return constant
        if held := self._holding(form):
            return held
        if root := self._holding(self._root(form)):
            product = self.insert(aten.mul.Tensor, (root, root), {})
        else:
            product = self._product(*form.terms[0])
        trained = grad and any(node.meta["val"].requires_grad for node in self.region.scalars)
        if all(map(is_weight, self.region.scalars)) and not trained:
            product.meta["fold"] = "curvature"
        return product

    def _product(self, monomial: Monomial, coefficient: float) -> fx.Node:
        product: fx.Node | None = None
        for index, exponent in monomial:
            factor = self._atom(index)
            if exponent != 1:
                factor = self.insert(aten.pow.Tensor_Scalar, (factor, float(exponent)), {})
            product = factor if product is None else self.insert(aten.mul.Tensor, (product, factor), {})
        assert product is not None
        return product if coefficient == 1 else self.insert(aten.mul.Tensor, (product, coefficient), {})

    def _root(self, form: Form) -> Form:
        return self.algebra.power(form, HALF)

    def _atom(self, index: int) -> fx.Node | None:
        return self._holding(Form(((((index, Fraction(1)),), 1.0),)))

    def _holding(self, form: Form) -> fx.Node | None:
        """The first row scalar of the region with this form."""
        for node in (*self.region.scalars, *self.region.constants):
            value = self.evaluator.values.get(node)
            if value is None or value.layout is Layout.BATCH or scalar_layout(node.meta["val"]) is None:
                continue
            if self.algebra.equal(value.form, form):
                return node
        return None
