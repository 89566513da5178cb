"""Mixtures of experts: layers that see few rows of the data, or none, and matrices that are one tensor."""

import re

import pytest
import torch
from torch import nn

import stonefx
from stonefx.compress.spectrum import decompose
from stonefx.compress.statistics import Statistics

QUICK = {"cost": "bytes", "forms": ["pair", "pifa", "width"], "progress": False}


def statistics_of(rows):
    return Statistics((rows.mT @ rows / len(rows))[None], None, len(rows))


@pytest.mark.parametrize("count", [1, 2, 8, 31])
def test_directions_that_no_row_showed_cost_something(count):
    generator = torch.Generator().manual_seed(count)
    rows = torch.randn(count, 32, generator=generator, dtype=torch.float64)
    known = statistics_of(rows)
    shrunk = known.shrunk()
    assert torch.linalg.matrix_rank(known.inputs[0]) == count
    assert torch.linalg.eigvalsh(shrunk.inputs[0])[0] > 0
    torch.testing.assert_close(shrunk.inputs[0].trace(), known.inputs[0].trace())
    # All directions count alike.
    matrix = torch.linalg.qr(torch.randn(1, 32, 32, generator=generator, dtype=torch.float64)).Q
    # Without it the rank of the rows would be all that the layer needs.
    assert decompose(matrix, known).tails[count] < 1e-12 * decompose(matrix, known).tails[0]
    tails = decompose(matrix, shrunk).tails
    assert bool((tails[:-1] > 1e-3 * tails[0]).all())


def test_shrinking_is_nearer_to_the_truth_and_leaves_many_rows_alone():
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(24, 24, generator=generator, dtype=torch.float64)).Q
    truth = basis * torch.linspace(0.2, 2.0, 24, dtype=torch.float64) @ basis.mT
    root = torch.linalg.cholesky(truth)
    errors, before = 0.0, 0.0
    lost, lost_before = 0.0, 0.0
    matrix = torch.randn(1, 24, 24, generator=generator, dtype=torch.float64)

    def loss(known):
        a, b = decompose(matrix, known).factors(8)
        return torch.trace((matrix - a @ b)[0] @ truth @ (matrix - a @ b)[0].mT).item()

    for _ in range(20):
        known = statistics_of(torch.randn(6, 24, generator=generator, dtype=torch.float64) @ root.mT)
        errors += (known.shrunk().inputs[0] - truth).square().sum().item()
        before += (known.inputs[0] - truth).square().sum().item()
        lost, lost_before = lost + loss(known.shrunk()), lost_before + loss(known)
    assert errors < 0.5 * before and lost < lost_before
    many = statistics_of(torch.randn(24, 24, generator=generator, dtype=torch.float64))
    assert many.shrunk() is many


def expert():
    return nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 32))


class Mixture(nn.Module):
    """Rows go to the expert that their first number names; one is called with no rows, and one not at all."""

    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold
        self.experts = nn.ModuleList(expert() for _ in range(4))

    def forward(self, x):
        rows = x.flatten(0, 1)
        which = (rows[:, 0] > self.threshold).long()
        y = torch.zeros_like(rows)
        for number in (0, 1, 2):
            chosen = (which == number).nonzero()[:, 0]
            y = y.index_add(0, chosen, self.experts[number](rows[chosen]))
        return y.view_as(x)


def compressed_mixture(threshold, **asked):
    torch.manual_seed(0)
    model = Mixture(threshold).eval()
    data = [torch.randn(8, 8, 32) for _ in range(12)]
    small, stats = stonefx.compress(model, data, **asked, **QUICK)
    assert small(data[0]).isfinite().all()
    return {row.path: row for row in stats.layers}, stats


def test_experts_that_see_few_rows_or_none():
    rows, stats = compressed_mixture(2.2, max_ratio=0.7)
    assert any(row.form != "dense" for path, row in rows.items() if path.startswith("experts.0"))
    for number, reason in (
        (1, r"\d of the rows .* reached it"),
        (2, "no call of it was seen"),
        (3, "no call of"),
    ):
        for layer in (0, 2):
            row = rows[f"experts.{number}.{layer}"]
            assert row.form == "dense" and re.search(reason, row.reason), row
    (note,) = [note for note in stats.notes if "fewer rows" in note]
    assert "experts.1.0 (" in note and "experts.0" not in note


def test_an_expert_of_fewer_rows_than_inputs_is_made_smaller_with_a_note():
    rows, stats = compressed_mixture(1.8, max_ratio=0.3)
    assert any(row.form != "dense" for path, row in rows.items() if path.startswith("experts.1"))
    assert any("fewer rows" in note and "experts.1.0 (" in note for note in stats.notes)


class Batched(nn.Module):
    """All experts in one tensor, as grouped products want them, in three layouts."""

    def __init__(self):
        super().__init__()
        self.stacked = nn.Parameter(0.1 * torch.randn(4, 32, 32))
        self.listed = nn.ParameterList([nn.Parameter(0.1 * torch.randn(32, 32)) for _ in range(2)])
        self.flat = nn.Parameter(0.1 * torch.randn(4 * 32, 32))
        self.head = nn.Linear(32, 32)

    def forward(self, x):
        y = torch.einsum("...i,eij->...j", x, self.stacked) + x @ self.listed[0] + x @ self.listed[1]
        return self.head(y + (x @ self.flat.T).unflatten(-1, (4, 32)).sum(-2))


def test_matrices_in_one_tensor_are_reported():
    torch.manual_seed(0)
    data = [torch.randn(8, 32) for _ in range(12)]
    _, stats = stonefx.compress(Batched().eval(), data, max_ratio=0.7, **QUICK)
    rows = {row.path: row for row in stats.layers}
    assert rows.keys() == {"head", "stacked", "listed.0", "listed.1", "flat"}
    assert "a batch of 4 matrices that its own forward multiplies" in rows["stacked"].reason
    assert all("not a linear layer that can be replaced" in rows[p].reason for p in rows if p != "head")
    assert rows["stacked"].bytes_before == 4 * 4 * 32 * 32


@pytest.mark.slow
def test_a_mixture_of_transformers():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=48, num_local_experts=4, num_experts_per_tok=1,
    )  # fmt: skip
    model = transformers.MixtralForCausalLM(config).eval()
    data = [{"input_ids": torch.randint(0, 50, (4, 6))} for _ in range(8)]
    small, stats = stonefx.compress(model, data, max_ratio=0.7, **QUICK)
    held = {name.rpartition(".")[0] for name, p in model.named_parameters() if p.dim() > 1}
    told = {row.path for row in stats.layers}
    assert held <= told | {path.rpartition(".")[0] for path in told}
    assert stats.reached and small(**data[0]).logits.isfinite().all()
