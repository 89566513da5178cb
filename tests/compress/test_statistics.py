"""Statistics against explicit gradients of each sample in float64: padding, sharing, repeated calls, half precision."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from stonefx.compress import data, layers, statistics
from stonefx.compress.metric import main_result
from stonefx.compress.statistics import picked, shares


class Tower(nn.Module):
    """Two layers that share their input, one called twice, one given flattened tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(6, 5), nn.Linear(6, 5)
        self.twice = nn.Linear(5, 5)
        self.flat = nn.Linear(5, 4)

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        y = torch.tanh(self.query(x)) * self.key(x)
        y = self.twice(torch.tanh(self.twice(y)))
        y = self.flat(y.flatten(0, 1)).unflatten(0, x.shape[:2])
        if attention_mask is None:
            return y.mean(1)
        weights = attention_mask.to(y)[..., None]
        return (y * weights).sum(1) / weights.sum(1)


def batches(masked: bool, count: int = 3, dtype: torch.dtype = torch.float64) -> list[data.Batch]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        x = torch.randn(4, 7, 6, generator=generator, dtype=torch.float64).to(dtype)
        if not masked:
            found.append(data.Batch((x,), {}, 4))
            continue
        mask = torch.arange(7) < torch.tensor([7, 3, 1, 5])[:, None]
        # Padding that would show if it were counted.
        x = torch.where(mask[..., None], x, torch.full_like(x, 50))
        found.append(data.Batch((x,), {"attention_mask": mask.long()}, 4, mask))
    return found


def probing(seed: int = 5, **more):
    return {"output": main_result, "seed": seed, "kind": "directions", "count": 2, **more}


def recorded(model: nn.Module, given: list[data.Batch], seed: int):
    """Inputs and gradients `[samples, positions, features]` of each call, by layer, batch and probe; by autograd."""
    found: dict[str, list] = {name: [] for name, _ in model.named_children()}
    for index, batch in enumerate(given):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        calls: list[tuple[str, Tensor, Tensor]] = []
        handles = [
            child.register_forward_hook(lambda m, a, y, name=name, calls=calls: calls.append((name, a[0], y)))
            for name, child in model.named_children()
        ]
        y = batch.call(model)
        for handle in handles:
            handle.remove()
        for _ in range(2):
            v = torch.randn(y.shape, generator=generator, dtype=torch.float32).to(y)
            scalar = (v * nn.functional.normalize(y, dim=-1)).sum()
            gradients = torch.autograd.grad(scalar, [call[2] for call in calls], retain_graph=True)
            samples = batch.samples
            rows = {}
            for (name, x, _), g in zip(calls, gradients, strict=True):
                x, g = (t.detach().reshape(samples, -1, t.shape[-1]) for t in (x, g))
                if batch.mask is not None:
                    x = x * batch.mask[..., None]
                rows.setdefault(name, []).append((x, g))
            for name, value in rows.items():
                found[name].append((value, batch))
    return found


def gram(x: Tensor) -> Tensor:
    flat = x.reshape(-1, x.shape[-1])
    return flat.T @ flat


@pytest.mark.parametrize("masked", [False, True])
def test_covariances_and_gradients_against_autograd(masked: bool) -> None:
    torch.manual_seed(0)
    model = Tower().double()
    given = batches(masked)
    views = [v for group in layers.find(model).views.values() for v in group]
    measured = statistics.measure(model, views, given, **probing())
    expected = recorded(model, given, 5)
    assert sorted(measured) == [0, 1, 2, 3]
    for number, view in enumerate(views):
        calls = expected[view.path]
        # Two probes saw the same inputs, which count once.
        inputs = [x for value, _ in calls[::2] for x, _ in value]
        positions = sum(
            int(batch.mask.sum()) if batch.mask is not None else 28
            for value, batch in calls[::2]
            for _ in value
        )
        torch.testing.assert_close(measured[number].inputs[0], sum(map(gram, inputs)) / positions)
        gradients = [g for value, _ in calls for _, g in value]
        samples = 2 * sum(batch.samples for _, batch in calls[::2])
        torch.testing.assert_close(measured[number].gradients[0], sum(map(gram, gradients)) / samples)
        assert measured[number].positions == positions


def test_layers_given_the_same_tensor_share_one_covariance() -> None:
    model = Tower().double()
    views = [v for group in layers.find(model).views.values() for v in group]
    measured = statistics.measure(model, views, batches(False), **probing())
    sums, keys = statistics.sums_of(
        model, views, batches(False), gradients=True, description=None, metric=None, **probing()
    )
    paths = [v.path for v in views]
    assert keys[paths.index("query")] == keys[paths.index("key")]
    assert len(sums.inputs) == 3
    assert torch.equal(measured[paths.index("query")].inputs, measured[paths.index("key")].inputs)


class Sometimes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.never = nn.Linear(6, 3), nn.Linear(6, 3), nn.Linear(6, 3)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.a(x) + self.b(x if self.calls % 2 else 2 * x)


