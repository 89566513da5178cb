"""Models as users of geoopt and HypLL write them: on the library, under inductor, and on stonefx's operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import stonefx
from stonefx.benchmarks.case import Arm, Case, Planned
from stonefx.integrations import Acceleration

Call = Callable[[], Sequence[Tensor]]


class InductorWithShim:
    """Inductor for graphs that geoopt's and HypLL's code reaches whole, as for stonefx's own doors."""

    integrations = ("geoopt", "hypll")

    def __call__(self, module: torch.fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        from torch._inductor.compile_fx import compile_fx

        compiled: Any = compile_fx(module, list(inputs))
        return compiled


def integration_cases(device: str = "cpu") -> Iterator[Planned]:
    """Forward and backward of each model; geoopt's first."""
    for name, library, make in (
        ("geoopt Möbius layers 4096 x 256", "geoopt", lambda: mobius_layers(4096, 256)),
        ("geoopt Möbius layers 8 x 8", "geoopt", lambda: mobius_layers(8, 8)),
        ("geoopt hyperplanes 1024 x 64, 100 of them", "geoopt", lambda: hyperplanes(1024, 64, 100)),
        ("geoopt distances of 512 x 512 x 64 pairs", "geoopt", lambda: distances(512, 64)),
        ("HypLL cdist 1024 x 1024 x 64", "hypll", lambda: hypll_distances(1024, 64)),
        ("HypLL linear layer 4096 x 256", "hypll", lambda: hypll_linear(4096, 256)),
        ("HypLL linear layer 8 x 8", "hypll", lambda: hypll_linear(8, 8)),
    ):
        yield Planned(name=name, make=partial(_case, name, library, make, device))
    yield Planned(name="geoopt RiemannianAdam step of 1023 x 64", make=lambda: _optimizer_case(device))


def mobius_layers(rows: int, dim: int) -> tuple[nn.Module, Tensor]:
    """Two Möbius layers with biases and a rectifier between them."""
    import geoopt

    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ball = geoopt.PoincareBall(1.0)
            self.weights = nn.ParameterList(torch.randn(dim, dim) / dim**0.5 for _ in range(2))
            points = (self.ball.expmap0(torch.randn(dim) * 0.01) for _ in range(2))
            self.biases = nn.ParameterList(geoopt.ManifoldParameter(p, manifold=self.ball) for p in points)

        def forward(self, x: Tensor) -> Tensor:
            ball = self.ball
            for weight, bias in zip(self.weights, self.biases, strict=True):
                x = ball.mobius_add(ball.mobius_matvec(weight, x), bias)
                x = ball.expmap0(ball.logmap0(x).relu())
            return x

    return Layers(), geoopt.PoincareBall(1.0).expmap0(torch.randn(rows, dim) / dim**0.5).detach()


def hyperplanes(rows: int, dim: int, planes: int) -> tuple[nn.Module, Tensor]:
    """geoopt's layer of distances to hyperplanes."""
    import geoopt
    from geoopt.layers.stereographic import Distance2StereographicHyperplanes

    ball = geoopt.PoincareBall(1.0)
    layer = Distance2StereographicHyperplanes(dim, planes, ball=ball)
    return layer, ball.expmap0(torch.randn(rows, dim) / dim**0.5).detach()


def distances(rows: int, dim: int) -> tuple[nn.Module, Tensor]:
    """Distances of all pairs of points, by broadcasting."""
    import geoopt

    class Distances(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ball = geoopt.PoincareBall(1.0)
            points = self.ball.random_normal(rows, dim)
            self.points = geoopt.ManifoldParameter(points, manifold=self.ball)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.ball.dist(x[:, None], self.points)
            return found

    return Distances(), geoopt.PoincareBall(1.0).expmap0(torch.randn(rows, dim) / dim**0.5).detach()


def hypll_distances(rows: int, dim: int) -> tuple[nn.Module, Tensor]:
    """HypLL's distance matrix."""
    from hypll.manifolds.poincare_ball import Curvature, PoincareBall
    from hypll.tensors import ManifoldTensor

    class Distances(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ball = PoincareBall(Curvature(1.0))
            self.points = nn.Parameter(torch.randn(1, rows, dim) * 0.5 / dim**0.5)

        def forward(self, x: Tensor) -> Tensor:
            points = (ManifoldTensor(each, manifold=self.ball) for each in (x, self.points))
            found: Tensor = self.ball.cdist(*points)
            return found

    return Distances(), torch.randn(1, rows, dim) * 0.5 / dim**0.5


def hypll_linear(rows: int, dim: int) -> tuple[nn.Module, Tensor]:
    """HypLL's linear layer behind an exponential map."""
    import hypll.nn
    from hypll.manifolds.poincare_ball import Curvature, PoincareBall
    from hypll.tensors import TangentTensor

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ball = PoincareBall(Curvature(1.0))
            self.layer = hypll.nn.HLinear(dim, dim, self.ball)

        def forward(self, x: Tensor) -> Tensor:
            points = self.ball.expmap(TangentTensor(x, man_dim=-1, manifold=self.ball))
            found: Tensor = self.layer(points).tensor
            return found

    return Layer(), torch.randn(rows, dim) / dim**0.5


def _case(name: str, library: str, make: Callable[[], tuple[nn.Module, Tensor]], device: str) -> Case:
    torch.compiler.reset()
    torch.manual_seed(0)
    model, x = make()
    model, x = model.to(device), x.to(device)
    accelerated = stonefx.accelerate(library)
    accelerated.undo()
    with torch.no_grad():
        truth = [model.double()(x.double())]
    model.float()
    forwards: dict[str, Callable[..., Any]] = {library: model, "inductor": torch.compile(model)}
    if library == "hypll":
        del forwards["inductor"]  # which cannot trace HypLL's parameters
    forwards["inductor with the shim"] = torch.compile(model, backend=InductorWithShim())
    forwards["compile(stone)"] = torch.compile(model, backend="stone")
    fast: dict[str, Callable[..., Any]] = {
        "accelerate": model,
        "accelerate, inductor": torch.compile(model, backend=InductorWithShim()),
    }
    rows = x.clone().requires_grad_()
    arms = [Arm(name=key, call=_step(forward, model, rows)) for key, forward in forwards.items()]
    arms += [
        Arm(name=key, call=_within(accelerated, _step(forward, model, rows))) for key, forward in fast.items()
    ]
    return Case(name=name, arms=arms, truth=truth, grad=True, synchronize=_synchronize(device))


def _synchronize(device: str) -> Callable[[], None] | None:
    return torch.cuda.synchronize if device == "cuda" else None


def _step(forward: Callable[..., Any], model: nn.Module, rows: Tensor) -> Call:
    wanted = [rows, *(getattr(p, "tensor", p) for p in model.parameters())]
    wanted = [each for each in wanted if each.requires_grad]

    def step() -> Sequence[Tensor]:
        y = forward(rows)
        torch.autograd.grad(y.sum(), wanted, allow_unused=True)
        return [y.detach()]

    return step


def _within(accelerated: Acceleration, step: Call) -> Call:
    def run() -> Sequence[Tensor]:
        with accelerated:
            return step()

    return run


def _optimizer_case(device: str) -> Case:
    import geoopt

    torch.manual_seed(0)
    accelerated = stonefx.accelerate("geoopt")
    accelerated.undo()
    ball = geoopt.PoincareBall(1.0).to(device)
    start = ball.random_normal(1023, 64)
    gradient = torch.randn(1023, 64, device=device)

    def updates(dtype: torch.dtype) -> Call:
        point = geoopt.ManifoldParameter(start.to(dtype), manifold=ball)
        optimizer = geoopt.optim.RiemannianAdam([point], lr=1e-3)

        def step() -> Sequence[Tensor]:
            with torch.no_grad():
                point.copy_(start)
            point.grad = gradient.to(dtype)
            optimizer.state.clear()
            optimizer.step()
            return [point.detach()]

        return step

    arms = [
        Arm(name="geoopt", call=updates(torch.float32)),
        Arm(name="accelerate", call=_within(accelerated, updates(torch.float32))),
    ]
    truth = [updates(torch.float64)()[0].clone()]
    name = "geoopt RiemannianAdam step of 1023 x 64"
    return Case(name=name, arms=arms, truth=truth, synchronize=_synchronize(device))
