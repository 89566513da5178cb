"""What MODEL may be on the command line, and what the commands give for each."""

import json
import sys

import pytest
import torch
from click.testing import CliRunner

import stonefx
from stonefx.cli import main
from stonefx.cli.models import find_model
from stonefx.cli.objects import load_object

MODELS = """
import torch
from torch import nn
import user_helper

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4)).eval()

def with_inputs():
    return build(), (torch.ones(4, 8),)

def with_relu():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval(), (torch.ones(4, 8),)

class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = build()

    def forward(self, values, mask):
        hidden = self.layers[0](values)
        return self.layers[1](hidden) * mask, hidden

def masked():
    return Masked().eval()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "user_named.py").write_text(MODELS)
    (tmp_path / "code" / "user_helper.py").write_text("value = 1")
    (tmp_path / "code" / "json.py").write_text("from torch import nn\nmodel = nn.Identity()")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("user_named", "user_helper", "json_of_code"):
        sys.modules.pop(name, None)


def invoke(*arguments, code=0):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_a_file_is_imported_once_with_what_lies_beside_it():
    build = load_object("code/user_named.py:build")
    assert build.__module__ == "user_named" and load_object("code/user_named.py:build") is build


def test_a_file_does_not_take_the_name_of_another_module():
    assert isinstance(find_model("code/json.py:model").model, torch.nn.Identity)
    assert sys.modules["json"] is json


def test_inputs_by_name():
    arguments = ("--input", "values=4x8", "--input", "mask=4x4:bool")
    document = json.loads(invoke("explain", "code/user_named.py:masked", *arguments, "--json").stdout)
    assert [(s["target"], s["status"], s["code"]) for s in document["sites"]] == [
        ("linear_chain", "refused", "returned")
    ]


def test_optimize_writes_what_explain_reads(folder):
    done = invoke(
        "optimize", "code/user_named.py:with_inputs", "-o", "fast.safetensors", "--json", "fast.json"
    )
    assert "1 rewritten" in done.output and done.output.strip().endswith("written to fast.safetensors")
    fast, model = stonefx.load("fast.safetensors"), load_object("code/user_named.py:build")()
    torch.testing.assert_close(fast(torch.ones(7, 8)), model(torch.ones(7, 8)))
    again = invoke("explain", "fast.safetensors", "--json")
    assert json.loads(again.stdout)["sites"] == json.loads((folder / "fast.json").read_text())["sites"]
    refused = invoke("optimize", "fast.safetensors", "--input", "4x8", "-o", "twice.safetensors", code=2)
    assert "is optimized already; expected the original model" in refused.output


def test_optimize_exports_a_program():
    invoke("optimize", "code/user_named.py:with_inputs", "-o", "fast.pt2")
    fast, model = torch.export.load("fast.pt2").module(), load_object("code/user_named.py:build")()
    torch.testing.assert_close(fast(torch.ones(4, 8)), model(torch.ones(4, 8)))


def test_a_required_rewrite_that_is_missing_is_exit_code_1(folder):
    arguments = (
        "optimize",
        "code/user_named.py:with_relu",
        "--require",
        "linear_chain",
        "-o",
        "a.safetensors",
    )
    assert "linear_chain" in invoke(*arguments, code=1).output
    assert not (folder / "a.safetensors").exists()


def test_fail_on():
    name = ("explain", "code/user_named.py:masked", "--input", "4x8", "--input", "4x4:bool")
    failed = invoke(*name, "--fail-on", "refused:linear_chain:returned", code=1)
    assert "refused:linear_chain:returned: 1 site, linear_chain at" in failed.output
    invoke(*name, "--fail-on", "refused:linear_chain:shared", "--fail-on", "near-miss")


def test_against_an_earlier_report(folder):
    name = ("explain", "code/user_named.py:with_inputs")
    invoke(*name, "--json", "good.json", "--html", "good.html")
    assert "<html" in (folder / "good.html").read_text()
    both = ("--against", "good.json", "--fail-on", "refused", "--fail-on", "regression")
    assert "no difference" in invoke(*name, *both).output
    code = folder / "code" / "user_named.py"
    code.write_text(
        MODELS.replace("Linear(8, 16), nn.Linear(16, 4)", "Linear(8, 16), nn.Tanh(), nn.Linear(16, 4)")
    )
    for module in ("user_named", "user_helper"):
        sys.modules.pop(module, None)
    assert "1 site no longer rewritten" in invoke(*name, *both, code=1).output
    invoke(*name, "--against", "good.json", "--fail-on", "rewritten", "--fail-on", "near-miss")


def test_only_what_has_become_so_fails(folder):
    name = ("explain", "code/user_named.py:masked", "--input", "4x8", "--input", "4x4:bool")
    invoke(*name, "--json", "old.json")
    invoke(*name, "--fail-on", "refused:linear_chain", code=1)
    invoke(*name, "--fail-on", "refused:linear_chain", "--against", "old.json")


def test_transformers_by_folder_and_by_the_id_of_what_is_on_disk(folder, monkeypatch):
    transformers = pytest.importorskip("transformers")
    hub = pytest.importorskip("huggingface_hub")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=32,
    )  # fmt: skip
    model = transformers.BertModel(config)
    model.save_pretrained(folder / "bert")
    snapshot = folder / "hub" / "models--someone--bert" / "snapshots" / "0123"
    model.save_pretrained(snapshot)
    refs = folder / "hub" / "models--someone--bert" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0123")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(folder / "hub"))
    for name in ("bert", "someone/bert"):
        found = find_model(name)
        assert type(found.model) is transformers.BertModel and not found.model.training
        assert found.examples["input_ids"].shape == (2, 16)
    assert "linear_fan_out" in invoke("explain", "someone/bert", "--passes", "linear_fan_out").output


def test_compress_gives_json_and_a_page(folder):
    arguments = ("compress", "code/user_named.py:build", "--energy", "0.9", "-o", "small.pt", "--quiet")
    result = invoke(*arguments, "--cost", "bytes", "--forms", "pair", "--json", "--html", "page.html")
    assert {"compression_ratio", "layers"} <= json.loads(result.stdout).keys()
    page = (folder / "page.html").read_text()
    assert page.startswith("<!doctype html>") and "<h2>Layers</h2>" in page and "http" not in page
