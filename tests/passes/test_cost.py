"""The cost model."""

import pytest
import torch

from stonefx.passes.cost.flops import product_flops
from stonefx.passes.cost.machine import Machine

CPU = Machine()


@pytest.mark.parametrize("rows", [1, 7, 64, 4096])
@pytest.mark.parametrize("grown", ["rows", "inputs", "outputs", "itemsize"])
def test_more_work_is_never_predicted_to_be_faster(rows, grown):
    base = {"rows": rows, "inputs": 48, "outputs": 96, "itemsize": 4}
    for factor in (2, 16, 1024):
        more = base | {grown: base[grown] * factor}
        assert CPU.linear_seconds(**more) >= CPU.linear_seconds(**base)


def test_a_call_costs_its_launch_even_without_work():
    assert CPU.linear_seconds(0, 0, 8, 4) == CPU.launch
    assert CPU.pair_seconds(0, 0, 0, 8, 4) == CPU.launch
    assert Machine(pair_launches=2).pair_seconds(0, 0, 0, 8, 4) == 2 * CPU.launch


def test_small_batches_are_bound_by_traffic_and_large_ones_by_arithmetic():
    one_row = CPU.work_seconds(1, 1024, 1024, 4)
    assert one_row == pytest.approx(4 * (1024 * 1024 + 2 * 1024) / CPU.bandwidth)
    many_rows = CPU.work_seconds(4096, 1024, 1024, 4)
    assert many_rows == pytest.approx(product_flops(4096, 1024, 1024) / CPU.flop_rate)


def test_a_gpu_is_another_machine():
    gpu = Machine.of(torch.device("cuda"))
    assert gpu.flop_rate > CPU.flop_rate
    assert gpu.bandwidth > CPU.bandwidth
    assert Machine.of(torch.device("cpu")) == CPU


@pytest.mark.parametrize("name", ["flop_rate", "bandwidth", "launch", "pair_launches"])
def test_a_machine_needs_positive_facts(name):
    with pytest.raises(ValueError, match=f"expected {name} > 0, got 0"):
        Machine(**{name: 0})
