"""What is written loads where stonefx is not installed, and gives the same results."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import stonefx
from stonefx.compress import plain, save_transformers

CHILD = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "stonefx":
            raise ImportError("stonefx is not here")

sys.meta_path.insert(0, Blocked())
import torch
torch.set_num_threads(1)
folder = sys.argv[1]
{}
"""


def run_without_stonefx(code, folder):
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(code), str(folder)], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def compressed(forms, seed=0, **options):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64)).eval()
    data = [torch.randn(16, 64) for _ in range(12)]
    return stonefx.compress(model, data, forms=forms, cost="bytes", progress=False, **options)[0]


def differs(a, b):
    return (a - b).abs().max().item() / b.abs().max().item()


def test_plain_models_load_without_stonefx(tmp_path):
    x = torch.randn(4, 64)
    torch.save(x, tmp_path / "x.pt")
    models = {
        "pair": compressed(("pair",), max_ratio=0.4),
        "pifa": compressed(("pifa",), max_ratio=0.4),
        "int8": compressed(("pair", "int8"), max_ratio=0.2),
    }
    for name, small in models.items():
        assert differs(plain(small)(x), small(x)) < 1e-5
        torch.save(plain(small), tmp_path / f"{name}.pt")
    run_without_stonefx(
        "for name in ('pair', 'pifa', 'int8'):\n"
        "    small = torch.load(f'{folder}/{name}.pt', weights_only=False)\n"
        "    torch.save(small(torch.load(folder + '/x.pt')), f'{folder}/{name}-y.pt')",
        tmp_path,
    )
    for name, small in models.items():
        assert differs(torch.load(tmp_path / f"{name}-y.pt"), small(x)) < 1e-5


def test_plain_of_one_layer_and_of_shared_layers():
    small = compressed(("pair",), max_ratio=0.4)
    assert type(small[0]).__module__.startswith("stonefx") and not type(
        plain(small[0])
    ).__module__.startswith("stonefx")
    twice = nn.Sequential(small[0], nn.Linear(96, 64), small[0])
    made = plain(twice)
    assert made[0] is made[2] and made[0] is not twice[0]


