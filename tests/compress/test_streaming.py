"""Models that are read from their files: the same results, within a budget of bytes, and beyond a limit of memory."""

from __future__ import annotations

import copy
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stonefx.compress import compress, plain, streaming, tensorfile
from stonefx.compress.int8 import missing as int8_missing
from stonefx.compress.settings import DEFAULT_FORMS
from stonefx.compress.streaming import skeleton


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.register_buffer("scale", torch.tensor(0.5), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.down(torch.tanh(self.up(self.norm(x))))


class Model(nn.Module):
    """Layers of the usual kinds, a tied weight, parameters of its own, and a child whose weight its parent reads."""

    def __init__(self, width: int = 24, depth: int = 3) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, width)
        self.position = nn.Parameter(torch.zeros(1, 5, width))
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.blocks = nn.ModuleList([Block(width) for _ in range(depth)])
        self.recurrent = nn.GRU(width, width, batch_first=True)
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.position
        x = x + self.attention(x, x, x, need_weights=False)[0]
        for block in self.blocks:
            x = block(x)
        x = x + self.recurrent(x)[0]
        return self.head(self.norm(x.mT).mT.mean(1))


def ids(count: int = 24) -> list[Tensor]:
    return list(torch.randint(50, (count, 8, 5), generator=torch.Generator().manual_seed(0)))


@pytest.fixture
def saved(tmp_path: Path) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    model = Model().eval()
    with torch.no_grad():
        model.position.normal_()
        model.norm.running_mean.normal_()
    state = model.state_dict()
    # As transformers writes it: what is tied is written once.
    del state["head.weight"]
    save_file(state, tmp_path / "model.safetensors")
    return model, tmp_path / "model.safetensors"


def hollow() -> nn.Module:
    with skeleton():
        return Model().eval()


def test_forward_and_backward_are_those_of_the_model_in_memory(saved) -> None:
    model, path = saved
    read = streaming.attach(hollow(), path, 0)
    weights = streaming.weights_of(read)
    assert all(p.device.type == "cpu" for p in read.parameters())
    assert read.head.weight is read.embed.weight
    x = ids(1)[0]
    gradients = []
    for which in (model, read):
        for p in which.parameters():
            p.requires_grad_(False)
        inputs = model.embed.weight[x].clone().requires_grad_()
        handle = which.embed.register_forward_hook(lambda m, a, y, inputs=inputs: inputs)
        with weights.saved():
            y = which(x)
            y.square().sum().backward()
        handle.remove()
        gradients.append((y.detach(), inputs.grad))
    torch.testing.assert_close(gradients[0], gradients[1])
    del y
    # Nothing stays, and stand-ins never compute anything.
    assert weights.resident == 0
    assert all(p.isnan().all() for p in read.parameters())
    for name, value in read.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_activations_are_spilled_and_weights_are_kept_by_name(saved, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "SPILLED_FROM", 256)
    model, path = saved
    weights = streaming.Weights(0)
    read = streaming.attach(hollow(), path, 0)
    weights = streaming.weights_of(read)
    folder = Path(weights.scratch.name)
    inputs = torch.randn(8, 5, 24, requires_grad=True)
    with weights.saved():
        y = read.blocks[0](inputs)
        files = len(list(folder.iterdir()))
        assert files >= 1
        assert weights.resident == 0
        for _ in range(2):
            (gradient,) = torch.autograd.grad(y.square().sum(), inputs, retain_graph=True)
    (expected,) = torch.autograd.grad(model.blocks[0](inputs).square().sum(), inputs)
    torch.testing.assert_close(gradient, expected)
    del y
    assert not list(folder.iterdir())


