"""Random modules keep their float64 value through both doors; `run_seed.py` repeats and shrinks a failing seed."""

from __future__ import annotations

import pytest
import torch
from differential import Expected, NoVerdict, mismatch
from random_modules import generate
from random_program import PLACE, Input, Program, Statement
from shrink import shrunk

import stonefx

_CHUNK = 4
# door -> the seeds of the normal suite, and of the slow one.
_QUICK = {"optimize": range(0, 88), "compile": range(88, 100)}
_SLOW = {"optimize": range(1000, 2600), "compile": range(2600, 3000)}


def chunks(seeds: dict[str, range], marks: list[pytest.MarkDecorator]) -> list[object]:
    return [
        pytest.param(
            door, list(of[at : at + _CHUNK]), id=f"{door}-{of[at]}-{of[at] + _CHUNK - 1}", marks=marks
        )
        for door, of in seeds.items()
        for at in range(0, len(of), _CHUNK)
    ]


@pytest.mark.parametrize(("door", "seeds"), chunks(_QUICK, []) + chunks(_SLOW, [pytest.mark.slow]))
def test_random_modules_keep_their_float64_value(door: str, seeds: list[int]) -> None:
    failures = []
    for seed in seeds:
        program = generate(seed)
        try:
            problem = mismatch(program, door)
        except NoVerdict:
            continue
        except Exception as error:
            error.add_note(f"seed {seed} through {door!r}:\n{program.source()}")
            raise
        if problem:
            failures.append(f"seed {seed} through {door!r}: {problem}\n{program.source()}")
    assert not failures, "\n".join(failures)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("door", "seeds"), chunks(_QUICK, []))
def test_they_keep_it_on_a_card(door: str, seeds: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PLACE, "device", "cuda")
    test_random_modules_keep_their_float64_value(door, seeds)


def test_most_random_modules_can_be_judged() -> None:
    def judged(seed: int) -> bool:
        try:
            return bool(Expected(generate(seed), 3).exact)
        except NoVerdict:
            return False

    assert sum(map(judged, range(50))) >= 45


@pytest.fixture
def halved_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stonefx that loses half of a last bias."""
    optimize = stonefx.optimize

    def wrong(module: torch.nn.Module, inputs: object, **options: object) -> torch.nn.Module:
        with torch.no_grad():
            module.last.bias.mul_(0.5)
        return optimize(module, inputs, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(stonefx, "optimize", wrong)


@pytest.mark.usefixtures("halved_bias")
def test_a_wrong_bias_is_found_and_the_program_shrunk() -> None:
    program = Program(
        seed=0,
        inputs={"v0": Input((4,))},
        layers={"first": "nn.Linear(4, 4)", "last": "nn.Linear(4, 4)"},
        statements=[
            Statement(("v1",), "self.first(v0)"),
            Statement(("v2",), "F.relu(v1)"),
            Statement(("v3",), "self.last(v2)"),
        ],
        outputs=["v3", "v1"],
    )
    smaller, problem = shrunk(program, "optimize")
    assert "differs by" in problem
    assert [str(statement) for statement in smaller.statements][-1] == "v3 = self.last(v0)"
    assert len(smaller.statements) == 1 and smaller.outputs == ["v3"]
