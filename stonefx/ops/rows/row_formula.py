"""Operators of row formulas: from one declaration, the schema, checks, fake, gradients and batching rules.

Such an operator maps row vectors `[*batch, dim]` and numbers of the row (0-dim or broadcasting to `[*batch, 1]`) to
rows, or to one number a row, `[*batch]`. Its kernels are the formula of the same name in
`csrc/include/stone/formulas`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .. import batching, checks
from ..library import NO_LIMIT, Operator
from ..sharding import Dimensions


@dataclass(frozen=True, kw_only=True)
class RowFormula:
    """What distinguishes one operator of rows from another.

    Args:
        name: of the operator.
        vectors, scalars: labels of the operands, row vectors first.
        guards: labels of the keyword-only numbers; `*_limit`, `max_*` are none by default, the others 0.
        reference: the result in plain torch, differentiable, from operands of one dtype whose scalars broadcast to
            `[*batch, 1]`; a number a row is `[*batch, 1]`.
        gives_number: the result is `[*batch]`.
        time_in, time_out: rows begin with a time component.
        separate: only the norm of the second vector is used, and its last dimension is its own.
    """

    name: str
    vectors: tuple[str, ...]
    reference: Callable[..., Tensor]
    scalars: tuple[str, ...] = ("c",)
    guards: tuple[str, ...] = field(default=())
    gives_number: bool = False
    time_in: bool = False
    time_out: bool = False
    separate: bool = False

    @property
    def schema(self) -> str:
        """The arguments between the parentheses."""
        operands = ", ".join(f"Tensor {label}" for label in (*self.vectors, *self.scalars))
        guards = ", ".join(f"float {label}={default:g}" for label, default in self.defaults.items())
        return f"{operands}, *, {guards}" if guards else operands

    @cached_property
    def defaults(self) -> dict[str, float]:
        """Each guard at the value that is none."""
        unbounded = ("_limit", "_radius", "_argument")
        return {
            label: NO_LIMIT if label.endswith(unbounded) and not label.startswith("min_") else 0.0
            for label in self.guards
        }

    def check(self, operands: tuple[Tensor, ...], guards: dict[str, float]) -> tuple[int, ...]:
        """The common batch; RuntimeError for operands or guards that do not fit."""
        vectors, scalars = operands[: len(self.vectors)], operands[len(self.vectors) :]
        for label, vector in zip(self.vectors, vectors, strict=True):
            checks.rows(self.name, label, vector)
        batch = tuple(vectors[0].shape[:-1])
        for label, vector in zip(self.vectors[1:], vectors[1:], strict=True):
            labels = f"{self.vectors[0]} and {label}"
            checks.same_dtype(self.name, labels, vectors[0], vector)
            checks.same_device(self.name, labels, vectors[0], vector)
            batch = checks.broadcast_batch(self.name, vectors[0], vector, labels, batch, not self.separate)
        if self.time_in and vectors[0].shape[-1] == 0:
            raise RuntimeError(
                f"stone::{self.name}: {self.vectors[0]} must have a time component and then the space components, "
                f"got {checks.shape(vectors[0])}"
            )
        for label, scalar in zip(self.scalars, scalars, strict=True):
            checks.curvature(self.name, scalar, batch, vectors[0].device, label, self.vectors[0])
        checks.options(self.name, **guards)
        return batch

    def result_shape(self, batch: tuple[int, ...], width: int) -> tuple[int, ...]:
        """Of rows of `width` in."""
        return batch if self.gives_number else (*batch, width + self.time_out - self.time_in)

    def evaluate(self, *operands: Tensor, **guards: float) -> Tensor:
        """The reference, computed in float64 for every dtype, as the kernels compute what a row has in numbers."""
        x = operands[0]
        converted = [operand.to(device=x.device, dtype=torch.float64) for operand in operands]
        result = self.reference(*converted, **{**self.defaults, **guards})
        return (result.squeeze(-1) if self.gives_number else result).to(x.dtype)

    def gradients(self, grad: Tensor, *operands: Tensor, **guards: float) -> tuple[Tensor, ...]:
        """Gradients of the reference, for vectors as if none broadcast and for the numbers of each row."""
        x, count = operands[0], len(self.vectors)
        batch = self.check(operands, guards)
        whole = [
            operand.to(device=x.device, dtype=torch.float64).expand(
                *batch, operand.shape[-1] if index < count else 1
            )
            for index, operand in enumerate(operands)
        ]
        with torch.enable_grad():
            pull = torch.func.vjp(lambda *inputs: self.evaluate(*inputs, **guards), *whole)[1]
            grads = pull(grad.to(torch.float64))
        of_scalars = batching.compute_dtype(x)
        return tuple(g.to(x.dtype if index < count else of_scalars) for index, g in enumerate(grads))

    def operator(self) -> Operator:
        """Everything that `library.declare` needs."""
        name, count = self.name, len(self.vectors)

        def fake(*operands: Tensor, **guards: float) -> Tensor:
            batch = self.check(operands, guards)
            return operands[0].new_empty(self.result_shape(batch, operands[0].shape[-1]))

        def backward_fake(grad: Tensor, *operands: Tensor, **guards: float) -> tuple[Tensor, ...]:
            x = operands[0]
            batch = self.check(operands, guards)
            labels = f"grad and {self.vectors[0]}"
            checks.gradient(f"{name}_backward", labels, grad, x, self.result_shape(batch, x.shape[-1]))
            dtype = batching.compute_dtype(x)
            vectors = (x.new_empty((*batch, vector.shape[-1])) for vector in operands[:count])
            return (*vectors, *(x.new_empty((*batch, 1), dtype=dtype) for _ in self.scalars))

        def batched(info: Any, in_dims: Any, operands: tuple[Tensor, ...]) -> list[Tensor]:
            first, *others = operands
            dims = [0, *in_dims[1:]]
            return batching.align([batching.spread(first, in_dims[0], info.batch_size), *others], dims)

        def vmap(op: Any, info: Any, in_dims: Any, *operands: Tensor, **guards: float) -> tuple[Tensor, int]:
            return op(*batched(info, in_dims, operands), **guards), 0

        def backward_vmap(
            op: Any, info: Any, in_dims: Any, grad: Tensor, *operands: Tensor, **guards: float
        ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
            grad = batching.spread(grad, in_dims[0], info.batch_size)
            results = op(grad, *batched(info, in_dims[1:], operands), **guards)
            return results, (0,) * len(results)

        return Operator(
            name=name,
            arguments=self.schema,
            backward_arguments="Tensor grad, " + self.schema,
            backward_results="(" + ", ".join(["Tensor"] * (count + len(self.scalars))) + ")",
            reference=self.evaluate,
            backward_reference=self.gradients,
            fake=fake,
            backward_fake=backward_fake,
            vmap=vmap,
            backward_vmap=backward_vmap,
            dimensions=Dimensions(
                operands=("*d",) * count + ("*1",) * len(self.scalars),
                result="*" if self.gives_number else "*d",
            ),
        )
