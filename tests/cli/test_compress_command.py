"""`stonefx compress`: what it writes, its exit codes, and one line for each mistake."""

import json
import os
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

import stonefx
from stonefx.__main__ import main
from stonefx.compress.search import Search

MODULE = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(96, 4) @ torch.randn(4, 64) / 8)
    return model

def data():
    torch.manual_seed(1)
    return [torch.randn(16, 64) for _ in range(12)]

batches = data()

def needs(argument):
    return batches

def metric(model, batches):
    return torch.ones(sum(b.samples for b in batches))

def broken(model, batches):
    raise NotImplementedError("not yet")

def half(model, batches):
    return 1.0 if type(model[0]) is nn.Linear else 0.1
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "user_compress.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(tmp_path)])
    yield tmp_path
    sys.modules.pop("user_compress", None)


def invoke(*arguments, quick=True):
    more = ("--quiet", "--cost", "bytes", "--forms", "pair") if quick else ("--quiet",)
    return CliRunner().invoke(main, ["compress", *arguments, *more])


BASE = ("user_compress:net", "--data", "user_compress:data")


def test_a_file_a_report_and_a_picture(folder):
    pytest.importorskip("matplotlib")
    result = invoke(*BASE, "-o", "small.pt", "--plain", "--json", "stats.json", "--plot", "curve.png")
    assert result.exit_code == 0, result.output
    assert (
        "accuracy of the saved model, read back" in result.output and "written to small.pt" in result.output
    )
    stats = json.loads((folder / "stats.json").read_text())
    assert stats["reached"] and stats["reloaded_accuracy"] >= 0.95
    assert abs(stats["reloaded_accuracy"] - stats["accuracy_preserved"]) < 1e-6
    small = torch.load("small.pt", weights_only=False)
    assert not any(type(m).__module__.startswith("stonefx") for m in small.modules())
    stored = sum(p.numel() * 4 for p in small.parameters())
    assert stored == sum(row["bytes_after"] for row in stats["layers"])
    assert (folder / "curve.png").exists()
    assert sorted(p.name for p in folder.iterdir() if p.name.startswith(".")) == []


def test_a_stonefx_file():
    result = invoke(*BASE, "-o", "small.safetensors")
    assert result.exit_code == 0, result.output
    assert stonefx.load("small.safetensors")(torch.ones(2, 64)).shape == (2, 64)


def test_without_data_the_energy_decides():
    result = invoke("user_compress:net", "--energy", "0.9", "-o", "small.pt")
    assert result.exit_code == 0, result.output
    assert "not checked, since there was no data" in result.output


