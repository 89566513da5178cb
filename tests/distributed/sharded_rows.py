"""Checks for two processes: operators, geometry and layers on DTensors whose rows are split."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode

import stonefx
from stonefx import nn as snn
from stonefx import ops
from stonefx.geometry import klein, lorentz, poincare, sphere

MESH = init_device_mesh("cpu", (2,))
ROWS, COLUMNS = 6, 4


def points(rows: int, dim: int = 8) -> torch.Tensor:
    return 0.2 * torch.randn(rows, dim, dtype=torch.float64)


def agree(got: torch.Tensor, expected: torch.Tensor) -> None:
    whole = got.full_tensor() if isinstance(got, DTensor) else got
    torch.testing.assert_close(whole, expected, rtol=1e-10, atol=1e-13)


def compare(function, *operands, places, expected_place, gradients=None, forward_traffic=0) -> None:
    """A function on split operands against the whole: values, gradients, placements and traffic."""
    plain = [o.clone().requires_grad_(o.is_floating_point()) for o in operands]
    split = [
        distribute_tensor(o, MESH, [p], src_data_rank=None).requires_grad_(o.is_floating_point())
        for o, p in zip(operands, places, strict=True)
    ]
    with CommDebugMode() as traffic:
        result = function(*split)
    assert result.placements == (expected_place,), (function, result.placements)
    assert traffic.get_total_counts() == forward_traffic, (function, traffic.get_comm_counts())
    expected = function(*plain)
    agree(result, expected)
    weight = torch.linspace(0.5, 1.5, expected.numel(), dtype=torch.float64).reshape(expected.shape)
    (expected * weight).sum().backward()
    # The gradient of each term of a sum is that of the sum.
    of_result = Replicate() if expected_place == Partial() else expected_place
    shared = distribute_tensor(weight, MESH, [of_result], src_data_rank=None)
    with CommDebugMode() as traffic:
        result.backward(shared)
    assert traffic.get_total_counts() == 0, (function, traffic.get_comm_counts())
    with_gradient = [
        (mine, theirs) for mine, theirs in zip(split, plain, strict=True) if theirs.requires_grad
    ]
    for (mine, theirs), place in zip(with_gradient, gradients or places, strict=True):
        assert mine.grad.placements == (place,), (function, mine.grad.placements)
        agree(mine.grad, theirs.grad)


def check_rows_of_every_model() -> None:
    rows_of_every_model(0.7)
    rows_of_every_model(torch.tensor(1.2, dtype=torch.float64))


def rows_of_every_model(c: float | torch.Tensor) -> None:
    x, y, v = points(ROWS), points(ROWS), points(ROWS)
    on = torch.nn.functional.normalize
    rows = [Shard(0)] * 3
    for function, operands in (
        (lambda x: poincare.expmap0(x, c), (x,)),
        (lambda x: poincare.logmap0(x, c), (x,)),
        (lambda x: poincare.project(x, c), (x,)),
        (lambda x: poincare.dist0(x, c), (x,)),
        (lambda x: poincare.to_lorentz(x, c), (x,)),
        (lambda x: poincare.mobius_scalar_mul(0.3, x, c), (x,)),
        (lambda x, v: poincare.expmap(x, v, c), (x, v)),
        (lambda x, y: poincare.mobius_add(x, y, c), (x, y)),
        (lambda x, y: poincare.dist(x, y, c), (x, y)),
        (lambda x, y: poincare.geodesic(x, y, 0.3, c), (x, y)),
        (lambda x, y, v: poincare.parallel_transport(x, y, v, c), (x, y, v)),
        (lambda x, y: klein.add(x, y, c), (x, y)),
        (lambda x, y: klein.dist(x, y, c), (x, y)),
        (lambda x: lorentz.expmap0(x, c), (x,)),
        (lambda x: ops.add_time(x, c), (x,)),
    ):
        compare(function, *operands, places=rows[: len(operands)], expected_place=Shard(0))
    compare(sphere.dist, on(x, dim=-1), on(y, dim=-1), places=rows[:2], expected_place=Shard(0))


def check_rows_that_are_shared_stay_whole() -> None:
    x, y = points(ROWS), points(1)[0]
    compare(
        lambda x, y: poincare.mobius_add(x, y, 0.7),
        x,
        y,
        places=[Shard(0), Replicate()],
        expected_place=Shard(0),
        gradients=[Shard(0), Partial()],
    )
    c = torch.tensor(0.7, dtype=torch.float64)
    compare(
        lambda x, c: poincare.expmap0(x, c),
        x,
        c,
        places=[Shard(0), Replicate()],
        expected_place=Shard(0),
        gradients=[Shard(0), Partial()],
    )


def check_features_that_are_split_are_gathered() -> None:
    x = points(ROWS)
    split = distribute_tensor(x, MESH, [Shard(1)], src_data_rank=None)
    agree(poincare.expmap0(split, 0.7), poincare.expmap0(x, 0.7))


def check_uneven_and_few_rows() -> None:
    for rows in (5, 1):
        x = points(rows)
        split = distribute_tensor(x, MESH, [Shard(0)], src_data_rank=None)
        agree(poincare.logmap0(split, 0.7), poincare.logmap0(x, 0.7))
    # a process without a row
    split = DTensor.from_local(
        points(1)[: 1 - MESH.get_rank()], MESH, [Shard(0)], shape=(1, 8), stride=(8, 1)
    )
    assert poincare.logmap0(split, 0.7).shape == (1, 8)


def check_distance_matrices() -> None:
    x, y = points(ROWS), points(COLUMNS)
    for function in (poincare.cdist, klein.cdist, lambda x, y, c: poincare.cdist(x, y, c, mode="fast")):
        for places, result, gradients in (
            ([Shard(0), Replicate()], Shard(0), [Shard(0), Partial()]),
            ([Replicate(), Shard(0)], Shard(1), [Partial(), Shard(0)]),
        ):
            compare(
                lambda x, y, f=function: f(x, y, 0.7),
                x,
                y,
                places=places,
                expected_place=result,
                gradients=gradients,
            )
    a, b = lorentz.expmap0(x, 0.7), lorentz.expmap0(y, 0.7)
    compare(
        lambda x, y: lorentz.cdist(x, y, 0.7),
        a,
        b,
        places=[Shard(0), Replicate()],
        expected_place=Shard(0),
        gradients=[Shard(0), Partial()],
    )


def check_maps_of_rows() -> None:
    x, weight = points(ROWS), points(8, 8).reshape(8, 4, 2)
    compare(
        stonefx.butterfly,
        x,
        weight,
        places=[Shard(0), Replicate()],
        expected_place=Shard(0),
        gradients=[Shard(0), Partial()],
    )
    a, b, bias = points(3), points(5, 3), points(1, 5)[0]
    whole = Replicate()
    for places, result, gradients in (
        ([Shard(0), whole, whole, whole], Shard(0), [Shard(0), Partial(), Partial(), Partial()]),
        ([whole, whole, Shard(0), Shard(0)], Shard(1), [Partial(), Partial(), Shard(0), Shard(0)]),
    ):
        compare(ops.low_rank_linear, x, a, b, bias, places=places, expected_place=result, gradients=gradients)
    compare(
        ops.low_rank_linear,
        x,
        a[:2],
        b[:, :2],
        places=[whole, Shard(0), Shard(1)],
        expected_place=Partial(),
        gradients=[Partial(), Shard(0), Shard(1)],
    )


def check_pivot_rows() -> None:
    x, pivot, interpolation, bias = points(ROWS), points(3), points(2, 3), points(1, 5)[0]
    index = torch.tensor([3, 0, 1, 4, 2], dtype=torch.int32)
    whole = Replicate()
    compare(
        ops.pifa_linear,
        *(x, pivot, interpolation, index, bias),
        places=[Shard(0), whole, whole, whole, whole],
        expected_place=Shard(0),
        gradients=[Shard(0), Partial(), Partial(), Partial()],
    )
    compare(
        ops.pifa_linear,
        *(x, pivot, interpolation, index),
        places=[Shard(1), Shard(1), whole, whole],
        expected_place=Partial(),
        gradients=[Shard(1), Shard(1), Partial()],
    )


def check_midpoints() -> None:
    stack = points(ROWS * 3).reshape(ROWS, 3, 8)
    compare(lambda p: poincare.gyromidpoint(p, c=0.7), stack, places=[Shard(0)], expected_place=Shard(0))
    # A sum over what is split is a sum over the processes.
    split = distribute_tensor(stack[0], MESH, [Shard(0)], src_data_rank=None)
    agree(poincare.gyromidpoint(split, c=0.7), poincare.gyromidpoint(stack[0], c=0.7))


LAYERS = {
    "butterfly": lambda: snn.HyperButterflyLayer(8, 3, learn_curvature=True),
    "klein": lambda: snn.KleinLayer(8, 4, learn_curvature=True),
    "poincare": lambda: snn.PoincareLinear(8, 4, learn_curvature=True),
    "mlr": lambda: snn.PoincareMLR(8, 4, learn_curvature=True),
    "lorentz": lambda: snn.LorentzLinear(7, 4, learn_curvature=True),
    "lorentz, rescaled": lambda: snn.LorentzLinear(7, 4, form="rescale", scale=2.0, learn_curvature=True),
}


def check_layers_on_split_rows() -> None:
    for name, make in LAYERS.items():
        torch.manual_seed(1)
        layer = make().double()
        x = ops.add_time(points(ROWS, 7)) if name.startswith("lorentz") else points(ROWS)
        expected = layer(x)
        expected.square().sum().backward()
        gradients = {key: p.grad.clone() for key, p in layer.named_parameters()}
        layer.zero_grad()
        shared: nn.Module = distribute_module(layer, MESH)
        split = distribute_tensor(x, MESH, [Shard(0)], src_data_rank=None)
        with CommDebugMode() as traffic:
            result = shared(split)
        assert result.placements == (Shard(0),), (name, result.placements)
        assert traffic.get_total_counts() == 0, (name, traffic.get_comm_counts())
        agree(result, expected)
        result.square().sum().backward()
        for key, p in shared.named_parameters():
            agree(p.grad, gradients[key])