def test_sharing_is_given_up_where_it_ends_and_layers_never_called_have_none() -> None:
    model = Sometimes().double()
    views = [v for group in layers.find(model).views.values() for v in group]
    given = batches(False, 2)
    measured = statistics.measure(model, views, given, gradients=False, **probing())
    x, y = (gram(b.args[0]) for b in given)
    torch.testing.assert_close(measured[0].inputs[0], (x + y) / 56)
    assert sorted(measured) == [0, 1]
    # Whichever call came second had twice its input.
    twice = [(x + 4 * y) / 56, (4 * x + y) / 56]
    assert any(torch.allclose(measured[1].inputs[0], value) for value in twice)
    assert measured[0].gradients is None


def test_an_input_changed_in_place_is_not_shared() -> None:
    class Changes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 3), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = x.clone()
            y = self.a(x)
            return y + self.b(x.mul_(2))

    model = Changes().double()
    views = [v for group in layers.find(model).views.values() for v in group]
    measured = statistics.measure(model, views, batches(False), gradients=False, **probing())
    torch.testing.assert_close(measured[1].inputs, 4 * measured[0].inputs)


def test_each_batch_has_its_own_random_numbers() -> None:
    """Batches read in two halves, by two readings, add up to all of them read by one."""
    model = Tower().double()
    views = [v for group in layers.find(model).views.values() for v in group]
    given = batches(False, 4)
    seen: list[list[Tensor]] = []
    for start in (0, 2):
        reading = statistics.Pass(model, kind="directions", output=main_result, metric=None, seed=3)
        rows: list[Tensor] = []
        with statistics.hooked(views[-1:], None, lambda number, view, g, rows=rows: rows.append(g.clone())):
            reading.run(given, gradients=True, count=2, description=None, start=start)
        seen.append(rows)
    assert len(seen[0]) == 8 and len(seen[1]) == 4
    assert all(torch.equal(a, b) for a, b in zip(seen[0][4:], seen[1], strict=True))


@pytest.mark.parametrize("features", [1, 130, 300, 512, 515])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e15])
def test_blocks_of_covariances(
    features: int, groups: int, size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "ROWS", 16)
    rows = size * torch.randn(40, groups, features, generator=torch.Generator().manual_seed(features))
    expected = torch.einsum("pgi,pgj->gij", rows.double(), rows.double())
    for exact, tolerance in ((True, 1e-13), (False, 1e-5)):
        sums: dict[int, Tensor] = {}
        for part in rows.split(25):
            statistics.add_gram(sums, 0, part, exact=exact, scale=2.0)
        found = 4 * statistics.symmetric(sums[0])
        assert found.dtype == torch.float64
        assert torch.equal(found, found.mT)
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize(
    ("dtype", "size"), list(itertools.product([torch.float16, torch.bfloat16], [1.0, 3e4]))
)
def test_half_precision_neither_overflows_nor_vanishes(dtype: torch.dtype, size: float) -> None:
    """Squares of 3e4 are beyond float16, and gradients of a direction at such a length below it."""

    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 6, bias=False), nn.Linear(6, 4, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.nn.functional.softsign(self.first(x)) * size).mean(1)

    torch.manual_seed(0)
    model = Large()
    with torch.no_grad():
        model.second.weight.mul_(0.5)
    half = Large().to(dtype)
    half.load_state_dict(model.state_dict())
    exact = Large().double()
    exact.load_state_dict({k: v.double() for k, v in half.state_dict().items()})
    given = batches(False, dtype=dtype)
    same = [data.Batch((b.args[0].double(),), {}, 4) for b in given]
    found, expected = (
        statistics.measure(m, [v for g in layers.find(m).views.values() for v in g], b, **probing())
        for m, b in ((half, given), (exact, same))
    )
    for number in expected:
        for name in ("inputs", "gradients"):
            got, want = getattr(found[number], name), getattr(expected[number], name)
            assert got.dtype == torch.float64
            assert got.isfinite().all()
            assert (got - want).norm() <= 0.1 * want.norm(), (number, name)


def documents(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Words by Zipf's law, each of which comes in runs as it does in documents, and the document of each position."""
    words = torch.multinomial(1 / torch.arange(1.0, 2001), count * 20, True, generator=generator)
    runs = torch.randint(1, 5, (len(words),), generator=generator)
    return words.repeat_interleave(runs), torch.arange(count).repeat_interleave(20).repeat_interleave(runs)


@pytest.mark.parametrize("count", [10, 40, 200, 1000])
def test_the_share_of_indices_never_seen_is_that_of_new_samples(count):
    generator = torch.Generator().manual_seed(count)
    indices, samples = documents(count, generator)
    found, counts = shares(*picked(indices, samples, 2000))[0], torch.bincount(indices, minlength=2000)
    assert found.sum().item() == pytest.approx(1)
    new, _ = documents(2000, generator)
    expected = (counts[new] == 0).double().mean().item()
    assert found[counts == 0].sum().item() == pytest.approx(expected, rel=0.3, abs=0.005)
    # None is left at nothing, and those seen keep their proportions.
    assert (found > 0).all()
    seen = counts > 0
    torch.testing.assert_close(found[seen] / found[seen].sum(), counts[seen] / counts.sum().double())


def test_indices_that_are_all_seen_leave_nothing_for_others():
    indices = torch.arange(6).repeat(3)
    torch.testing.assert_close(
        shares(*picked(indices, torch.arange(18), 6)), torch.full((1, 6), 1 / 6, dtype=torch.float64)
    )