def test_what_is_not_reached_is_exit_code_1_and_written_all_the_same(folder):
    result = invoke(*BASE, "-o", "small.pt", "--metric", "user_compress:half", "--max-ratio", "0.001")
    assert result.exit_code == 1
    assert (
        "at most 0.10% of the bytes: not reached" in result.output
        and "Error: what was asked for" in result.output
    )
    assert (folder / "small.pt").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing", "-o", "a.pt"), "got 'nothing', which is none of them"),
        (("user_compress:no", "-o", "a.pt"), "user_compress has no 'no'"),
        ((".", "-o", "a.pt"), "has no config.json; expected a folder that save_pretrained wrote"),
        (
            ("user_compress:net", "--data", "x", "-o", "a.pt"),
            "or a text file, got 'x', which is neither",
        ),
        (
            ("user_compress:net", "--data", "user_compress:needs", "-o", "a.pt"),
            "cannot be called without arguments",
        ),
        (("user_compress:net", "--data", "user_compress.py", "-o", "a.pt"), "needs a MODEL that is a folder"),
        (("user_compress:net", "--data", "math:pi", "-o", "a.pt"), "--data: expected a DataLoader"),
        ((*BASE, "-o", "no/a.pt"), "--output: there is no folder"),
        ((*BASE, "-o", "a.pt", "--json", "no/a.json"), "--json: there is no folder"),
        ((*BASE, "-o", "."), "exists and is not empty"),
        ((*BASE, "-o", "folder"), "a folder is for a model of transformers, and MODEL is a Sequential"),
        ((*BASE, "-o", "a.safetensors", "--plain"), "--plain is for a file such as"),
        (("user_compress:net", "-o", "a.pt", "--plot", "a.png"), "give --data too"),
        (("user_compress:net", "-o", "a.safetensors"), "needs --data, whose first batch"),
        (
            (*BASE, "-o", "a.pt", "--min-accuracy", "95"),
            "min_accuracy: expected a number in (0, 1], got 95.0",
        ),
        ((*BASE, "-o", "a.pt", "--metric", "cosin"), "did you mean 'cosine'?"),
        ((*BASE, "-o", "a.pt", "--metric", "user_compress:no"), "user_compress has no 'no'"),
        (
            (*BASE, "-o", "a.pt", "--metric", "user_compress:broken"),
            "user_compress:broken raised NotImplementedError: not yet",
        ),
        ((*BASE, "-o", "a.pt", "--layers", "7"), "layers: '7' fits no layer"),
        ((*BASE,), "Missing option '-o'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, message, folder):
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert not (folder / "a.pt").exists() and "Traceback" not in result.output


@pytest.mark.parametrize("kind", [NotImplementedError, TypeError, ValueError])
def test_what_goes_wrong_inside_is_no_mistake_of_the_user(kind, monkeypatch):
    def wrong(self):
        if kind is NotImplementedError:
            raise kind
        return None + 1 if kind is TypeError else int("x")

    monkeypatch.setattr(Search, "run", wrong)
    result = invoke(*BASE, "-o", "a.pt")
    assert result.exit_code == 3 and "Traceback" in result.output and kind.__name__ in result.output


def test_an_interrupt_leaves_no_half_file(folder, monkeypatch):
    def interrupted(model, path):
        path.write_bytes(b"half of a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    result = invoke(*BASE, "-o", "small.pt")
    assert result.exit_code == 130 and "Stopped" in result.output
    assert sorted(p.name for p in folder.iterdir() if not p.name.startswith("__")) == ["user_compress.py"]


def test_a_folder_of_transformers(folder):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=64, num_hidden_layers=1, num_attention_heads=4, intermediate_size=96,
        max_position_embeddings=32,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder / "bert")
    (folder / "tokens.py").write_text(
        "import torch\n"
        "def data():\n"
        "    torch.manual_seed(0)\n"
        "    return [{'input_ids': torch.randint(0, 50, (4, 8))} for _ in range(12)]\n"
    )
    result = invoke("bert", "--data", "tokens:data", "-o", "small", "--max-ratio", "0.5")
    sys.modules.pop("tokens", None)
    assert result.exit_code == 0, result.output
    assert (folder / "small" / "modeling_compressed.py").exists()
    assert "accuracy of the saved model, read back" in result.output


def test_a_checkpoint_is_gone_on_from_and_guards_against_other_settings(folder):
    first = invoke(*BASE, "-o", "one.pt", "--max-ratio", "0.6", "--checkpoint", "kept")
    again = invoke(*BASE, "-o", "two.pt", "--max-ratio", "0.6", "--checkpoint", "kept")
    assert first.exit_code == again.exit_code == 0, first.output + again.output
    assert first.output.replace("one.pt", "two.pt") == again.output
    other = invoke(*BASE, "-o", "three.pt", "--max-ratio", "0.5", "--checkpoint", "kept")
    assert other.exit_code == 2 and "max_ratio" in other.output and not (folder / "three.pt").exists()


@pytest.mark.slow
def test_processes_of_torchrun_share_the_work_and_one_of_them_writes(folder):
    command = [*BASE, "-o", "two.pt", "--max-ratio", "0.6", "--json", "two.json", "--quiet"]
    command += ["--cost", "bytes", "--forms", "pair"]
    run = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "-m",
        "stonefx",
        "compress",
    ]
    path = os.pathsep.join([str(folder), *(entry for entry in sys.path if entry)])
    result = subprocess.run(
        [*run, *command],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("written to two.pt") == 1
    alone = invoke(*BASE, "-o", "one.pt", "--max-ratio", "0.6", "--json", "one.json")
    assert alone.exit_code == 0, alone.output
    one, two = (json.loads((folder / f"{n}.json").read_text()) for n in ("one", "two"))
    assert one["ranks"] == two["ranks"] and one["ranks"]
