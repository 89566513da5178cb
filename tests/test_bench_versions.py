"""Two installations measured in turn: the order, what they are asked for, mistakes, and files that are there."""

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from stonefx.benchmarks import Settings, result_document, versions
from stonefx.benchmarks.case import ArmResult, CaseResult
from stonefx.benchmarks.versions import in_turn, main

CASES = [("chain", "batch 1"), ("chain", "batch 8"), ("regions", "DLinear 336 -> 96")]
MACHINE = {"cpu": "one", "cores": 2, "threads": 1, "torch": "2.13.0"}


def measured(speedup: float, case: str = "batch 1") -> str:
    """A file of results in which one arm is so many times as fast as the first one."""
    arms = [
        ArmResult(
            name=name,
            seconds=1 / ratio,
            quartiles=(1.0, 1.0),
            speedup=ratio,
            error=0.0,
            calls_per_sample=1,
            interval=(ratio, ratio),
        )
        for name, ratio in (("eager", 1.0), ("stonefx.optimize", speedup))
    ]
    result = CaseResult(name=case, arms=arms, rounds=9, disturbed=0, noisy=False, samples={})
    return json.dumps(result_document({"chain": [result]}, MACHINE, Settings(), 0.1))


def test_each_case_is_measured_by_both_and_the_first_one_changes(tmp_path: Path) -> None:
    files = tmp_path / "made" / "before.json", tmp_path / "now.json"
    commands: list[list[str]] = []
    in_turn(CASES, [("old", files[0]), ("new", files[1])], commands.append)
    assert [(command[0], command[6]) for command in commands] == [
        ("old", "batch 1"),
        ("new", "batch 1"),
        ("new", "batch 8"),
        ("old", "batch 8"),
        ("old", "DLinear 336 -> 96"),
        ("new", "DLinear 336 -> 96"),
    ]
    assert files[0].parent.is_dir()
    for command in commands:
        suite, file = {case: suite for suite, case in CASES}[command[6]], files[command[0] == "new"]
        assert command[1:] == [
            *("-m", "stonefx", "bench", suite, "--only", command[6], "--json", str(file), "--resume")
        ]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would be run; each writes its file, unless that is there."""
    commands: list[list[str]] = []

    def run(command, **options):
        commands.append(command)
        file = Path(command[command.index("--json") + 1])
        if not file.exists():
            file.write_text(measured(2.0 if command[0] == "old" else 4.0))
        failed = "broken" in command[0]
        return subprocess.CompletedProcess(
            command, int(failed), "", "Error: no stonefx here" if failed else ""
        )

    monkeypatch.setattr(versions.subprocess, "run", run)
    monkeypatch.setattr(versions, "_names", lambda suite: [name for of, name in CASES if of == suite])
    return commands


def invoke(tmp_path: Path, *arguments: str, other: str = "old"):
    files = ["--before", str(tmp_path / "before.json"), "--now", str(tmp_path / "now.json")]
    return CliRunner().invoke(main, ["--other", other, *files, *arguments])


def test_the_command_compares_what_was_measured(asked, tmp_path: Path) -> None:
    result = invoke(tmp_path, "chain", "--threads", "2", "--seconds", "3", "--only", "batch 8")
    assert result.exit_code == 0, result.output
    assert [command[6] for command in asked] == ["batch 8", "batch 8"]
    assert all(command[-4:] == ["--threads", "2", "--seconds", "3.0"] for command in asked)
    assert "0 slower, 1 faster, 0 the same" in result.output


def test_files_that_are_there_are_gone_on_with(asked, tmp_path: Path) -> None:
    (tmp_path / "before.json").write_text(measured(8.0))
    result = invoke(tmp_path, "chain")
    assert result.exit_code == 0 and len(asked) == 4
    assert all("--resume" in command for command in asked)
    assert "1 slower, 0 faster, 0 the same" in result.output


@pytest.mark.parametrize(
    ("arguments", "other", "code", "text"),
    [
        (["chian"], "old", 2, "'chian' is not one of 'chain'"),
        ([], "old", 2, "Missing argument"),
        (["chain", "--only", "batch 7"], "old", 2, "there is no case 'batch 7'; batch 1, batch 8"),
        (["chain", "--threads", "0"], "old", 2, "0 is not in the range"),
        (["chain"], "broken", 1, "no stonefx here"),
    ],
)
def test_mistakes(asked, tmp_path: Path, arguments, other, code, text) -> None:
    result = invoke(tmp_path, *arguments, other=other)
    assert result.exit_code == code and text in result.output, result.output
    assert len(asked) == (code == 1), "what fails is not gone on with"


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    result = invoke(tmp_path, "chain", "--only", "batch 1", other=str(tmp_path / "python"))
    assert (
        result.exit_code == 2 and "No such file or directory" in result.output and "--other" in result.output
    )