class Tied(nn.Module):
    """A language model whose head is its embedding, beside layers of every form."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(40, 64)
        self.up, self.down = nn.Linear(64, 96), nn.Linear(96, 64)
        self.head = nn.Linear(64, 40, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids):
        x = self.table(ids)
        return self.head(x + self.down(torch.relu(self.up(x))))


@pytest.mark.parametrize("forms", [("pair",), ("pifa",), ("width",), ("pair", "width", "int8")], ids=str)
def test_tied_weights_stay_tied(forms, tmp_path):
    if "int8" in forms:
        pytest.importorskip("torchao")
    torch.manual_seed(0)
    data = [torch.randint(0, 40, (8, 5)) for _ in range(12)]
    ratio = 0.3 if "int8" in forms else 0.6
    small, stats = stonefx.compress(
        Tied().eval(), data, max_ratio=ratio, forms=forms, cost="bytes", progress=False
    )
    rows = {row.path: row for row in stats.layers}
    for path, other in (("table", "head"), ("head", "table")):
        assert rows[path].form == "dense" and f"tied to that of {other}" in rows[path].reason
    assert rows["up"].form != "dense" and stats.reached
    assert small.head.weight is small.table.weight
    # Counted once: that of the whole model is the two layers and the table.
    table, layers = 4 * 40 * 64, 4 * (2 * 64 * 96 + 64 + 96)
    expected = (table + stats.compression_ratio * layers) / (table + layers)
    assert stats.model_ratio == pytest.approx(expected)
    torch.save(plain(small), tmp_path / "small.pt")
    loaded = torch.load(tmp_path / "small.pt", weights_only=False)
    assert loaded.head.weight is loaded.table.weight
    assert differs(loaded(data[0]), small(data[0])) < 1e-5
    if "int8" not in forms:
        file = stonefx.save(stonefx.optimize(small, data[0]), tmp_path / "small.safetensors")
        # Nothing is written twice.
        stored = sum(t.numel() * t.element_size() for t in {id(p): p for p in small.parameters()}.values())
        assert stored <= file.stat().st_size < stored + table
        assert differs(stonefx.load(file)(data[0]), small(data[0])) < 1e-5


def test_a_layer_that_torch_has_no_equal_of_is_named():
    model = nn.Sequential(nn.Linear(4, 4), stonefx.nn.PoincareLinear(4, 4))
    with pytest.raises(TypeError, match=r"plain: 1 is a PoincareLinear of stonefx"):
        plain(model)


def test_a_stonefx_file_of_a_compressed_model(tmp_path):
    small = compressed(("pair",), max_ratio=0.4)
    x = torch.randn(4, 64)
    file = stonefx.save(stonefx.optimize(small, x), tmp_path / "small.safetensors")
    assert differs(stonefx.load(file)(x), small(x)) < 1e-5


class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM, packed=False):
        super().__init__()
        self.packed = packed
        self.inner = kind(48, 32, batch_first=True)

    def forward(self, x):
        self.inner.flatten_parameters()
        if self.packed:
            x = nn.utils.rnn.pack_padded_sequence(x, torch.full((len(x),), x.shape[1]), batch_first=True)
            return nn.utils.rnn.pad_packed_sequence(self.inner(x)[0], batch_first=True)[0]
        return self.inner(x)[0]


def of_sequences(model, **options):
    torch.manual_seed(0)
    data = [torch.randn(4, 5, 48) for _ in range(12)]
    return stonefx.compress(model.eval(), data, cost="bytes", progress=False, **options)[0], data[0]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_pair_as_layers_of_torch(kind, tmp_path):
    small, x = of_sequences(Recurrent(kind), forms=("pair",), max_ratio=0.9)
    assert type(small.inner).__module__.startswith("stonefx")
    torch.save(plain(small), tmp_path / "small.pt")
    made = torch.load(tmp_path / "small.pt", weights_only=False)
    assert not any(type(module).__module__.startswith("stonefx") for module in made.modules())
    assert made.inner.hidden_size == 32
    torch.testing.assert_close(made(x), small(x))
    # It goes on learning.
    assert torch.autograd.grad(made.requires_grad_()(x).sum(), made.inner.projection.weight)[0].norm() > 0


def test_a_recurrent_pair_that_is_given_packed_sequences_is_refused_with_the_way_out():
    small, _ = of_sequences(Recurrent(packed=True), forms=("pair",), max_ratio=0.9)
    with pytest.raises(
        TypeError, match=r"plain: inner became a RecurrentPair: it is given packed sequences.*layers="
    ):
        plain(small)


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(32, 32) for _ in range(4))

    def forward(self, x):
        q, k, v = (f(x).view(*x.shape[:2], 4, 8).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.o(y.transpose(1, 2).reshape(x.shape))


def test_heads_as_layers_of_torch(tmp_path):
    torch.manual_seed(0)
    data = [torch.randn(4, 5, 32) for _ in range(12)]
    small, stats = stonefx.compress(
        Attending().eval(), data, forms=("heads",), max_ratio=0.7, cost="bytes", progress=False
    )
    assert {row.form for row in stats.layers} >= {"heads"}
    torch.save(plain(small), tmp_path / "small.pt")
    made = torch.load(tmp_path / "small.pt", weights_only=False)
    assert not any(type(module).__module__.startswith("stonefx") for module in made.modules())
    torch.testing.assert_close(made(data[0]), small(data[0]))


class Reading(nn.Module):
    """Code that reads a layer's weight beside calling the layer."""

    def __init__(self, values=False):
        super().__init__()
        self.values = values
        self.inner = nn.Linear(48, 48)

    def forward(self, x):
        y = self.inner(x.to(self.inner.weight.dtype))
        return y + self.inner.weight.sum() if self.values else y


