"""expmap0 -> mobius_add -> logmap0 on rows of the Poincare ball, forward alone and with the backward."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

import stonefx
from stonefx.benchmarks import formulas
from stonefx.benchmarks.case import Arm, Case
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


def _compiled(plain: PlainTranslation, backend: str) -> nn.Module:
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
