"""The zoo of architectures, its table, and results that grow in one file."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from stonefx.benchmarks import Settings, measure, result_document
from stonefx.benchmarks.case import ArmResult, Case, CaseResult, Planned
from stonefx.benchmarks.resume import OtherMachine, earlier_results, merged_results
from stonefx.benchmarks.run import UnknownCase, run_suite
from stonefx.benchmarks.suites import zoo as suite
from stonefx.benchmarks.zoo import ARCHITECTURES, TINY
from stonefx.benchmarks.zoo_table import zoo_table
from stonefx.optimized import results_in_float64

MACHINE = {"cpu": "one", "cores": 2, "threads": 2, "torch": torch.__version__}


def measured(name: str, *, ratio: float = 1.0, agrees: bool = True) -> CaseResult:
    arms = [
        ArmResult(name=arm, seconds=2e-3, quartiles=(1e-3, 3e-3), speedup=1.0, error=1e-7, calls_per_sample=1)
        for arm in (suite.EAGER, suite.INDUCTOR, suite.OPTIMIZE, suite.COMPILE)
    ]
    fact = {"vs_inductor": ratio, "sites": {"rewritten": 1, "refused": 2}, "allowed": 1e-6, "agrees": agrees}
    facts = {suite.OPTIMIZE: fact, suite.COMPILE: fact | {"vs_inductor": 1.0}}
    return CaseResult(name=name, arms=arms, rounds=3, disturbed=0, noisy=False, samples={}, facts=facts)


def test_every_architecture_builds_and_runs() -> None:
    assert len(ARCHITECTURES) >= 34
    for name, builder in ARCHITECTURES.items():
        model, inputs = builder(TINY)
        with torch.no_grad():
            results = suite.floating_results(model, inputs)
        assert results and all(value.isfinite().all() for value in results), name
        assert not any(module.training for module in model.modules()), name


def test_weights_are_the_same_every_time() -> None:
    for name in ("bert", "unet"):
        (first, _), (second, _) = ARCHITECTURES[name](TINY), ARCHITECTURES[name](TINY)
        again = dict(second.named_parameters())
        assert all(torch.equal(p, again[key]) for key, p in first.named_parameters()), name


def test_the_exact_result_is_float64_throughout() -> None:
    model, inputs = ARCHITECTURES["clip"](TINY)
    exact = suite.floating_leaves(results_in_float64(model, ((), inputs)))
    assert {value.dtype for value in exact} == {torch.float64}
    assert torch.get_default_dtype() == torch.float32


def test_the_table_names_what_is_slow_or_wrong() -> None:
    table = zoo_table([measured("bert"), measured("vit", ratio=0.9), measured("rwkv", agrees=False)])
    assert "1 of 3" in table.splitlines()[2]
    assert "optimize: below 0.97x of inductor on 1 of 3: vit" in table
    assert "compile(stone): below 0.97x of inductor on 0 of 3" in table
    assert "optimize: beyond the bound on rwkv" in table
    assert "NO" in next(line for line in table.splitlines() if line.startswith("rwkv"))


def test_results_go_on_in_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    assert earlier_results(path, MACHINE) == {}
    results = merged_results({}, "zoo", measured("bert"))
    path.write_text(json.dumps(result_document(results, MACHINE, Settings(), 0.1)))
    again = merged_results(earlier_results(path, MACHINE), "zoo", measured("vit"))
    assert again == {"zoo": [measured("bert"), measured("vit")]}
    assert zoo_table(again["zoo"]) == zoo_table([measured("bert"), measured("vit")])
    for machine, text in (
        (
            MACHINE | {"threads": 1},
            "was measured with threads 2, this run has threads 1; choose another file",
        ),
        (MACHINE | {"torch": "1.0"}, "this run has torch 1.0"),
    ):
        with pytest.raises(OtherMachine, match=text):
            earlier_results(path, machine)
    path.write_text('{"schema": 0}')
    with pytest.raises(OtherMachine, match="has schema 0, expected 1; choose another file"):
        earlier_results(path, MACHINE)


def test_results_of_another_commit_name_it(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    results: dict[str, list[CaseResult]] = {}
    for commit, name in (("a", "bert"), ("b", "vit"), ("c", "rwkv")):
        machine = MACHINE | {"commit": commit}
        results = merged_results(earlier_results(path, machine), "zoo", measured(name))
        path.write_text(json.dumps(result_document(results, machine, Settings(), 0.1)))
    document = json.loads(path.read_text())
    assert document["machine"]["commit"] == "c"
    assert [case.get("commit") for case in document["suites"]["zoo"]] == ["a", "b", None]


def test_only_what_is_wanted_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def make(name: str) -> Case:
        made.append(name)
        arm = suite.Arm(name="eager", call=lambda: torch.ones(2))
        truth = [torch.ones(2, dtype=torch.float64)]
        return Case(name=name, arms=[arm], truth=truth, facts=lambda result: {"rounds": result.rounds})

    planned = [Planned(name=name, make=partial(make, name)) for name in ("bert", "vit", "rwkv")]
    monkeypatch.setattr("stonefx.benchmarks.run.SUITES", {"zoo": lambda device: iter(planned)})
    settings, heard = Settings(rounds=2, min_rounds=2, seconds=1, sample_seconds=0), []
    (result,) = run_suite("zoo", "cpu", settings, only=["vit", "rwkv"], done=["vit"], on_result=heard.append)
    assert made == ["rwkv"] and heard == [result]
    assert result.facts == {"rounds": 2}
    with pytest.raises(UnknownCase, match="suite 'zoo' has no case 'nosuch'; it has bert, vit, rwkv"):
        run_suite("zoo", "cpu", settings, only=["nosuch"])


@pytest.mark.slow
def test_every_arm_of_an_architecture_agrees() -> None:
    case = suite.architecture_case("albert", partial(ARCHITECTURES["albert"], TINY))
    result = measure(case, Settings(rounds=2, min_rounds=2, seconds=1, sample_seconds=0))
    assert list(result.facts) == [suite.OPTIMIZE, suite.COMPILE]
    assert all(fact["agrees"] for fact in result.facts.values())
    assert result.facts[suite.COMPILE]["graphs"] == 1
