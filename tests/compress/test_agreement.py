"""Exact bounds of what samples that are right or wrong keep."""

import math

import numpy
import pytest

from stonefx.compress.agreement import kept, share


@pytest.mark.parametrize(("right", "n"), ((480, 500), (57, 60), (900, 1000), (500, 500)))
def test_the_bound_falls_with_what_is_lost_and_rises_with_what_is_gained(right, n):
    by_lost = [kept(lost, 1, right, n, 0.95) for lost in range(4)]
    by_gained = [kept(2, gained, right, n, 0.95) for gained in range(min(4, n - right + 1))]
    assert by_lost == sorted(by_lost, reverse=True)
    assert by_gained == sorted(by_gained)
    # A bound is below what was seen.
    assert all(bound < 1 - (lost - 1) / right for lost, bound in enumerate(by_lost))


@pytest.mark.parametrize(("lost", "n"), ((0, 59), (0, 500), (3, 500)))
def test_nothing_gained_is_close_to_the_binomial_bound(lost, n):
    assert kept(lost, 0, n, n, 0.95) == pytest.approx(share(n - lost, n, 0.95))
    # With a tenth wrong from the beginning the doubt about that share is added, and nothing else.
    right = round(0.9 * n)
    bound = share(right - lost, right, 0.95)
    assert bound - 0.35 * (1 - bound) < kept(lost, 0, right, n, 0.95) <= bound + 1e-3


@pytest.mark.parametrize(
    ("lost", "gained", "right", "n"),
    ((0.05, 0.0, 0.95, 60), (0.02, 0.01, 0.97, 150), (0.1, 0.08, 0.8, 60), (0.03, 0.05, 0.9, 80)),
)
def test_the_bound_is_missed_no_more_often_than_it_says(lost, gained, right, n):
    generator = numpy.random.default_rng(0)
    truth = 1 - (lost - gained) / right
    chances = [lost, gained, right - lost, 1 - right - gained]
    missed = sum(
        kept(int(x), int(y), int(x + both), n, 0.95) > truth
        for x, y, both, _ in generator.multinomial(n, chances, size=200)
    )
    # 5 % of 200 is 10; more than 21 has a chance below 1e-3.
    assert missed <= 21


def test_many_that_changed_take_the_normal_score():
    for changed in (70, 80):
        error = 1.645 * math.sqrt(2 * changed) / 900
        assert kept(changed, changed, 900, 1000, 0.95) == pytest.approx(1 - error, abs=0.1 * error)


def test_nothing_right_keeps_nothing():
    assert kept(0, 3, 0, 10, 0.95) == 0.0