@pytest.mark.parametrize("forms", [("pair",), ("pifa",), ("pair", "int8")])
def test_the_dtype_of_a_weight_can_be_read(forms, tmp_path):
    if "int8" in forms:
        pytest.importorskip("torchao")
    small, x = of_sequences(Reading(), forms=forms, max_ratio=0.2 if "int8" in forms else 0.6)
    torch.save(plain(small), tmp_path / "small.pt")
    made = torch.load(tmp_path / "small.pt", weights_only=False)
    assert not any(type(module).__module__.startswith("stonefx") for module in made.modules())
    torch.testing.assert_close(made(x), small(x))
    assert made.inner.weight.shape == (48, 48) and made.inner.weight.isnan().all()
    assert "inner.weight" not in made.state_dict()
    if "int8" not in forms:
        assert made.double().inner.weight.dtype == torch.float64


def test_a_weight_whose_values_are_read_is_refused():
    small, _ = of_sequences(Reading(values=True), forms=("pair",), max_ratio=0.6)
    with pytest.raises(TypeError, match=r"the model reads the values of inner\.weight"):
        plain(small)


class Padded(nn.Module):
    def __init__(self, norm=None):
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, norm)

    def forward(self, x, attention_mask):
        return self.encoder(x, src_key_padding_mask=attention_mask == 0)


@pytest.mark.parametrize("norm", [None, nn.LayerNorm(32)])
def test_padding_is_what_it_was_in_an_encoder(norm):
    torch.manual_seed(0)
    model = Padded(norm).eval()
    mask = torch.ones(4, 5, dtype=torch.long)
    mask[1, 3:], mask[2, 1:] = 0, 0
    data = [{"x": torch.randn(4, 5, 32), "attention_mask": mask} for _ in range(12)]
    small, stats = stonefx.compress(model, data, forms=("pair",), max_ratio=0.9, cost="bytes", progress=False)
    assert "pair" in {row.form for row in stats.layers}
    with torch.no_grad():
        expected, y = model(**data[0]), small(**data[0])
        torch.testing.assert_close(y[mask == 0], expected[mask == 0])
    # With gradients, in training and without a mask torch leaves padding alone.
    full = torch.ones_like(mask)
    assert (small(**data[0])[mask == 0] != 0).any() if norm is None else True
    with pytest.raises(TypeError, match=r"plain: encoder is an nn\.TransformerEncoder that gives zeros"):
        plain(small)
    fresh, _ = stonefx.compress(
        model, [{**d, "attention_mask": full} for d in data], layers="*linear*", forms=("pair",),
        max_ratio=0.6, cost="bytes", progress=False,
    )  # fmt: skip
    fresh.encoder.__dict__.pop("zeroed", None)
    with torch.no_grad():
        torch.testing.assert_close(
            plain(fresh)(data[0]["x"], full), fresh(data[0]["x"], full), rtol=1e-4, atol=1e-5
        )


# Folders of transformers -------------------------------------------------------------------------------------------


def bert():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=64, num_hidden_layers=1, num_attention_heads=4, intermediate_size=96,
        max_position_embeddings=32,
    )  # fmt: skip
    return transformers.BertModel(config).eval()


