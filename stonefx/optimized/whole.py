"""The whole optimized model against the original, on the example inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from ..passes.site import RewriteError
from ..passes.verify import SLACK, relative_error
from ..report import Report
from ..tracing.arguments import Path, walk
from ..tracing.copies import copied
from ..tracing.isolation import preserved_random_state
from ..tracing.model_state import restored_attributes
from .weights import has_hooks


def run_preserved(
    model: nn.Module,
    example: tuple[tuple[Any, ...], dict[str, Any]],
    gradients: bool | None = None,
    run: Callable[..., Any] | None = None,
) -> Any:
    """Run a model on copies of example arguments, leaving its buffers and the random state as they were.

    Args:
        model: the model.
        example: positional and keyword arguments.
        gradients: the gradient mode that it depends on; None where it depends on none, and runs without gradients.
        run: what to call instead of the model.
    """
    args, kwargs = copied(example)
    # Hooks on the model itself act around whatever its call is; they are not to see these runs.
    run = run or (model.forward if has_hooks(model) else model)
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with (
            preserved_random_state(model),
            restored_attributes(model),
            torch.set_grad_enabled(bool(gradients)),
        ):
            torch.manual_seed(0)
            return run(*args, **kwargs)
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def verify_whole(
    expected: Any,
    actual: Any,
    report: Report,
    exact: Callable[[], Any] | None = None,
    read: Callable[[], Iterable[Any]] = tuple,
) -> None:
    """Compare the results of the original and the optimized model and note the difference in the report.

    Regions were verified against their bounds before; what a model makes of a rounding is its own affair, so
    here the square root of the dtype's epsilon, or of a rewritten region's bound, which may compute in a coarser dtype,
    is allowed, and anything beyond is a fault of stonefx, unless the original is as far from float64 itself.

    Args:
        expected, actual: the two results.
        report: gets the note.
        exact: computes the original's result in float64, for where more than that differs; None where the original is
            gone.
        read: gives the weights and arguments. Where they hold an infinity, it may cancel in fewer operations, so that
            results count that are finite in the original.

    Raises:
        RewriteError: the results differ in structure, or by more than that.
    """
    first, second = (tensors(result) for result in (expected, actual))
    if first.keys() != second.keys():
        raise RewriteError(
            f"the optimized model returns tensors at {sorted(map(str, second))}, "
            f"the original at {sorted(map(str, first))}; please report this"
        )
    worst = 0.0
    truth: dict[Path, torch.Tensor] | None = None
    coarsest = max((site.bound or 0.0 for site in report.rewritten()), default=0.0)
    for path, value in first.items():
        if not value.is_floating_point():
            continue
        # As of the sites: where the original has no value, an infinity is none either.
        found = second[path].double()
        found = torch.where(value.isnan() & found.isinf(), torch.nan, found)
        error = relative_error(found, value, "tensor")
        allowed = max(torch.finfo(value.dtype).eps, coarsest) ** 0.5
        if error > allowed and truth is None:
            truth = _tensors_or_none(exact)
        if error > allowed and truth and path in truth:
            own = relative_error(value, truth[path], "tensor")
            if relative_error(found, truth[path], "tensor") <= SLACK * own:
                report.notes.append(
                    f"{path} differs from the original by {error:.1e} on the example inputs, and the original itself "
                    f"from float64 by {own:.1e}: what it computes there is lost in rounding"
                )
                continue
        if error > allowed and any(map(_holds_infinity, read())):
            finite = value.isfinite()
            if relative_error(torch.where(finite, found, value), value, "tensor") <= allowed:
                report.notes.append(
                    f"{path} is not finite on the example inputs, where the weights or inputs are infinite, and the "
                    f"optimized model differs there in {int((~finite).sum())} entries at most"
                )
                continue
        if error > allowed:
            raise RewriteError(
                f"the optimized model differs from the original at {path} by {error:.2e} relative to its largest "
                f"value, allowed {allowed:.2e}, on the example inputs; please report this. "
                "To see the sites, call stonefx.explain; to leave the check out, pass verify=False"
            )
        worst = max(worst, error)
    if first:
        report.notes.append(f"whole model against the original on the example inputs: {worst:.1e}")


def _holds_infinity(value: Any) -> bool:
    return any(bool(tensor.isinf().any()) for tensor in tensors(value).values())


def _tensors_or_none(exact: Callable[[], Any] | None) -> dict[Path, torch.Tensor]:
    """The tensors of a result in float64; none where the model does not run in it, which tells nothing."""
    if exact is None:
        return {}
    try:
        return tensors(exact())
    except Exception:
        return {}


def results_in_float64(
    model: nn.Module, example: tuple[tuple[Any, ...], dict[str, Any]], gradients: bool | None = None
) -> Any:
    """What a model computes in float64, of the numbers and masks that it makes on the way too.

    Args:
        model, example, gradients: as of `run_preserved`; the model and the arguments are copied.

    Raises:
        Exception: whatever the model raises there.
    """
    wide = tree_map(
        lambda value: (
            value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        ),
        example,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return run_preserved(copy.deepcopy(model).double(), wide, gradients)
    finally:
        torch.set_default_dtype(before)


def same_results(expected: Any, actual: Any) -> bool:
    """Whether two results hold the same tensors, up to the rounding of other kernels for other layouts."""
    first, second = (tensors(result) for result in (expected, actual))
    return first.keys() == second.keys() and all(
        value.shape == second[path].shape
        and value.dtype == second[path].dtype
        and relative_error(second[path], value, "tensor") <= 64 * _epsilon(value.dtype)
        for path, value in first.items()
    )


def _epsilon(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps if dtype.is_floating_point else 0.0


def tensors(result: Any) -> dict[Path, torch.Tensor]:
    """The tensors of a result that have values, by where they lie: dense, and complex ones as pairs of numbers."""
    return {
        path: _dense(value.detach())
        for path, value in walk(result, Path("result"))
        if isinstance(value, torch.Tensor) and not value.is_meta
    }


def _dense(value: torch.Tensor) -> torch.Tensor:
    if value.is_nested:
        return value.values()
    dense = value if value.layout is torch.strided else value.to_dense()
    return torch.view_as_real(dense.resolve_conj()) if dense.is_complex() else dense
