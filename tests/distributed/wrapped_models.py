"""Checks for two processes: models in DDP, FSDP2 and tensor parallelism, optimized, compiled and as they are."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import stonefx
from stonefx import nn as snn
from stonefx.backend import collected_reports
from stonefx.geometry import poincare

warnings.simplefilter("ignore")
MESH = init_device_mesh("cpu", (2,))
RANK = MESH.get_rank()
ROWS = 12
INNERS = ("eager", "aot_eager", "inductor")


class Chain(nn.Module):
    """Two maps that merge. A class of its own, since Dynamo skips the forward of torch's own containers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 64), nn.Linear(64, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


class Model(nn.Module):
    """A chain that merges, a part for tensor parallelism, and layers of the ball."""

    def __init__(self) -> None:
        super().__init__()
        self.chain = Chain()
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 8)
        self.ball = snn.PoincareLinear(8, 8, learn_curvature=True)
        self.turn = snn.HyperButterflyLayer(8, 3, learn_curvature=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.down(torch.relu(self.up(self.chain(x))))
        return self.turn(self.ball(0.1 * torch.tanh(h)))


def model() -> Model:
    torch.manual_seed(1)
    return Model().double()


def rows() -> torch.Tensor:
    return torch.randn(ROWS, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def mine(x: torch.Tensor) -> torch.Tensor:
    return x[RANK * ROWS // 2 : (RANK + 1) * ROWS // 2]


def whole(x: torch.Tensor) -> torch.Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x


def agree(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(whole(got), expected, rtol=1e-9, atol=1e-12)


def compiled(wrapped: Callable[..., Any], inner: str) -> Callable[..., Any]:
    torch._dynamo.reset()
    return torch.compile(wrapped, backend="stone", options={"inner": inner})


def train(
    wrapped: nn.Module,
    run: Callable[..., Any] | None,
    of: Callable[..., torch.Tensor],
    plain: nn.Module | None = None,
) -> None:
    """Two steps of a wrapped model, through `run`, against the same steps of the plain one on all rows."""
    run = wrapped if run is None else run
    plain = model() if plain is None else plain
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in (plain, wrapped)]
    for _ in range(2):
        for each in optimizers:
            each.zero_grad()
        plain(rows()).square().mean().backward()
        run(of(rows())).square().mean().backward()
        for p, expected in zip(wrapped.parameters(), plain.parameters(), strict=True):
            agree(p.grad, expected.grad)
        for each in optimizers:
            each.step()
    for p, expected in zip(wrapped.parameters(), plain.parameters(), strict=True):
        agree(p, expected)


def infer(
    wrapped: nn.Module, run: Callable[..., Any], twin: nn.Module, of: Callable[..., torch.Tensor]
) -> None:
    """The values of a wrapped model and of its twin, also after their weights were changed in the ways users have."""
    for each in (wrapped, twin):
        each.eval()

    def scale(module: nn.Module) -> None:
        for p in module.parameters():
            p.mul_(0.5)

    def shift_own_part(module: nn.Module) -> None:
        for p in module.parameters():
            (p.to_local() if isinstance(p, DTensor) else p).add_(0.01)

    def load(module: nn.Module) -> None:
        module.load_state_dict({key: value * 1.5 for key, value in module.state_dict().items()})

    def step(module: nn.Module) -> None:
        optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
        for p in module.parameters():
            p.grad = 0.1 * p.detach()
        optimizer.step()
        optimizer.zero_grad()

    with torch.no_grad():
        agree(run(of(rows())), of(model()(rows())))
        for change in (lambda module: None, scale, shift_own_part, load, step):
            for each in {wrapped, twin}:
                change(each)
            agree(run(of(rows())), whole(twin(of(rows()))))


def ddp() -> nn.Module:
    return DistributedDataParallel(model())


def fsdp() -> nn.Module:
    sharded = model()
    for part in (*sharded.chain.children(), sharded.up, sharded.down, sharded.ball, sharded.turn):
        fully_shard(part, mesh=MESH)
    return fully_shard(sharded, mesh=MESH)


def fsdp_blocks() -> nn.Module:
    sharded = model()
    fully_shard(sharded.chain, mesh=MESH)
    return fully_shard(sharded, mesh=MESH)


def tensor_parallel() -> nn.Module:
    return parallelize_module(model(), MESH, {"up": ColwiseParallel(), "down": RowwiseParallel()})


WRAPPED = {
    "ddp": (ddp, mine),
    "fsdp": (fsdp, mine),
    "fsdp of blocks": (fsdp_blocks, mine),
    "tensor parallel": (tensor_parallel, lambda x: x),
}


def reports_of(run: Callable[..., None], *args: Any) -> list[stonefx.Report]:
    with collected_reports() as made:
        run(*args)
    return made


def check_as_they_are() -> None:
    for make, of in WRAPPED.values():
        wrapped = make()
        train(wrapped, None, of)
        wrapped = make()
        infer(wrapped, wrapped, wrapped, of)


def check_compiled_inference() -> None:
    for name, (make, of) in WRAPPED.items():
        wrapped = make()
        reports = reports_of(infer, wrapped, compiled(wrapped, "eager"), make(), of)
        notes = "".join(note for report in reports for note in report.notes)
        assert "original graph" not in notes, notes
        # The chain is merged, but for weights that are gathered anew for each call.
        assert any(report.rewritten("linear_chain") for report in reports) == (not name.startswith("fsdp")), (
            name
        )
        assert ("FSDP gathers" in notes) == name.startswith("fsdp"), notes
        assert ("operation(s) on DTensor" in notes) == (name == "tensor parallel"), notes


def check_compiled_training() -> None:
    for make, of in WRAPPED.values():
        wrapped = make()
        reports = reports_of(train, wrapped, compiled(wrapped, "eager"), of)
        assert not any("original graph" in note for report in reports for note in report.notes)


def slow_check_inner_compilers() -> None:
    for make, of in WRAPPED.values():
        for inner in ("aot_eager", "inductor"):
            wrapped = make()
            infer(wrapped, compiled(wrapped, inner), make(), of)
            wrapped = make()
            train(wrapped, compiled(wrapped, inner), of)


def check_optimized_in_ddp_and_fsdp() -> None:
    x = rows()
    train(DistributedDataParallel(stonefx.optimize(model(), x)), None, mine, stonefx.optimize(model(), x))
    merged, sharded = (stonefx.optimize(model().eval(), x) for _ in range(2))
    assert merged.report.rewritten("linear_chain")
    fully_shard(sharded, mesh=MESH)
    with torch.no_grad():
        agree(sharded(x), merged(x))
        sharded.reshard()
        for each in (merged, sharded):
            for p in each.parameters():
                p.mul_(0.5)
        agree(sharded(x), merged(x))


def check_optimize_names_fsdp() -> None:
    for wrapped, what in ((fsdp(), "the model, a FSDPModel,"), (fsdp_blocks(), "")):
        for inplace in (False, True):
            try:
                stonefx.optimize(wrapped, rows(), inplace=inplace)
            except stonefx.CaptureError as error:
                text = str(error)
            assert f"{what} is wrapped by FSDP" in text and "before it is wrapped" in text, text


def relu_of_rows(m: Model, x: torch.Tensor) -> torch.Tensor:
    return torch.relu(DTensor.from_local(m.chain(x), MESH, [Shard(0)])).to_local()


def map_of_rows(m: Model, x: torch.Tensor) -> torch.Tensor:
    return poincare.expmap0(DTensor.from_local(m.chain(x), MESH, [Shard(0)]), 0.7).to_local()


def gathered_rows(m: Model, x: torch.Tensor) -> torch.Tensor:
    h = m.chain(x)
    return DTensor.from_local(h, MESH, [Shard(0)]).full_tensor().sum(0) + h


def write_through_rows(m: Model, x: torch.Tensor) -> torch.Tensor:
    h = m.chain.first(x).clone()
    DTensor.from_local(h, MESH, [Shard(0)]).mul_(2)
    return m.chain.second(h)


def write_under_rows(m: Model, x: torch.Tensor) -> torch.Tensor:
    h = m.chain.first(x).clone()
    rows = DTensor.from_local(h, MESH, [Shard(0)])
    h.mul_(2)
    return m.chain.second(rows.to_local())


def check_dtensors_inside() -> None:
    x = mine(rows())
    for function in (relu_of_rows, map_of_rows, gathered_rows, write_through_rows, write_under_rows):
        m = model()
        run = functools.partial(function, m)
        fast = compiled(run, "eager")
        with torch.no_grad():
            (report,) = reports_of(lambda fast, run: agree(fast(x), run(x)), fast, run)
        assert bool(report.rewritten("linear_chain")) == (not function.__name__.startswith("write"))
        fast(x).square().sum().backward()
        gradients = [p.grad for p in m.chain.parameters()]
        m.zero_grad()
        run(x).square().sum().backward()
        for p, gradient in zip(m.chain.parameters(), gradients, strict=True):
            agree(gradient, p.grad)
