"""The page of every architecture of the zoo: it is written, small, and opens without a message."""

import warnings

import pytest
import test_page_browser as pages
import torch

import stonefx
from stonefx.report import Report

pytest.importorskip("transformers")

from stonefx.benchmarks.zoo import ARCHITECTURES, TINY

pytestmark = [pytest.mark.slow, pages.pytestmark]


@pytest.fixture(scope="module")
def browser():
    driver = pages.started()
    yield driver
    driver.quit()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_page_of_an_architecture(name, browser, tmp_path):
    torch._dynamo.reset()
    model, inputs = ARCHITECTURES[name](TINY)
    with warnings.catch_warnings(action="ignore"):
        report = stonefx.explain(model, inputs)
    page = report.to_html(tmp_path / "report.html")
    assert page.stat().st_size < 2_000_000
    browser.get(f"file://{page}")
    assert browser.get_log("browser") == []
    shown = browser.find_elements("css selector", "#table > tbody")
    assert len(shown) == len(report.sites)
    # From the file as well, as the command line reads it.
    assert len(Report.from_json(report.to_json()).sites) == len(report.sites)
