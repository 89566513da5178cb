"""Operators that are no map of rows at sizes of a card, each against the products and copies within it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from stonefx import ops
from stonefx.benchmarks.case import Case, Planned
from stonefx.benchmarks.ops.others import poincare_linear
from stonefx.benchmarks.ops.steps import Function, case, modes
from stonefx.geometry import poincare

BUTTERFLIES = (64, 128, 256, 512, 1024, 2048, 4096)


def cuda_other_cases(
    device: str = "cuda",
    points: int = 16384,
    rows: int = 65536,
    width: int = 512,
    dims: tuple[int, ...] = BUTTERFLIES,
) -> Iterator[Planned]:
    """Two cases an operator and size, forward and with the backward."""
    made: dict[str, Callable[[str, bool, str], Case]] = {
        f"poincare.cdist {points} x {points} x 128": partial(_cdist, points, "accurate"),
        f"poincare.cdist {points} x {points} x 128, fast": partial(_cdist, points, "fast"),
        f"poincare_linear {rows} x {width} -> {width} bfloat16": partial(_linear, rows, width),
        f"poincare_mlr {rows} x {width}, {width} classes": partial(_mlr, rows, width),
        **{f"butterfly [{rows}, {dim}]": partial(_butterfly, rows, dim) for dim in dims},
    }
    for name, make in made.items():
        for grad in (False, True):
            title = f"{name} {modes(grad)}"
            yield Planned(name=title, make=partial(make, title, grad, device))


def _draw(device: str, *shape: int, scale: float = 0.5) -> Tensor:
    generator = torch.Generator(device).manual_seed(shape[0])
    return scale * torch.randn(*shape, generator=generator, device=device) / shape[-1] ** 0.5


def _cdist(points: int, mode: Literal["accurate", "fast"], title: str, grad: bool, device: str) -> Case:
    """All distances, against the product of the same points alone, and against writing as many numbers."""
    x = _draw(device, 2 * points, 128)
    ones = torch.empty(points, points, device=device)
    functions: dict[str, Function] = {
        "x @ y.mT": lambda x, y: x @ y.mT,
        **({} if grad else {"write alone": lambda x, y: ones.fill_(1.0)}),
        "stonefx": partial(poincare.cdist, mode=mode),
    }
    return case(title, functions, poincare.cdist, [x[:points], x[points:]], grad, device)


def _linear(rows: int, width: int, title: str, grad: bool, device: str) -> Case:
    """A layer of the ball, against `nn.Linear` of the same size, which computes something else."""
    inputs = [_draw(device, *shape) for shape in ((rows, width), (width, width), (width,))]
    functions: dict[str, Function] = {"nn.Linear": nn.functional.linear, "stonefx": poincare_linear}
    return case(title, functions, poincare_linear, [x.bfloat16() for x in inputs], grad, device)


def _mlr(rows: int, width: int, title: str, grad: bool, device: str) -> Case:
    """Logits of hyperplanes, against the product of points and normals alone."""
    inputs = [_draw(device, rows, width), _draw(device, width, width), _draw(device, width, width)]
    functions: dict[str, Function] = {"x @ normals.mT": _product, "stonefx": ops.poincare_mlr}
    return case(title, functions, ops.poincare_mlr, inputs, grad, device)


def _product(x: Tensor, points: Tensor, normals: Tensor) -> Tensor:
    return x @ (points + normals).mT  # with a gradient for each operand


def _butterfly(rows: int, dim: int, title: str, grad: bool, device: str) -> Case:
    """All stages, against a copy of as many bytes as one read and one write a pass take."""
    generator = torch.Generator(device).manual_seed(dim)
    angles = torch.rand(dim.bit_length() - 1, dim // 2, generator=generator, device=device)
    weight = torch.stack([angles.cos(), angles.sin()], -1)
    functions: dict[str, Function] = {"stonefx": ops.butterfly}
    return case(
        title, functions, ops.butterfly, [_draw(device, rows, dim), weight], grad, device, copies=True
    )
