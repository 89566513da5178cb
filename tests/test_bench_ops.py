"""The suite of operators: every arm computes the same, and the table says how the others compare."""

import itertools
import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from stonefx.__main__ import main as stonefx_command
from stonefx.benchmarks.case import ArmResult, CaseResult, relative_difference
from stonefx.benchmarks.ops import calls, others, rowwise, steps
from stonefx.benchmarks.ops.growth import costs, growth, main
from stonefx.benchmarks.ops.table import ops_table
from stonefx.benchmarks.suites import SUITES

# Both modes of every operator, at a size at which nothing takes long; compiling is torch's own affair.
OPERATORS = [planned.name for planned in rowwise.rowwise_cases(shapes=((6, 4),))]


@pytest.fixture(autouse=True)
def without_peers_and_compilers(monkeypatch):
    monkeypatch.setattr(rowwise, "PEERS", {})
    monkeypatch.setattr(others, "PEERS", {})
    for module in (rowwise, others):
        monkeypatch.setattr(module, "inductor", lambda function: function)


def error_of(case, name):
    (arm,) = [arm for arm in case.arms if arm.name == name]
    with torch.set_grad_enabled(case.grad):
        return relative_difference(arm.call(), case.truth)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_plain_formula_and_ours_agree(name):
    (planned,) = [each for each in rowwise.rowwise_cases(shapes=((6, 4),)) if each.name == name]
    case = planned.make()
    memory = [] if case.grad else ["memory alone"]
    assert [arm.name for arm in case.arms] == ["plain eager", "inductor", *memory, "stonefx"]
    for arm in case.arms[2:-1]:  # as large as what it is compared with
        assert [part.shape for part in arm.call()] == [part.shape for part in case.truth]
    assert error_of(case, "stonefx") < 1e-5
    # In plain torch the gradient of a point of the hyperboloid is ambient; ours is that of its space components.
    if not (case.grad and name.startswith("lorentz")):
        assert error_of(case, "inductor") < 1e-4  # plain formulas lose digits where ours do not


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(
    "make", [others.cdist_case, others.products_case, others.linear_case, others.mlr_case]
)
def test_the_others_agree(make, grad):
    case = make("case", grad, "cpu")
    # what these compute is but a part
    parts = ("nn.Linear", "x @ y.mT")
    assert all(error_of(case, arm.name) < 1e-5 for arm in case.arms if arm.name not in parts)


@pytest.mark.parametrize("make", [others.butterfly_case, others.hyper_butterfly_case])
def test_butterflies_agree(make):
    case = make(64, "case", True, "cpu")
    assert [arm.name for arm in case.arms] == ["eager, by stages", "inductor, by stages", "stonefx"]
    assert all(error_of(case, arm.name) < 1e-5 for arm in case.arms)


def test_calls_are_compared_with_tanh_in_seconds():
    planned = list(calls.call_cases())
    assert [each.name.split()[2] for each in planned] == list(rowwise.ROWWISE)
    case = planned[0].make()
    assert [arm.name for arm in case.arms] == ["torch.tanh", "stonefx"] and not case.grad
    assert error_of(case, "stonefx") < 1e-6
    result = measured("call of expmap0 [1, 4]", {"torch.tanh": 1e-6, "stonefx": 3.5e-6})
    facts = case.facts(result)
    assert facts["seconds_beyond_tanh"] == pytest.approx(2.5e-6)
    text = ops_table([replace(result, facts=facts)])
    assert "a call: 2.50 us more than torch.tanh in the middle of 1 operators, at most 2.50 us" in text


def test_a_library_that_fails_is_left_out_and_named():
    def fails(x):
        raise RuntimeError("no gradient here\nand more")

    x = torch.ones(2, 3)
    case = steps.case("case", {"other": fails, "stonefx": torch.tanh}, torch.tanh, [x], True)
    assert [arm.name for arm in case.arms] == ["stonefx"]
    result = measured("dist [6, 4] forward", {"stonefx": 1.0})
    assert case.facts(result) == {"ratios": {}, "left_out": {"other": "RuntimeError: no gradient here"}}


