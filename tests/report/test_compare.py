"""Comparing a report with one that was kept: what a check fails on, and what it does not."""

import pytest
from reports import report, site

from stonefx.passes.refusal import Refusal
from stonefx.report import Report, Totals

DROPOUT = Refusal("dropout", p=0.1)
SHARED = Refusal("shared", value="relu", count=2, users="a, b")


def refused(reason=DROPOUT, **changes):
    return site(status="refused", reason=reason, **changes)


def test_equal_reports_have_no_difference():
    comparison = report().compare(Report.from_json(report().to_json()))
    assert not comparison and str(comparison) == "no difference"
    assert (comparison.regressions, comparison.improvements, comparison.changes) == ((), (), ())


def test_a_lost_rewrite_is_a_regression_with_its_reason():
    comparison = report(sites=[refused()]).compare(report(sites=[site()]))
    assert comparison.regressions == (
        "linear_chain in head (model.py:12): 1 site no longer rewritten: refused, "
        "dropout with p=0.1 is active in between",
    )
    assert str(comparison).startswith("regressions: 1\n  linear_chain in head")
    assert all(len(line) <= 80 for line in str(comparison).splitlines())
    gone = report(sites=[]).compare(report(sites=[site()]))
    assert gone.regressions == ("linear_chain in head (model.py:12): 1 site no longer rewritten",)


def test_a_new_rewrite_is_an_improvement():
    comparison = report(sites=[site()]).compare(report(sites=[refused()]))
    assert not comparison.regressions
    assert comparison.improvements == ("linear_chain in head (model.py:12): 1 site rewritten now",)


def test_of_several_sites_of_a_module_as_many_must_be_rewritten():
    comparison = report(sites=[site(), refused(), refused()]).compare(report(sites=[site(), site(), site()]))
    assert len(comparison.regressions) == 1 and "2 sites no longer rewritten" in comparison.regressions[0]


@pytest.mark.parametrize(
    "moved",
    [
        {"source": "/elsewhere/model.py:99"},
        {"nodes": ("linear_7",), "output": "linear_7"},
        {"max_error": 5e-8},
        {"seconds_after": 1e-6},
    ],
)
def test_what_only_moved_is_no_difference(moved):
    assert not report(sites=[site(**moved)]).compare(report(sites=[site()]))


def test_another_reason_is_a_change_and_other_figures_are_none():
    comparison = report(sites=[refused(SHARED)]).compare(report(sites=[refused()]))
    assert not comparison.regressions and "is used in 2 places" in comparison.changes[0]
    assert not report(sites=[refused(Refusal("dropout", p=0.5))]).compare(report(sites=[refused()]))
    gone = report(sites=[]).compare(report(sites=[refused()]))
    assert gone.changes == ("linear_chain in head: 1 site no longer found",)


def test_totals_of_which_more_remains_are_regressions():
    before = Totals(parameters=1000, flops=2000, bytes=4000)
    kept = report(totals_before=before, totals_after=Totals(parameters=500, flops=1000, bytes=2000))
    worse = report(totals_before=before, totals_after=Totals(parameters=800, flops=1000, bytes=2000))
    assert worse.compare(kept).regressions == ("parameters: 80.00 % remain where 50.00 % did (500 -> 800)",)
    assert not kept.compare(worse).regressions
    # A model that grew as a whole has lost no rewrite.
    double = report(
        totals_before=before + before, totals_after=Totals(parameters=1000, flops=2000, bytes=4000)
    )
    assert not double.compare(kept).regressions


def test_only_reports_are_compared():
    with pytest.raises(
        TypeError, match=r"expected a Report to compare with, got str; Report.from_json reads"
    ):
        report().compare("old.json")