def test_compression_is_that_of_the_model_in_memory(saved, tmp_path: Path) -> None:
    model, path = saved
    settings = {
        "probes": 1,
        "progress": False,
        "cost": "bytes",
        "max_ratio": 0.7,
        "forms": ("pair", "pifa"),
        "probe": "directions",
    }
    small, stats = compress(model, ids(), **settings)
    largest = max(p.nbytes for p in model.parameters())
    out = tmp_path / "out"
    read, read_stats = compress(hollow(), ids(), weights=path, output_folder=out, memory=150_000, **settings)
    assert read_stats.ranks == stats.ranks and stats.ranks
    assert "groups" in " ".join(read_stats.notes)
    assert read_stats.model_ratio == pytest.approx(stats.model_ratio)
    x = ids(1)[0]
    torch.testing.assert_close(read(x), small(x), rtol=1e-5, atol=1e-5)
    written = load_file(out / "model.safetensors")
    facts = json.loads((out / "compression.json").read_text())
    assert facts["ranks"] == stats.ranks and facts["tied"] == {"head.weight": "embed.weight"}
    for name, value in plain(small).state_dict().items():
        torch.testing.assert_close(written[facts["tied"].get(name, name)], value, rtol=1e-4, atol=1e-5)
    # What was written makes the model again, of the model's own code and torch.
    sys.modules.pop("modeling_compressed", None)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(out))
        load = importlib.import_module("modeling_compressed").load
    torch.testing.assert_close(load(Model())(x), read(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="the model is not the one that was compressed"):
        load(Model(depth=4))
    assert streaming.weights_of(read).places["embed.weight"][0].path == out / "model.safetensors"
    assert largest < 150_000


def test_weights_in_memory_stay_within_the_cache_and_what_is_in_use(saved) -> None:
    _, path = saved
    torch.manual_seed(0)
    deep = Model(depth=20).eval()
    state = deep.state_dict()
    del state["head.weight"]
    save_file(state, path)
    with skeleton():
        empty = Model(depth=20).eval()
    total = sum(p.nbytes for p in deep.parameters())
    of_block = sum(p.nbytes for p in deep.recurrent.parameters())
    for cache in (0, 30_000):
        read = streaming.attach(empty, path, cache)
        weights = streaming.weights_of(read)
        with weights.saved(), torch.enable_grad():
            handle = read.embed.register_forward_hook(lambda m, a, y: y.detach().requires_grad_())
            read(ids(1)[0]).square().sum().backward()
            handle.remove()
        assert weights.peak <= cache + of_block + 10_000 < total / 3
        assert weights.bytes_read >= 1.5 * total if cache == 0 else weights.bytes_read >= total
        assert weights.resident <= cache


def test_what_does_not_fit_is_named(saved, tmp_path: Path) -> None:
    _, path = saved
    with skeleton():
        other, wide = nn.Sequential(nn.Linear(3, 4)), Model(32)
    with pytest.raises(ValueError, match=r"does not fit the model; it has no 0\.weight, 0\.bias"):
        streaming.attach(other, path, 0)
    with pytest.raises(ValueError, match=r"shapes differ: position: \(1, 5, 32\) in the model, \(1, 5, 24\)"):
        streaming.attach(wide, path, 0)
    with torch.device("meta"):
        lost = Model()
    with pytest.raises(
        ValueError, match=r"it has no blocks\.0\.scale.* Buffers that files do not hold are real"
    ):
        streaming.attach(lost, path, 0)
    with pytest.raises(ValueError, match="expected a safetensors file or a folder of them, found none"):
        streaming.attach(hollow(), tmp_path / "none", 0)
    with pytest.raises(ValueError, match="say where they are: weights=file"):
        compress(hollow(), ids())
    with pytest.raises(TypeError, match="output_folder: expected where to write the result"):
        compress(hollow(), ids(), weights=path)
    with pytest.raises(ValueError, match=r"expected a transformers folder with a config\.json"):
        compress(tmp_path, ids(), output_folder=tmp_path / "out")


@pytest.mark.parametrize("damage", ["cut", "header", "offsets", "empty"])
def test_damaged_files_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.safetensors"
    tensorfile.write(path, {"w": torch.ones(4, 4)}, {})
    raw = path.read_bytes()
    path.write_bytes(
        {
            "cut": raw[:-1],
            "header": raw[:8] + b"x" + raw[9:],
            "offsets": raw.replace(b"[0, 64]", b"[0, 60]"),
            "empty": b"",
        }[damage]
    )
    with pytest.raises(ValueError, match="expected a whole safetensors file"):
        tensorfile.Reader(path)


@pytest.mark.slow
def test_a_transformers_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path / "in", max_shard_size="10KB")
    assert len(list((tmp_path / "in").glob("*.safetensors"))) > 1
    x = [{"input_ids": torch.randint(40, (4, 6))} for _ in range(12)]
    int8 = int8_missing() is None
    for name, forms in (("factors", ("pair", "pifa")), ("default", DEFAULT_FORMS)):
        settings = {"max_ratio": 0.5, "progress": False, "cost": "bytes", "forms": forms}
        small, stats = compress(model, x, **settings)
        read, read_stats = compress(tmp_path / "in", x, output_folder=tmp_path / name, **settings)
        assert [(row.path, row.form, row.rank, row.bytes_after) for row in read_stats.layers] == [
            (row.path, row.form, row.rank, row.bytes_after) for row in stats.layers
        ]
        assert stats.compression_ratio <= 0.5
        assert any("int8" in row.form for row in stats.layers) == (int8 and name == "default")
        with torch.no_grad():
            expected = read(**x[0]).logits
            torch.testing.assert_close(expected, small(**x[0]).logits, rtol=1e-4, atol=1e-4)
            # As the documentation says that it is loaded.
            again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name, trust_remote_code=True)
            torch.testing.assert_close(again(**x[0]).logits, expected, rtol=1e-5, atol=1e-5)
        if int8 and name == "default":
            # Nothing of it stays in memory, int8 with its scales included.
            assert all(type(v.data) is not Tensor or v.isnan().all() for v in read.parameters())
            assert any(hasattr(v.data, "__tensor_flatten__") for v in read.parameters())
            torch.save(plain(read), tmp_path / "read.pt")
            whole = torch.load(tmp_path / "read.pt", weights_only=False)
            torch.testing.assert_close(whole(**x[0]).logits, expected, rtol=1e-5, atol=1e-5)


