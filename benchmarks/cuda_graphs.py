"""Calls captured in a CUDA graph, which one launch replays."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch

from stonefx.benchmarks.case import Arm
from stonefx.machine.gpu import captured

WARM_UP = 3


class CannotCapture(RuntimeError):
    """A call is no CUDA graph; the message says why."""


def graphed(call: Callable[[], Any]) -> Callable[[], Any]:
    """Capture a call without arguments after runs on a side stream; each replay writes the same result again.

    Args:
        call: computes on tensors that keep their place; records no gradients.

    Raises:
        CannotCapture: there is no CUDA device, or the call does what a graph cannot hold, such as waiting for the
            device or bringing numbers to the host.

    >>> graphed(lambda: 1)  # doctest: +SKIP
    """
    if not torch.cuda.is_available():
        raise CannotCapture("no CUDA graph without a CUDA device: torch sees none on this machine")
    try:
        graph, result = captured(call, warm_up=WARM_UP)
    except Exception as error:  # whatever a call of others does while it is captured
        raise CannotCapture(f"cannot be captured in a CUDA graph: {type(error).__name__}: {error}") from error

    def replay() -> Any:
        graph.replay()
        return result

    return replay


def with_graphs(
    arms: list[Arm],
    names: Collection[str],
    capture: Callable[[Callable[[], Any]], Callable[[], Any]] = graphed,
) -> tuple[list[Arm], dict[str, str]]:
    """Arms with a graph of each of `names` behind them, and why some graphs are left out.

    >>> with_graphs([Arm(name="eager", call=lambda: 1)], ["eager"], lambda call: call)[0][1].name
    'eager, CUDA graph'
    """
    found, left_out = list(arms), {}
    with torch.no_grad():
        for arm in arms:
            if arm.name in names:
                title = f"{arm.name}, CUDA graph"
                try:
                    # The memory of a graph is its own pool's, in which nothing is allocated during a call.
                    found.append(Arm(name=title, call=capture(arm.call), work=arm.work, allocates=False))
                except CannotCapture as error:
                    left_out[title] = str(error).splitlines()[0]
    return found, left_out
