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
    named = [
        name
        for section in tables.SECTIONS
        for name in section.files
        if not section.lent or (tables.RESULTS / name).exists()
    ]
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


def card(suite, *cases):
    machine = {
        "gpu": "NVIDIA H100",
        "driver": "580.1",
        "tf32_matmul": False,
        "torch": "2.11.0",
        "commit": "abc",
    }
    return {"machine": machine, "date": "2026-01-02T03:04:05", "suites": {suite: list(cases)}}


def case(name, facts, **seconds):
    arms = [
        {"arm": arm.replace("_", " "), "seconds": each, "speedup": seconds["dense"] / each}
        for arm, each in seconds.items()
    ]
    return {"case": name, "noisy": False, "facts": facts, "arms": arms}


LENT = [section for section in tables.SECTIONS if section.lent]


@pytest.mark.parametrize("section", LENT, ids=lambda section: section.anchor)
def test_what_a_lent_machine_has_not_measured_is_said(section, tmp_path):
    text = tables._section(section, tmp_path)
    assert f"Not measured yet: `{section.command}`." in text and f"[start:{section.anchor}]" in text
    with pytest.raises(FileNotFoundError):
        tables._section(tables.SECTIONS[0], tmp_path)


def test_low_rank_on_a_card_shows_one_rank_and_counts_all(tmp_path):
    def picks(calls, graphs):
        return {"picks": {"pair": {"over_fastest": calls}, "dense, CUDA graph": {"over_fastest": graphs}}}

    cells = (
        case("float32 rows 1 width 4096 rank 256", picks(1.0, 1.0), dense=3e-5, pair=1e-5),
        case("float32 rows 1 width 4096 rank 16", picks(1.0, 2.0), dense=3e-5, pair=1e-5),
    )
    (tmp_path / "low-rank-h100.json").write_text(json.dumps(card("low-rank", *cells)))
    text = tables._section(next(section for section in LENT if section.title.startswith("Low")), tmp_path)
    assert "rank 256" in text and "rank 16" not in text and "pair; dense, CUDA graph" in text
    assert (
        "In calls the model's pick is within 5 % of the faster of dense and pair in 100% of 2 cells" in text
    )
    assert "In CUDA graphs the model's pick is within 5 % of the faster of dense and pair in 50% of 2" in text
    assert "NVIDIA H100, driver 580.1, TF32 off, torch 2.11.0, 2026-01-02, commit abc" in text


@pytest.mark.parametrize("suite", ["chain", "hyperbolic", "ops"])
def test_suites_on_a_card_have_their_tables(suite, tmp_path):
    section = next(each for each in LENT if each.files == (f"{suite}-h100.json",))
    ratios = {"ratios": {"inductor": 2.0}}
    document = card(suite, case("batch 1", ratios, dense=3e-5, stonefx=1e-5))
    (tmp_path / section.files[0]).write_text(json.dumps(document))
    text = tables._section(section, tmp_path)
    assert "batch 1" in text and ("2.0x" if suite == "ops" else "3.0x") in text
