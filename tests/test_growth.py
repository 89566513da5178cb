"""The benchmark of how `optimize` grows with the model: its table, its file, its picture, and what it refuses."""

import json

import pytest
from click.testing import CliRunner

from stonefx.__main__ import main
from stonefx.benchmarks import growth


def one(case="BERT", layers=4, total=1.0):
    return growth.Growth(case, layers, total, 0.5 * total, 0.25 * total, 100, 80)


def test_exponents_compare_a_size_with_the_one_before_of_the_same_case():
    results = [one(), one("LLaMA", 4, 3.0), one(layers=8, total=2.0), one("LLaMA", 8, 12.0)]
    assert growth.exponents(results) == {("BERT", 8): 1.0, ("LLaMA", 8): 2.0}


def test_the_command_measures_writes_and_draws(tmp_path, monkeypatch):
    monkeypatch.setitem(growth.CASES, "residual blocks", (growth.CASES["residual blocks"][0], (2, 4)))
    path, picture = tmp_path / "growth.json", tmp_path / "growth.png"
    done = CliRunner().invoke(
        main,
        ["bench", "growth", "--only", "residual blocks", "--json", str(path), "--plot", str(picture)],
        catch_exceptions=False,
    )
    assert done.exit_code == 0 and "residual blocks" in done.output and "grows as n^" in done.output
    cases = json.loads(path.read_text())["cases"]
    assert [(each["layers"], each["parameters_after"]) for each in cases] == [(2, 4160), (4, 4160)]
    assert picture.stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["growth", "--only", "nope"], "growth has no case 'nope'; it has maps in a row"),
        (["growth", "chain"], "growth runs by itself"),
        (["growth", "--resume"], "growth runs by itself"),
        (["growth", "--json", "/nowhere/a.json"], "--json: there is no folder"),
    ],
)
def test_what_the_command_refuses(arguments, message):
    done = CliRunner().invoke(main, ["bench", *arguments])
    assert done.exit_code == 2 and message in done.output
