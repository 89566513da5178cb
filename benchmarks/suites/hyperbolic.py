"""expmap0 -> mobius_add -> logmap0 on rows of the Poincare ball, forward alone and with the backward."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

import stonefx
from stonefx.benchmarks import formulas
from stonefx.benchmarks.case import Arm, Case, CaseResult, Planned
from stonefx.benchmarks.ops.rowwise import CUDA_DTYPES, CUDA_SHAPES
from stonefx.benchmarks.ops.steps import COPY, copy_of, moved_bytes, sized, working_arms
from stonefx.geometry import poincare

SHAPES = ((4096, 64), (16384, 128))


class PlainTranslation(nn.Module):
    """To the ball, translate there, and back, in plain torch."""

    def __init__(self, dim: int, c: float = 1.0) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.full((dim,), 0.2 / dim**0.5))
        self.c = c

    def forward(self, v: torch.Tensor) -> torch.Tensor:
        x = formulas.expmap0(v, self.c)
        return formulas.logmap0(formulas.mobius_add(x, self.point, self.c), self.c)


class GeometryTranslation(PlainTranslation):
    """The same by hand over `stonefx.geometry`."""

    def forward(self, v: torch.Tensor) -> torch.Tensor:
        x = poincare.expmap0(v, self.c)
        return poincare.logmap0(poincare.mobius_add(x, self.point, self.c), self.c)


class PlainChain(nn.Module):
    """The first maps of: to the ball, translate there, back, and the same again; in plain torch.

    Args:
        dim: of the rows.
        length: how many maps, 2 to 6.
    """

    def __init__(self, dim: int, length: int, c: float = 1.0) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.full((dim,), 0.2 / dim**0.5))
        self.length, self.c = length, c

    def forward(self, v: torch.Tensor) -> torch.Tensor:
        for place in range(self.length):
            if place % 3 == 0:
                v = formulas.expmap0(v, self.c)
            elif place % 3 == 1:
                v = formulas.mobius_add(v, self.point, self.c)
            else:
                v = formulas.logmap0(v, self.c)
        return v


def cuda_chain_cases(
    device: str = "cuda",
    shapes: Sequence[tuple[int, int]] = CUDA_SHAPES,
    dtypes: Sequence[torch.dtype] = CUDA_DTYPES,
) -> Iterator[Planned]:
    """Chains of 2 to 6 maps at sizes of a card; of 3 and 6 alone beside the first shape in the first dtype."""
    for dtype in dtypes:
        for rows, dim in shapes:
            first = dtype == dtypes[0] and (rows, dim) == shapes[0]
            for length in range(2, 7) if first else (3, 6):
                for grad in (False, True):
                    name = f"{length} maps {sized(rows, dim, dtype, grad)}"
                    make = partial(_chain_case, name, length, rows, dim, dtype, grad, device)
                    yield Planned(name=name, make=make)


def _chain_case(
    name: str, length: int, rows: int, dim: int, dtype: torch.dtype, grad: bool, device: str
) -> Case:
    torch.compiler.reset()
    generator = torch.Generator(device).manual_seed(rows)
    # Drawn where it is needed: bringing as many numbers to a card takes longer than all calls on them.
    x = (torch.randn(rows, dim, generator=generator, device=device) / dim**0.5).to(dtype)
    plain = PlainChain(dim, length).to(device, dtype)
    prepare = _training if grad else _inference
    models: dict[str, Callable[[], nn.Module]] = {
        "eager": lambda: plain,
        "inductor": lambda: _compiled(plain, "inductor"),
        "compile(stone)": lambda: _compiled(plain, "stone"),
        "stonefx.optimize": lambda: stonefx.optimize(plain, (x,)),
    }
    made = {arm: lambda model=model: prepare(model(), x) for arm, model in models.items()}
    with torch.set_grad_enabled(grad):
        truth = prepare(copy.deepcopy(plain).double(), x.double())()
        arms, left_out = working_arms(made)
        moved = moved_bytes([x], [value.to(dtype) for value in truth], grad)
        arms.append(Arm(name=COPY, call=copy_of(moved, truth)))

    def share(result: CaseResult) -> dict[str, Any]:
        arms = [name for name in result.samples if name != COPY]
        return {"bytes": moved, "share_of_copy": {arm: result.ratio(COPY, arm) for arm in arms}}

    return Case(
        name=name,
        arms=arms,
        truth=truth,
        grad=grad,
        synchronize=torch.cuda.synchronize if device == "cuda" else None,
        facts=share,
        left_out=left_out,
    )


def hyperbolic_suite(device: str = "cpu") -> Iterator[Case] | Iterator[Planned]:
    """The cases of a device: translations on the CPU, chains of several lengths at a card's sizes on CUDA."""
    return cuda_chain_cases() if device == "cuda" else hyperbolic_cases(device)


def hyperbolic_cases(device: str = "cpu", shapes: Sequence[tuple[int, int]] = SHAPES) -> Iterator[Case]:
    """Two cases a shape: forward without gradients, and forward with the backward to rows and point."""
    for rows, dim in shapes:
        generator = torch.Generator().manual_seed(rows)
        # Norms about one: well inside the ball, far from the origin.
        x = (torch.randn(rows, dim, generator=generator) / dim**0.5).to(device)
        plain = PlainTranslation(dim).to(device)
        for grad in (False, True):
            torch.compiler.reset()
            prepare = _training if grad else _inference
            with torch.set_grad_enabled(grad):
                truth = prepare(copy.deepcopy(plain).double(), x.double())()
            yield Case(
                name=f"[{rows}, {dim}] " + ("forward+backward" if grad else "forward"),
                arms=[Arm(name=name, call=prepare(model, x)) for name, model in _models(plain, x).items()],
                truth=truth,
                grad=grad,
                synchronize=torch.cuda.synchronize if device == "cuda" else None,
            )


def _models(plain: PlainTranslation, x: torch.Tensor) -> dict[str, nn.Module]:
    by_hand = GeometryTranslation(x.shape[-1]).to(x.device)
    by_hand.load_state_dict(plain.state_dict())
    return {
        "eager": plain,
        "inductor": _compiled(plain, "inductor"),
        "compile(stone)": _compiled(plain, "stone"),
        "stonefx.optimize": stonefx.optimize(plain, (x,)),
        "stonefx.geometry": by_hand,
    }


def _compiled(plain: nn.Module, backend: str) -> nn.Module:
    module = copy.deepcopy(plain)
    module.compile(backend=backend)
    return module


Call = Callable[[], tuple[torch.Tensor, ...]]


def _inference(model: nn.Module, x: torch.Tensor) -> Call:
    return lambda: (model(x),)


def _training(model: nn.Module, x: torch.Tensor) -> Call:
    rows = x.clone().requires_grad_()
    point = next(model.parameters())
    upstream = torch.ones_like(rows)

    def step() -> tuple[torch.Tensor, ...]:
        y = model(rows)
        return (y.detach(), *torch.autograd.grad(y, (rows, point), upstream))

    return step
