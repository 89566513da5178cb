"""Fewer units between layers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from stonefx.compress import (
    attention,
    compress,
    layers,
    losses,
    options,
    probes,
    rows_of_blocks,
    statistics,
    structure,
    units,
    width,
)
from stonefx.compress.data import Batch
from stonefx.compress.metric import main_result
from stonefx.compress.views import layer_weights


def find(model: nn.Module, batch: Batch) -> list[width.Width]:
    read = structure.read(model.eval(), structure.example(model, batch))
    chosen = structure.among(model, None)
    return units.find(read, chosen, layers.find(model).views)


def reduced(model: nn.Module, batches: list[Batch]) -> list[tuple[width.Width, width.Reduced]]:
    found = find(model, batches[0])
    measured = statistics.measure(
        model, [block.view for block in found], batches, output=main_result, kind="directions"
    )
    return [(block, block.reduction(measured[i])) for i, block in enumerate(found)]


def applied(model: nn.Module, changed: dict[str, nn.Module]) -> nn.Module:
    small = copy.deepcopy(model)
    for path, module in changed.items():
        layers.replace(small, path, copy.deepcopy(module), {})
    return small


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(6, 12), nn.Linear(6, 12), nn.Linear(12, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(functional.silu(self.gate(x)) * self.up(x))


class Scaled(nn.Module):
    """A scale and a shift a unit, and a mask a position."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 12), nn.Linear(12, 6)
        self.scale = nn.Module()
        self.scale.weight = nn.Parameter(torch.rand(12) + 0.5)
        self.scale.shift = nn.Parameter(torch.randn(1, 12))
        self.act = nn.PReLU(12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.act(self.a(x)) * self.scale.weight + self.scale.shift
        return self.b(h * (x.sum(-1, keepdim=True) > 0) / 2)


class Squeezed(nn.Module):
    """A convolutional block in which channels are weighted by what is outside it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.d, self.b = (
            nn.Conv2d(3, 12, 1),
            nn.Conv2d(12, 12, 3, padding=1, groups=12),
            nn.Conv2d(12, 4, 1),
        )
        self.n, self.gate = nn.BatchNorm2d(12), nn.Conv2d(3, 12, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(self.gate(functional.adaptive_avg_pool2d(x, 1)))
        return self.b(functional.hardswish(self.d(self.n(functional.relu6(self.a(x))))) * gate).flatten(1)


def sequence(*modules: nn.Module) -> nn.Module:
    return nn.Sequential(*modules)


X, XS, IMAGE = (40, 6), (12, 5, 6), (24, 3, 8, 8)
MODELS = {
    "relu": (lambda: sequence(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 5)), X, [("0", "2")]),
    "positions": (
        lambda: sequence(nn.Linear(6, 12), nn.GELU(), nn.Dropout(), nn.Linear(12, 5)),
        XS,
        [("0", "3")],
    ),
    "no bias": (
        lambda: sequence(nn.Linear(6, 12, bias=False), nn.Tanh(), nn.Linear(12, 5, bias=False)),
        X,
        [("0", "2")],
    ),
    "gated": (Gated, XS, [("down", "gate", "up")]),
    "scaled": (Scaled, X, [("a", "act", "b", "scale")]),
    "convolutions": (
        lambda: sequence(
            nn.Conv2d(3, 12, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(12, 4, 3, padding=1, dilation=1),
            nn.Flatten(),
        ),
        IMAGE,
        [("0", "3")],
    ),
    "depthwise, gated, normed": (Squeezed, IMAGE, [("a", "b", "d", "gate", "n")]),
    "a head over channels": (
        lambda: sequence(
            nn.Conv2d(3, 12, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(108, 5)
        ),
        IMAGE,
        [("0", "4")],
    ),
    "a head over means": (
        lambda: sequence(
            nn.Conv2d(3, 12, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)
        ),
        IMAGE,
        [("0", "4")],
    ),
    "one dimension": (
        lambda: sequence(nn.Conv1d(6, 12, 3), nn.ELU(), nn.Conv1d(12, 4, 3, stride=2), nn.Flatten()),
        (20, 6, 11),
        [("0", "2")],
    ),
}


def made(name: str) -> tuple[nn.Module, list[Batch], list[tuple[str, ...]]]:
    make, shape, blocks = MODELS[name]
    torch.manual_seed(0)
    model = make().double().eval()
    x = torch.randn(shape, dtype=torch.float64)
    return model, [Batch((part,), samples=len(part)) for part in x.split(8)], blocks


@pytest.mark.parametrize("name", MODELS)
def test_blocks_are_found_and_exact(name):
    model, batches, expected = made(name)
    found = reduced(model, batches)
    assert sorted(tuple(sorted(block.paths)) for block, _ in found) == expected
    block, reduction = found[0]
    y = torch.cat([batch.call(model) for batch in batches])

    # All units: the model itself, to rounding.
    whole = applied(model, reduction.build(block.units))
    torch.testing.assert_close(torch.cat([b.call(whole) for b in batches]), y, rtol=1e-7, atol=1e-9)

    # Fewer: layers of smaller size whose numbers are as foretold, and the least-squares solution.
    size = 7
    changed = reduction.build(size)
    assert sorted(changed) == sorted(block.paths)
    assert sum(width.layer_weights(module) for module in changed.values()) == reduction.numbers(size)
    small = applied(model, changed)
    given: dict[str, list[torch.Tensor]] = {"small": [], "dense": []}
    for key, owner in (("small", small), ("dense", model)):
        layer = owner.get_submodule(block.view.path)
        view = type(block.view)(block.view.path, layer, 1, block.view.rows, block.view.columns)
        handle = layer.register_forward_hook(
            lambda module, args, y, key=key, view=view: given[key].append(view.inputs(args).flatten(0, 2))
        )
        for batch in batches:
            batch.call(owner)
        handle.remove()
    kept, units = torch.cat(given["small"]), torch.cat(given["dense"])
    dense, new = (m.get_submodule(block.view.path).weight.flatten(1) for m in (model, small))
    solution = torch.linalg.lstsq(kept, units @ dense.mT).solution
    best = (kept @ solution - units @ dense.mT).square().sum()
    reached = (kept @ new.mT - units @ dense.mT).square().sum()
    assert best <= reached * (1 + 1e-9)
    assert reached <= best * (1 + 1e-4) + 1e-6 * (units @ dense.mT).square().sum()


@pytest.mark.parametrize("name", ["positions", "gated", "convolutions", "a head over channels"])
def test_the_sampled_loss_is_the_mean_square_of_the_probed_change(name):
    """Against finite differences, with the same random directions."""
    model, batches, _ = made(name)
    batches = [batch.take([i]) for batch in batches for i in range(batch.samples)][:10]
    block, reduction = reduced(model, batches)[0]
    tails, _ = losses.sampled(
        model, {0: reduction.directions}, {}, batches, kind="directions", count=2, output=main_result, seed=3
    )
    size = 5
    layer = model.get_submodule(block.view.path)
    columns = reduction._columns(reduction.units[:size].sort().values)
    change = -layer.weight.detach().flatten(1)
    change[:, columns] += reduction.build(size)[block.view.path].weight.detach().flatten(1)
    step = 1e-6

    def scalars(shift: float) -> torch.Tensor:
        moved = copy.deepcopy(model)
        with torch.no_grad():
            moved.get_submodule(block.view.path).weight += shift * change.reshape(layer.weight.shape)
            drawn = []
            for index, batch in enumerate(batches):
                generator = torch.Generator().manual_seed(3 * 1_000_003 + index)
                y = batch.call(moved)
                drawn += [probes.scalar("directions", y, None, generator) for _ in range(2)]
            return torch.stack(drawn)

    slope = (scalars(step) - scalars(-step)) / (2 * step)
    expected = 0.5 * slope.square().mean().item()
    assert tails[0][size * reduction.parts].item() == pytest.approx(expected, rel=1e-4)


def test_order_takes_what_explains_most_given_the_others():
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(200, 6, dtype=torch.float64, generator=generator)
    h[:, 3] = h[:, 0]  # A twin adds nothing once the other is kept.
    weight = torch.tensor([[5.0, 0.1, 3.0, 5.0, 2.0, 1.0]], dtype=torch.float64)
    covariance = h.mT @ h / 200 + 1e-9 * torch.eye(6)
    units = width.order(covariance, weight).tolist()
    assert units[0] in (0, 3)
    assert units[1:4] == [2, 4, 5]
    assert units[-1] in (0, 3)
    assert sorted(
        width.order(torch.eye(4, dtype=torch.float64).repeat(1, 1), torch.ones(2, 4).double(), 2).tolist()
    ) == [0, 1]


def test_many_units_are_ordered_in_steps():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(600, 600, dtype=torch.float64, generator=generator)
    units = width.order(root @ root.mT, torch.randn(4, 600, dtype=torch.float64, generator=generator))
    assert sorted(units.tolist()) == list(range(600))


class Refused(nn.Module):
    """Blocks whose units something else looks at."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.a, self.b, self.c = nn.Linear(6, 12), nn.Linear(12, 6), nn.Linear(12, 6)
        self.norm = nn.LayerNorm(12)
        self.outside = nn.Linear(6, 12)

    def forward(self, x: torch.Tensor):
        h = torch.relu(self.a(x))
        if self.how == "returned":
            return self.b(h), h
        if self.how == "read twice":
            return self.b(h) + self.c(h)
        if self.how == "normed":
            h = self.norm(h)
        if self.how == "softmax":
            h = h.softmax(-1)
        if self.how == "added to an argument":
            h = h + torch.cat([x, x], -1)
        if self.how == "mean":
            h = h * h.mean(-1, keepdim=True)
        if self.how == "flipped":
            h = h.flip(-1)
        if self.how == "written":
            h = h.reshape(-1, 12)
        return self.b(h)


@pytest.mark.parametrize(
    "how",
    ["returned", "read twice", "normed", "softmax", "added to an argument", "mean", "flipped", "written"],
)
def test_blocks_that_are_none(how):
    model = Refused(how).eval()
    assert find(model, Batch((torch.randn(4, 6),), samples=4)) == []


class Stubborn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 24), nn.Linear(24, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.a(x))
        assert h.shape[-1] == 24, "24 units"
        return self.b(h)


