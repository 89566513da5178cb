"""What cannot be saved or loaded says why and what to do."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from saved_models import Chained, chain, x
from torch import nn

import stonefx
from stonefx.capture import Capture, Checks, Output, Shape, TensorCheck, Weight
from stonefx.capture import Path as ArgumentPath
from stonefx.optimized import Program
from stonefx.tracing.facts import Fact


@pytest.fixture(scope="module")
def fast() -> nn.Module:
    return stonefx.optimize(chain(8, 64, 8), x(4))


@pytest.fixture
def file(fast: nn.Module, tmp_path: Path) -> Path:
    return stonefx.save(fast, tmp_path / "model")


def test_what_is_no_optimized_model(tmp_path: Path, fast: nn.Module) -> None:
    path = tmp_path / "model"
    with pytest.raises(
        TypeError, match=r"expects a model that stonefx\.optimize returned, got Linear; .*state_dict"
    ):
        stonefx.save(nn.Linear(2, 2), path)
    with pytest.raises(
        TypeError, match="optimized at its first call and has not been called yet; call it once"
    ):
        stonefx.save(stonefx.optimize(chain(8, 64, 8)), path)
    handle = fast.register_forward_hook(lambda *_: None)
    with pytest.raises(TypeError, match="hooks cannot be saved, and the model has some; remove them"):
        stonefx.save(fast, path)
    handle.remove()
    with pytest.raises(
        FileNotFoundError, match=f"cannot write .*there is no folder {tmp_path}/no; create it first"
    ):
        stonefx.save(fast, tmp_path / "no" / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_class_that_no_other_process_finds(tmp_path: Path) -> None:
    @dataclass
    class Local:
        x: torch.Tensor

    class Returns(Chained):
        def forward(self, x: torch.Tensor) -> Local:
            return Local(self.run(x))

    fast = stonefx.optimize(Returns().eval(), x(4))
    with pytest.raises(
        TypeError, match=r"another process cannot import it as .*Local from test_saving_errors; def"
    ):
        stonefx.save(fast, tmp_path / "model")


def test_an_operator_that_no_file_may_call(tmp_path: Path) -> None:
    class Backward(Chained):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.aten.glu_backward(self.run(x)[:, :4], self.run(x), -1)

    fast = stonefx.optimize(Backward().eval(), x(4), verify=False)
    with pytest.raises(
        TypeError,
        match=r"the call of aten\.glu_backward\.default in the graph .*that a graph may call.*call stonefx\.optimize",
    ):
        stonefx.save(fast, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_what_runs_between_the_breaks_of_a_forward(tmp_path: Path) -> None:
    class Breaks(Chained):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.layers[1](self.layers[0](torch.relu(x)))
            return torch.relu(y) if y.sum().item() > 0 else y

    fast = stonefx.optimize(Breaks().eval(), x(4).abs())
    with pytest.raises(
        TypeError, match=r"compiled between the breaks of its forward.*save the state_dict of the orig"
    ):
        stonefx.save(fast, tmp_path / "model")


def test_nothing_of_a_program_is_forgotten() -> None:
    # A new field must be written to the file, or be known here not to need it.
    written = {
        Program: "capture inner names owned followed rows holder inference frozen",
        Capture: "module weights aliases arguments sizes output checks training signature",
        Checks: "tensors containers constants symbols guards facts devices",
        TensorCheck: "dtype device_type sizes strides",
        Fact: "paths question arguments answer keywords",
        Output: "index item",
        Shape: "entries",
        ArgumentPath: "parameter steps",
        Weight: "name",
    }
    made_anew = {
        # Weights like others; of a file all weights are released; in the report.
        Program: "has_original constants release shown renamed notes",
        Capture: "constants notes attributes",  # weights like others; in the report; of code that no file has
        Checks: "kernel_guards",  # guards like others once the graph is optimized
    }
    for cls, names in written.items():
        fields = {field.name for field in dataclasses.fields(cls)}
        assert fields == {*names.split(), *made_anew.get(cls, "").split()}, cls


def test_a_failed_save_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("stonefx.saving.file.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        stonefx.save(stonefx.optimize(chain(8, 32, 8), x(4)), file)
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("damage", ["cut", "emptied", "flipped", "flipped graph", "text"])
def test_a_damaged_file(file: Path, damage: str) -> None:
    content = bytearray(file.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "emptied":
        content = bytearray()
    elif damage == "text":
        content = bytearray(b"weights: none\n" * 100)
    else:
        # The graph, of bytes, lies behind the weights.
        content[-100 if damage == "flipped graph" else content.index(b"}" * 2) + 1000] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"{file} is damaged"):
        stonefx.load(file)


def test_a_file_of_another_origin_or_version(file: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "weights"
    save_file({"weight": torch.ones(2)}, foreign)
    with pytest.raises(
        ValueError, match=r"a safetensors file that stonefx\.save did not write: it holds weights and"
    ):
        stonefx.load(foreign)
    save_file({"weight": torch.ones(2)}, foreign, {"stonefx": json.dumps({"version": 7})})
    with pytest.raises(
        ValueError, match=r"has version 7 of the file format, expected 3; optimize the original and"
    ):
        stonefx.load(foreign)
    save_file({"weight": torch.ones(2)}, foreign, {"stonefx": json.dumps({"version": 1, "crc32": {}})})
    with pytest.raises(
        ValueError, match=r"version 1 .*could run code when it is read; optimize the original"
    ):
        stonefx.load(foreign)
    with pytest.raises(FileNotFoundError, match=f"there is no file {tmp_path}; expected one"):
        stonefx.load(tmp_path)
    with pytest.raises(TypeError, match=r"holds a whole Sequential; leave out the model"):
        stonefx.load(file, chain(8, 64, 8))