def llama():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=64, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=96, tie_word_embeddings=True,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def tokens(seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 50, (4, 8), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def folder_of(model, folder, **options):
    data = [tokens(i) for i in range(12)]
    small, _ = stonefx.compress(model, data, cost="bytes", progress=False, **options)
    with torch.no_grad():
        return save_transformers(small, folder), small(**tokens())[0]


def test_an_int8_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torchao")
    folder, expected = folder_of(bert(), tmp_path / "bert", max_ratio=0.25, forms=("pair", "int8"))
    model = transformers.AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    assert any(type(module).__name__ == "Int8Linear" for module in model.modules())
    with torch.no_grad():
        assert differs(model(**tokens())[0], expected) < 1e-5


def test_a_folder_loads_by_transformers_alone(tmp_path):
    folder, expected = folder_of(llama(), tmp_path / "llama", max_ratio=0.6, forms=("pifa",))
    config = json.loads((folder / "config.json").read_text())
    assert config["compression"] and config["auto_map"]["AutoModelForCausalLM"].startswith(
        "modeling_compressed."
    )
    assert "import stonefx" not in (folder / "modeling_compressed.py").read_text()
    assert not [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")]
    torch.save(tokens(), tmp_path / "x.pt")
    run_without_stonefx(
        "import os; os.environ['HF_MODULES_CACHE'] = folder + '/modules'\n"
        "from transformers import AutoModelForCausalLM as Auto\n"
        "model, info = Auto.from_pretrained(folder + '/llama', trust_remote_code=True, output_loading_info=True)\n"
        "assert not info['missing_keys'] and not info['unexpected_keys'] and not info['mismatched_keys'], info\n"
        "assert model.lm_head.weight is model.model.embed_tokens.weight\n"
        "with torch.no_grad():\n"
        "    torch.save(model.eval()(**torch.load(folder + '/x.pt'))[0], folder + '/y.pt')\n",
        tmp_path,
    )
    assert differs(torch.load(tmp_path / "y.pt"), expected) < 1e-5


def test_other_models_and_full_folders_are_refused(tmp_path):
    with pytest.raises(TypeError, match="expected a model whose class is part of transformers, got a Linear"):
        save_transformers(nn.Linear(2, 2), tmp_path / "out")
    (tmp_path / "file").write_text("")
    model = bert()
    with pytest.raises(FileExistsError, match="is not empty"):
        save_transformers(model, tmp_path)
    with pytest.raises(FileNotFoundError, match="create it first"):
        save_transformers(model, tmp_path / "no" / "out")


def test_a_layer_without_a_description_is_named_and_nothing_is_left(tmp_path):
    model = bert()
    model.pooler.dense = nn.Bilinear(2, 2, 2)
    with pytest.raises(TypeError, match=r"pooler\.dense became a Bilinear"):
        save_transformers(model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_interrupt_leaves_no_half_folder(tmp_path, monkeypatch):
    model = bert()

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(model), "save_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_transformers(model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_graph_in_a_folder(tmp_path):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(64, 64)
            self.register_buffer("order", torch.arange(63, -1, -1, dtype=torch.int32))

        def forward(self, x):
            return torch.nn.functional.gelu(self.inner(x))[..., self.order]

    transformers = pytest.importorskip("transformers")
    model = bert()
    model.pooler.dense = torch.fx.symbolic_trace(Scaled())
    folder = save_transformers(model, tmp_path / "graph")
    loaded = transformers.AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    with torch.no_grad():
        assert differs(loaded(**tokens()).pooler_output, model(**tokens()).pooler_output) < 1e-5


@pytest.mark.parametrize(("forms", "ratio"), [(("pair",), 0.5), (("pifa",), 0.6), (("pair", "int8"), 0.2)])
def test_a_folder_of_a_model_that_reads_the_dtype_of_its_weights(tmp_path, forms, ratio):
    transformers = pytest.importorskip("transformers")
    if "int8" in forms:
        pytest.importorskip("torchao")
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=50, d_model=64, d_kv=16, d_ff=96, num_layers=1, num_heads=4, feed_forward_proj="gated-gelu"
    )
    # Its embedding is one module in two places.
    model = transformers.T5EncoderModel(config).eval()
    folder, expected = folder_of(model, tmp_path / "t5", max_ratio=ratio, forms=forms)
    read = transformers.AutoModelForTextEncoding.from_pretrained(folder, trust_remote_code=True).eval()
    with torch.no_grad():
        assert differs(read(**tokens())[0], expected) < 1e-5
