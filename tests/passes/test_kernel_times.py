"""Times of linear maps that follow from measured ones."""

import pytest

from stonefx.passes.cost.kernel_times import KernelTimes, interpolate
from stonefx.passes.cost.machine import Machine

TIMES = KernelTimes(
    launch=1e-6,
    near_rate=((1, 2e10), (16, 8e10), (256, 1e11)),
    far_rate=((1, 5e9), (256, 9e10)),
    near_bytes=2**20,
    bandwidth=1e10,
    write=((2**20, 1e10), (2**26, 1e9)),
)


def test_the_entries_of_a_table_hold_and_the_last_one_beyond():
    for rows, rate in TIMES.near_rate:
        assert TIMES.rate(rows, 4) == pytest.approx(rate)
    assert TIMES.rate(10**6, 4) == 1e11
    assert interpolate(TIMES.write, 1) == 1e10
    assert TIMES.rate(4, 4) == pytest.approx((2e10 * 8e10) ** 0.5)


def test_a_weight_beyond_the_cache_is_slower():
    assert TIMES.rate(1, 2**20) == pytest.approx(2e10)
    assert TIMES.rate(1, 2**20 + 1) == pytest.approx(5e9)


@pytest.mark.parametrize("grown", ["rows", "inputs", "outputs"])
@pytest.mark.parametrize("rows", [1, 3, 100, 5000])
def test_more_work_is_never_predicted_to_be_faster(rows, grown):
    base = {"rows": rows, "inputs": 48, "outputs": 96, "itemsize": 4}
    last = 0.0
    for factor in (1, 2, 3, 16, 1024):
        seconds = TIMES.work_seconds(**base | {grown: base[grown] * factor})
        assert seconds >= last
        last = seconds


def test_what_a_time_is_made_of():
    flops, written = 2 * 256 * 64 * 64, 4 * 256 * 64
    assert TIMES.work_seconds(256, 64, 64, 4) == pytest.approx(flops / 1e11 + written / 1e10)
    rows = 2**14
    read = 4 * rows * 64
    assert read > TIMES.near_bytes
    expected = 2 * rows * 64 * 64 / 1e11 + read / 1e10 + read / interpolate(TIMES.write, read)
    assert TIMES.work_seconds(rows, 64, 64, 4) == pytest.approx(expected)
    assert TIMES.work_seconds(0, 64, 64, 4) == 0


def test_a_machine_uses_them_for_their_element_size():
    machine = Machine(single=TIMES)
    assert machine.linear_seconds(4, 64, 64, 4) == TIMES.launch + TIMES.work_seconds(4, 64, 64, 4)
    assert machine.linear_seconds(4, 64, 64, 2) == Machine().linear_seconds(4, 64, 64, 2)
    both = TIMES.work_seconds(4, 64, 8, 4) + TIMES.work_seconds(4, 8, 64, 4)
    assert machine.pair_seconds(4, 64, 8, 64, 4) == pytest.approx(both + TIMES.launch)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"launch": 0}, "expected launch > 0, got 0"),
        ({"write": ()}, r"expected write to hold positive numbers, got \(\)"),
        ({"far_rate": ((1, -1.0),)}, "expected far_rate to hold positive numbers"),
        ({"near_rate": ((1, 1e9), (4, 9e9))}, "expected the time in near_rate to grow with its size"),
    ],
)
def test_facts_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        KernelTimes(**{**vars(TIMES), **change})
