"""The measured facts of the cost model: where they come from, where they are kept, who may override them."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import fx, nn

import stonefx
from stonefx import doctor
from stonefx.__main__ import main
from stonefx.capture import from_module
from stonefx.machine import cache_path, compare, facts, machine_for
from stonefx.machine.measure import measure
from stonefx.passes.cost.gpu_times import GpuTimes
from stonefx.passes.cost.kernel_times import KernelTimes

CPU = torch.device("cpu")
TIMES = KernelTimes(2e-6, ((1, 1e10), (256, 1e11)), ((1, 5e9), (256, 9e10)), 2**20, 1e10, ((2**20, 1e10),))
MEASURED = stonefx.Machine(flop_rate=1e11, bandwidth=1e10, launch=2e-6, single=TIMES, half=TIMES)
MODULE = "stonefx.machine.cached."


def graph(model: nn.Module, *shape: int) -> fx.GraphModule:
    return from_module(model.eval(), (torch.ones(shape),)).module


def chain() -> fx.GraphModule:
    return graph(nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 8)), 4, 8)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int | None]:
    """A machine without facts, whose measuring is counted: the threads of each time."""
    times: list[int | None] = []

    def count(device: torch.device, threads: int | None = None) -> stonefx.Machine:
        times.append(threads)
        return MEASURED

    monkeypatch.setenv("STONEFX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("STONEFX_MACHINE", "measured")
    monkeypatch.setattr(MODULE + "measure", count)
    monkeypatch.setattr(MODULE + "is_busy", lambda: False)
    monkeypatch.setattr(MODULE + "_known", {})
    return times


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a new process would know."""
    monkeypatch.setattr(MODULE + "_known", {})


def test_measured_once_and_kept_for_other_processes(measured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine_for(chain(), "measured") == MEASURED and machine_for(chain(), "measured") is not None
    forget(monkeypatch)
    with warnings.catch_warnings(action="error"):
        assert facts(CPU) == MEASURED
    assert measured == [torch.get_num_threads()]
    document = json.loads(cache_path(CPU).read_text())
    assert f"torch {torch.__version__}" in document["key"] and document["version"] == 1


def test_a_graph_with_nothing_to_weigh_measures_nothing(measured: Any) -> None:
    assert machine_for(graph(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), 4, 8), "measured") is None
    assert machine_for(chain(), "default") is None
    assert machine_for(chain(), MEASURED) is MEASURED
    assert measured == []


def test_the_environment_makes_plans_reproducible(measured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STONEFX_MACHINE", "default")
    assert machine_for(chain(), "measured") is None and measured == []
    monkeypatch.setenv("STONEFX_MACHINE", "fast")
    with pytest.raises(
        ValueError, match="STONEFX_MACHINE=fast is unknown; use one of measured, default, or unset it"
    ):
        machine_for(chain(), "measured")


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"version": 1, "key": "another", "threads": 1}'])
def test_a_damaged_or_foreign_file_is_said_and_replaced(measured: Any, content: str) -> None:
    path = cache_path(CPU)
    path.parent.mkdir()
    path.write_text(content)
    with pytest.warns(
        RuntimeWarning, match=f"{path} does not hold the facts of this machine .*measured anew"
    ):
        assert facts(CPU) == MEASURED
    assert len(measured) == 1 and json.loads(path.read_text())["threads"] == torch.get_num_threads()


