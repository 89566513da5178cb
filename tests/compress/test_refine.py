"""Training of what was replaced."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from stonefx.compress import compress, refine
from stonefx.compress.data import Batch
from stonefx.compress.metric import main_result


class Residual(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(size, 3 * size), nn.Linear(3 * size, size)

    def forward(self, x: torch.Tensor, *, scale: float = 1.0) -> tuple[torch.Tensor, None]:
        return x + scale * self.b(torch.tanh(self.a(x))), None


class Stack(nn.Module):
    def __init__(self, depth: int = 3, size: int = 8) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(size, size) for _ in range(depth + 1))
        self.blocks = nn.ModuleList(Residual(size) for _ in range(depth))
        self.last = nn.Linear(size, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x, _ = block(x, scale=0.5)
        return self.last(x) + self.heads[1](x)[..., :4]


def damaged(model: nn.Module, paths: list[str]) -> tuple[nn.Module, dict[str, nn.Module]]:
    small = copy.deepcopy(model)
    torch.manual_seed(5)
    with torch.no_grad():
        for path in paths:
            weight = small.get_submodule(path).weight
            weight += 2e-3 * torch.randn_like(weight)
    return small, {path: small.get_submodule(path) for path in paths}


def setting(paths: list[str]) -> tuple[nn.Module, nn.Module, dict[str, nn.Module], list[Batch]]:
    torch.manual_seed(0)
    model = Stack().eval()
    small, replaced = damaged(model, paths)
    return model, small, replaced, [Batch((torch.randn(6, 5, 8),), samples=6) for _ in range(4)]


def distance(model: nn.Module, small: nn.Module, batches: list[Batch]) -> float:
    with torch.no_grad():
        return max((b.call(model) - b.call(small)).square().mean().item() for b in batches)


def test_blocks_are_the_longest_list_called_in_order():
    # `heads` has more entries, of which one alone is called.
    assert refine.blocks(Stack(), Batch((torch.randn(2, 5, 8),))) == ["blocks.0", "blocks.1", "blocks.2"]
    assert refine.blocks(nn.Linear(2, 2), Batch((torch.randn(2, 2),))) == []


def test_both_stages_gain_and_touch_nothing_else():
    paths = ["blocks.0.a", "blocks.2.b"]
    model, small, replaced, batches = setting(paths)
    before = {name: p.clone() for name, p in small.named_parameters()}
    reference = copy.deepcopy(model.state_dict())
    small.last.weight.requires_grad_(False)
    start = distance(model, small, batches)
    done = refine.refine(
        model, small, replaced, batches, lambda: -distance(model, small, batches), output=main_result
    )
    assert [note.split(":")[0] for note in done.notes] == [
        "refinement block by block",
        "refinement end to end",
    ]
    assert all(note.endswith("kept") for note in done.notes)
    assert distance(model, small, batches) < start
    moved = {name for name, p in small.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {f"{path}.{name}" for path in paths for name in ("weight", "bias")}
    assert all(torch.equal(value, reference[name]) for name, value in model.state_dict().items())
    assert [name for name, p in small.named_parameters() if not p.requires_grad] == ["last.weight"]
    assert all(p.grad is None for p in (*small.parameters(), *model.parameters()))


def test_the_same_seed_gives_the_same_weights():
    results = []
    for _ in range(2):
        model, small, replaced, batches = setting(["blocks.1.a"])
        scores = iter(range(9)).__next__
        refine.refine(model, small, replaced, batches, scores, output=main_result, seed=4)
        results.append(small.blocks[1].a.weight.detach())
    assert torch.equal(*results)


@pytest.mark.parametrize("scores", [[1.0, 1.0, 1.0], [1.0, 0.5, 0.9], [1.0, float("nan"), float("nan")]])
def test_what_does_not_gain_is_undone(scores):
    model, small, replaced, batches = setting(["blocks.1.a"])
    before = copy.deepcopy(small.state_dict())
    left = iter(scores)
    done = refine.refine(model, small, replaced, batches, lambda: next(left), output=main_result)
    assert all(note.endswith("undone") for note in done.notes)
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


def test_a_stage_that_gains_is_kept_when_the_next_does_not():
    model, small, replaced, batches = setting(["blocks.1.a"])
    before = small.blocks[1].a.weight.clone()
    left = iter([1.0, 2.0, 1.5])
    done = refine.refine(model, small, replaced, batches, lambda: next(left), output=main_result)
    assert [note.rpartition(" ")[2] for note in done.notes] == ["kept", "undone"]
    assert not torch.equal(small.blocks[1].a.weight, before)


def test_the_error_is_relative_and_masked():
    target = torch.tensor([[[1.0, 1.0], [1000.0, 1000.0], [0.0, 0.0]]])
    y = target * torch.tensor([1.1, 1.2, 1.0])[:, None]
    torch.testing.assert_close(refine.error(y, target, None), torch.tensor((0.01 + 0.04) / 3))
    mask = torch.tensor([[True, False, False]])
    torch.testing.assert_close(refine.error(y, target, mask), torch.tensor(0.01))
    image = torch.ones(1, 3, 2, 2)
    torch.testing.assert_close(refine.error(image * 2, image, None), torch.tensor(1.0))


def test_nothing_to_train_is_a_note():
    model, small, _, batches = setting([])
    done = refine.refine(model, small, {}, batches, lambda: 1.0, output=main_result)
    assert "nothing was refined" in done.notes[0]


def test_compress_with_refinement_is_no_worse_on_the_selection_split():
    torch.manual_seed(0)
    model = Stack(depth=2)
    data = [torch.randn(6, 5, 8) for _ in range(12)]
    options = {"max_ratio": 0.6, "cost": "bytes", "progress": False, "forms": ("pair", "pifa", "width")}
    plain, _ = compress(model, data, **options)
    small, stats = compress(model, data, refine=True, **options)
    notes = [note for note in stats.notes if note.startswith("refinement")]
    assert len(notes) == 2
    kept = any(note.endswith("kept") for note in notes)
    same = all(torch.equal(p, q) for p, q in zip(plain.parameters(), small.parameters(), strict=True))
    assert same != kept
    assert [p.shape for p in plain.parameters()] == [p.shape for p in small.parameters()]


def test_refinement_without_data_is_a_note():
    _, stats = compress(nn.Sequential(nn.Linear(9, 9)), energy=0.5, refine=True, progress=False)
    assert any("refine=True needs data" in note for note in stats.notes)


def test_layers_of_one_block_of_units_in_two_entries():
    """A hidden size that changed lies between the entries, and results of an entry alone are not the original's."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 9),
        nn.Linear(9, 64),
        nn.ReLU(),
        nn.Linear(64, 8),
        nn.Sequential(nn.Linear(8, 8), nn.Tanh()),
    )
    options = {"max_ratio": 0.4, "cost": "bytes", "progress": False, "refine": True}
    small, stats = compress(model, torch.randn(80, 8), forms=("width",), **options)
    assert {row.form for row in stats.layers} >= {"merged", "width"}
    stages = [note.split(":")[0] for note in stats.notes if note.startswith("refinement")]
    assert stages == ["refinement end to end"]
    assert small(torch.randn(3, 8)).shape == (3, 8)
