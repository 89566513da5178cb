"""What commands print, in terminals of every width, without colours and without letters beyond ASCII."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

import stonefx
from stonefx import demo
from stonefx.benchmarks import Arm, Case, run, suites
from stonefx.cli import main

MODULE = """
import torch
from torch import nn

class Größe(nn.Module):
    def __init__(self):
        super().__init__()
        self.add_module("schräg_" + "lang_" * 12, nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4)))
        self.add_module("世界", nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 4)))

    def forward(self, x):
        for part in self.children():
            x = part(x)
        return x

def build():
    torch.manual_seed(0)
    return Größe().eval()

def data():
    return [torch.randn(16, 8) for _ in range(4)]

def broken():
    raise ValueError("größer → 世界")
"""
TRACED = ["user_größe.py:build", "--input", "4x8"]
SMALL = ["user_größe.py:build", "--data", "user_größe.py:data", "-o", "small.pt"]
COMMANDS = {
    "explain": ["explain", *TRACED],
    "optimize": ["optimize", *TRACED, "-o", "fast.safetensors"],
    "compress": ["compress", *SMALL],
    "bench": ["bench", "chain", "--seconds", "0.01"],
    "doctor": ["doctor"],
    "measured": ["doctor", "--measure"],
    "demo": ["demo", "--html", "demo.html"],
    "help": ["compress", "--help"],
    "wrong": ["explain", "user_größe.py:broken", "--input", "4x8"],
}
MEASURED = {
    "path": "/home/somebody/.cache/stonefx/machine-" + "0" * 24 + ".json",
    "threads": 2,
    "machine": {"flop_rate": 1e11, "bandwidth": 1e10, "launch": 1e-6, "half": {"launch": 2e-6}},
    "linear": [
        {
            "dtype": "float32",
            "rows": 32,
            "inputs": 768,
            "outputs": 3072,
            "predicted": 1e-4,
            "measured": 1.1e-4,
        }
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a user's module in it, and what each command found there, once."""
    folder = tmp_path_factory.mktemp("größe")
    (folder / "user_größe.py").write_text(MODULE, encoding="utf-8")
    before = os.getcwd()
    os.chdir(folder)
    space = {}
    exec(compile(MODULE, str(folder / "user_größe.py"), "exec"), space)
    model = space["build"]()
    fast = stonefx.optimize(model, torch.randn(4, 8))
    small, stats = stonefx.compress(model, space["data"](), min_accuracy=0.5, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stonefx, "explain", lambda *arguments, **options: fast.report)
        patch.setattr(stonefx, "optimize", lambda *arguments, **options: fast)
        patch.setattr("stonefx.cli.output.write_optimized", lambda *arguments: None)
        patch.setattr("stonefx.cli.output.write_model", lambda model, *arguments, **options: model)
        patch.setattr(
            sys.modules["stonefx.compress"], "compress", lambda *arguments, **options: (small, stats)
        )
        patch.setattr("stonefx.doctor.measure", lambda: MEASURED)

        def cases(device):
            arms = [Arm(name=name, call=lambda: torch.ones(2)) for name in ("eager", "größer")]
            yield Case(name="batch 1 of a model", arms=arms, truth=[torch.ones(2, dtype=torch.float64)])

        for module in (suites, run):
            patch.setattr(module, "SUITES", {"chain": cases, "hyperbolic": cases})

        def run_demo(say):
            say(str(fast.report))
            say("\nparameters: 76,256 -> 4,128 (5.41 %), and difference from float64: 1.2e-07 before")
            return {"chain": {}}, fast.report

        patch.setattr(demo, "run_demo", run_demo)
        yield folder
    os.chdir(before)


def printed(name, charset="utf-8", **environment):
    result = CliRunner(charset=charset).invoke(main, COMMANDS[name], env=environment)
    assert result.exit_code == (2 if name == "wrong" else 0), (result.output, result.exception)
    return result


def is_unbreakable(line):
    """Lines that are not broken: errors, which are one line, the names of files, and examples of calls."""
    return line.startswith(("Error: ", "written to", "page: ", "the load average", "The report of")) or (
        re.match(r" +(stonefx|-o|eval|_STONEFX)\b", line) is not None
    )


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("name", list(COMMANDS))
def test_no_line_is_wider_than_asked(folder, name, width):
    result = printed(name, COLUMNS=str(width))
    wide = [line for line in result.output.splitlines() if len(line) > width and not is_unbreakable(line)]
    # click makes the columns of its help no narrower.
    assert wide == [] or (name == "help" and width < 60)
    assert name in ("wrong", "help") or len(result.output.splitlines()) > 2


@pytest.mark.parametrize("charset", ["ascii", "latin-1"])
@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_encoding_will_do(folder, name, charset):
    result = printed(name, charset=charset, COLUMNS="60")
    result.stdout_bytes.decode(charset)
    assert "\\u4e16" in result.output or name in ("bench", "doctor", "measured", "help")


@pytest.mark.parametrize("name", ["explain", "optimize", "demo"])
def test_colours_are_as_asked(folder, name):
    assert "\x1b[" not in printed(name).output
    assert "\x1b[" in printed(name, FORCE_COLOR="1").output
    assert "\x1b[" not in printed(name, FORCE_COLOR="1", NO_COLOR="1").output
    assert "\x1b[" in printed(name, FORCE_COLOR="1", TERM="dumb").output
    plain = re.sub(r"\x1b\[\d+m", "", printed(name, FORCE_COLOR="1").output)
    assert plain == printed(name).output


@pytest.mark.parametrize("width", [40, 80])
def test_text_in_a_narrow_terminal_of_few_letters(folder, monkeypatch, width):
    """`str` of what the doors give, as `print` would write it."""
    monkeypatch.setenv("COLUMNS", str(width))
    report = stonefx.explain(None)
    stats = sys.modules["stonefx.compress"].compress()[1]
    for value in (report, report.compare(stonefx.Report()), stats):
        assert all(len(line) <= width for line in str(value).splitlines()), str(value)


def test_json_is_ascii_and_as_it_was(folder):
    for width in ("40", "200"):
        result = CliRunner(charset="ascii").invoke(
            main, [*COMMANDS["explain"], "--json"], env={"COLUMNS": width, "FORCE_COLOR": "1"}
        )
        document = json.loads(result.stdout_bytes.decode("ascii"))
        assert "世界" in json.dumps(document, ensure_ascii=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"TERM": "dumb", "COLUMNS": "40"},
        {"PYTHONIOENCODING": "latin-1", "FORCE_COLOR": "1"},
    ],
    ids=" ".join,
)
def test_in_a_process_of_its_own(tmp_path, environment):
    (tmp_path / "user_terminal.py").write_text(MODULE, encoding="utf-8")
    arguments = ["user_terminal.py:build", "--input", "4x8", "--diff", "--html", "page.html"]
    program = [sys.executable, "-m", "stonefx", "explain", *arguments]
    done = subprocess.run(program, cwd=tmp_path, env=os.environ | environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"linear_chain" in done.stdout and b"Traceback" not in done.stderr
    assert "世界" in (tmp_path / "page.html").read_text(encoding="utf-8")
