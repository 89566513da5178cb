"""The benchmark harness, on a clock that only the arms move."""

import gc
import json
import math
import random

import pytest
import torch

from stonefx.benchmarks import Arm, Case, Settings, measure, result_document, result_table
from stonefx.benchmarks.by_hand import merged
from stonefx.benchmarks.case import ArmResult, CaseResult, median_interval, relative_difference
from stonefx.benchmarks.load import load_warning, parallel_spin, quiet_spin_seconds
from stonefx.benchmarks.machine import machine_facts
from stonefx.benchmarks.results import seconds_text
from stonefx.benchmarks.suites import SUITES
from stonefx.benchmarks.suites.chain import chain_cases, seed_chain
from stonefx.benchmarks.suites.hyperbolic import hyperbolic_cases

ONE = torch.ones(2, dtype=torch.float64)


class FakeMachine:
    """A clock, and arms and a spin that take a known time on it; `slowness` multiplies all of them."""

    def __init__(self):
        self.time = 0.0
        self.slowness = 1.0
        self.called = []

    def clock(self):
        return self.time

    def arm(self, name, seconds, result=ONE):
        def call():
            self.called.append(name)
            self.time += seconds * self.slowness
            return result

        return Arm(name=name, call=call)

    def spin(self):
        self.time += 1e-4 * self.slowness


def case(*arms, **changes):
    return Case(**({"name": "case", "arms": arms, "truth": [ONE]} | changes))


def test_medians_and_calibration():
    machine = FakeMachine()
    arms = machine.arm("eager", 10e-6), machine.arm("fast", 5e-6)
    result = measure(case(*arms), Settings(rounds=20, seconds=100), clock=machine.clock)
    eager, fast = result.arms
    assert eager.seconds == pytest.approx(10e-6)
    assert fast.seconds == pytest.approx(5e-6)
    assert eager.quartiles == pytest.approx((10e-6, 10e-6))
    assert (eager.calls_per_sample, fast.calls_per_sample) == (32, 64)
    assert eager.speedup == 1.0
    assert fast.speedup == pytest.approx(2.0)
    assert (result.rounds, result.disturbed, result.noisy) == (20, 0, False)


def test_every_round_has_every_arm_in_changing_order():
    machine = FakeMachine()
    names = ["a", "b", "c"]
    settings = Settings(rounds=40, seconds=100, sample_seconds=0, warmup=1)
    measure(case(*(machine.arm(n, 1e-6) for n in names)), settings, clock=machine.clock)
    timed = machine.called[2 * len(names) :]
    rounds = [tuple(timed[i : i + 3]) for i in range(0, len(timed), 3)]
    assert len(rounds) == 40
    assert all(sorted(one) == names for one in rounds)
    assert len(set(rounds)) > 3


def test_speedup_is_paired_and_survives_a_slow_machine():
    machine = FakeMachine()
    speeds = random.Random(1)

    def change():
        machine.slowness = speeds.uniform(1, 10)

    arms = machine.arm("eager", 9e-6), machine.arm("fast", 3e-6)
    result = measure(case(*arms), Settings(rounds=50, seconds=100), clock=machine.clock, on_round=change)
    assert result.arms[1].speedup == pytest.approx(3.0)
    low, high = result.arms[1].quartiles
    assert high > 1.5 * low


def test_rounds_with_a_stolen_core_are_repeated():
    machine = FakeMachine()
    count = iter(range(10_000))

    def steal_every_fifth():
        machine.slowness = 4.0 if next(count) % 5 == 0 else 1.0

    settings = Settings(rounds=20, seconds=100)
    result = measure(
        case(machine.arm("eager", 1e-5)),
        settings,
        spin=machine.spin,
        clock=machine.clock,
        on_round=steal_every_fifth,
    )
    assert result.rounds == 20
    assert result.disturbed == 5
    assert not result.noisy
    assert max(result.samples["eager"]) == pytest.approx(1e-5)


def test_a_busy_machine_is_called_noisy_and_still_gives_a_number():
    machine = FakeMachine()
    count = iter(range(10_000))

    def mostly_stolen():
        machine.slowness = 1.0 if next(count) % 5 == 0 else 4.0

    settings = Settings(rounds=50, seconds=0.05, min_rounds=9)
    result = measure(
        case(machine.arm("eager", 1e-3)),
        settings,
        spin=machine.spin,
        clock=machine.clock,
        on_round=mostly_stolen,
    )
    assert result.noisy
    assert result.rounds >= 9
    assert "a core was taken by another program" in result_table([result])


