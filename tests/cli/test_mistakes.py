"""A mistake in each argument of each command: one line that says what was expected, and the exit code of a mistake."""

import os
import sys

import click
import pytest
import torch
from click.testing import CliRunner

from stonefx.cli import main

MODULE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4)).eval()

def raises():
    raise RuntimeError("no weights here")

def data():
    return [torch.randn(4, 8) for _ in range(12)]
"""

MODEL = "user_mistakes.py:build"
TRACED = (MODEL, "--input", "4x8")
SMALL = (
    MODEL,
    "--data",
    "user_mistakes.py:data",
    "-o",
    "a.pt",
    "--quiet",
    "--cost",
    "bytes",
    "--forms",
    "pair",
)

# Of each command, by parameter: arguments, and what the line says.
EXPLAIN = {
    "name": [
        (["--input", "4x8"], "Missing argument 'MODEL'"),
        (["user_mistakes.py", "--input", "8"], "name the function in it too, such as user_mistakes.py:build"),
        (["user_mistakes.py:bild", "--input", "8"], "has no 'bild'; did you mean 'build'?"),
        (["no_file.py:build", "--input", "8"], "there is no file no_file.py"),
        (["no_module:build", "--input", "8"], "a file is named with its ending, such as no_module.py:build"),
        (["user_mistakes.py:raises", "--input", "8"], "raised RuntimeError: no weights here"),
        (["no_file.safetensors"], "there is no file no_file.safetensors"),
        (["damaged.safetensors"], "damaged.safetensors does not load"),
        (["nobody/no-such-model"], "a folder or id of transformers that is on this disk"),
        (["folder", "--input", "8"], "has no config.json; expected a folder that save_pretrained wrote"),
    ],
    "inputs": [
        ([MODEL], "give at least one --input, such as --input 8x128"),
        ([MODEL, "--input", "8x"], "expected sizes such as 8x128, 2x16:int64 or mask=2x16:bool, got '8x'"),
        ([MODEL, "--input", "8:float7"], "torch has no dtype 'float7'; try float32"),
        ([MODEL, "--input", "x=4x8", "--input", "4x8"], "name all inputs or none: x=4x8, 4x8"),
        ([MODEL, "--input", "x=4x8", "--input", "x=4x8"], "have the same name twice"),
        ([MODEL, "--input", "4x7"], "shapes cannot be multiplied (4x7 and 8x16)"),
        ([MODEL, "--input", "values=4x8"], "unexpected keyword argument 'values'"),
    ],
    "passes": [([*TRACED, "--passes", "linear_chain"], "linear_chains")],
    "fail_on": [
        ([*TRACED, "--fail-on", "regression"], "compares with an earlier report: name it with --against"),
        ([*TRACED, "--fail-on", "refussed"], "there is no status 'refussed'; did you mean 'refused'?"),
        ([*TRACED, "--fail-on", "refused:linear"], "there is no target 'linear'; "),
        ([*TRACED, "--fail-on", "refused:linear_chain:shard"], "there is no code 'shard'; did you mean 'shared'?"),
    ],
    "against": [
        ([*TRACED, "--against", "none.json"], "'none.json' does not exist"),
        ([*TRACED, "--against", "user_mistakes.py"], "is no JSON; expected what stonefx explain --json wrote"),
        ([*TRACED, "--against", "other.json"], "is no report: expected a report of schema"),
    ],
    "json_to": [
        (["--json", *TRACED], "expected a file name with .json in it, got 'user_mistakes.py:build'"),
        ([*TRACED, "--json", "no/a.json"], "--json: there is no folder"),
    ],
    "html_to": [
        ([*TRACED, "--html", "page"], "expected a file name that ends in .html, got 'page'"),
        ([*TRACED, "--html", "no/a.html"], "--html: there is no folder"),
    ],
}  # fmt: skip
OPTIMIZE = {
    "name": [(["no_file.py:build", "-o", "a.safetensors"], "there is no file no_file.py")],
    "path": [
        ([*TRACED], "Missing option '-o' / '--output'"),
        ([*TRACED, "-o", "a.onnx"], "expected a file that ends in .safetensors (for stonefx.load) or .pt2"),
        ([*TRACED, "-o", "no/a.safetensors"], "--output: there is no folder"),
    ],
    "inputs": [([MODEL, "-o", "a.safetensors"], "give at least one --input")],
    "inner": [([*TRACED, "-o", "a.safetensors", "--inner", "tvm"], "'tvm' is not one of 'eager'")],
    "passes": [([*TRACED, "-o", "a.safetensors", "--passes", "linear_chain"], "linear_chains")],
    "keep": [([*TRACED, "-o", "a.safetensors", "--keep"], "Option '--keep' requires an argument")],
    "require": [([*TRACED, "-o", "a.safetensors", "--require", "expmap_0"], "expmap_0")],
    "json_to": [([*TRACED, "-o", "a.safetensors", "--json", "a.txt"], "expected a file name with .json in it")],
    "html_to": [([*TRACED, "-o", "a.safetensors", "--html", "a.txt"], "expected a file name that ends in .html")],
}  # fmt: skip
COMPRESS = {
    "name": [(["user_mistakes.py:bild", *SMALL[1:]], "did you mean 'build'?")],
    "data_name": [
        ([MODEL, "--data", "x", "-o", "a.pt"], "or a text file, got 'x', which is neither"),
        ([MODEL, "--data", "user_mistakes.py:dat", "-o", "a.pt"], "did you mean 'data'?"),
        ([MODEL, "--data", "user_mistakes.py", "-o", "a.pt"], "needs a MODEL that is a folder of transformers"),
    ],
    "path": [
        ([MODEL, "--data", "user_mistakes.py:data"], "Missing option '-o'"),
        ([*SMALL, "-o", "no/a.pt"], "--output: there is no folder"),
        ([*SMALL, "-o", "folder"], "MODEL is a Sequential; name a file such as folder.pt"),
    ],
    "min_accuracy": [([*SMALL, "--min-accuracy", "95"], "min_accuracy: expected a number in (0, 1], got 95.0")],
    "max_ratio": [([*SMALL, "--max-ratio", "2"], "max_ratio: expected a number in (0, 1], got 2.0")],
    "max_seconds": [([*SMALL, "--max-seconds", "-1"], "max_seconds")],
    "metric": [([*SMALL, "--metric", "cosin"], "did you mean 'cosine'?")],
    "forms": [([*SMALL, "--forms", "pairs"], "forms: ")],
    "layers": [([*SMALL, "--layers", "7"], "layers: '7' fits no layer")],
    "energy": [([*SMALL, "--energy", "2"], "energy")],
    "cost": [([*SMALL, "--cost", "time"], "'time' is not one of 'both', 'bytes', 'seconds'")],
    "seed": [([*SMALL, "--seed", "one"], "'one' is not a valid integer")],
    "batch_size": [([*SMALL, "--batch-size", "0"], "0 is not in the range x>=1")],
    "checkpoint": [([*SMALL, "--checkpoint", "other.json"], "Directory 'other.json' is a file")],
    "memory": [([*SMALL, "--memory", "0"], "0 is not in the range x>=1")],
    "json_to": [([*SMALL, "--json", "no/a.json"], "--json: there is no folder")],
    "html_to": [([*SMALL, "--html", "no/a.html"], "--html: there is no folder")],
    "plot_path": [
        ([MODEL, "-o", "a.pt", "--plot", "a.png"], "--plot draws what was evaluated on data: give --data"),
        ([*SMALL, "--plot", "a.docx"], "expected a name that ends in one of"),
    ],
    "as_plain": [([*SMALL, "-o", "a.safetensors", "--plain"], "--plain is for a file such as -o small.pt")],
}  # fmt: skip
BENCH = {
    "suites": [(["chian"], "there is no suite 'chian'; choose from chain, hyperbolic")],
    "device": [(["--device", "tpu"], "'tpu' is not one of 'cpu', 'cuda'")],
    "threads": [(["--threads", "0"], "0 is not in the range x>=1")],
    "seconds": [(["--seconds", "0"], "0.0 is not in the range x>0")],
    "json_to": [(["--json", "no/out.json"], "--json: there is no folder")],
    "only": [(["chain", "--seconds", "0.01", "--only", "batch 7"], "--only: suite 'chain' has no case 'batch 7'")],
    "resume": [(["chain", "--resume"], "--resume goes on in a file: name it with --json")],
    "picture": [
        (["chain", "--plot", "no/a.png"], "--plot: there is no folder"),
        (["chain", "--plot", "a.docx"], "expected a name that ends in one of"),
    ],
    "old_file": [
        (["chain", "--compare", "none.json"], "'none.json' does not exist"),
        (["chain", "--compare", "other.json"], "is no results: expected results of `stonefx bench --json`, schema 1"),
        (["chain", "--compare", "user_mistakes.py"], "is no JSON; expected what stonefx bench --json wrote"),
        (["growth", "--compare", "other.json"], "--compare, --cold and --peers are for other suites than growth"),
    ],
    "engines": [
        (["chain", "--peers", "onnx"], "expected names of max-autotune, max-autotune-no-cudagraphs, "),
        (["chain", "--peers", ","], "with commas between them, got ','"),
        (["growth", "--peers", "openvino"], "--compare, --cold and --peers are for other suites than growth"),
    ],
    "keep": [(["chain", "--keep", "folder"], "--keep: only the suite compress has statistics to keep")],
}  # fmt: skip
DEMO = {
    "json_to": [(["--json", "no/a.json"], "--json: there is no folder")],
    "html_to": [(["--html", "a.png"], "expected a file name that ends in .html, got 'a.png'")],
}
DOCTOR = {"json_to": [(["--json", "facts"], "expected a file name with .json in it, got 'facts'")]}

TABLE = {
    "explain": EXPLAIN, "optimize": OPTIMIZE, "compress": COMPRESS, "bench": BENCH, "demo": DEMO, "doctor": DOCTOR,
}  # fmt: skip
# Flags that nothing can be wrong about.
PLAIN = {"cold", "diff", "fixed_sizes", "no_verify", "refine", "quiet", "measure", "help"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "user_mistakes.py").write_text(MODULE)
    (tmp_path / "other.json").write_text('{"schema": 99}')
    (tmp_path / "damaged.safetensors").write_bytes(b"not a file of weights")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(tmp_path)])
    yield tmp_path
    sys.modules.pop("user_mistakes", None)


@pytest.mark.parametrize("command", list(TABLE))
def test_the_table_has_every_parameter(command):
    found = main.commands[command]
    assert isinstance(found, click.Command)
    assert {parameter.name for parameter in found.params} - PLAIN == set(TABLE[command])
    flags = {p.name for p in found.params if isinstance(p, click.Option) and p.is_flag}
    assert PLAIN - {"help"} >= flags - set(TABLE[command])


@pytest.mark.parametrize(
    ("command", "arguments", "text"),
    [
        pytest.param(command, arguments, text, id=f"{command}-{parameter}-{number}")
        for command, parameters in TABLE.items()
        for parameter, cases in parameters.items()
        for number, (arguments, text) in enumerate(cases)
    ],
)
def test_a_mistake_is_one_line(command, arguments, text, folder):
    before = sorted(os.listdir(folder))
    result = CliRunner().invoke(main, [command, *arguments])
    assert isinstance(result.exception, SystemExit), result.exception
    lines = [line for line in result.output.strip().splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1 and text in lines[0], result.output
    assert result.output.strip().splitlines()[-1] == lines[0], result.output
    assert result.exit_code == 2, result.output
    assert [name for name in sorted(os.listdir(folder)) if name != "__pycache__"] == before


def test_commands_and_options_that_do_not_exist():
    for arguments in (["explian"], ["explain", "--jsn"], ["--versoin"]):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2 and len(result.output.strip().splitlines()) == 1, result.output
        assert "--help" in result.output


def test_a_defect_of_stonefx_is_no_failed_check(monkeypatch):
    from stonefx import doctor

    def broken():
        raise KeyError("a defect")

    monkeypatch.setattr(doctor, "report", broken)
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 3
    assert "KeyError: 'a defect'" in result.output and "a defect of stonefx; please report" in result.output


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt2"])
def test_an_interrupt_leaves_no_half_file(folder, monkeypatch, name):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    before = sorted(os.listdir(folder))
    monkeypatch.setattr(torch.export, "save", interrupted)
    # The weights are written by now, under another name.
    monkeypatch.setattr("stonefx.saving.file._stamp", interrupted)
    result = CliRunner().invoke(main, ["optimize", *TRACED, "-o", name])
    assert result.exit_code == 130 and result.output.strip().splitlines()[-1] == "Stopped."
    assert [entry for entry in sorted(os.listdir(folder)) if entry != "__pycache__"] == before


def test_a_folder_that_cannot_be_written_to(folder, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for arguments in (["explain", *TRACED, "--json", "a.json"], ["optimize", *TRACED, "-o", "a.pt2"]):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2 and "cannot be written to" in result.output.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(28, "No space left on device"), 2, "Error: the system says: No space left on device"),
        (PermissionError(13, "Permission denied", "a.html"), 2, "the system says: Permission denied: a.html"),
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
    ],
)
def test_what_the_system_says_is_no_defect_of_stonefx(monkeypatch, error, code, said):
    from stonefx import doctor

    def fails():
        raise error

    monkeypatch.setattr(doctor, "report", fails)
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == code and said in result.output and "Traceback" not in result.output
