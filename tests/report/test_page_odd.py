"""The page of reports as nobody expects them: figures that are no numbers, thousands of sites, names of any kind."""

import math
import os
import re

import pytest
from page_models import HOSTILE
from reports import report, site

from stonefx.passes.refusal import Refusal
from stonefx.report import Report
from stonefx.report.page.render import page


def shown(made):
    """The page, its text and what a kept report makes of it."""
    text = page(made)
    assert len(text.encode()) < 2e6
    assert page(Report.from_json(made.to_json())) == text
    assert str(made)
    return text


def many(count, path="block{}", length=0):
    """A report of so many sites, no two of one kind, of a graph of two lines for each."""
    sites, before, after = [], ["%x: f32[4, 8] = input"], ["%x: f32[4, 8] = input"]
    for i in range(count):
        last = f"y{i - 1}" if i else "x"
        name = path.format(i) + "." * bool(length) + "n" * length
        before += [
            f"%h{i}: f32[4, 16] = aten.linear(%{last}, {name}.a.weight, {name}.a.bias)  # m.py:{i + 1}",
            f"%y{i}: f32[4, 8] = aten.linear(%h{i}, {name}.b.weight)  # m.py:{i + 2}",
        ]
        after.append(f"%y{i}: f32[4, 8] = aten.linear(%{last}, {name}.weight)")
        about = {
            "module_path": name,
            "source": f"/home/me/m{i}.py:{i + 1}",
            "nodes": (f"h{i}", f"y{i}"),
            "output": f"y{i}",
            "replacement": f"y{i}",
            "params_before": i + 100,
        }
        kinds = (
            {},
            {"status": "refused", "reason": Refusal("kept", weight=name), "seconds_before": 1e-3 + i * 1e-6,
             "seconds_after": 1e-4},
            {"status": "near miss", "reason": f"the guard is {i}", "target": "expmap0"},
        )  # fmt: skip
        sites.append(site(**about | kinds[i % 3]))
    return report(sites=sites, before="\n".join(before), after="\n".join(after))


FIGURES = [0.0, math.inf, -math.inf, math.nan, 1e308, 5e-324]


@pytest.mark.parametrize("figure", FIGURES)
def test_figures_that_are_no_numbers(figure):
    about = {"max_error": figure, "original_error": figure, "bound": figure, "seconds_before": figure}
    sites = [
        site(**about, seconds_after=figure),
        site(**about, seconds_after=0.0, status="refused", reason=Refusal("kept", weight="w")),
        site(status="refused", reason=Refusal("kept", weight="w"), seconds_before=1.0, seconds_after=figure),
    ]
    for measured in ({"before": figure, "after": figure}, {"before": 1.0, "after": figure}):
        text = shown(report(sites=sites, measured=measured, seconds={"linear_chains": figure}))
        for attribute in re.findall(r"(?:width|height|data-saving|value)=\"([^\"]*)\"", text):
            assert not re.search("nan|inf", attribute), attribute


NAMES = {
    "unicode": "größe.世界.\u202eabc",
    "control letters": "a\x00b\x07c\x1b[31m\u2028",
    "half a letter": "a\udce9b",
    "long": "n" * 5_000,
    "deep": ".".join(f"layer{i}" for i in range(3000)),
    "markup": HOSTILE,
    "dots": "...",
    "commas": "0, 1, 2",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_any_kind(name, tmp_path):
    value = NAMES[name]
    made = report(
        sites=[
            site(module_path=value, source=f"/home/{value}.py:3", nodes=(value,)),
            site(module_path=value, status="refused", reason=Refusal("kept", weight=value)),
        ],
        notes=[value],
        weights={value: [value]},
    )
    shown_text = page(made)
    assert "<script>window" not in shown_text and len(shown_text.encode("utf-8", "replace")) < 2e6
    assert "site-1" in made.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    for width in (20, 80):
        assert made.text(width=width)


@pytest.mark.parametrize(
    "source", ["", "nofile", "x.py:0", f"x.py:{10**30}", "<string>:1", "/tmp:1", ":", "a:b"]
)
def test_a_site_without_a_source(source):
    assert "site-1" in shown(report(sites=[site(source=source)]))


def test_lines_of_source_are_text(tmp_path):
    file = tmp_path / "model.py"
    file.write_text(
        'x = "</script><script>alert(1)</script>"\ny = "<!-- <script>"\n' + "z = " + "1+" * 100_000 + "1\n"
    )
    text = shown(report(sites=[site(source=f"{file}:{line}") for line in (1, 2, 3)]))
    assert text.count("</script>") == 1 and "&lt;/script&gt;" in text
    (tmp_path / "binary.py").write_bytes(bytes(range(256)) * 8)
    assert "site-1" in shown(report(sites=[site(source=f"{tmp_path}/binary.py:2")]))


@pytest.mark.parametrize("count", [800, pytest.param(2000, marks=pytest.mark.slow)])
def test_thousands_of_sites_are_a_page_that_says_what_it_leaves_out(count):
    text = page(many(count))
    assert len(text.encode()) < 2e6
    numbers = [int(number) for number in re.findall(r'<tbody id="site-(\d+)"', text)]
    assert 300 < len(numbers) < count and numbers == sorted(numbers)
    assert f"{len(numbers)} of {count} sites are shown" in text
    assert "more kinds, which" in text
    assert ("more lines are left out" in text) == (count == 2000)
    # What would save most is there, and no link leads nowhere.
    assert max(n for n in range(1, count + 1) if n % 3 == 2) in numbers
    assert {int(number) for number in re.findall(r'href="#site-(\d+)"', text)} <= set(numbers)
    assert f"<b>{sum(n % 3 == 0 for n in range(count))}</b> rewritten" in text


def test_long_names_of_many_sites_are_still_a_page():
    text = page(many(200, length=2000))
    assert len(text.encode()) < 2e6 and "sites are shown" in text


def test_sites_of_one_kind_are_all_shown():
    one = many(4)
    text = shown(Report.merge((f"layers.{i}", one) for i in range(48)))
    assert text.count("<tbody id=") == 192 and "sites are shown" not in text


def test_several_graphs_and_none():
    one = many(3)
    text = shown(Report.merge([("", one), ("", one), ("inner", one)]))
    assert text.count("<tbody id=") == 9
    assert "No pass found anything to look at" in shown(report(sites=[]))
    assert "No graph was captured" in shown(Report())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "is a folder; name a file in it"),
        ("no/page.html", "there is no folder"),
        ("file/page.html", "there is no folder"),
        ("n" * 300 + ".html", "File name too long"),
    ],
)
def test_a_page_that_cannot_be_written_says_why(tmp_path, name, said):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=said) as refused:
        report().to_html(tmp_path / name)
    assert ".tmp" not in str(refused.value)
    assert os.listdir(tmp_path) == ["file"]