def test_a_model_that_insists_on_its_sizes_is_left_with_a_note():
    torch.manual_seed(0)
    _, stats = compress(
        Stubborn(), torch.randn(40, 6), forms=("width",), max_ratio=0.5, cost="bytes", progress=False
    )
    assert any(note.startswith("width of a, b: AssertionError") for note in stats.notes)
    assert {row.form for row in stats.layers} == {"dense"}


def transformer(name: str) -> tuple[nn.Module, list[dict[str, torch.Tensor]], dict[str, int]]:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if name == "bert":
        config = transformers.BertConfig(
            vocab_size=50, hidden_size=16, intermediate_size=72, num_hidden_layers=1, num_attention_heads=4
        )
        model, readers = transformers.BertModel(config), {f"encoder.layer.{i}.output.dense": 2 for i in (0,)}
        readers["pooler.dense"] = 0
    elif name == "llama":
        config = transformers.LlamaConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=72,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
        model, readers = (
            transformers.LlamaForCausalLM(config),
            {f"model.layers.{i}.mlp.down_proj": 3 for i in (0,)},
        )
    else:
        config = transformers.T5Config(
            vocab_size=50,
            d_model=16,
            d_kv=4,
            d_ff=72,
            num_layers=1,
            num_heads=4,
            feed_forward_proj="gated-gelu",
        )
        model = transformers.T5EncoderModel(config)
        readers = {f"encoder.block.{i}.layer.1.DenseReluDense.wo": 3 for i in (0,)}
    generator = torch.Generator().manual_seed(1)
    batches = []
    for _ in range(12):
        ids = torch.randint(1, 50, (2, 7), generator=generator)
        mask = (torch.arange(7) < torch.randint(3, 8, (2, 1), generator=generator)).long()
        batches.append({"input_ids": ids, "attention_mask": mask})
    return model.eval(), batches, {path: n for path, n in readers.items() if n}


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_blocks_of_transformers(name):
    model, batches, readers = transformer(name)
    read = structure.read(model, structure.example(model, Batch((), batches[0], 2)))
    assert not read.notes
    found = units.find(read, structure.among(model, None), {})
    assert {block.view.path: len(block.paths) for block in found} == readers
    compared = attention.find(read, structure.among(model, None))
    assert [(block.heads, block.features) for block in compared] == [(4, 4), (4, 4)]
    assert len({path for block in compared for path in block.paths}) == 4
    assert not any(getattr(block, "rotary", False) for block in compared)


