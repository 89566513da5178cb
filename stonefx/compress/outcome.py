"""What comes out: the plan's replacements in the model, and what became of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from . import choose, layers
from .candidates import Candidates
from .latency import Ratio
from .options import Option
from .stats import LayerRow
from .stored import stored_bytes
from .task import Task


def put(
    task: Task,
    plan: choose.Plan,
    candidates: Candidates | None,
    emitted: dict[tuple[str, ...], Ratio],
    losses: Mapping[str, float],
) -> None:
    """Replace the layers for good and fill the statistics.

    Args:
        task: its model is changed.
        plan: the choice.
        candidates: what it was chosen from; None where there was no choice.
        emitted: seconds by the paths of what was timed again.
        losses: of what changed, by path, as measured.
    """
    stats, model = task.stats, task.model
    rows = {path: _row(task, path) for path in task.layers.views}
    whole = stored_bytes(task.original, recurse=True)
    refused = [_row(task, path) for path in task.layers.refused if path not in rows]
    for paths, option in plan.chosen.items():
        for path in paths:
            if path in rows:
                rows[path] = _chosen(rows[path], option, paths, candidates, emitted)
    stats.energy_preserved = 1.0 if candidates is None else _energy(task, plan, candidates)
    for option in plan.chosen.values():
        for path, module in task.built(option).items():
            task.replace(path, module)
    for path, row in rows.items():
        size = stored_bytes(model.get_submodule(path), recurse=True)
        stats.layers.append(replace(row, bytes_after=size, measured=losses.get(path)))
        if row.rank is not None:
            stats.ranks[path] = row.rank
    stats.layers += refused
    _count_merged(task)
    after = sum(stored_bytes(model.get_submodule(path), recurse=True) for path in task.counted)
    _close(task, plan)
    stats.compression_ratio = after / task.bytes_before if task.bytes_before else 1.0
    if stats.reached and task.settings.max_ratio is not None:
        stats.reached = stats.compression_ratio <= task.settings.max_ratio
    stats.model_ratio = stored_bytes(model, recurse=True) / max(whole, 1)
    stats.samples = {} if task.splits is None else task.splits.samples()
    stats.curve.sort(key=lambda p: p.ratio)


def _count_merged(task: Task) -> None:
    """Rows of what was merged; where a layer took something up and stores more now, its row counts that too."""
    rows, merged = task.stats.layers, task.exact
    for place, row in enumerate(rows):
        if row.path in merged.into.values() and row.bytes_after > row.bytes_before:
            taken = sum(merged.bytes_before[path] for path, into in merged.into.items() if into == row.path)
            rows[place] = replace(row, bytes_before=row.bytes_before + taken)
    grown = {
        row.path for row in rows if row.bytes_before > merged.bytes_before.get(row.path, row.bytes_before)
    }
    for path, into in merged.into.items():
        rows.append(
            LayerRow(
                path=path,
                shape=_shape_before(task, path),
                form="merged",
                bytes_before=0 if into in grown else merged.bytes_before[path],
                reason=f"merged into {into} without a loss",
            )
        )


def _close(task: Task, plan: choose.Plan) -> None:
    """Put back what was opened where nothing in it changed, and tell of the others what they were split into."""
    rows = task.stats.layers
    unchanged = task.unchanged(plan)
    for path, original in task.opened.items():
        inside = [row for row in rows if row.path.startswith(f"{path}.")]
        if path not in unchanged:
            parts = ", ".join(name for name, _ in task.model.get_submodule(path).named_children())
            reason = f"split into {parts}, which have rows of their own"
            rows.append(LayerRow(path=path, shape="", form="split", reason=reason))
            continue
        kept = [row for row in inside if row.path.removeprefix(f"{path}.") in dict(original.named_modules())]
        rows[:] = [row for row in rows if row not in inside or row in kept]
        gone = [row for row in inside if row not in kept]
        size = stored_bytes(original)
        reasons = dict.fromkeys(row.reason for row in gone if row.reason)
        rows.append(
            LayerRow(
                path=path,
                shape=_shape(original),
                bytes_before=size,
                bytes_after=size,
                reason="; ".join(reasons) or "dense is best at this cost",
            )
        )
        task.replace(path, original)


def _shape_before(task: Task, path: str) -> str:
    """Of a layer that was merged; one that was opened is not in the original."""
    try:
        return _shape(task.original.get_submodule(path))
    except AttributeError:
        return ""


def _energy(task: Task, plan: choose.Plan, candidates: Candidates) -> float:
    """The share of the squared singular values that the plan keeps, in the metric of truncation."""
    kept = total = 0.0
    for paths, option in plan.chosen.items():
        if len(paths) > 1 or option.size is None:
            continue
        found = [n for n, v in enumerate(task.views) if v.path == paths[0] and n in candidates.spectra]
        # The form's name tells where the layer is cut.
        cut = [n for n in found if option.form.split("+")[0].endswith(f" {task.views[n].name}")]
        number = next(iter(cut or found), None)
        if number is not None:
            tails = candidates.spectra[number].tails
            kept += (tails[0] - tails[min(option.size, len(tails) - 1)]).item()
            total += tails[0].item()
    return kept / total if total else 1.0


def _row(task: Task, path: str) -> LayerRow:
    found = layers.get(task.model, path)
    size = stored_bytes(found) if isinstance(found, nn.Module) else found.numel() * found.element_size()
    return LayerRow(
        path=path,
        shape=_shape(found),
        bytes_before=task.exact.bytes_before.get(path, size),
        bytes_after=size,
        reason=task.layers.refused.get(path, ""),
    )


def _chosen(
    row: LayerRow,
    option: Option,
    paths: tuple[str, ...],
    candidates: Candidates | None,
    emitted: dict[tuple[str, ...], Ratio],
) -> LayerRow:
    if option.form == "dense":
        assert candidates is not None
        candidate = next(c for c in candidates.singles if c.paths == paths)
        reason = row.reason or candidate.reason() or "dense is best at this cost"
        return replace(row, reason=reason, seconds_before=option.seconds, seconds_after=option.seconds)
    ratio = emitted.get(paths)
    row = replace(row, form=option.form, rank=option.size, predicted=option.loss)
    if ratio is None or len(paths) > 1:
        return row
    return replace(row, seconds_before=ratio.dense, seconds_after=ratio.dense * ratio.median)


def _shape(layer: nn.Module | Tensor) -> str:
    held = [layer] if isinstance(layer, Tensor) else layer.parameters(recurse=False)
    weight = max(held, key=lambda p: p.numel(), default=None)
    return "" if weight is None else "x".join(map(str, weight.shape))
