"""Two processes on gloo: the gradients of distributed training are those of the whole batch."""

import os
import socket
import subprocess
import sys

PROGRAM = """
import os, torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from stonefx import nn as snn, ops
torch.set_num_threads(1)
dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
model = torch.nn.Sequential(
    snn.HyperButterflyLayer(8, 3, learn_curvature=True), snn.PoincareLinear(8, 4, learn_curvature=True)
).double()
x = 0.2 * torch.randn(12, 8, dtype=torch.float64)
model(x).square().mean().backward()
whole = [p.grad.clone() for p in model.parameters()]
model.zero_grad()
parallel = DistributedDataParallel(model)
parallel(x[rank * 6 : rank * 6 + 6]).square().mean().backward()
for p, expected in zip(model.parameters(), whole):
    torch.testing.assert_close(p.grad, expected, rtol=1e-10, atol=1e-13)
print("agreed", flush=True)
# A process that leaves early takes the other's connection with it.
del parallel
dist.barrier()
dist.destroy_process_group()
"""


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def test_gradients_of_two_processes():
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, **shared, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for worker in workers:
        output, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors
        assert output.strip() == "agreed"
