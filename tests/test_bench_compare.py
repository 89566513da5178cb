"""Two runs compared, drawn, and the harness against itself."""

import copy
import json

import pytest
import torch
from click.testing import CliRunner

from stonefx.benchmarks import result_document
from stonefx.benchmarks.case import ArmResult, CaseResult, Settings
from stonefx.benchmarks.compare import compare
from stonefx.benchmarks.harness import measure
from stonefx.benchmarks.honesty import honesty, main
from stonefx.benchmarks.resume import earlier_results

MACHINE = {"cpu": "a", "cores": 2, "threads": 2, "torch": "2", "gpu": None}


def arm(name, speedup, interval=None):
    return ArmResult(
        name=name, seconds=1e-3 / speedup, quartiles=(1e-3, 1e-3), speedup=speedup, error=0.0, calls_per_sample=1,
        interval=interval, first_seconds=0.5,
    )  # fmt: skip


def case(name, *arms, noisy=False):
    baseline = arm("eager", 1.0, (1.0, 1.0))
    return CaseResult(name=name, arms=[baseline, *arms], rounds=9, disturbed=0, noisy=noisy, samples={})


def document(*cases, **machine):
    return result_document({"chain": list(cases)}, MACHINE | machine, Settings(), 0.1)


def test_slower_faster_and_what_cannot_be_told():
    before = document(
        case("a", arm("x", 2.0, (1.9, 2.1)), arm("y", 2.0, (1.9, 2.1)), arm("z", 2.0, (1.5, 2.5))),
        case("gone", arm("x", 1.0)),
    )
    now = document(
        case("a", arm("x", 1.7, (1.6, 1.8)), arm("y", 2.4, (2.3, 2.5)), arm("z", 1.7, (1.4, 2.0))),
        case("new", arm("x", 1.0)),
        torch="3",
    )
    found = compare(before, now)
    assert [change.verdict for change in found.changes] == ["slower", "faster", "same"]
    assert [change.arm for change in found.slower] == ["x"]
    lines = str(found).splitlines()
    assert lines[0] == "measured with another torch: 2 before, 3 now"
    assert lines[3].split() == "slower chain: a x 2.00x (1.90 to 2.10) 1.70x (1.60 to 1.80) 0.85x".split()
    assert lines[-3:] == [
        "1 slower, 1 faster, 1 the same", "not measured now: chain: gone: x", "new: chain: new: x",
    ]  # fmt: skip
    told = found.to_json()
    assert told["changes"][0]["verdict"] == "slower" and told["changes"][0]["ratio"] == pytest.approx(0.85)
    json.dumps(told, allow_nan=False)


def test_small_differences_are_none_and_old_files_have_no_intervals():
    before, now = document(case("a", arm("x", 2.0))), document(case("a", arm("x", 1.95)))
    for each in (before, now):
        for one in each["suites"]["chain"][0]["arms"]:
            del one["interval"], one["first_seconds"]
    assert [change.verdict for change in compare(before, now).changes] == ["same"]
    now["suites"]["chain"][0]["arms"][1]["speedup"] = 1.9
    assert [change.verdict for change in compare(before, now).changes] == ["slower"]


@pytest.mark.parametrize("wrong", [[], {"schema": 99, "suites": {}}, {"schema": 1}])
def test_other_files_are_refused(wrong):
    with pytest.raises(ValueError, match="expected results of `stonefx bench --json`, schema 1, got"):
        compare(document(case("a")), wrong)


def test_intervals_survive_a_file(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(document(case("a", arm("x", 2.0, (1.9, 2.1))))), encoding="utf-8")
    (found,) = earlier_results(path, MACHINE)["chain"]
    assert found.arms[1].interval == (1.9, 2.1) and found.arms[1].first_seconds == 0.5


def test_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    from stonefx.benchmarks.picture import draw

    bars = document(
        case("bert", arm("x", 2.0, (1.9, 2.1))), case("vit", arm("x", 20.0, (19, 21)), noisy=True)
    )
    curves = copy.deepcopy(bars)
    curves["suites"]["chain"] = [
        one | {"case": f"batch {size}"}
        for size, one in zip((1, 8, 32), 3 * bars["suites"]["chain"], strict=False)
    ]
    for number, each in enumerate((bars, curves)):
        path = tmp_path / f"{number}.svg"
        draw(each, path)
        text = path.read_text(encoding="utf-8")
        assert "how many times as fast as eager" in text
        assert ("vit (noisy)" in text) == (each is bars) and (">batch<" in text) == (each is curves)
    with pytest.raises(ValueError, match="expected results with at least one case, got none"):
        draw({"suites": {}}, tmp_path / "none.png")


def test_the_harness_against_itself():
    """Whether it is right shows on a quiet machine: `python -m stonefx.benchmarks.honesty`."""
    with torch.no_grad():
        told = honesty(1, Settings(seconds=0.2, rounds=7), measure=measure)
    assert told.runs == 1 and told.equal in (0, 1) and told.found in (0, 1)
    assert str(told).startswith("A against A: 1 lies in the interval of ")


def test_its_command_writes_a_file(tmp_path):
    path = tmp_path / "honesty.json"
    done = CliRunner().invoke(main, ["--runs", "1", "--seconds", "0.1", "--rounds", "7", "--json", str(path)])
    assert done.exit_code == 0, done.output
    assert json.loads(path.read_text(encoding="utf-8"))["runs"] == 1