def measured(name, seconds, facts=None):
    arms = [
        ArmResult(name=arm, seconds=each, quartiles=(each, each), speedup=1.0, error=0.0, calls_per_sample=1)
        for arm, each in seconds.items()
    ]
    samples = {arm: [each] * 3 for arm, each in seconds.items()}
    return CaseResult(
        name=name, arms=arms, rounds=3, disturbed=0, noisy=False, samples=samples, facts=facts or {}
    )


def test_the_table_has_a_line_a_case_and_the_geometric_mean():
    results = [
        measured(
            f"{name} [6, 4] forward",
            {"stonefx": 2e-6, "inductor": ratio * 2e-6},
            {"ratios": {"inductor": ratio}, "left_out": {"geoopt eager": "RuntimeError"}},
        )
        for name, ratio in (("dist", 1.0), ("expmap0", 4.0))
    ]
    table = ops_table(results)
    assert "inductor 4x, geoopt eager fails" in table
    assert "forward: geometric mean of 2 rowwise cases against inductor 2.00x, least 1.00x" in table


def test_cases_are_named_by_operator_size_and_mode():
    names = [planned.name for planned in itertools.chain(rowwise.rowwise_cases(), others.other_cases())]
    assert len(set(names)) == len(names)
    assert "dist [65536, 128] forward+backward" in names and "butterfly [4096, 4096] forward" in names


def butterflies(*dims, line="butterfly", mode="forward"):
    return [
        {
            "case": f"{line} [4096, {dim}] {mode}",
            "arms": [{"arm": "clone", "seconds": 1.0}, {"arm": "stonefx", "seconds": dim * 1e-6}],
        }
        for dim in dims
    ]


def test_the_growth_of_butterflies_is_drawn(tmp_path):
    suite = butterflies(64, 256, 1024) + butterflies(64, 256, line="hyper_butterfly", mode="forward+backward")
    document = {"suites": {"ops": [*suite, {"case": "dist [4096, 64] forward", "arms": []}]}}
    results, picture = tmp_path / "ops.json", tmp_path / "growth.png"
    results.write_text(json.dumps(document))
    found = costs(document)
    assert found["butterfly, forward"] == {64: 64e-6, 256: 256e-6, 1024: 1024e-6}
    assert list(found) == ["butterfly, forward", "hyper_butterfly, forward+backward"]
    (axes,) = growth(document).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["butterfly, forward", "hyper_butterfly, forward+backward", "N log N", "N²"]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert CliRunner().invoke(main, [str(results), str(picture)]).exit_code == 0
    assert picture.stat().st_size > 10_000 and [each.name for each in tmp_path.glob("*.png")] == [
        "growth.png"
    ]


def test_results_without_butterflies_say_what_is_expected(tmp_path):
    results = tmp_path / "chain.json"
    results.write_text(json.dumps({"suites": {"chain": []}}))
    done = CliRunner().invoke(main, [str(results), str(tmp_path / "growth.png")])
    assert done.exit_code == 1 and "measure them with `stonefx bench ops --json FILE`" in done.output


def test_what_was_measured_before_a_failure_is_kept(monkeypatch, tmp_path):
    x = torch.ones(2, 3)
    good = steps.case("good", {"stonefx": torch.tanh}, torch.tanh, [x], False)
    bad = replace(good, name="bad", truth=[torch.ones(5)])
    monkeypatch.setitem(SUITES, "ops", lambda device: iter((good, bad)))
    path = tmp_path / "results.json"
    result = CliRunner().invoke(stonefx_command, ["bench", "ops", "--seconds", "0.01", "--json", str(path)])
    part = tmp_path / "results.json.part"
    assert result.exit_code == 3 and "ValueError" in result.output and not path.exists()
    assert f"stopped; what was measured is in {part}, and --resume --json {part} goes on" in result.output
    assert [case["case"] for case in json.loads(part.read_text())["suites"]["ops"]] == ["good"]


@pytest.mark.parametrize("name", rowwise.ROWWISE)
def test_every_call_is_compared_with_a_tanh_of_as_many_numbers(name):
    (planned,) = [each for each in calls.call_cases() if each.name == f"call of {name} [1, 4]"]
    case = planned.make()
    assert [arm.call()[0].shape for arm in case.arms] == [case.truth[0].shape] * 2