def test_where_nothing_can_be_written_is_said_before_the_work_begins(saved, tmp_path: Path) -> None:
    _, path = saved
    for target, message in (
        (path.parent, "expected another folder than that of the weights"),
        (path, "expected a folder, .* is a file"),
        (tmp_path / "other", "holds weights of something else"),
    ):
        if target.name == "other":
            target.mkdir()
            save_file({"a": torch.ones(1)}, target / "a.safetensors")
        with pytest.raises(ValueError, match=f"output_folder: .*{message}"):
            compress(hollow(), ids(), weights=path, output_folder=target, cost="bytes", progress=False)


def test_copies_share_files_and_not_changes(saved) -> None:
    model, path = saved
    read = streaming.attach(hollow(), path, 0)
    other = copy.deepcopy(read)
    other.blocks[0].up = nn.Linear(24, 48)
    x = ids(1)[0]
    torch.testing.assert_close(read(x), model(x))
    assert not torch.allclose(other(x), model(x))
    other.blocks[1].up.weight = nn.Parameter(torch.zeros(48, 24))
    assert (other.blocks[1].up.weight == 0).all()


LIMITED = """
import json, resource, sys
import torch
from torch import nn
from stonefx.compress import compress
from stonefx.compress.streaming import skeleton
torch.set_num_threads(1)

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.small = nn.Linear(64, 64)
        self.up, self.down = nn.Linear(64, 65536, bias=False), nn.Linear(65536, 64, bias=False)
    def forward(self, x):
        return x + self.down(torch.tanh(self.up(torch.tanh(self.small(x)))))

with skeleton():
    model = nn.Sequential(*[Block() for _ in range(96)])
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (3 << 29)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
data = list(torch.randn(6, 4, 64, generator=torch.Generator().manual_seed(0)))
read, stats = compress(model, data, weights=sys.argv[1], output_folder=sys.argv[2], layers="*.small", max_ratio=0.5,
                       forms=("pair",), cost="bytes", probes=1, progress=False)
print(json.dumps([limit, stats.ranks, read(data[0]).norm().item()]))
try:
    torch.ones(3 << 30, dtype=torch.uint8)
except RuntimeError:
    print("limited")
"""


@pytest.mark.slow
def test_weights_of_twice_the_limit_of_memory(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    heads = {}
    for i in range(96):
        heads |= {
            f"{i}.small.weight": (torch.Size([64, 64]), torch.float32),
            f"{i}.small.bias": (torch.Size([64]), torch.float32),
            f"{i}.up.weight": (torch.Size([65536, 64]), torch.float32),
            f"{i}.down.weight": (torch.Size([64, 65536]), torch.float32),
        }
    generator = torch.Generator().manual_seed(0)
    tensorfile.stream(
        path,
        heads,
        lambda name: torch.randn(heads[name][0], generator=generator) / heads[name][0][-1] ** 0.5,
        {},
    )
    assert os.path.getsize(path) > 3 << 30
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=1800,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result, limited = done.stdout.splitlines()
    assert limited == "limited"
    _, ranks, norm = json.loads(result)
    assert len(ranks) >= 48 and norm > 0
    assert os.path.getsize(tmp_path / "out" / "model.safetensors") > 3 << 30
