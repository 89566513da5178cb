"""Every region of the benchmark is explained with the user's line, whether it is rewritten or refused."""

import re
from pathlib import Path

import pytest

import stonefx
from stonefx.benchmarks.suites.regions import BY_HAND, REGIONS
from stonefx.benchmarks.zoo import ARCHITECTURES, SMALL

pytest.importorskip("transformers")


def lines_of(report):
    """The text of the line that each site names."""
    found = []
    for site in report.sites:
        path, _, line = site.source.rpartition(":")
        found.append(Path(path).read_text().splitlines()[int(line) - 1])
    return found


@pytest.mark.parametrize("name", REGIONS)
def test_each_region_is_rewritten_and_each_site_names_its_line(name):
    model, inputs = REGIONS[name]()
    report = stonefx.explain(model, inputs)
    assert report.rewritten(), report
    assert all(site.max_error <= site.bound for site in report.rewritten())
    assert all(line.strip() and not line.lstrip().startswith(("def ", "#")) for line in lines_of(report))
    assert set(BY_HAND) <= set(REGIONS)


def test_the_head_of_segformer_keeps_a_third_of_its_parameters():
    report = stonefx.explain(*REGIONS["SegFormer-B0 head"]())
    (site,) = report.rewritten()
    # 394,240 of the maps and 1,024 of the norm, which goes into them
    assert (site.params_before, site.params_after) == (395_264, 131_328)
    assert site.max_error < 1e-5


def test_what_would_cost_more_is_left_apart_and_both_costs_are_said():
    model, inputs = ARCHITECTURES["mobilenet_v2"](SMALL)
    report = stonefx.explain(model, inputs)
    # The end of one bottleneck and the start of the next: norms go into the maps, the thin middle stays.
    reasons = [site.reason for site in report.rewritten() if site.reason.startswith("32 -> 16 -> 96 became")]
    assert len(reasons) == 1
    found = re.fullmatch(
        r"32 -> 16 -> 96 became 32 -> 16, 16 -> 96; predicted (\S+) to (\S+) us at 2048 rows; "
        r"one map 32 -> 96 would take (\S+) us",
        reasons[0],
    )
    assert found, reasons[0]
    assert float(found[2]) < float(found[3])
    assert all(line.strip() for line in lines_of(report))
