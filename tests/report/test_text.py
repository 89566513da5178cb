"""The text of a report: 80 columns, kinds with counts, colours on a terminal alone."""

import io
import re

import pytest
from reports import report, site

from stonefx.passes.refusal import Refusal
from stonefx.report import Report
from stonefx.report.kinds import common_pattern, kinds
from stonefx.terminal import takes_colour


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_every_fact_is_in_the_text():
    text = str(report())
    for part in (
        "linear_chain",
        "rewritten",
        "refused",
        "model.py:12",
        "params 66 -> 18",
        "flops 480 -> 128",
        "error 3.0e-08 -> 2.0e-08, bound 1.0e-06",
        "the value between is returned",
        "1 rewritten, 1 refused, 0 near misses",
        "parameters 66 -> 18 (27.27 %)",
        "door optimize, inner eager, torch 2.13.0",
        "notes:\n  decoder: not captured",
    ):
        assert part in " ".join(text.split("\n")) or part in text
    assert "/home/me" not in text


def test_blocks_that_repeat_are_one_line_with_a_count():
    sites = [site(module_path=f"layer.{i}.ffn") for i in range(48)]
    sites += [
        site(
            status="refused",
            reason=Refusal("kept", weight=f"layer.{i}.ffn.weight"),
            module_path=f"layer.{i}.ffn",
        )
        for i in range(48)
    ]
    text = str(report(sites=sites))
    assert re.search(r"1 +48 +linear_chain +rewritten +layer\.\*\.ffn", text)
    assert re.search(r"2 +48 +linear_chain +refused +layer\.\*\.ffn", text)
    assert "48 rewritten, 48 refused" in text
    assert len(text.splitlines()) < 24


def test_the_count_is_of_what_is_alike_alone():
    other = site(reason="two became one", module_path="layer.3.ffn")
    wider = site(module_path="layer.4.ffn", params_before=67)
    found = kinds([site(module_path="layer.1.ffn"), other, wider, site(module_path="layer.2.ffn")])
    assert [kind.numbers for kind in found] == [(1, 4), (2,), (3,)]


@pytest.mark.parametrize(
    ("paths", "pattern"),
    [
        (["a"], "a"),
        (["a.0.b", "a.1.b", "a.11.b"], "a.*.b"),
        (["a.0.b.3", "a.1.b.4"], "a.*.b.*"),
        (["encoder.0", "decoder.0"], "encoder.0 and 1 more"),
        (["a.0", "a.0.b"], "a.0 and 1 more"),
        (["0, 1", "2, 3"], "0, 1 and 1 more"),
    ],
)
def test_paths_that_differ_in_numbers_are_one_pattern(paths, pattern):
    assert common_pattern(paths) == pattern


@pytest.mark.parametrize("length", [4, 30, 300])
def test_no_line_is_longer_than_80_columns(length):
    name = ".".join(["encoder", "layer", "0", *["attention"] * (length // 9)])
    why = Refusal("kept", weight=f"{name}.weight")
    sites = [
        site(module_path=name, source=f"/home/{name}.py:1234", guards={"min_norm": 1e-15}),
        site(module_path=name, status="refused", reason=why, target="mobius_scalar_mul"),
        site(module_path=name, status="near miss", reason="word " * length, target="poincare_hyperplanes"),
    ]
    weights = {f"{name}.{i}.weight": ["folded_weight"] for i in range(9)}
    text = report(sites=sites, notes=["a note " * length], weights=weights).text()
    # A name that is longer than a line stands in a line of its own, whole.
    assert [line for line in text.splitlines() if len(line) > 80 and len(line.split()[-1]) < 70] == []
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_a_cure_stands_below_its_reason_unless_there_is_none():
    dropout = site(
        status="refused", reason=Refusal("dropout", p=0.1), seconds_before=3e-5, seconds_after=1e-5
    )
    shared = site(status="refused", reason=Refusal("shared", value="relu", count=2, users="a, b"))
    text = report(sites=[dropout, shared]).text()
    assert re.search(r"would save 20 us a call;.* -> Call `model.eval\(\)`", " ".join(text.split()))
    assert "Nothing where all of them need it" not in text


def test_colours_are_for_terminals_alone(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert takes_colour(Terminal()) and not takes_colour(io.StringIO()) and not takes_colour(None)
    monkeypatch.setattr("sys.stdout", Terminal())
    text = str(report())
    assert "\x1b[32mrewritten\x1b[0m" in text and "\x1b[33mrefused\x1b[0m" in text
    assert re.sub(r"\x1b\[\d+m", "", text) == report().text()
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert str(report()) == report().text()
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert str(report()) == text
    monkeypatch.setenv("NO_COLOR", "1")
    assert str(report()) == report().text()
    monkeypatch.delenv("FORCE_COLOR")
    monkeypatch.setattr("sys.stdout", Terminal())
    assert str(report()) == report().text()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert str(report()) == report().text()


def test_nothing_found_is_said():
    assert str(Report()) == "nothing to rewrite was found"


def test_measured_times_are_shown_where_they_were_asked_for():
    shown = report()
    assert "measured" not in str(shown)
    shown.measure(lambda: None, lambda: None)
    assert re.search(r"^measured \S+ \w+ -> \S+ \w+ a call$", str(shown), re.M)
