"""What lies between the breaks of a model that is no single graph: Dynamo finds it, each graph is rewritten."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from .backend import compile_graph
from .inner import compile_inner
from .options import Options
from .passes.site import RewriteError
from .report import Report

# Dynamo keeps what it compiled by the code of a forward, which all models of a class share, and stops after a few
# graphs. A torch that can gives each of our models a number of its own.
_OWN_CACHE: dict[str, Any] = (
    {"isolate_recompiles": True, "recompile_limit": 32}
    if "isolate_recompiles" in inspect.signature(torch.compile).parameters
    else {}
)


class Fragments:
    """Runs a model's forward under Dynamo, with every graph between two breaks rewritten.

    Weights stay where they are: what is folded of them is kept beside them and made anew after they changed, and
    nothing is folded in a call that wants their gradients. Dynamo checks its guards at each call.

    Args:
        options: as of `stonefx.optimize`.
    """

    # See `tracing.compiled`.
    answers_as_eager = True

    def __init__(self, options: Options) -> None:
        self.options = options
        self.integrations = options.integrations
        self.reports: list[Report] = []
        self.left: list[str] = []
        self.failure: RewriteError | None = None
        self._lock = threading.Lock()
        self._compiled: list[_Graph] = []

    def bound(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """What to call in the place of a model's forward."""
        run: Callable[..., Any] = torch.compile(
            forward,
            backend=self._compile,
            dynamic=None if self.options.dynamic else False,
            **_OWN_CACHE,
        )
        return run

    def report(self) -> Report:
        """What was done to the graphs so far."""
        merged = Report.merge(("", report) for report in self.reports)
        merged.notes += [f"left as it is: {reason}" for reason in dict.fromkeys(self.left)]
        return merged

    def close(self) -> None:
        """Let go of all that was compiled, which Dynamo's caches would keep alive with its folded weights."""
        for graph in self._compiled:
            graph.run = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Fragments:
        return self

    def _compile(self, gm: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        graph = _Graph(self._rewritten(gm, inputs))
        self._compiled.append(graph)
        return graph

    def _rewritten(self, gm: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        with self._lock:
            try:
                return compile_graph(gm, inputs, self.options, None, self.reports.append, "optimize")
            except Exception as error:
                if isinstance(error, RewriteError):
                    self.failure = error
                self.left.append(f"a graph of {len(gm.graph.nodes)} operations: {error}")
        try:
            return compile_inner(gm, inputs, self.options.inner)
        except Exception as error:
            self.left.append(f"a graph that {self.options.inner} cannot compile: {error}")
            return gm.forward


class _Graph:
    """A compiled graph that can be let go of."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run: Callable[..., Any] | None = run

    def __call__(self, *inputs: Any) -> Any:
        if self.run is None:
            raise RuntimeError("this graph was compiled for a model that stonefx.optimize did not return")
        return self.run(*inputs)


def saved(report: Report) -> tuple[int, int]:
    """How much a report says was won: FLOPs of a call first, then rewritten sites.

    >>> saved(Report())
    (0, 0)
    """
    sites = report.rewritten()
    return sum(site.flops_before - site.flops_after for site in sites), len(sites)
