"""Handwritten digits of scikit-learn: a perceptron and a convolutional net that are trained here, three seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from stonefx.benchmarks.compress import peers
from stonefx.benchmarks.compress.packages import MissingPackage
from stonefx.benchmarks.compress.rows import Row, Wanted
from stonefx.benchmarks.compress.work import Shared, accuracy, commit, modules_of, stored, whole
from stonefx.compress import compress
from stonefx.compress.data import Batch, read

SEEDS = (0, 1, 2)
FLOORS = (0.99, 0.95)
TRAINED, SELECTED, CONFIRMED = 600, 250, 750
"""Of 500 samples that confirm, a single one that becomes wrong is too many for a floor of .99; of 750 two are not."""
EPOCHS = 60
RATIOS = (0.5, 0.25, 0.12)
PEERS = ("plain SVD", "SVD-LLM", "ASVD-style", "ZS-SVD-style", "stonefx pair", "stonefx")


def perceptron() -> nn.Module:
    """64 -> 256 -> 256 -> 10."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )


def convolutional() -> nn.Module:
    """Two convolutions, pooled, and two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 16, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


MODELS: dict[str, Callable[[], nn.Module]] = {"MLP": perceptron, "CNN": convolutional}


def images() -> tuple[Tensor, Tensor]:
    """1,797 images `[n, 1, 8, 8]` in [0, 1], and which digit each is."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingPackage(
            "this case needs scikit-learn, which is not installed; run: pip install scikit-learn"
        ) from None
    digits = load_digits()
    return torch.as_tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.as_tensor(digits.target)


def trained(model: nn.Module, x: Tensor, labels: Tensor, epochs: int, seed: int) -> nn.Module:
    """The model after Adam on batches of 50."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, weight_decay=1e-4)
    for _ in range(epochs):
        for part in torch.randperm(len(x), generator=generator).split(50):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[part]), labels[part]).backward()
            optimizer.step()
    return model.eval().requires_grad_(False)


def labelled(x: Tensor, labels: Tensor, size: int = 50) -> list[tuple[Tensor, Tensor]]:
    """Batches with their labels."""
    return list(zip(x.split(size), labels.split(size), strict=True))


def prepared(
    make: Callable[[], nn.Module], x: Tensor, labels: Tensor, seed: int
) -> tuple[nn.Module, Sequence[Tensor], list[list[tuple[Tensor, Tensor]]]]:
    """A trained model, with the places of the samples of each split, and each split in batches."""
    torch.manual_seed(seed)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    parts = order.split([TRAINED, SELECTED, CONFIRMED, len(x) - TRAINED - SELECTED - CONFIRMED])
    own = [labelled(x[part], labels[part]) for part in parts]
    return trained(make(), x[parts[0]], labels[parts[0]], EPOCHS, seed), parts, own


def digits_rows(wanted: Wanted) -> Iterator[Row]:
    """Bytes at floors of the accuracy, which is measured sample by sample on labels; and the recipes of others."""
    x, labels = images()
    yield from peer_rows(wanted, x, labels)
    for name, make in MODELS.items():
        for seed in SEEDS:
            if not any(wanted(f"{name}, stonefx", f"floor {floor:g}", seed) for floor in FLOORS):
                continue
            model, parts, own = prepared(make, x, labels, seed)
            dense = (model(x[parts[3]]).argmax(-1) == labels[parts[3]]).double().mean().item()
            for floor in FLOORS:
                if not wanted(f"{name}, stonefx", f"floor {floor:g}", seed):
                    continue
                small, stats = compress(
                    model, own[0], selection_data=own[1], confirmation_data=own[2], min_accuracy=floor,
                    metric=accuracy, probe="logits", cost="bytes", seed=seed, progress=False,
                )  # fmt: skip
                with torch.no_grad():
                    test = (small(x[parts[3]]).argmax(-1) == labels[parts[3]]).double().mean().item()
                yield Row(
                    case="digits",
                    arm=f"{name}, stonefx",
                    asked=f"floor {floor:g}",
                    ratio=stats.model_ratio,
                    metrics={
                        "kept on test": test / dense,
                        "accuracy": test,
                        "dense accuracy": dense,
                        "confirmed": stats.accuracy_preserved or 0.0,
                        "at least": stats.accuracy_lower or 0.0,
                        "reached": float(bool(stats.reached)),
                    },
                    seconds=stats.seconds,
                    splits=stats.samples | {"test": len(parts[3])},
                    seed=seed,
                    commit=commit(),
                )


def peer_rows(wanted: Wanted, x: Tensor, labels: Tensor) -> Iterator[Row]:
    """Pairs by the recipes of `peers` at shares of the perceptron's bytes, beside those of stonefx."""
    for seed in SEEDS:
        if not any(wanted(f"MLP, {arm}", f"{ratio:g}", seed) for arm in PEERS for ratio in RATIOS):
            continue
        model, parts, own = prepared(perceptron, x, labels, seed)
        work = Shared(model, own[0], own[1], own[2], metric=accuracy, probe="logits", seed=seed)
        dense = accuracy(model, read(own[3], model)).mean().item()
        for arm, ratio, modules in peers_of(work):
            if not wanted(f"MLP, {arm}", f"{ratio:g}", seed):
                continue
            made = modules()
            with work.with_modules(made) as small:
                kept = accuracy(small, read(own[3], model)).mean().item()
            yield Row(
                case="digits",
                arm=f"MLP, {arm}",
                asked=f"{ratio:g}",
                ratio=stored(whole(made, work.search.model, list(work.dense))) / work.bytes,
                metrics={"kept on test": kept / dense, "accuracy": kept, "dense accuracy": dense},
                seconds=work.seconds,
                splits=work.splits.samples() | {"test": len(parts[3])},
                seed=seed,
                commit=commit(),
            )


def peers_of(work: Shared) -> Iterator[tuple[str, float, Callable[[], dict[str, nn.Module]]]]:
    """Recipe, share of the bytes, and what makes the layers."""
    views, dense = work.views, work.dense
    spectra = {recipe: work.spectra(recipe) for recipe in (peers.plain, peers.whitened, peers.scaled)}
    model = work.search.model

    def loss(batch: Batch) -> Tensor:
        return functional.cross_entropy(batch.call(model), batch.labels)

    def fall(small: nn.Module) -> float:
        return -accuracy(small, work.splits.select).mean().item()

    falls = peers.falls(views, spectra[peers.scaled], work.with_modules, fall)
    gradients = peers.weight_gradients(views, work.splits.calibrate, loss)
    for ratio in RATIOS:
        by_ranks = {
            "ASVD-style": (peers.scaled, peers.by_sensitivity(views, falls, ratio)),
            "ZS-SVD-style": (
                peers.whitened,
                peers.zero_sum(views, spectra[peers.whitened], gradients, ratio),
            ),
        }
        plans = {
            "plain SVD": lambda r=ratio: peers.uniform(views, spectra[peers.plain], dense, r),
            "SVD-LLM": lambda r=ratio: peers.uniform(views, spectra[peers.whitened], dense, r),
            **{
                arm: lambda recipe=recipe, ranks=ranks: peers.by_ranks(views, spectra[recipe], dense, ranks)
                for arm, (recipe, ranks) in by_ranks.items()
            },
            "stonefx pair": lambda r=ratio: work.planned(r, ("pair",))[1],
            "stonefx": lambda r=ratio: work.planned(r, ("pair", "pifa", "width"))[1],
        }
        for arm in PEERS:
            yield arm, ratio, lambda plan=plans[arm]: modules_of(plan())
