"""A few steps of training for what a plan replaced: block by block, then end to end, kept only where it gains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .data import Batch
from .structure import called, tensors, without_cache

BLOCK_STEPS, BLOCK_RATE = 25, 5e-5
WHOLE_STEPS, WHOLE_RATE = 40, 3e-5
"""Steps of Adam and their size; ten times larger ones make trained models worse."""


@dataclass
class Refinement:
    """What the steps gained.

    Attributes:
        notes: a line a stage: the score before and after, and whether its weights were kept.
    """

    notes: list[str] = field(default_factory=list)


def refine(
    original: nn.Module,
    model: nn.Module,
    replaced: Mapping[str, nn.Module],
    batches: Sequence[Batch],
    score: Callable[[], float],
    *,
    output: Callable[[Any], Tensor],
    together: Sequence[Sequence[str]] = (),
    seed: int = 0,
    progress: bool = False,
) -> Refinement:
    """Train the parameters of `replaced`, modules of `model`, so that it does what `original` does.

    Each block first learns what the original's block makes of the inputs that it is given now; then all of them learn
    the original's main result. A stage after which `score` is not higher is undone.

    Args:
        original: the model whose results are wanted; in eval.
        model: the compressed model; in eval.
        replaced: its new layers by path; nothing else of it changes.
        batches: to train on.
        score: of `model` as it is, higher is better, on data that is not trained on.
        output: the tensor of a result that counts.
        together: paths of layers between which values are not what they are in `original`: a block that holds some of
            them and not all has another result, and learns nothing by itself.
        seed: of the order of batches.
        progress: show bars.
    """
    done = Refinement()
    weights = _trained(replaced.values())
    if not weights:
        done.notes.append("nothing was refined: no layer that was replaced holds weights that can be trained")
        return done
    generator = torch.Generator().manual_seed(seed)
    best = score()
    with only_trainable(model, weights):
        for name, stage in (
            (
                "block by block",
                lambda: _by_block(original, model, weights, batches, together, generator, progress),
            ),
            (
                "end to end",
                lambda: _end_to_end(original, model, weights, batches, output, generator, progress),
            ),
        ):
            before = [w.detach().clone() for w in weights]
            if not stage():
                continue
            reached = score()
            gained = reached > best
            if not gained:
                with torch.no_grad():
                    for weight, old in zip(weights, before, strict=True):
                        weight.copy_(old)
            done.notes.append(
                f"refinement {name}: {best:.5f} before, {reached:.5f} after, on the selection split; "
                + ("kept" if gained else "undone")
            )
            best = reached if gained else best
    return done


@contextmanager
def only_trainable(model: nn.Module, weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """Gradients for these weights alone, for the time of the block."""
    wanted = {p: p.requires_grad for p in (*model.parameters(), *weights)}
    try:
        for p in wanted:
            p.requires_grad_(False)
        for p in weights:
            p.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        for p, flag in wanted.items():
            p.requires_grad_(flag)
            p.grad = None


def error(y: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    """The mean over positions of the squared error relative to the target's square there.

    Relative, since a few positions may be a thousand times larger than all others.

    Args:
        y, target: `[samples, features]`, `[samples, positions, features]`, or with channels second and more axes.
        mask: `[samples, positions]`, which positions count.

    >>> error(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]]), None)
    tensor(1.)
    """
    axis = 1 if y.dim() > 3 else -1
    y, target = (t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in (y, target))
    size = target.square().mean(axis)
    # A target of zero has no relative error; it counts by the mean target.
    size = torch.where(size > 0, size, size.mean().clamp_min(torch.finfo(size.dtype).tiny))
    errors = (y - target).square().mean(axis) / size
    if mask is not None and errors.shape == mask.shape:
        return errors[mask.to(errors.device)].mean()
    return errors.mean()


def blocks(model: nn.Module, batch: Batch) -> list[str]:
    """Paths of the blocks that the model calls one after the other: the entries of its longest list of such.

    >>> model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), nn.Linear(2, 2))
    >>> blocks(model, Batch((torch.ones(1, 2),)))
    ['0.0', '0.1', '0.2']
    """
    lists = {
        path: [f"{path}.{name}" if path else name for name, _ in module.named_children()]
        for path, module in model.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module) > 1
    }
    order = called(model, batch, dict.fromkeys(entry for group in lists.values() for entry in group))
    found = [group for group in lists.values() if [p for p in order if p in set(group)] == group]
    return max(found, key=len, default=[])


def _is_whole(path: str, together: Sequence[Sequence[str]]) -> bool:
    inside = [[other == path or other.startswith(f"{path}.") for other in group] for group in together]
    return all(all(group) or not any(group) for group in inside)


def _trained(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    weights = {id(p): p for module in modules for p in module.parameters()}
    # Weights of a class of their own are quantised.
    return [p for p in weights.values() if type(p) is nn.Parameter and p.is_floating_point()]


def _by_block(
    original: nn.Module,
    model: nn.Module,
    weights: Sequence[nn.Parameter],
    batches: Sequence[Batch],
    together: Sequence[Sequence[str]],
    generator: torch.Generator,
    progress: bool,
) -> bool:
    wanted = {id(w) for w in weights}
    paths = blocks(model, batches[0])
    owned = {path: [p for p in model.get_submodule(path).parameters() if id(p) in wanted] for path in paths}
    paths = [path for path in paths if owned[path] and _is_whole(path, together)]
    for path in tqdm(paths, desc="refinement by block", disable=not progress, leave=False):
        drawn = torch.randint(len(batches), (BLOCK_STEPS,), generator=generator).tolist()
        given = {i: _given(model, path, batches[i]) for i in sorted(set(drawn))}
        dense, block = original.get_submodule(path), model.get_submodule(path)
        targets: dict[int, list[Tensor]] = {}
        with torch.no_grad():
            for i, (args, kwargs) in given.items():
                targets[i] = _floating(dense(*args, **kwargs))
        usable = [i for i in drawn if targets[i]]

        def loss(i: int, given: Any = given, targets: Any = targets, block: Any = block) -> Tensor:
            args, kwargs = given[i]
            return error(_floating(block(*args, **kwargs))[0], targets[i][0], batches[i].mask)

        _train(owned[path], usable, BLOCK_RATE, loss)
    return bool(paths)


def _end_to_end(
    original: nn.Module,
    model: nn.Module,
    weights: Sequence[nn.Parameter],
    batches: Sequence[Batch],
    output: Callable[[Any], Tensor],
    generator: torch.Generator,
    progress: bool,
) -> bool:
    drawn = torch.randint(len(batches), (WHOLE_STEPS,), generator=generator).tolist()

    def loss(i: int) -> Tensor:
        batch = without_cache(model, batches[i])
        with torch.no_grad():
            target = output(batch.call(original))
        y = output(batch.call(model))
        return error(y, target.to(y.device), batch.mask)

    _train(weights, drawn, WHOLE_RATE, loss, "refinement end to end" if progress else None)
    return True


def _train(
    weights: Sequence[nn.Parameter],
    drawn: Sequence[int],
    rate: float,
    loss: Callable[[int], Tensor],
    description: str | None = None,
) -> None:
    optimizer = torch.optim.Adam(weights, lr=rate)
    bar = tqdm(drawn, desc=description, disable=description is None, leave=False)
    for step, i in enumerate(bar):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / (len(drawn) + 1))
        optimizer.zero_grad()
        value = loss(i)
        if not value.requires_grad:
            return
        value.backward()
        optimizer.step()
    optimizer.zero_grad()


class _Reached(Exception):
    """A forward is stopped where the block begins."""


def _given(model: nn.Module, path: str, batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a block is given in a call of the model as it is now."""
    kept: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kept.append((args, kwargs))
        raise _Reached

    handle = model.get_submodule(path).register_forward_pre_hook(stop, with_kwargs=True)
    try:
        with torch.no_grad():
            without_cache(model, batch).call(model)
    except _Reached:
        pass
    finally:
        handle.remove()
    return kept[0]


def _floating(result: Any) -> list[Tensor]:
    return [t for t in tensors(result) if t.is_floating_point()]
