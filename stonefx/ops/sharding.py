"""Sharding rules for DTensor: which dimensions of an operator may be split over processes, and what comes of it.

Each operator names the dimensions of its tensors, as einsum does; one rule makes of the names all placements of the
operator, its `_forward` twin and its `_backward`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

# Of a tensor along one dimension of the mesh: split at this dimension of its own, whole, or a sum over the processes.
Placement = int | Literal["whole", "sum"]
Shape = Sequence[int]
# A letter, or a position in the batch.
_Axis = str | int


@dataclass(frozen=True, kw_only=True)
class Dimensions:
    """The dimensions of an operator's tensors, a letter each; `*` in front stands for the batch, `1` for a size of 1.

    Rows are independent, so the batch may be split: operands without it are whole, and their gradients sums over the
    processes. A letter in `free` may be split where each part of the result needs only its part of the operands, or
    where the result is the sum over the parts.

    Args:
        operands: of each tensor operand, such as `"*d"`.
        result: of the result.
        gradients: of each result of `_backward`; those of the operands, where they are left out.
        free: letters that may be split besides the batch.
        added: positions of operands that are added to the result.
        fixed: positions of operands that have no gradient.

    >>> product = Dimensions(operands=("*i", "oi"), result="*o", free="oi")
    >>> for result, operands in product.forward([(6, 4), (3, 4)]):
    ...     print(operands, result)
    [0, 'whole'] [0]
    ['whole', 0] [1]
    [1, 1] ['sum']
    """

    operands: tuple[str, ...]
    result: str
    gradients: tuple[str, ...] = ()
    free: str = ""
    added: tuple[int, ...] = ()
    fixed: tuple[int, ...] = ()

    def forward(
        self, shapes: Sequence[Shape | None]
    ) -> Iterator[tuple[list[Placement], list[Placement | None]]]:
        """Placements of the result and of the operands, whose shapes are given, None for one that was left out."""
        for axis in self._axes(shapes):
            operands = self._of_operands(axis, shapes)
            whole = len(self._batch(shapes)) + len(self.result.strip("*"))
            result = _at(axis, self.result, whole)
            if result == "whole":
                operands = ["sum" if i in self.added and p else p for i, p in enumerate(operands)]
            yield ["sum" if result == "whole" else result], operands

    def backward(
        self, shapes: Sequence[Shape | None], left_out: Sequence[int] = ()
    ) -> Iterator[tuple[list[Placement], list[Placement | None]]]:
        """Placements of the gradients, and of the result's gradient and the operands.

        Args:
            shapes: of the operands, None for one that was left out; its gradient is empty.
            left_out: positions of further gradients that are empty.
        """
        depth = len(self._batch(shapes))
        empty = {*left_out, *(i for i, shape in enumerate(shapes) if shape is None)}
        for axis in self._axes(shapes):
            grad = _at(axis, self.result, depth + len(self.result.strip("*")))
            gradients: list[Placement] = []
            for i, labels in enumerate(self.gradients or self.operands):
                if i in self.fixed:
                    continue
                place = _at(axis, labels, depth * labels.startswith("*") + len(labels.strip("*")))
                # What is added to the result has the result's gradient, whole where that is.
                summed = place == "whole" and not (i in self.added and grad == "whole")
                gradients.append("whole" if i in empty else "sum" if summed else place)
            yield gradients, [grad, *self._of_operands(axis, shapes)]

    def _axes(self, shapes: Sequence[Shape | None]) -> list[_Axis]:
        batch = self._batch(shapes)
        return [*(i for i, size in enumerate(batch) if size != 1), *self.free]

    def _batch(self, shapes: Sequence[Shape | None]) -> Shape:
        own = [
            shape[: len(shape) - len(labels.strip("*"))]
            for labels, shape in zip(self.operands, shapes, strict=False)
            if shape is not None and labels.startswith("*") and len(shape) >= len(labels.strip("*"))
        ]
        return torch.broadcast_shapes(*own)

    def _of_operands(self, axis: _Axis, shapes: Sequence[Shape | None]) -> list[Placement | None]:
        batch = self._batch(shapes)
        places: list[Placement | None] = []
        for labels, shape in zip(self.operands, shapes, strict=False):
            if shape is None:
                places.append(None)
                continue
            own = axis
            if isinstance(axis, int):
                # Batches broadcast, aligned at the right.
                own = axis - len(batch) + len(shape) - len(labels.strip("*"))
            place = _at(own, labels, len(shape))
            repeated = isinstance(axis, int) and isinstance(place, int) and shape[place] == 1
            places.append("whole" if repeated else place)
        return places


def _at(axis: _Axis, labels: str, rank: int) -> Placement:
    """Where a tensor of these labels has the axis; a position in the batch is the tensor's own."""
    letters = labels.strip("*")
    if isinstance(axis, int):
        return axis if labels.startswith("*") and 0 <= axis < rank - len(letters) else "whole"
    place = rank - len(letters) + letters.find(axis)
    return place if axis in letters and place >= 0 else "whole"


def register(name: str, dimensions: Dimensions) -> None:
    """Give `stone::name`, its twin and its backward their rules, where torch has DTensor."""
    if not torch.distributed.is_available():
        return
    for suffix in ("", "_forward", "_backward"):
        _register(getattr(torch.ops.stone, f"{name}{suffix}").default, dimensions, suffix == "_backward")


def _register(operator: torch._ops.OpOverload, dimensions: Dimensions, backward: bool) -> None:
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
    from torch.distributed.tensor._op_schema import OpStrategy, RuntimeSchemaInfo
    from torch.distributed.tensor._ops.utils import expand_to_full_mesh_op_strategy

    arguments = operator._schema.arguments
    positional = sum(not argument.kwarg_only for argument in arguments)

    def placement(place: Placement | None) -> Any:
        if place is None:
            return None
        return Shard(place) if isinstance(place, int) else Partial() if place == "sum" else Replicate()

    def strategy(schema: Any) -> Any:
        shapes: list[Shape | None] = [
            each.strategies[0].output_spec.shape if isinstance(each, OpStrategy) else None
            for each in schema.args_schema
        ]
        # The dispatcher drops trailing arguments that are None.
        shapes += [None] * (positional - len(shapes))
        if backward:
            left_out = () if schema.kwargs_schema.get("has_bias", True) else dimensions.added
            choices = list(dimensions.backward(shapes[1:], left_out))
        else:
            choices = list(dimensions.forward(shapes))
        results = len(operator._schema.returns)
        whole: list[Any] = [Replicate()] * results + [
            None if shape is None else Replicate() for shape in shapes
        ]
        single = [whole, *([placement(place) for place in (*to, *of)] for to, of in choices)]
        mesh = schema.get_mesh_from_args()
        return expand_to_full_mesh_op_strategy(mesh, schema, single, input_index=results)

    # Numbers never change a shape; whether there is a bias does.
    flags = [
        argument.name for argument in arguments if argument.kwarg_only and argument.type.kind() == "BoolType"
    ]
    DTensor._op_dispatcher.sharding_propagator.register_op_strategy(
        operator, strategy, RuntimeSchemaInfo(static_kwargkey=flags or None)
    )
