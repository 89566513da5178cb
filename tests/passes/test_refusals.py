"""Refusals are data: a code, its figures, and the sentence that is made from them."""

import ast
import copy
import pickle
import string
from pathlib import Path

import pytest
import torch
from torch import nn

import stonefx
from stonefx import passes
from stonefx.passes.hyperbolic.rows.matching import NearMiss
from stonefx.passes.refusal import CODES, Refusal
from stonefx.report.codes import page

SOURCES = sorted(Path(passes.__file__).parent.rglob("*.py"))


def calls():
    """Every `Refusal(...)` of the passes: file, line, code, names of its figures, whether more come as `**`."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refusal":
                names = {keyword.arg for keyword in node.keywords if keyword.arg}
                more = any(keyword.arg is None for keyword in node.keywords)
                if isinstance(node.args[0], ast.Attribute):  # what a matcher found, see below
                    for code in sorted(found_by_matchers()):
                        yield path.name, node.lineno, code, names, more
                else:
                    yield path.name, node.lineno, ast.literal_eval(node.args[0]), names, more


def found_by_matchers():
    """The codes of near misses, which are given to `NearMiss` by name or position, and its default."""
    codes = {NearMiss.__dataclass_fields__["code"].default}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "NearMiss":
                given = [*node.args[2:3], *(k.value for k in node.keywords if k.arg == "code")]
                codes |= {
                    each.value
                    for argument in given
                    for each in ast.walk(argument)
                    if isinstance(each, ast.Constant) and isinstance(each.value, str)
                }
    return codes


def fields(text):
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_code_is_used_and_every_use_is_a_code():
    assert {code for _, _, code, _, _ in calls()} == set(CODES)


def test_every_use_gives_what_the_sentence_needs():
    for file, line, code, names, more in calls():
        needed = fields(CODES[code].text)
        assert names >= needed or (more and names <= needed), f"{file}:{line}: {code} needs {needed - names}"


@pytest.mark.parametrize("code", CODES)
def test_a_sentence_has_no_capital_and_no_full_stop(code):
    text = CODES[code].text
    assert not text[0].isupper() and not text.endswith(".")
    assert CODES[code].cure == "" or CODES[code].cure.endswith((".", "`"))


def test_a_refusal_is_copied_and_pickled_with_its_figures():
    why = Refusal("key_width", inputs=8, outputs=4)
    for again in (copy.copy(why), copy.deepcopy(why), pickle.loads(pickle.dumps(why))):
        assert again == why and (again.code, dict(again.figures)) == (
            "key_width",
            {"inputs": 8, "outputs": 4},
        )


def test_an_unknown_code_and_a_missing_figure_raise():
    with pytest.raises(KeyError, match="nonsense"):
        Refusal("nonsense")
    with pytest.raises(KeyError, match="outputs"):
        Refusal("key_width", inputs=8)


def test_a_site_has_its_code_and_figures():
    model = nn.Sequential(nn.Linear(512, 8), nn.Linear(8, 512)).eval()
    (site,) = stonefx.optimize(
        model, torch.randn(4096, 512), machine=stonefx.Machine(pair_launches=2)
    ).report.sites
    assert (site.status, site.code) == ("refused", "no_faster")
    assert site.figures["after"] >= site.figures["before"] * 0.98
    assert f"{site.figures['after']:.3g} us" in site.reason


def test_the_page_of_codes_is_up_to_date():
    path = Path(__file__).parents[2] / "docs" / "refusals.md"
    assert path.read_text() == page(), "run `python -m stonefx.report.codes > docs/refusals.md`"
