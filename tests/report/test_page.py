"""The page as a document: what it says, that it is whole and small, and that nothing of the user's becomes markup."""

import re
import time
from html.parser import HTMLParser

import pytest
import torch
from page_models import HOSTILE, hostile_report, model_report, tall_report
from reports import report, site

from stonefx.passes.refusal import Refusal
from stonefx.report import Report
from stonefx.report.page.content import left_on_the_table
from stonefx.report.page.render import page

VOID = {"meta", "link", "input", "br", "wbr", "rect", "use", "path", "img"}


class Page(HTMLParser):
    """The elements of a page, with their attributes and text; tags must close what was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self._open):
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())


@pytest.fixture(scope="module")
def found() -> Report:
    return model_report()


@pytest.fixture(scope="module")
def parsed(found) -> Page:
    return Page(page(found))


def test_the_page_has_every_site_with_what_is_known(found, parsed):
    rows = [each for each in parsed.all("tbody") if (each.get("id") or "").startswith("site-")]
    assert [row["id"] for row in rows] == [f"site-{n}" for n in range(1, len(found.sites) + 1)]
    assert {row["data-status"] for row in rows} == {"rewritten", "refused", "near miss"}
    for kept, row in zip(found.sites, rows, strict=True):
        assert (row["data-target"], row["data-code"]) == (kept.target, kept.code)
        assert " ".join(str(kept.reason).split()) in parsed.text
        for name, value in kept.guards.items():
            assert f"guard {name}{value}" in parsed.text.replace(
                f"guard {name} {value}", f"guard {name}{value}"
            )
    assert "y = W₃ W₂ W₁ x₁ + b₁" in parsed.text, "the formula of the model"
    assert "tanh(s n) / (s n) x" in parsed.text, "the formula of the table"
    assert "page_models.py, line" in parsed.text, "the user's code"
    assert "y = F.gelu(self.up(self.middle(self.down(x)))) + x" in parsed.text


def test_the_head_has_totals_before_and_after(found, parsed):
    labels = [each["aria-label"] for each in parsed.all("div") if each.get("class") == "bar"]
    assert [label.split(":")[0] for label in labels] == [
        "parameters",
        "FLOPs a call",
        "bytes moved",
        "predicted time of what was rewritten",
        "measured time of a call",
    ]
    assert labels[-1] == "measured time of a call: 320 us before, 210 us after, 65.6 %"


def test_the_graphs_stand_side_by_side_with_links_to_the_sites(found, parsed):
    links = {each["href"] for each in parsed.all("a") if (each.get("href") or "").startswith("#site-")}
    ids = {each.get("id") for _, each in parsed.elements}
    rewritten = {f"#site-{n}" for n, each in enumerate(found.sites, 1) if each.status == "rewritten"}
    assert rewritten <= links
    assert all(link[1:] in ids for link in links)
    for line in [*found.before.splitlines(), *found.after.splitlines()]:
        assert " ".join(line.split()) in parsed.text


def test_drawings_have_the_nodes_before_and_after(found, parsed):
    assert parsed.all("symbol")
    drawn = {each["href"] for each in parsed.all("use")}
    assert drawn == {f"#{each['id']}" for each in parsed.all("symbol")}
    assert "low_rank_linear" in parsed.text and "folded weight" in parsed.text and "expmap0" in parsed.text


def test_ids_are_unique_and_references_have_their_element(parsed):
    ids = [each["id"] for _, each in parsed.elements if each.get("id")]
    assert len(ids) == len(set(ids))
    for _, each in parsed.elements:
        for name in ("aria-controls", "aria-labelledby", "for"):
            assert each.get(name) is None or set(each[name].split()) <= set(ids)
        if (each.get("href") or "").startswith("#"):
            assert each["href"][1:] in ids


def test_the_page_needs_nothing_else(parsed):
    for tag, each in parsed.elements:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            value = each.get(name)
            assert value is None or value.startswith("#") or value == "data:,", (tag, name, value)
        assert tag not in ("iframe", "object", "embed", "img", "base")
    policy = next(
        e["content"] for e in parsed.all("meta") if e.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy


def test_what_comes_from_the_model_is_text():
    text = page(hostile_report())
    parsed = Page(text)
    assert len(parsed.all("script")) == 1 and not parsed.all("img")
    assert text.count("<script>") == 1 and text.count("</script>") == 1
    assert not any(name.startswith("on") for _, each in parsed.elements for name in each)
    assert parsed.text.count("<script>window.broken=1</script>") > 8
    row = next(each for each in parsed.all("tbody") if each.get("id") == "site-2")
    assert row["data-module"] == row["data-target"] == HOSTILE


def test_what_would_save_most_comes_first():
    def left(reason, before=None, after=None, count=1, status="refused"):
        return [
            site(
                status=status,
                reason=reason,
                module_path=f"layer.{n}",
                seconds_before=before,
                seconds_after=after,
            )
            for n in range(count)
        ]

    why = {name: Refusal("kept", weight=name) for name in ("few", "many", "none", "loses")}
    sites = [
        *left(Refusal("nonlinear", operator="`relu`", how="", at="")),
        *left(why["none"]),
        *left(why["loses"], 1e-6, 2e-6),
        *left(why["few"], 5e-6, 1e-6),
        *left(why["many"], 3e-6, 1e-6, 10),
        site(seconds_before=9.0, seconds_after=1.0),
    ]
    order = [kind.first for kind in left_on_the_table(sites)]
    assert [each.code for each in order] == ["kept"] * 4 + ["nonlinear"], "what has no cure comes last"
    assert [each.figures.get("weight") for each in order[:2]] == ["many", "few"]
    text = Page(page(report(sites=sites))).text
    assert "10 × linear_chain layer.* would save 20 us a call" in text
    assert "nothing to win at these sizes" in text and "What to do: Take it out of `keep=`." in text


def test_a_report_that_was_kept_makes_the_same_page(found, tmp_path):
    path = found.to_html(tmp_path / "report.html")
    assert path.read_text(encoding="utf-8") == page(Report.from_json(found.to_json()))
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        found.to_html(tmp_path / "missing" / "report.html")


def test_empty_and_partial_reports_have_a_page():
    assert "No pass found anything to look at." in Page(page(Report())).text
    assert "Nothing was left out." in Page(page(Report())).text
    lost = report(
        sites=[site(nodes=("gone",), output="gone", source="no_such_file.py:3")], before="", after=""
    )
    assert "no_such_file.py" in Page(page(lost)).text


def test_48_layers_are_a_page_of_under_two_megabytes(found):
    tall = tall_report(found)
    assert len(tall.sites) >= 240
    text = page(tall)
    assert len(text.encode()) < 2e6
    parsed = Page(text)
    # Equal blocks share their drawings, and each keeps the lines of its own part of the model.
    assert len(parsed.all("symbol")) == len(Page(page(found)).all("symbol"))
    assert "W₁ = decoder" not in parsed.text and "decoder.layers.47" in parsed.text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_pages_of_transformers_are_small_and_quick(name, tmp_path):
    import transformers as library

    import stonefx

    torch.manual_seed(0)
    if name == "bert":
        model = library.BertModel(library.BertConfig())
    else:
        sizes = {"n_layer": 48, "n_embd": 256, "n_head": 8, "vocab_size": 1000}
        model = library.GPT2Model(library.GPT2Config(**sizes, use_cache=False))
    found = stonefx.explain(model.eval(), {"input_ids": torch.randint(0, 1000, (2, 32))})
    start = time.process_time()
    path = found.to_html(tmp_path / "report.html")
    print(f"{path.stat().st_size} bytes, {time.process_time() - start:.2f} s, {len(found.sites)} sites")
    assert path.stat().st_size < 2e6
    assert len(str(found).splitlines()) < 60
    assert not re.search(r"&lt;(?:script|img)", path.read_text())
