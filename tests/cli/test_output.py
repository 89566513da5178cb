"""What commands print: in terminals of every width, without colours and letters beyond ASCII, and as JSON."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import torch
from click.testing import CliRunner

import stonefx
from stonefx import demo
from stonefx.benchmarks import Arm, Case, growth, run, suites
from stonefx.benchmarks.compress import rows
from stonefx.benchmarks.compress import run as compress_run
from stonefx.cli import main
from stonefx.report import json_schema

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"

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
    print("a model's own code prints")
    torch.manual_seed(0)
    return Größe().eval()

def data():
    print("a model's own code prints")
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
            "clock": "call",
        }
    ],
}

SUMMARY = dict.fromkeys(
    (f"{n}_{when}" for n in ("parameters", "flops", "bytes") for when in ("before", "after")), 1
)
ARM = {
    "name": "eager", "seconds": 1.0, "quartiles": (1.0, 1.0), "speedup": 1.0, "error": float("nan"),
    "calls_per_sample": 1, "interval": None, "first_seconds": None, "peak_bytes": None, "work": None,
}  # fmt: skip
PART = {"summary": SUMMARY, "timings": [{"case": "batch 1", "noisy": False, "arms": [ARM]}]}
DEMO = {
    "chain": PART | {"parameters_before": 2, "parameters_after": 1, "error_before": 0.0, "error_after": 0.0},
    "digits": PART | {"accuracy_before": 1.0, "accuracy_after": 1.0, "error_after": 0.0},
}
SCHEMAS = {
    "explain": "report", "optimize": "report", "compress": "compress", "bench": "bench", "doctor": "doctor",
    "measured": "doctor-measure", "demo": "demo",
}  # fmt: skip


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
            return DEMO, fast.report

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
    assert wide == [] or (name == "help" and width < 80)
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
    environment = {"COLUMNS": "40", "FORCE_COLOR": "1"}
    result = CliRunner(charset="ascii").invoke(main, [*COMMANDS["explain"], "--json"], env=environment)
    document = json.loads(result.stdout_bytes.decode("ascii"))
    assert "世界" in json.dumps(document, ensure_ascii=False)


@pytest.mark.parametrize("name", list(SCHEMAS))
def test_json_alone_is_printed_and_is_as_its_schema_says(folder, name):
    schema = json_schema(SCHEMAS[name])
    jsonschema.Draft202012Validator.check_schema(schema)
    result = CliRunner().invoke(main, [*COMMANDS[name], "--json"])
    assert result.exit_code == 0, result.output
    jsonschema.validate(json.loads(result.stdout, parse_constant=pytest.fail), schema)
    assert (name in ("explain", "optimize", "compress")) == ("own code prints" in result.stderr)
    written = CliRunner().invoke(main, [*COMMANDS[name], "--json", "out.json"])
    assert written.exit_code == 0, written.output
    jsonschema.validate(json.loads((folder / "out.json").read_text(encoding="utf-8")), schema)


def test_every_schema_belongs_to_a_command_and_is_strict():
    names = {*SCHEMAS.values(), "bench-growth", "bench-compress"}
    with pytest.raises(ValueError, match=r"expected one of .*, got 'nothing'") as refused:
        json_schema("nothing")
    assert str(refused.value) == f"expected one of {', '.join(sorted(names))}, got 'nothing'"
    for name in names:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"unknown": 1}, json_schema(name))


def test_what_the_other_suites_write_is_as_their_schemas_say():
    one = growth.Growth("residual blocks", 4, 1.0, 0.5, 0.25, 10, 5)
    jsonschema.validate(json.loads(growth.as_text([one])), json_schema("bench-growth"))
    row = rows.Row(case="a", arm="b", metrics={"cosine": 1.0}, intervals={"cosine": (0.9, 1.0)})
    jsonschema.validate(json.loads(compress_run.as_text([row])), json_schema("bench-compress"))


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.json")), ids=lambda file: file.stem)
def test_results_that_are_kept_are_as_the_schemas_say(file):
    document = json.loads(file.read_text(encoding="utf-8"))
    if file.stem == "memory":
        pytest.skip("is written by a script of its own")
    name = "bench" if "suites" in document else "bench-compress" if "rows" in document else "bench-growth"
    jsonschema.validate(document, json_schema(name))


@pytest.mark.slow
def test_the_real_demo_as_json():
    done = subprocess.run([sys.executable, "-m", "stonefx", "demo", "--json"], capture_output=True, text=True)
    jsonschema.validate(json.loads(done.stdout), json_schema("demo"))


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
