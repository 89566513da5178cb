"""Operators on rows: each against the libraries that have it, inductor on its plain formula, and memory alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from stonefx.benchmarks import formulas
from stonefx.benchmarks.case import Case, Planned
from stonefx.benchmarks.ops.peers import PEERS
from stonefx.benchmarks.ops.steps import Function, case, inductor, modes, sized
from stonefx.geometry import klein, lorentz, poincare

SHAPES = ((4096, 64), (65536, 128))
# Larger than the caches of a card: rows of a warp, and long ones.
CUDA_SHAPES = ((1048576, 64), (65536, 1024))
CUDA_DTYPES = (torch.float32, torch.bfloat16)
CURVATURE = 1.0
Inputs = Callable[[int, int, torch.Generator], Sequence[Tensor]]


def _rows(count: int, rows: int, dim: int, generator: torch.Generator) -> list[Tensor]:
    """Points of norm about one half, which are tangent vectors as well."""
    return [
        0.5 * torch.randn(rows, dim, generator=generator, device=generator.device) / dim**0.5
        for _ in range(count)
    ]


def _one(rows: int, dim: int, generator: torch.Generator) -> list[Tensor]:
    return _rows(1, rows, dim, generator)


def _two(rows: int, dim: int, generator: torch.Generator) -> list[Tensor]:
    return _rows(2, rows, dim, generator)


def _three(rows: int, dim: int, generator: torch.Generator) -> list[Tensor]:
    return _rows(3, rows, dim, generator)


def _tangent0(rows: int, dim: int, generator: torch.Generator) -> list[Tensor]:
    (v,) = _rows(1, rows, dim, generator)
    v[:, 0] = 0
    return [v]


def _sheet(rows: int, dim: int, generator: torch.Generator) -> list[Tensor]:
    return [lorentz.project(value) for value in _rows(2, rows, dim, generator)]


def _sheet_point(rows: int, dim: int, generator: torch.Generator) -> list[Tensor]:
    return _sheet(rows, dim, generator)[:1]


def _sheet_tangent(rows: int, dim: int, generator: torch.Generator) -> list[Tensor]:
    x, y = _sheet(rows, dim, generator)
    return [x, lorentz.logmap(x, y)]


@dataclass(frozen=True)
class RowOperator:
    """An operator: its function here, its plain formula, and how to draw inputs `(rows, dim, generator)`."""

    own: Function
    plain: Function
    inputs: Inputs


ROWWISE: dict[str, RowOperator] = {
    "expmap0": RowOperator(poincare.expmap0, lambda v: formulas.expmap0(v, CURVATURE), _one),
    "logmap0": RowOperator(poincare.logmap0, lambda y: formulas.logmap0(y, CURVATURE), _one),
    "mobius_add": RowOperator(poincare.mobius_add, lambda x, y: formulas.mobius_add(x, y, CURVATURE), _two),
    "mobius_scalar_mul": RowOperator(
        lambda x: poincare.mobius_scalar_mul(0.5, x),
        lambda x: formulas.mobius_scalar_mul(0.5, x, CURVATURE),
        _one,
    ),
    "dist": RowOperator(poincare.dist, lambda x, y: formulas.dist(x, y, CURVATURE), _two),
    "dist0": RowOperator(poincare.dist0, lambda x: formulas.dist0(x, CURVATURE), _one),
    "expmap": RowOperator(poincare.expmap, lambda x, v: formulas.expmap(x, v, CURVATURE), _two),
    "logmap": RowOperator(poincare.logmap, lambda x, y: formulas.logmap(x, y, CURVATURE), _two),
    "parallel_transport": RowOperator(
        poincare.parallel_transport, lambda x, y, v: formulas.parallel_transport(x, y, v, CURVATURE), _three
    ),
    "project": RowOperator(
        lambda x: poincare.project(x, eps=4e-3), lambda x: formulas.project(x, CURVATURE), _one
    ),
    "poincare.to_klein": RowOperator(
        poincare.to_klein, lambda x: formulas.poincare_to_klein(x, CURVATURE), _one
    ),
    "klein.to_poincare": RowOperator(
        klein.to_poincare, lambda x: formulas.klein_to_poincare(x, CURVATURE), _one
    ),
    "klein.dist": RowOperator(klein.dist, lambda x, y: formulas.klein_dist(x, y, CURVATURE), _two),
    "lorentz.expmap0": RowOperator(
        lorentz.expmap0, lambda v: formulas.lorentz_expmap0(v, CURVATURE), _tangent0
    ),
    "lorentz.logmap0": RowOperator(
        lorentz.logmap0, lambda x: formulas.lorentz_logmap0(x, CURVATURE), _sheet_point
    ),
    "lorentz.dist": RowOperator(lorentz.dist, lambda x, y: formulas.lorentz_dist(x, y, CURVATURE), _sheet),
    "lorentz.expmap": RowOperator(
        lorentz.expmap, lambda x, v: formulas.lorentz_expmap(x, v, CURVATURE), _sheet_tangent
    ),
}


def _rows_from_memory(*rows: Tensor) -> Tensor:
    """What reading the operands costs alone."""
    total = rows[0].sum()
    for more in rows[1:]:
        total = total + more.sum()
    return total.expand(rows[0].shape[:-1])


def _rows_through_memory(*rows: Tensor) -> Tensor:
    """What reading the operands and writing one result costs alone."""
    if len(rows) == 1:
        return rows[0].clone()
    return torch.add(*rows) if len(rows) == 2 else torch.addcmul(*rows)


def rowwise_cases(device: str = "cpu", shapes: Sequence[tuple[int, int]] = SHAPES) -> Iterator[Planned]:
    """Two cases an operator and shape, forward and with the backward."""
    for rows, dim in shapes:
        for name in ROWWISE:
            for grad in (False, True):
                title = f"{name} [{rows}, {dim}] {modes(grad)}"
                yield Planned(name=title, make=partial(_case, title, name, rows, dim, grad, device))


def cuda_rowwise_cases(
    device: str = "cuda",
    shapes: Sequence[tuple[int, int]] = CUDA_SHAPES,
    dtypes: Sequence[torch.dtype] = CUDA_DTYPES,
) -> Iterator[Planned]:
    """At sizes of a card: ours, inductor on the plain formula and a copy, two cases an operator, dtype and shape."""
    for dtype in dtypes:
        for rows, dim in shapes:
            for name in ROWWISE:
                for grad in (False, True):
                    title = f"{name} {sized(rows, dim, dtype, grad)}"
                    make = partial(_cuda_case, title, name, rows, dim, dtype, grad, device)
                    yield Planned(name=title, make=make)


def _cuda_case(
    title: str, name: str, rows: int, dim: int, dtype: torch.dtype, grad: bool, device: str
) -> Case:
    torch.compiler.reset()
    operator = ROWWISE[name]
    drawn = operator.inputs(rows, dim, torch.Generator(device).manual_seed(rows))
    functions: dict[str, Function] = {"inductor": inductor(operator.plain), "stonefx": operator.own}
    return case(title, functions, operator.own, [x.to(dtype) for x in drawn], grad, device, copies=True)


def _case(title: str, name: str, rows: int, dim: int, grad: bool, device: str) -> Case:
    torch.compiler.reset()
    operator = ROWWISE[name]
    inputs = operator.inputs(rows, dim, torch.Generator().manual_seed(rows))
    functions: dict[str, Function] = {}
    for peer, library in PEERS.items():
        found = library(CURVATURE).get(name)
        if found is not None:
            functions[f"{peer} eager"] = found
    if not functions:
        functions["plain eager"] = operator.plain
    functions["inductor"] = inductor(operator.plain)
    if not grad:
        gives_rows = operator.own(*inputs).dim() == inputs[0].dim()
        functions["memory alone"] = _rows_through_memory if gives_rows else _rows_from_memory
    functions["stonefx"] = operator.own
    return case(title, functions, operator.own, inputs, grad, device)
