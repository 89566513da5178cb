"""The tables of the benchmarks and of the README are those of the files in benchmarks/results/."""

import json
import re

import pytest
from click.testing import CliRunner

from stonefx.benchmarks import tables


def test_the_pages_are_made_from_the_results():
    done = CliRunner().invoke(tables.main, ["--check"])
    assert done.exit_code == 0, done.output


def test_every_file_of_results_has_a_section():
    named = [name for section in tables.SECTIONS for name in section.files]
    assert sorted(named) == sorted(path.name for path in tables.RESULTS.glob("*.json"))


def test_a_changed_result_changes_the_tables(tmp_path):
    for path in tables.RESULTS.glob("*.json"):
        (tmp_path / path.name).write_text(path.read_text())
    assert tables.page(tmp_path) == tables.page()
    file = tmp_path / "chain-cpu-2-cores-avx512.json"
    document = json.loads(file.read_text())
    for arm in document["suites"]["chain"][0]["arms"]:
        arm["speedup"] = 123.0
    document["suites"]["chain"][0]["noisy"] = True
    file.write_text(json.dumps(document))
    for text in (tables.headline(tmp_path), tables.page(tmp_path)):
        assert "123x" in text and "batch 1 \\*" in text


def test_the_counts_that_the_readme_names():
    text = tables.README.read_text()
    for name, file, suite in (("architectures", "zoo", "zoo"), ("cases", "ops", "ops")):
        document = json.loads((tables.RESULTS / f"{file}-cpu-2-cores-avx512.json").read_text())
        assert re.search(rf"\b{len(document['suites'][suite])}\s+{name}", text)


def test_a_readme_without_a_place_for_the_table():
    with pytest.raises(ValueError, match="expected the lines <!-- table: speed -->"):
        tables.with_headline("# stonefx")
