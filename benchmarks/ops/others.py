"""Operators that are no map of rows: distances of all pairs, layers behind a matrix product, butterflies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from stonefx import ops
from stonefx.benchmarks import formulas
from stonefx.benchmarks.case import Case, Planned
from stonefx.benchmarks.ops.peers import PEERS
from stonefx.benchmarks.ops.rowwise import CURVATURE
from stonefx.benchmarks.ops.steps import Function, case, inductor, modes
from stonefx.geometry import poincare
from stonefx.ops.layers.butterfly import reference

BUTTERFLIES = (64, 256, 1024, 4096)


def other_cases(device: str = "cpu") -> Iterator[Planned]:
    """Two cases an operator and size, forward and with the backward."""
    made: dict[str, Callable[[str, bool, str], Case]] = {
        "poincare.cdist 1024 x 1024 x 64": cdist_case,
        "poincare.cdist 1024 x 1024 x 512, fast": products_case,
        "poincare_linear 4096 x 256 -> 256": linear_case,
        "poincare_mlr 1024 x 128, 200 classes": mlr_case,
        **{f"butterfly [4096, {dim}]": partial(butterfly_case, dim) for dim in BUTTERFLIES},
        **{f"hyper_butterfly [4096, {dim}]": partial(hyper_butterfly_case, dim) for dim in BUTTERFLIES},
    }
    for name, make in made.items():
        for grad in (False, True):
            title = f"{name} {modes(grad)}"
            yield Planned(name=title, make=partial(make, title, grad, device))


def cdist_case(title: str, grad: bool, device: str) -> Case:
    """All distances of two sets of points, against the forms that make an `[n, m, dim]` tensor."""
    torch.compiler.reset()
    generator = torch.Generator().manual_seed(0)
    inputs = [0.5 * torch.randn(1024, 64, generator=generator) / 8 for _ in range(2)]
    functions: dict[str, Function] = {
        f"{peer} eager, broadcast": found
        for peer, library in PEERS.items()
        if (found := library(CURVATURE).get("cdist")) is not None
    }
    functions |= {
        "inductor, broadcast": inductor(lambda x, y: formulas.cdist(x, y, CURVATURE)),
        "stonefx": poincare.cdist,
    }
    return case(title, functions, poincare.cdist, inputs, grad, device)


def products_case(title: str, grad: bool, device: str) -> Case:
    """All distances in many dimensions by one matrix product, against differences and against the product alone."""
    generator = torch.Generator().manual_seed(0)
    inputs = [0.5 * torch.randn(1024, 512, generator=generator) / 512**0.5 for _ in range(2)]
    functions: dict[str, Function] = {
        "accurate": poincare.cdist,
        "x @ y.mT": lambda x, y: x @ y.mT,
        "stonefx": partial(poincare.cdist, mode="fast"),
    }
    return case(title, functions, poincare.cdist, inputs, grad, device)


def linear_case(title: str, grad: bool, device: str) -> Case:
    """A layer of the ball, against `nn.Linear` of the same size, which computes something else."""
    torch.compiler.reset()
    generator = torch.Generator().manual_seed(0)
    x = 0.5 * torch.randn(4096, 256, generator=generator) / 16
    weight = torch.randn(256, 256, generator=generator) / 16
    bias = torch.randn(256, generator=generator) / 64

    def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return formulas.poincare_linear(x, weight, bias, CURVATURE)

    functions: dict[str, Function] = {
        "nn.Linear": nn.functional.linear,
        "plain eager": plain,
        "inductor": inductor(plain),
        "stonefx": poincare_linear,
    }
    return case(title, functions, poincare_linear, [x, weight, bias], grad, device)


def poincare_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The operator with the projection that the plain formula has."""
    return ops.poincare_linear(x, weight, bias, CURVATURE, project_limit=1 - 4e-3)


def mlr_case(title: str, grad: bool, device: str) -> Case:
    """Logits of 200 hyperplanes, against the form that makes a `[classes, batch, dim]` tensor."""
    torch.compiler.reset()
    generator = torch.Generator().manual_seed(0)
    x = 0.5 * torch.randn(1024, 128, generator=generator) / 128**0.5
    points, normals = (0.3 * torch.randn(200, 128, generator=generator) / 128**0.5 for _ in range(2))

    def plain(x: Tensor, points: Tensor, normals: Tensor) -> Tensor:
        return formulas.mlr(x, points, normals, CURVATURE)

    functions: dict[str, Function] = {
        "eager, broadcast": plain,
        "inductor, broadcast": inductor(plain),
        "stonefx": ops.poincare_mlr,
    }
    return case(title, functions, ops.poincare_mlr, [x, points, normals], grad, device)


def _stages(dim: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(dim)
    angles = torch.rand(dim.bit_length() - 1, dim // 2, generator=generator)
    x = 0.5 * torch.randn(4096, dim, generator=generator) / dim**0.5
    return x, torch.stack([angles.cos(), angles.sin()], -1)


def butterfly_case(dim: int, title: str, grad: bool, device: str) -> Case:
    """All stages, against one stage after another."""
    torch.compiler.reset()
    functions: dict[str, Function] = {
        "eager, by stages": reference,
        "inductor, by stages": inductor(reference),
        **({} if grad else {"clone": _copy}),
        "stonefx": ops.butterfly,
    }
    return case(title, functions, ops.butterfly, _stages(dim), grad, device)


def hyper_butterfly_case(dim: int, title: str, grad: bool, device: str) -> Case:
    """To the tangent space, all stages, and back, against the same one after another."""
    torch.compiler.reset()

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        return formulas.expmap0(reference(formulas.logmap0(x, CURVATURE), weight), CURVATURE)

    functions: dict[str, Function] = {
        "eager, by stages": plain,
        "inductor, by stages": inductor(plain),
        **({} if grad else {"clone": _copy}),
        "stonefx": ops.hyper_butterfly,
    }
    return case(title, functions, ops.hyper_butterfly, _stages(dim), grad, device)


def _copy(x: Tensor, weight: Tensor) -> Tensor:
    """What reading and writing the rows costs alone."""
    return x.clone()
