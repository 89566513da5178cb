"""Checkpoints: a killed run loses at most one layer, another work is refused, Ctrl-C halves nothing."""

from __future__ import annotations

import os
import signal
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from stonefx.compress import _splits, checkpoint, compress, int8, losses, measuring, statistics
from stonefx.compress.checkpoint import Running, Store
from stonefx.compress.metric import Metric
from stonefx.compress.settings import Settings


def model() -> nn.Module:
    torch.manual_seed(0)
    sizes = (16, 24, 24, 24, 8)
    parts: list[nn.Module] = []
    for a, b in pairwise(sizes):
        parts += [nn.Linear(a, b), nn.Tanh()]
    return nn.Sequential(*parts[:-1])


def data() -> list[torch.Tensor]:
    return list(torch.randn(20, 16, 16, generator=torch.Generator().manual_seed(1)))


LOSSES, CHANGES = 12, 4
"""Batches that are read for the losses of ranks, and for those of what changed."""


def run(folder: Path, kill: str = "", at: int = 0) -> tuple[dict[str, int], dict[str, int], dict]:
    """Compress with counts of what was done, and the process killed before the given one of its steps."""
    counts = {"decompose": 0, "batches": 0, "scores": 0}

    def counted(name, function):
        def called(*args, **kwargs):
            if kill == name and counts[name] == at:
                os.kill(os.getpid(), signal.SIGKILL)
            counts[name] += 1
            return function(*args, **kwargs)

        return called

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "SECONDS", 0.0)
        patch.setattr(measuring, "decompose", counted("decompose", measuring.decompose))
        patch.setattr(statistics.Pass, "_back", counted("batches", statistics.Pass._back))
        patch.setattr(Metric, "__call__", counted("scores", Metric.__call__))
        small, stats = call(folder)
    return counts, stats.ranks, small.state_dict()


def killed(folder: Path, kill: str, at: int) -> None:
    """The same in a child process, which ends by SIGKILL."""
    # A fork, as importing everything again takes ten times as long as the work.
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            run(folder, kill, at)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, int], dict[str, int], dict]:
    return run(tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize(
    ("kill", "at", "lost"), [("decompose", 2, 0), ("batches", 7, 1), ("batches", 17, 1), ("scores", 1, 0)]
)
def test_a_killed_run_goes_on_and_ends_alike(
    tmp_path: Path, undisturbed, kill: str, at: int, lost: int
) -> None:
    counts, ranks, state = undisturbed
    killed(tmp_path, kill, at)
    again, ranks_again, result = run(tmp_path)
    assert ranks and ranks_again == ranks
    assert result.keys() == state.keys() and all(torch.equal(result[name], state[name]) for name in state)
    # Only what was left was done.
    assert again[kill] <= counts[kill] - at + lost
    if kill == "decompose":
        assert again["decompose"] == 2
        assert again["batches"] == LOSSES + CHANGES
    if kill == "scores":
        assert again["decompose"] == 0 and again["batches"] == CHANGES
    assert run(tmp_path)[0] == dict.fromkeys(counts, 0)


def call(folder: Path | None, **changes):
    settings = {
        "probes": 1,
        "progress": False,
        "cost": "bytes",
        "forms": ("pair", "pifa"),
        "checkpoint": folder,
        "min_accuracy": 0.8,
    }
    given = {"model": model(), "data": data(), **settings, **changes}
    return compress(given.pop("model"), given.pop("data"), **given)


def other_weights() -> nn.Module:
    changed = model()
    with torch.no_grad():
        changed[0].weight[0, 0] += 1
    return changed


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"min_accuracy": 0.7}, "min_accuracy=: 0.8 there, 0.7 now"),
        ({"seed": 1}, "seed=: 0 there, 1 now"),
        ({"forms": ("pair",)}, "forms="),
        ({"metric": "relative"}, "metric=: 'cosine' there, 'relative' now"),
        ({"model": other_weights()}, "weights: "),
        ({"model": nn.Sequential(model(), nn.Linear(8, 8))}, "names and shapes of weights"),
        ({"data": [x + 1 for x in data()]}, "data to calibrate"),
        ({"confirmation_data": data()[:2]}, "data to confirm"),
    ],
)
def test_another_work_is_refused_by_name(tmp_path: Path, changes: dict, named: str) -> None:
    store = Store(tmp_path)
    settings = Settings(probes=1, cost="bytes", forms=("pair", "pifa"), min_accuracy=0.8)
    asked = {k: v for k, v in vars(settings).items() if k not in ("progress", "memory")}
    store.bind(checkpoint.fingerprint(model(), _splits(model(), data(), None, None, settings), asked))
    with pytest.raises(ValueError, match="was made for another compression") as error:
        call(tmp_path, **changes)
    assert named in str(error.value)
    assert "give a new folder, or delete this one" in str(error.value)


