"""Checks for two processes: one compression shared between them."""

from __future__ import annotations

import tempfile

import torch
import torch.distributed as dist
from torch import nn

from stonefx.compress import compress, measuring, processes


def model() -> nn.Module:
    torch.manual_seed(0)
    parts: list[nn.Module] = []
    for a, b in ((16, 24), (24, 20), (20, 24), (24, 20), (20, 8)):
        parts += [nn.Linear(a, b), nn.Tanh()]
    return nn.Sequential(*parts[:-1])


def data() -> list[torch.Tensor]:
    return list(torch.randn(19, 8, 16, generator=torch.Generator().manual_seed(1)))


def alone(**settings):
    """The result of a process on its own, which each of them works out here."""
    size, rank = processes.size, processes.rank
    processes.size, processes.rank = (lambda: 1), (lambda: 0)
    try:
        return compress(model(), data(), probes=1, evaluations=3, progress=False, cost="bytes", **settings)
    finally:
        processes.size, processes.rank = size, rank


def maps(small: nn.Module) -> list[torch.Tensor]:
    """The layers' matrices, whatever their factors' signs and rotations."""
    return [part(torch.eye(n)) for part, n in zip(small[::2], (16, 24, 20, 24, 20), strict=True)]


def same(settings: dict, **shared):
    expected, stats = alone(**settings)
    counts = [0]
    decompose = measuring.decompose

    def counted(*args):
        counts[0] += 1
        return decompose(*args)

    measuring.decompose = counted
    try:
        found, stats_of_both = compress(
            model(), data(), probes=1, evaluations=3, progress=False, cost="bytes", **settings, **shared
        )
    finally:
        measuring.decompose = decompose
    # Each did its part.
    assert counts[0] in (2, 3), counts
    assert stats_of_both.ranks == stats.ranks
    assert stats_of_both.accuracy_preserved is not None and stats.accuracy_preserved is not None
    assert abs(stats_of_both.accuracy_preserved - stats.accuracy_preserved) < 1e-6
    for got, want in zip(maps(found), maps(expected), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
    for got in maps(found):
        of_first = got.detach().clone()
        dist.broadcast(of_first, src=0)
        assert torch.equal(of_first, got)
    return stats_of_both


def check_the_same_ranks_and_maps_as_one_process() -> None:
    for settings in ({"forms": ("pair", "pifa")}, {"max_ratio": 0.5, "forms": ("pair",)}):
        same(settings)


def check_a_metric_of_the_user_decides_alike_in_all() -> None:
    def metric(changed: nn.Module, batches: list) -> float:
        # It differs by process, which would send each its own way.
        return (
            1 - 0.01 * processes.rank() - (0.2 if sum(p.numel() for p in changed.parameters()) < 1500 else 0)
        )

    _, stats = compress(model(), data(), metric=metric, progress=False, cost="bytes")
    everywhere = processes.gathered((stats.ranks, stats.accuracy_preserved))
    assert everywhere[0] == everywhere[1]


def check_groups_of_layers_and_checkpoints() -> None:
    stats = same({"memory": 40_000, "forms": ("pair", "pifa")})
    assert "in 2 groups" in " ".join(stats.notes)
    folder = processes.gathered(tempfile.mkdtemp())[0]
    settings = {"min_accuracy": 0.9, "forms": ("pair", "pifa")}
    same(settings, checkpoint=folder)
    again, _ = compress(
        model(), data(), probes=1, evaluations=3, progress=False, cost="bytes", checkpoint=folder, **settings
    )
    for got, want in zip(maps(again), maps(alone(**settings)[0]), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


class Experts(nn.Module):
    """Each batch goes to one of two layers, and none to a third: no process sees all batches of either."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(8, 8) for _ in range(3)])
        self.last = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.experts[int(x[0, 0] > 0)](x)))


def check_layers_that_one_process_never_calls() -> None:
    torch.manual_seed(0)
    mixture = Experts()
    # All batches of the first process go to the first expert, those of the second to the other.
    x = torch.randn(6, 8, 8).abs()
    given = [value * (1 if i % 2 else -1) for i, value in enumerate(x)]
    held_out = list(torch.randn(2, 8, 8))
    _, stats = compress(
        mixture,
        given,
        selection_data=held_out,
        confirmation_data=held_out,
        max_ratio=0.6,
        progress=False,
        cost="bytes",
        forms=("pair", "pifa"),
    )
    assert stats.compression_ratio < 0.8
    reasons = {row.path: row.reason for row in stats.layers}
    assert "no call of it was seen" in reasons["experts.2"]
    assert {"experts.0", "experts.1"} & stats.ranks.keys()
    assert all(ranks == stats.ranks for ranks in processes.gathered(stats.ranks))


def check_sums_and_dealing() -> None:
    r = processes.rank()
    total = processes.added({"both": torch.tensor([1.0 + r]), f"only {r}": torch.tensor(2.0)})
    assert {k: v.sum().item() for k, v in total.items()} == {"both": 3.0, "only 0": 2.0, "only 1": 2.0}
    assert processes.owners({"a": 1.0, "b": 5.0, "c": 3.0, "d": 1.5}) == {"b": 0, "c": 1, "d": 1, "a": 1}
    assert [i for i, _ in processes.mine("abcde")] == list(range(r, 5, 2))
    assert processes.of_first(lambda: r) == 0
    sent = processes.sent([torch.arange(3), torch.ones(2, 2)] if r == 1 else None, 1)
    assert sent[0].tolist() == [0, 1, 2] and sent[1].shape == (2, 2)