def test_a_folder_that_cannot_be_written_is_said(measured: Any) -> None:
    cache_path(CPU).parent.write_text("a file")
    with pytest.warns(
        RuntimeWarning, match="cannot be kept.*set STONEFX_CACHE_DIR to a folder that can be written"
    ):
        assert facts(CPU) == MEASURED


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried"), MemoryError()])
def test_a_device_that_cannot_be_measured_is_said(
    measured: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(device: torch.device, threads: int | None = None) -> stonefx.Machine:
        raise error

    monkeypatch.setattr(MODULE + "measure", fails)
    with pytest.warns(
        RuntimeWarning, match=r"cannot be measured, .* plans for the defaults: .*doctor --measure"
    ):
        assert facts(CPU) == stonefx.Machine.of(CPU)
    assert not cache_path(CPU).exists()


def test_a_busy_machine_is_measured_on_one_thread_and_again_when_quiet(
    measured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 4)
    monkeypatch.setattr(MODULE + "is_busy", lambda: True)
    facts(CPU)
    forget(monkeypatch)
    facts(CPU)
    assert measured == [1]
    forget(monkeypatch)
    monkeypatch.setattr(MODULE + "is_busy", lambda: False)
    facts(CPU)
    forget(monkeypatch)
    facts(CPU)
    assert measured == [1, 4]


def test_the_folder_follows_the_platform(
    measured: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("STONEFX_CACHE_DIR")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_path(CPU).parent == tmp_path / "stonefx"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_path(CPU).parent == tmp_path / "Library" / "Caches" / "stonefx"


def test_measuring_finds_plausible_facts_and_leaves_no_trace() -> None:
    seed, threads = torch.random.get_rng_state(), torch.get_num_threads()
    machine = measure(CPU, threads=1)
    assert torch.equal(torch.random.get_rng_state(), seed) and torch.get_num_threads() == threads
    assert 1e8 < machine.flop_rate < 1e13 and 1e8 < machine.bandwidth < 1e13 and 1e-8 < machine.launch < 1e-2
    assert machine.single is not None and machine.half is not None
    assert machine.linear_seconds(4096, 1024, 1024, 4) > machine.linear_seconds(1, 32, 32, 4)


def test_a_machine_given_by_the_user_decides(measured: Any) -> None:
    model = nn.Sequential(nn.Linear(512, 8), nn.Linear(8, 512)).eval()
    x = torch.ones(4096, 512)
    rates = {"flop_rate": 1e11, "bandwidth": 1e11, "pair_launches": 2}
    dear, cheap = (stonefx.Machine(launch=launch, **rates) for launch in (10.0, 1e-9))
    merged = stonefx.optimize(model, x, machine=dear, dynamic=False)
    with pytest.warns(stonefx.StonefxWarning, match="rewrote nothing"):
        kept = stonefx.optimize(model, x, machine=cheap, dynamic=False)
    assert [max(p.numel() for p in one.parameters()) for one in (merged, kept)] == [512 * 512, 512 * 8]
    with torch.no_grad():
        torch.compile(model, backend="stone", options={"inner": "eager", "machine": dear})(x)
    assert measured == []
    with pytest.raises(ValueError, match=r"option 'machine' got 'fastest'\. Choices: measured, default"):
        stonefx.optimize(model, x, machine="fastest")


def test_doctor_measures_and_compares(measured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stonefx.machine.check.linear_seconds", lambda *_: 1e-5)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = json.loads(CliRunner().invoke(main, ["doctor", "--measure", "--json"]).stdout)
    assert found["path"] == str(cache_path(CPU)) and found["machine"]["flop_rate"] == 1e11
    assert {"dtype", "rows", "inputs", "outputs", "predicted", "measured", "clock"} == set(found["linear"][0])
    assert {each["clock"] for each in found["linear"]} == {"call"}
    text = CliRunner().invoke(main, ["doctor", "--measure"]).stdout
    assert "on the device" not in text
    assert "float32  100 GFLOP/s" in text and "within 25 %" in text
    assert len(measured) == 2
    assert doctor.measure()["threads"] == torch.get_num_threads()


def test_a_card_is_compared_by_the_time_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    times = GpuTimes(1.7e-5, 2.4e-6, 5e13, 3e12, 1.5e13, 2**24, 132)
    machine = stonefx.Machine(flop_rate=5e13, bandwidth=3e12, launch=1.7e-5, single=times, half=times)
    monkeypatch.setattr("stonefx.machine.check.linear_device_seconds", lambda *_: 3e-6)
    found = compare(machine, torch.device("cuda"), torch.get_num_threads())
    assert {one.clock for one in found} == {"device"} and {one.measured for one in found} == {3e-6}
    assert min(one.predicted for one in found) < 1e-5 < times.launch
    text = doctor.measure_text(
        {
            "linear": [dataclasses.asdict(one) for one in found],
            "machine": dataclasses.asdict(machine),
            "threads": 1,
            "path": "facts.json",
        }
    )
    assert "predicted us, on the device" in text and "a call, on the host  17 us in float32" in text
