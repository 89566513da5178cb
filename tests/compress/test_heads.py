"""Fewer dimensions a head of attention."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import nn
from torch.nn import functional

from stonefx.compress import attention, compress, heads, layers, losses, statistics, structure
from stonefx.compress.data import Batch
from stonefx.compress.metric import main_result
from stonefx.compress.views import layer_weights


class Attention(nn.Module):
    """Attention as models write it, in several ways."""

    def __init__(self, how: str = "", groups: int = 4, bias: bool = True) -> None:
        super().__init__()
        self.how, self.heads, self.groups, self.features = how, 4, groups, 6
        self.q = nn.Linear(10, 4 * 6, bias=bias)
        self.k = nn.Linear(10, groups * 6, bias=bias)
        self.v = nn.Linear(10, groups * 6, bias=bias)
        self.o = nn.Linear(4 * 6, 10, bias=bias)

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:-1], -1, self.features).transpose(1, 2)

    def repeated(self, x: torch.Tensor) -> torch.Tensor:
        if self.groups == self.heads:
            return x
        b, g, t, d = x.shape
        return x[:, :, None].expand(b, g, self.heads // g, t, d).reshape(b, self.heads, t, d)

    def rotated(self, x: torch.Tensor) -> torch.Tensor:
        angle = torch.arange(x.shape[2])[:, None] * torch.tensor([1.0, 0.3, 0.1]).repeat(2)
        angle = angle.to(x.dtype)
        half = x.shape[-1] // 2
        turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
        return x * angle.cos() + turned * angle.sin()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        if "rotary" in self.how:
            q, k = self.rotated(q), self.rotated(k)
        if "normed" in self.how:
            q, k, v = (functional.layer_norm(t, (6,)) for t in (q, k, v))
        if "sum" in self.how:
            x = x + (q.sum((1, 3)) + v.sum((1, 3)) + k.sum((1, 3)))[..., None]
        k, v = self.repeated(k), self.repeated(v)
        if "eager" in self.how:
            h = (q @ k.transpose(2, 3) / 6**0.5).softmax(-1) @ v
        else:
            h = functional.scaled_dot_product_attention(q, k, v)
        h = h.transpose(1, 2).contiguous().reshape(*x.shape[:-1], -1)
        if "gated" in self.how:
            h = torch.tanh(h)
        return x + self.o(h)


def setting(model: nn.Module) -> tuple[nn.Module, list[Batch]]:
    torch.manual_seed(0)
    for p in model.parameters():
        nn.init.normal_(p, std=0.4)
    x = torch.randn(24, 7, 10, dtype=torch.float64)
    return model.double().eval(), [Batch((part,), samples=4) for part in x.split(4)]


def reduced(model: nn.Module, batches: list[Batch]) -> list:
    read = structure.read(model, structure.example(model, batches[0]))
    found = attention.find(read, structure.among(model, None))
    measured = statistics.measure(
        model, [block.view for block in found], batches, output=main_result, kind="directions"
    )
    return [(block, block.reduction(measured[i])) for i, block in enumerate(found)]


def applied(model: nn.Module, changed) -> nn.Module:
    small = copy.deepcopy(model)
    for path, module in changed.items():
        layers.replace(small, path, copy.deepcopy(module), {})
    return small


WAYS = [("", 4, True), ("eager", 2, False), ("", 1, True), ("rotary", 4, True), ("rotary eager", 2, False)]


@functools.cache
def prepared(how: str, groups: int, bias: bool) -> tuple[nn.Module, list[Batch], list]:
    model, batches = setting(Attention(how, groups, bias))
    return model, batches, reduced(model, batches)


@pytest.mark.parametrize(("how", "groups", "bias"), WAYS)
def test_heads_are_found_and_exact(how, groups, bias):
    model, batches, found = prepared(how, groups, bias)
    assert sorted(block.paths for block, _ in found) == [("q", "k"), ("v", "o")]
    for block, reduction in found:
        assert (block.heads, block.groups, block.features) == (4, groups, 6)
        if block.paths == ("q", "k"):
            assert block.rotary == ("rotary" in how)
        whole = applied(model, reduction.build(6))
        for batch in batches:
            torch.testing.assert_close(batch.call(whole), batch.call(model), rtol=1e-7, atol=1e-8)
        assert set(reduction.sizes) == ({2, 4} if getattr(block, "rotary", False) else {1, 2, 3, 4, 5})
        for size in reduction.sizes:
            changed = reduction.build(size)
            places = sum(
                4 * len(m.places) for c in changed.values() for m in c if isinstance(m, heads.Scatter)
            )
            stored = sum(layer_weights(module) for module in changed.values())
            assert reduction.numbers(size) == stored + -(-places // 8)


@pytest.mark.parametrize(("how", "groups", "bias"), WAYS)
def test_sampled_losses_are_those_of_what_is_built(how, groups, bias):
    """The change that the two layers make, told as one of the layer whose statistics were taken."""
    model, batches, found = prepared(how, groups, bias)
    for block, reduction in found:
        size = 4
        built = reduction.build(size)
        repeat = 4 // groups
        if block.paths == ("v", "o"):
            project, narrow = built["o"]
            maps = project.weight.repeat_interleave(repeat, 0)
            first, expand = built["v"]
            # What coordinates the values have, against the values themselves, by the dense projection's rows.
            coordinates = first.weight.reshape(groups, size, -1)
            dense = model.v.weight.reshape(groups, 6, -1)
            oblique = torch.linalg.lstsq(dense.mT, coordinates.mT).solution.mT
            oblique = (expand.weight @ oblique).repeat_interleave(repeat, 0)
            new = narrow.weight.reshape(10, 4, size).transpose(0, 1) @ maps @ oblique
            change = model.o.weight - new.transpose(0, 1).flatten(1)
        else:
            change = block.view.matrix()[0].clone()
            queries, keys = built["q"][0], built["k"][0]
            for h in range(4):
                g = h // repeat
                key_map = torch.linalg.lstsq(
                    model.k.weight.reshape(groups, 6, -1)[g].mT, keys.weight.reshape(groups, size, -1)[g].mT
                ).solution
                rows = slice(h * size, (h + 1) * size)
                change[6 * h : 6 * h + 6, :-1] -= key_map @ queries.weight[rows]
                if bias:
                    change[6 * h : 6 * h + 6, -1] -= key_map @ queries.bias[rows]
        options = {"kind": "directions", "count": 2, "output": main_result, "seed": 3}
        tails, whole = losses.sampled(
            model, {0: reduction.directions}, {1: (block.view, change[None])}, batches, **options
        )
        assert tails[0][size * reduction.parts].item() == pytest.approx(whole[1], rel=1e-5)
        assert whole[1] > 0


def test_values_that_lie_in_a_subspace_cost_nothing():
    model, batches = setting(Attention("eager", 2))
    with torch.no_grad():
        rows = model.v.weight.view(2, 6, 10)
        rows[:, 3:] = torch.randn(2, 3, 3, dtype=torch.float64) @ rows[:, :3]
        bias = model.v.bias.view(2, 6)
        bias[:] = (torch.linalg.lstsq(rows.mT, torch.zeros(2, 10, 1, dtype=torch.float64)).solution)[..., 0]
    reduction = next(r for b, r in reduced(model, batches) if b.paths == ("v", "o"))
    small = applied(model, reduction.build(3))
    for batch in batches:
        torch.testing.assert_close(batch.call(small), batch.call(model), rtol=1e-5, atol=1e-5)
    assert reduction.loss(3) < 1e-4 * reduction.loss(2)


@pytest.mark.parametrize(
    ("how", "left"),
    [("normed", []), ("sum", []), ("gated", [("q", "k")]), ("normed gated", [])],
)
def test_heads_that_something_else_reads(how, left):
    model, batches = setting(Attention(how))
    read = structure.read(model, batches[0])
    assert [block.paths for block in attention.find(read, structure.among(model, None))] == left


def test_layers_that_were_not_chosen():
    model, batches = setting(Attention())
    read = structure.read(model, batches[0])
    assert [block.paths for block in attention.find(read, {"q", "v", "o"})] == [("v", "o")]


def test_llama_with_grouped_queries_and_a_cache():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
    )
    model = transformers.LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(1)
    batches = [{"input_ids": torch.randint(1, 50, (2, 7), generator=generator)} for _ in range(12)]
    small, stats = compress(
        model, batches, layers="*self_attn.*", forms=("heads",), max_ratio=0.4, cost="bytes", progress=False
    )
    assert stats.reached
    assert not any("heads" in note for note in stats.notes)
    rows = {row.path.rpartition(".")[2]: row for row in stats.layers if row.form == "heads"}
    assert set(rows) == {"q_proj", "k_proj", "v_proj", "o_proj"}
    for row in rows.values():
        state = small.get_submodule(row.path).state_dict()
        assert row.bytes_after == sum(t.numel() * t.element_size() for t in state.values())
    ids = batches[0]["input_ids"]
    whole = small(input_ids=ids).logits
    start = small(input_ids=ids[:, :4], use_cache=True)
    rest = small(input_ids=ids[:, 4:], past_key_values=start.past_key_values, use_cache=True)
    torch.testing.assert_close(rest.logits, whole[:, 4:], rtol=1e-4, atol=1e-5)