def test_a_machine_that_is_never_quiet_is_called_noisy():
    machine = FakeMachine()
    arms = (machine.arm("eager", 1e-5),)
    settings = Settings(rounds=10, seconds=0.1, min_rounds=4)
    for quiet, noisy in ((1e-4, False), (2e-5, True)):
        result = measure(case(*arms), settings, spin=machine.spin, quiet=quiet, clock=machine.clock)
        assert result.noisy is noisy
        assert result.rounds == (4 if noisy else 10)


def test_the_quiet_spin_is_the_fastest_share_of_one_thread():
    ticks = iter([0.0, 3.0, 10.0, 11.0, 20.0, 25.0])
    assert quiet_spin_seconds(elements=100, repeats=3, clock=lambda: next(ticks)) == 1.0


def test_the_time_limit_keeps_the_least_number_of_rounds():
    machine = FakeMachine()
    settings = Settings(rounds=1000, min_rounds=7, seconds=1.0)
    assert measure(case(machine.arm("slow", 10.0)), settings, clock=machine.clock).rounds == 7


def test_the_device_is_waited_for_before_and_after_each_sample():
    machine = FakeMachine()
    pending = []

    def launch():
        pending.append(2e-3)
        return ONE

    def wait():
        machine.time += sum(pending)
        pending.clear()

    one = case(Arm(name="gpu", call=launch), synchronize=wait)
    result = measure(one, Settings(rounds=5, seconds=100), clock=machine.clock)
    assert result.arms[0].seconds == pytest.approx(2e-3)


@pytest.mark.parametrize("grad", [True, False])
def test_arms_run_in_the_grad_mode_of_the_case(grad):
    seen = set()

    def call():
        seen.add(torch.is_grad_enabled())
        return ONE

    measure(case(Arm(name="a", call=call), grad=grad), Settings(rounds=2, seconds=0.1))
    assert seen == {grad}


def test_garbage_collection_is_back_after_a_failing_arm():
    def fail():
        raise RuntimeError("broken arm")

    with pytest.raises(RuntimeError, match="broken arm"):
        measure(case(Arm(name="a", call=fail)), Settings(rounds=2))
    assert gc.isenabled()


def test_a_case_needs_an_arm():
    with pytest.raises(ValueError, match="case 'case' has no arm; give it at least one"):
        measure(case())


def test_relative_difference():
    truth = [torch.tensor([1.0, -4.0], dtype=torch.float64), ONE]
    assert relative_difference([torch.tensor([1.0, -3.0]), ONE.float()], truth) == 0.25
    assert math.isnan(relative_difference(torch.tensor([math.nan, 1.0]), [ONE]))
    with pytest.raises(ValueError, match=r"returned shapes \[\(3,\)\], expected \[\(2,\)\]"):
        relative_difference(torch.ones(3), [ONE])


def result(error=1e-7, noisy=False):
    arms = [
        ArmResult(name=name, seconds=s, quartiles=(s, s), speedup=2e-5 / s, error=error, calls_per_sample=8)
        for name, s in (("eager", 2e-5), ("stone", 4e-6))
    ]
    return CaseResult(name="batch 1", arms=arms, rounds=9, disturbed=0, noisy=noisy, samples={})


def test_table():
    lines = result_table([result()]).splitlines()
    assert lines[0].split() == "case arm a call spread first call vs eager 95 % memory error".split()
    assert lines[2].split() == ["batch", "1", "eager", "20.0", "us", "+-0", "%", "1.00x", "1.0e-07"]
    assert lines[3].split() == ["stone", "4.00", "us", "+-0", "%", "5.00x", "1.0e-07"]
    machine = FakeMachine()
    arms = machine.arm("eager", 20e-6), machine.arm("stone", 4e-6)
    measured = measure(case(*arms), Settings(rounds=20, seconds=100), clock=machine.clock)
    line = result_table([measured]).splitlines()[3]
    assert line.split() == "stone 4.00 us +-0 % 4.00 us 5.00x 5.00 to 5.00 0.0e+00".split()


def test_the_first_call_is_timed_by_itself():
    machine = FakeMachine()
    seconds = iter([3.0])

    def compiles_first():
        machine.time += next(seconds, 1e-5)
        return ONE

    arms = machine.arm("eager", 2e-5), Arm(name="compiled", call=compiles_first)
    measured = measure(case(*arms), Settings(rounds=10, seconds=100), clock=machine.clock)
    assert measured.arms[1].first_seconds == pytest.approx(3.0)
    assert measured.arms[1].seconds == pytest.approx(1e-5)


def test_cold_samples_are_single_calls_behind_an_eviction():
    machine = FakeMachine()

    def evict():
        machine.called.append("evict")
        machine.time += 1.0

    arms = machine.arm("eager", 20e-6), machine.arm("stone", 4e-6)
    settings = Settings(rounds=10, seconds=1000, warmup=1, cold=True)
    measured = measure(case(*arms), settings, clock=machine.clock, evict=evict)
    assert [arm.calls_per_sample for arm in measured.arms] == [1, 1]
    assert [arm.seconds for arm in measured.arms] == pytest.approx([20e-6, 4e-6])
    rounds = machine.called[2:]
    assert rounds[::2] == ["evict"] * 20 and rounds.count("stone") == 10