def test_folders_of_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="has files of something else"):
        call(tmp_path)
    with pytest.raises(ValueError, match="expected a folder"):
        call(tmp_path / "model.safetensors")


def test_interrupt_says_how_to_go_on_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = model()
    before = {name: value.clone() for name, value in original.state_dict().items()}
    count = 0
    write = checkpoint.tensorfile.write

    def stopped(path, tensors, metadata) -> None:
        nonlocal count
        count += 1
        if count == 3:
            Path(path).write_bytes(b"half")
            raise KeyboardInterrupt
        write(path, tensors, metadata)

    monkeypatch.setattr(checkpoint.tensorfile, "write", stopped)
    with pytest.raises(KeyboardInterrupt, match=r"The same call with checkpoint=.* goes on where it was"):
        call(tmp_path, model=original)
    assert not list(tmp_path.glob(".*")) and len(list(tmp_path.glob("*.safetensors"))) == 2
    assert all(torch.equal(value, before[name]) for name, value in original.state_dict().items())
    monkeypatch.setattr(checkpoint.tensorfile, "write", write)
    _, stats = call(tmp_path, model=original)
    monkeypatch.setattr(measuring, "decompose", None)
    assert call(tmp_path, model=original)[1].ranks == stats.ranks

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(statistics.Pass, "run", interrupted)
    with pytest.raises(KeyboardInterrupt, match="With checkpoint=folder the same call would go on"):
        call(tmp_path, model=original, checkpoint=None)


def test_records_are_data(tmp_path: Path) -> None:
    store = Store(tmp_path)
    tensors = {"a": torch.randn(3, 2), "b": torch.tensor(True), "c": torch.zeros(0, 4, dtype=torch.bfloat16)}
    store.put("x", tensors, {"n": [1, 2.5, "three"]})
    record = store.get("x")
    assert record is not None and record.values == {"n": [1, 2.5, "three"]}
    assert all(
        torch.equal(record.tensors[k], v) and record.tensors[k].dtype == v.dtype for k, v in tensors.items()
    )
    from safetensors.torch import load_file

    assert torch.equal(load_file(store.path("x"))["a"], tensors["a"])
    assert set(store.get("x", lambda key: key == "b").tensors) == {"b"}
    assert store.get("y") is None and Store(None).get("x") is None
    running = Running(store, "sums")
    running.written -= 2 * checkpoint.SECONDS
    running.after(4, lambda: (tensors, {}))
    assert Running(store, "sums").resume().values["batches"] == 4
    running.after(5, lambda: pytest.fail("it is not time yet"))
    store.forget_running("sums")
    assert running.resume() is None


def test_kept_spectra_need_not_be_in_memory(tmp_path: Path) -> None:
    whole, stats = call(tmp_path / "a", checkpoint=None)
    parts, stats_of_parts = call(tmp_path / "b", memory=48_000)
    assert "in 2 groups" in " ".join(stats_of_parts.notes)
    assert stats.ranks and stats_of_parts.ranks == stats.ranks
    x = data()[0]
    torch.testing.assert_close(parts(x), whole(x), rtol=1e-6, atol=1e-6)


def test_memory_that_does_not_suffice_is_said_beforehand(tmp_path: Path) -> None:
    with pytest.raises(
        MemoryError, match=r"layer '0' \(24 x 16\) needs about .* KiB .* Leave it out with layers="
    ):
        call(tmp_path, memory=20_000)
    with pytest.raises(ValueError, match="memory: expected a number of bytes, got 0"):
        call(tmp_path, memory=0)


def test_losses_of_rounding_are_kept_by_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchao")
    read = []
    sampled = losses.sampled

    def counted(model, directions, changes, *args, **kwargs):
        read.append(len(changes))
        return sampled(model, directions, changes, *args, **kwargs)

    monkeypatch.setattr(losses, "sampled", counted)
    # Room for one change at a time.
    monkeypatch.setattr(int8, "MEMORY", 1)
    expected = call(None, forms=("pair", "int8"))[1]
    alone, read[:] = list(read), []
    assert alone.count(1) > 4 and max(alone) == 1
    _, stats = call(tmp_path, forms=("pair", "int8"))
    assert read == alone and stats.ranks == expected.ranks
    records = sorted(tmp_path.glob("int8-*.safetensors"))
    assert len(records) == alone.count(1)
    # A run that was stopped in between: what is there is not read again.
    for score in tmp_path.glob("score-*"):
        score.unlink()
    records[0].unlink()
    read.clear()
    _, stats = call(tmp_path, forms=("pair", "int8"))
    assert read == [1]
    assert [(r.path, r.form, r.rank, r.predicted) for r in stats.layers] == [
        (r.path, r.form, r.rank, pytest.approx(r.predicted)) for r in expected.layers
    ]
