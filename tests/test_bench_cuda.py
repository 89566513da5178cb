"""Timing on a CUDA device, with a device that only the calls move."""

import subprocess

import pytest
import torch

from stonefx.benchmarks.case import Arm, Case, Settings
from stonefx.benchmarks.cuda_events import EventTimer, event_seconds
from stonefx.benchmarks.cuda_graphs import CannotCapture, graphed, with_graphs
from stonefx.benchmarks.harness import measure
from stonefx.benchmarks.machine import gpu_state
from stonefx.benchmarks.ops import cuda_others, rowwise, steps
from stonefx.benchmarks.run import run_suite
from stonefx.benchmarks.suites import SUITES

ONE = torch.ones(2, dtype=torch.float64)


class Device:
    """A host and a device behind it: a launch takes the one's time, the work of a launch the other's."""

    def __init__(self):
        self.host = self.busy_until = 0.0
        self.flushed = 0

    def launch(self, host, work):
        self.host += host
        self.busy_until = max(self.busy_until, self.host) + work

    def wait(self):
        self.host = max(self.host, self.busy_until)

    def flush(self):
        self.flushed += 1
        self.launch(1e-6, 5e-5)

    def timer(self, **options):
        device = self

        class Event:
            def record(self):
                self.time = max(device.host, device.busy_until)

            def synchronize(self):
                device.wait()

            def elapsed_time(self, end):
                return 1e3 * (end.time - self.time)

        clock = lambda: device.host  # noqa: E731
        return EventTimer(self.flush, event=Event, wait=self.wait, clock=clock, **options)

    def arm(self, name, host, work):
        def call():
            self.launch(host, work)
            return ONE

        return Arm(name=name, call=call)


@pytest.mark.parametrize(("host", "work"), [(1e-6, 2e-4), (2e-5, 1e-6)])
def test_a_call_takes_the_longer_of_launch_and_work(host, work):
    device = Device()
    arms = [device.arm("one", host, work), device.arm("two", host / 2, work / 2)]
    case = Case(name="case", arms=arms, truth=[ONE], synchronize=device.wait)
    settings = Settings(rounds=5, seconds=1e9, sample_seconds=1e-2)
    result = measure(case, settings, clock=lambda: device.host, timer=device.timer())
    one, two = result.arms
    assert one.seconds == pytest.approx(max(host, work), rel=0.02)
    assert one.host_seconds == pytest.approx(one.seconds, rel=0.02)
    assert two.speedup == pytest.approx(2, rel=0.02)
    assert device.flushed > 10


def test_a_cold_sample_is_the_work_alone():
    device = Device()
    timer = device.timer(cold=True)
    sampled = timer(device.arm("one", 1e-6, 2e-4).call, 1)
    assert sampled.seconds == pytest.approx(2e-4) and sampled.host is None
    assert event_seconds(device.arm("one", 1e-6, 2e-4).call, timer) == pytest.approx(2e-4)


def test_a_graph_that_fails_is_left_out_with_its_reason():
    def refuses(call):
        raise CannotCapture("cannot be captured in a CUDA graph: it waits\nand more")

    arms, left_out = with_graphs([Arm(name="eager", call=lambda: ONE)], ["eager"], refuses)
    assert [arm.name for arm in arms] == ["eager"]
    assert left_out == {"eager, CUDA graph": "cannot be captured in a CUDA graph: it waits"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_there_is_no_graph():
    with pytest.raises(CannotCapture, match="torch sees none on this machine"):
        graphed(lambda: ONE)


def test_the_state_of_a_card_is_read_or_left_out():
    def smi(command, **options):
        return subprocess.CompletedProcess(command, 0, "580.1, 1980 MHz, 2619 MHz, 1980 MHz, 70 W, 31\n")

    assert gpu_state(smi)["sm_clock"] == "1980 MHz" and gpu_state(smi)["temperature"] == "31"

    def missing(command, **options):
        raise FileNotFoundError

    assert gpu_state(missing) == {}


def test_a_copy_moves_what_the_operator_must():
    x = torch.ones(4, 8)
    case = steps.case("case", {"stonefx": torch.tanh}, torch.tanh, [x], True, copies=True)
    assert [arm.name for arm in case.arms] == ["copy", "stonefx"]
    result = measure(case, Settings(rounds=3, seconds=0.1))
    assert result.facts["bytes"] == 5 * x.nbytes and result.facts["share_of_copy"] > 0


def test_every_case_of_a_card_computes_what_it_says(monkeypatch):
    monkeypatch.setattr(rowwise, "inductor", lambda function: function)
    parts = {"x @ y.mT", "write alone", "nn.Linear", "x @ normals.mT", "copy"}
    planned = [
        *rowwise.cuda_rowwise_cases("cpu", shapes=((6, 4),), dtypes=(torch.float32,)),
        *cuda_others.cuda_other_cases("cpu", points=16, rows=8, width=4, dims=(4,)),
    ]
    assert len(planned) == 2 * (len(rowwise.ROWWISE) + 5)
    for one in planned:
        case = one.make()
        with torch.set_grad_enabled(case.grad):
            for arm in case.arms:
                shapes = [part.shape for part in arm.call()]
                assert shapes == [part.shape for part in case.truth], (one.name, arm.name)
        assert parts & {arm.name for arm in case.arms}, one.name


def test_a_case_that_fails_does_not_stop_those_behind_it(monkeypatch):
    x = torch.ones(2, 3)
    good = steps.case("good", {"stonefx": torch.tanh}, torch.tanh, [x], False)
    bad = Case(name="bad", arms=[Arm(name="a", call=lambda: x)], truth=[ONE])
    monkeypatch.setitem(SUITES, "ops", lambda device: iter((bad, good)))
    failed = []
    settings = Settings(seconds=0.01, rounds=2)
    results = run_suite("ops", settings=settings, on_failure=lambda name, error: failed.append(name))
    assert [one.name for one in results] == ["good"] and failed == ["bad"]
