"""The documentation: every block of Python runs, generated pages are made from the code, names in it exist.

Blocks of a page run in order, in one namespace. A block in a comment, `<!-- invisible-code-block: python`, checks what
the text around it says; a block behind `<!-- slow -->` runs with the slow tests.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from sybil import Document, Example
from sybil.parsers.markdown import PythonCodeBlockParser

import stonefx
from stonefx.passes.refusal import CODES

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "docs"))

import generate

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
# What the pages of the guides presuppose: a model and data of the reader's own.
GIVEN = """
import torch, stonefx
from torch import nn
torch.manual_seed(0)
"""
OF_THE_READER = {
    "docs/compression.md": """
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
data = [torch.randn(8, 16) for _ in range(12)]
""",
    "docs/libraries.md": "train = lambda model: None\nmodel = None",
}


def examples(path: Path) -> tuple[Document, list[Example]]:
    document = Document.parse(str(path), PythonCodeBlockParser())
    return document, list(document.examples())


def is_slow(document: Document, example: Example) -> bool:
    return document.text[: example.start].rstrip().endswith("<!-- slow -->")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


WITH_BLOCKS = [path for path in PAGES if examples(path)[1]]


def run(path: Path, slow: bool) -> None:
    document, found = examples(path)
    document.namespace["DOCUMENT"] = str(path)
    exec(GIVEN + OF_THE_READER.get(name(path), ""), document.namespace)
    for example in found:
        if slow or not is_slow(document, example):
            example.evaluate()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """What a page writes goes into a folder of its own; what it sets up in torch is taken back."""
    monkeypatch.chdir(tmp_path)
    torch.compiler.reset()
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("path", WITH_BLOCKS, ids=name)
@pytest.mark.filterwarnings("ignore")
def test_every_block_runs(path):
    run(path, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [path for path in WITH_BLOCKS if "<!-- slow -->" in path.read_text()], ids=name
)
def test_slow_blocks_run(path):
    run(path, slow=True)


@pytest.mark.parametrize("path", list(generate.PAGES), ids=name)
def test_generated_pages_are_up_to_date(path):
    assert path.read_text(encoding="utf-8") == generate.PAGES[path](), "python docs/generate.py writes it"


def test_codes_in_tables_of_refusals_exist():
    for path in (DOCS / "passes").glob("*.md"):
        for block in re.findall(r"\| code \| cause \| cure \|\n.*\n((?:\|.*\n)+)", path.read_text()):
            for row in block.splitlines():
                codes = re.findall(r"`(\w+)`", row.split("|")[1])
                assert codes and set(codes) <= set(CODES), (path.name, row)


def test_every_link_of_the_readme_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text()):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    for path in DOCS.rglob("*.md"):
        assert path.relative_to(DOCS).as_posix() in navigation, path


def test_every_layer_and_every_function_of_the_geometry_is_named():
    text = "".join(path.read_text() for path in (DOCS / "operators").glob("*.md"))
    for module in (stonefx.nn, *(getattr(stonefx.geometry, name) for name in stonefx.geometry.__all__)):
        for name in getattr(module, "__all__", ()):
            assert re.search(rf"`[^`]*\b{name}\b", text), f"{module.__name__}.{name}"


def test_no_measured_figure_is_written_by_hand():
    """A page includes the tables of the benchmarks; the README has one, which `stonefx.benchmarks.tables` writes."""
    figure = re.compile(
        r"\b\d+(\.\d+)?x(?![\w\d])|\d times (as fast|the time)|\b\d+(\.\d+)? ?(us|µs|ms|seconds)\b"
    )
    for path in PAGES:
        text = re.sub(r"<!-- table: speed -->.*<!-- end of table -->", "", path.read_text(), flags=re.DOTALL)
        for line in text.splitlines():
            found = figure.search(line)
            assert found is None or "`" in line[: found.start()], f"{name(path)}: {line}"


def test_every_picture_that_a_script_draws_is_shown():
    text = "".join(path.read_text() for path in PAGES)
    for path in (DOCS / "pictures").iterdir():
        assert f"pictures/{path.name}" in text, path.name
