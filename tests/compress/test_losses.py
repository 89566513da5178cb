"""Sampled losses against the first-order change of each sample's probe, by explicit autograd."""

from __future__ import annotations

import pytest
import torch
from test_statistics import Tower, batches, probing
from torch import Tensor, nn

from stonefx.compress import choose, data, layers, losses, statistics
from stonefx.compress.metric import main_result
from stonefx.compress.options import Candidate, Option
from stonefx.compress.spectrum import decompose


def first_order(model: nn.Module, path: str, change: Tensor, given: list[data.Batch], seed: int) -> float:
    """`1/2 mean (d probe / d weight . change)^2` over samples and probes, each sample called by itself."""
    layer = model.get_submodule(path)
    total, count = 0.0, 0
    for index, batch in enumerate(given):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        width = batch.call(model).shape[-1]
        for _ in range(2):
            v = torch.randn(batch.samples, width, generator=generator, dtype=torch.float32).double()
            for sample in range(batch.samples):
                y = batch.take([sample]).call(model)
                scalar = (v[sample] * nn.functional.normalize(y, dim=-1)).sum()
                (gradient,) = torch.autograd.grad(scalar, layer.weight)
                total += 0.5 * (gradient * change).sum().item() ** 2
                count += 1
    return total / count


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("most_rank", [None, 2])
def test_every_rank_is_half_the_mean_squared_first_order_change(masked: bool, most_rank: int | None) -> None:
    torch.manual_seed(0)
    model = Tower().double()
    given = batches(masked)
    views = [v for group in layers.find(model).views.values() for v in group]
    measured = statistics.measure(model, views, given, **probing())
    spectra = {n: decompose(views[n].matrix(), measured[n], most_rank) for n in measured}
    directions = {
        n: losses.Directions(views[n], *s.components(), s.rest(views[n].matrix())) for n, s in spectra.items()
    }
    changes = {"zeroed": (views[1], views[1].matrix())}
    tails, whole = losses.sampled(model, directions, changes, given, **probing(9))
    for number, view in enumerate(views):
        assert len(tails[number]) == (most_rank or view.full_rank) + 1
        for r in range(len(tails[number])):
            a, b = spectra[number].factors(r)
            expected = first_order(model, view.path, view.matrix()[0] - a[0] @ b[0], given, 9)
            assert tails[number][r].item() == pytest.approx(expected, rel=1e-6, abs=1e-12), (view.path, r)
    assert whole["zeroed"] == pytest.approx(first_order(model, views[1].path, views[1].matrix()[0], given, 9))


def test_layers_without_a_gradient_have_no_loss() -> None:
    model = nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 2)).double()
    unused = nn.Linear(6, 3).double()
    view = next(iter(layers.find(nn.Sequential(unused)).views.values()))[0]
    spectrum = decompose(view.matrix(), None)
    tails, whole = losses.sampled(
        model,
        {0: losses.Directions(view, *spectrum.components())},
        {1: (view, view.matrix())},
        batches(False),
        **probing(),
    )
    assert tails[0].isnan().all() and len(tails[0]) == 4
    assert whole[1] != whole[1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_of_half_precision_models(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    half = Tower().to(dtype)
    exact = Tower().double()
    exact.load_state_dict({k: v.double() for k, v in half.state_dict().items()})
    found = []
    for model, given in ((half, batches(False, dtype=dtype)), (exact, batches(False, dtype=dtype))):
        given = [data.Batch((b.args[0].to(next(model.parameters()).dtype),), {}, 4) for b in given]
        views = [v for group in layers.find(model).views.values() for v in group]
        spectra = [decompose(v.matrix(), None) for v in views]
        directions = {n: losses.Directions(v, *spectra[n].components()) for n, v in enumerate(views)}
        found.append(losses.sampled(model, directions, {}, given, **probing())[0])
    for number in found[1]:
        torch.testing.assert_close(found[0][number], found[1][number], rtol=0.15, atol=0.02)


def _brute(singles: list[Candidate], budget: float) -> float:
    import itertools

    return min(
        sum(o.loss for o in options)
        for options in itertools.product(*(c.options for c in singles))
        if sum(o.bytes for o in options) <= budget
    )


@pytest.mark.parametrize("seed", range(8))
def test_one_table_serves_all_budgets(seed: int) -> None:
    """Plans from a table that is kept equal those of a new one, hold the budget, and are near the best there is."""
    generator = torch.Generator().manual_seed(seed)
    singles = []
    for i in range(5):
        sizes = range(10, 10 * (3 + i), 10)
        values = torch.rand(len(sizes), generator=generator).sort(descending=True).values.tolist()
        options = [Option("pair", s, v, s) for s, v in zip(sizes, values, strict=True)]
        singles.append(Candidate((f"layer{i}",), [Option("dense", None, 0.0, 100), *options]))
    table = choose.Table(singles, [], lambda option: option.bytes)
    for budget in (500, 400, 300, 200, 100, 60, 400):
        found = table.plan(budget)
        fresh = choose.plan(singles, [], budget, lambda option: option.bytes)
        assert (found.chosen, found.cost, found.loss) == (fresh.chosen, fresh.cost, fresh.loss)
        assert found.cost <= budget
        # The hull misses by at most the dearest step of one layer.
        assert _brute(singles, budget) - 1e-12 <= found.loss <= _brute(singles, budget) + 1.0
    assert table.plan(10).cost == 50
    assert choose.Table([], [], lambda option: option.bytes).plan(1.0).chosen == {}


def test_main_result_is_what_is_probed() -> None:
    assert main_result({"logits": torch.ones(2), "other": torch.zeros(3)}).shape == (2,)