def test_a_compressed_llama():
    model, batches, readers = transformer("llama")
    small, stats = compress(model, batches, forms=("width",), max_ratio=0.8, cost="bytes", progress=False)
    assert stats.reached
    assert not stats.notes
    for path in readers:
        row = next(r for r in stats.layers if r.path == path)
        layer = small.get_submodule(path)
        assert type(layer) is nn.Linear
        assert layer.in_features == layer.weight.shape[1] == row.rank < 72
        assert row.rank in options.rank_grid(72)
        assert row.bytes_after == layer.weight.numel() * 4
    assert sum(row.form == "width" for row in stats.layers) == sum(readers.values())


# Blocks in a row ---------------------------------------------------------------------------------------------------


def perceptron() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 40), nn.ReLU(), nn.Linear(40, 40, bias=False), nn.GELU(), nn.Linear(40, 32), nn.Tanh(),
        nn.Linear(32, 6),
    ).eval()  # fmt: skip


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * 4, 20), nn.ReLU(), nn.Linear(20, 5),
    ).eval()  # fmt: skip


class Gates(nn.Module):
    """A gated block whose result makes the units of the next."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.middle, self.last = (
            nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(16, 20), nn.Linear(20, 6),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(functional.relu(self.middle(functional.silu(self.gate(x)) * self.up(x))))


ROWS = {
    "perceptron": (perceptron, (8,), 3),
    "convolutions": (convolutions, (2, 4, 4), 3),
    "gates": (Gates, (6,), 2),
}


def rows_of(case: str) -> tuple[nn.Module, list[Batch], rows_of_blocks.Row]:
    build, shape, _ = ROWS[case]
    torch.manual_seed(1)
    model, batches = build().double(), [Batch((torch.randn(32, *shape).double(),), {}, 32) for _ in range(4)]
    found = []
    for block, reduction in reduced(model, batches):
        each = [options.Option("width", size, reduction.loss(size), 1) for size in reduction.sizes]
        found.append(
            (reduction, options.Candidate(block.paths, [options.Option("dense", None, 0.0, 9), *each]))
        )
    (row,) = rows_of_blocks.find(found)
    return model, batches, row


@pytest.mark.parametrize("case", ROWS)
def test_blocks_in_a_row_become_narrower_together(case: str) -> None:
    model, batches, row = rows_of(case)
    assert len(row.blocks) == ROWS[case][2]
    candidate = row.candidate()
    assert len(candidate.options) > 5 and set(candidate.paths) == set(row.paths)
    x = batches[0].args[0]
    before = sum(layer_weights(model.get_submodule(path)) for path in row.paths)
    sizes = [option.size for option in candidate.options[1:]]
    assert sizes == sorted(set(sizes))
    for option in candidate.options[1:]:
        modules = option.build()
        assert applied(model, modules)(x).shape == model(x).shape
        # Bytes are counted as if biases stayed.
        fewer = (
            before
            - sum(map(layer_weights, modules.values()))
            - sum(layer_weights(model.get_submodule(p)) for p in row.paths if p not in modules)
        )
        assert candidate.dense.bytes - option.bytes == 8 * fewer
    # With all units in another order nothing is lost.
    whole = row.build([block.block.units for block in row.blocks])
    torch.testing.assert_close(applied(model, whole)(x), model(x), rtol=1e-4, atol=1e-5)


def test_both_widths_of_a_perceptron_are_reduced_and_saved() -> None:
    model = perceptron()
    data = [torch.randn(16, 8) for _ in range(12)]
    small, stats = compress(model, data, max_ratio=0.3, forms=["width"], cost="bytes", progress=False)
    assert {row.form for row in stats.layers} == {"widths"} and stats.reached
    assert all(row.bytes_after < row.bytes_before for row in stats.layers)
    assert {type(module).__module__.partition(".")[0] for module in small.modules()} == {"torch"}


def test_a_row_under_int8_keeps_layers_that_are_wide_enough() -> None:
    pytest.importorskip("torchao")
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 16)
    ).eval()
    data = [torch.randn(16, 16) for _ in range(12)]
    small, stats = compress(
        model, data, min_accuracy=0.05, forms=["width", "int8"], cost="bytes", progress=False
    )
    assert small(data[0]).isfinite().all() and stats.compression_ratio < 1