@pytest.mark.parametrize("count", [1, 2, 5, 6, 9, 20, 100, 301, 1500])
def test_an_interval_of_a_median_has_its_confidence(count):
    """The chance that fewer than so many of `count` values lie below their median, from whole numbers."""
    low, high = median_interval(range(count))
    assert low + high == count - 1
    beyond = 2 * sum(math.comb(count, k) for k in range(low + 1))
    inner = 2 * sum(math.comb(count, k) for k in range(low + 2))
    if count >= 6:
        assert 20 * beyond <= 2**count < 20 * inner
    else:
        assert (low, high) == (0, count - 1)


@pytest.mark.parametrize("spread", [0.02, 0.3])
def test_equal_arms_are_not_told_apart_and_a_slowdown_is_found(spread):
    """On a machine whose speed wanders, and whose calls scatter with a long tail."""
    inside = found = 0
    for seed in range(200):
        machine, noise = FakeMachine(), random.Random(seed)

        def call(seconds, machine=machine, noise=noise):
            machine.slowness = min(max(machine.slowness * math.exp(noise.gauss(0, 0.02)), 0.5), 2.0)
            machine.time += seconds * machine.slowness * math.exp(abs(noise.gauss(0, spread)))
            return ONE

        arms = [
            Arm(name=name, call=lambda seconds=seconds, call=call: call(seconds))
            for name, seconds in (("A", 1e-3), ("again", 1e-3), ("slower", 1.1e-3))
        ]
        settings = Settings(rounds=100, seconds=1000, seed=seed)
        _, again, slower = measure(case(*arms), settings, clock=machine.clock).arms
        inside += again.interval[0] <= 1 <= again.interval[1]
        found += slower.interval[1] < 1
    assert inside >= 185
    assert found >= (195 if spread == 0.02 else 100)


def test_document_is_strict_json():
    document = result_document({"chain": [result(error=math.nan)]}, machine_facts(), Settings(), 0.1)
    read = json.loads(json.dumps(document, allow_nan=False))
    arm = read["suites"]["chain"][0]["arms"][1]
    assert (arm["arm"], arm["error"]) == ("stone", "nan")
    assert arm["speedup"] == pytest.approx(5.0)
    assert read["schema"] == 1
    assert read["settings"]["rounds"] == Settings().rounds


def test_machine_facts_name_what_a_time_depends_on():
    facts = machine_facts()
    assert facts["torch"] == torch.__version__
    assert facts["threads"] == torch.get_num_threads()
    for name in ("cpu", "cores", "instruction_set", "stonefx", "system"):
        assert facts[name]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.5, "2.50 s"), (0.1234, "123 ms"), (9.876e-6, "9.88 us"), (3e-9, "3.00 ns"), (0.0, "0.00 ns")],
)
def test_seconds_text(seconds, text):
    assert seconds_text(seconds) == text


def test_load_warning():
    assert load_warning(None, 2) == ""
    assert load_warning(0.9, 2) == ""
    assert load_warning(1.1, 2).startswith("the load average was 1.1 on 2 cores before the run")


def test_the_spin_uses_every_thread():
    assert parallel_spin(100)().numel() == 100 * torch.get_num_threads()


def test_merged_linear_equals_the_chain():
    chain = seed_chain()
    x = torch.randn(4, 128, dtype=torch.float64)
    difference = relative_difference(merged(list(chain)).double()(x), [chain.double()(x)])
    assert difference < 1e-6


def test_suites_by_name():
    assert list(SUITES) == [
        "chain",
        "hyperbolic",
        "integrations",
        "low-rank",
        "ops",
        "papers",
        "regions",
        "zoo",
    ]


def test_chain_suite_runs_and_every_arm_is_right():
    (one,) = chain_cases(batches=(8,))
    measured = measure(one, Settings(rounds=2, min_rounds=2, seconds=1, sample_seconds=0))
    assert [arm.name for arm in measured.arms] == [
        "eager",
        "inductor",
        "compile(stone)",
        "stonefx.optimize",
        "merged nn.Linear",
        "merged addmm",
    ]
    assert all(arm.error <= 1e-6 for arm in measured.arms)


@pytest.mark.slow
def test_hyperbolic_suite_runs_and_every_arm_is_right():
    for one in hyperbolic_cases(shapes=[(64, 8)]):
        measured = measure(one, Settings(rounds=2, min_rounds=2, seconds=1, sample_seconds=0))
        assert len(measured.arms) == 5
        assert all(arm.error <= 1e-5 for arm in measured.arms)
