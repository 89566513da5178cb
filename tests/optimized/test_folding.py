"""Folds in blocks of rows are what the whole graph gives, and weights go as soon as nothing reads them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import fx

from stonefx.optimized.folding import Folding
from stonefx.passes.graph import blocks

aten = torch.ops.aten
WIDE = torch.float64
A, B = torch.randn(96, 64), torch.randn(64, 80)
SCALE, COLUMN = torch.randn(64), torch.randn(96, 1)


def wide(value: fx.Proxy) -> fx.Proxy:
    return aten.to.dtype(value, WIDE)


def narrow(value: fx.Proxy) -> fx.Proxy:
    return aten.to.dtype(value, torch.float32)


def times(first: fx.Proxy, second: fx.Proxy) -> fx.Proxy:
    return aten.mul.Tensor(first, second)


# Graphs over the weights a [96, 64], b [64, 80], s [64] and c [96, 1].
GRAPHS: dict[str, Callable[..., object]] = {
    "product": lambda a, b, s, c: narrow(aten.mm.default(wide(a), wide(b))),
    "scaled columns": lambda a, b, s, c: narrow(times(wide(a), wide(s))),
    "scaled rows": lambda a, b, s, c: narrow(aten.div.Tensor(wide(a), wide(c))),
    "scaled on the left": lambda a, b, s, c: narrow(aten.sub.Tensor(wide(s), wide(a))),
    "transposed": lambda a, b, s, c: narrow(
        aten.mm.default(aten.t.default(wide(b)), aten.t.default(wide(a)))
    ),
    "transposed later": lambda a, b, s, c: aten.t.default(narrow(aten.mm.default(wide(a), wide(b)))),
    "three": lambda a, b, s, c: narrow(
        aten.mm.default(aten.mm.default(wide(a), wide(b)), aten.t.default(wide(b)))
    ),
    "from the right": lambda a, b, s, c: narrow(
        aten.mm.default(aten.t.default(wide(a)), aten.mm.default(wide(a), wide(b)))
    ),
    "scaled product": lambda a, b, s, c: narrow(
        times(aten.mm.default(times(wide(a), wide(s)), wide(b)), 3.0)
    ),
    "vector": lambda a, b, s, c: narrow(aten.mv.default(times(wide(a), wide(c)), wide(s))),
    "shape": lambda a, b, s, c: narrow(times(aten.reshape.default(wide(a), [8, 12, 64]), wide(s))),
    "broadcast up": lambda a, b, s, c: narrow(times(wide(a), aten.reshape.default(wide(s), [64, 1, 1]))),
    "other operators": lambda a, b, s, c: narrow(aten.sqrt.default(aten.abs.default(wide(a)))),
    "kept wide": lambda a, b, s, c: aten.mm.default(wide(a), wide(b)),
    "the weight itself": lambda a, b, s, c: aten.t.default(a),
}


def folds(make: Callable[..., object]) -> fx.GraphModule:
    graph = fx.Graph()
    tracer = fx.proxy.GraphAppendingTracer(graph)
    a, b, c, s = (fx.Proxy(graph.placeholder(name), tracer) for name in "abcs")
    found = make(a, b, s, c)
    graph.output((found.node,))  # type: ignore[attr-defined]
    return fx.GraphModule({}, graph)


@pytest.mark.parametrize("block", [1, 700, 4096, 2**22])
@pytest.mark.parametrize("name", GRAPHS)
def test_blocks_give_what_the_whole_gives(name: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_BLOCK", block)
    graph = folds(GRAPHS[name])
    weights = [A, B, COLUMN, SCALE]
    (expected,) = graph(*weights)
    (found,) = Folding(graph, weights.__getitem__, frozenset()).values()
    assert found.dtype == expected.dtype and found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_weights_are_taken_when_they_are_needed_and_once() -> None:
    graph = fx.Graph()
    a, b, c, d = (graph.placeholder(name) for name in "abcd")
    first = graph.call_function(aten.mm.default, (a, b))
    second = graph.call_function(aten.mm.default, (c, c))
    graph.output((first, second))
    weights: list[torch.Tensor | None] = [torch.randn(4, 4) for _ in range(4)]
    alive: list[list[bool]] = []
    taken = []

    def take(index: int) -> torch.Tensor:
        value, weights[index] = weights[index], None
        assert value is not None
        taken.append(index)
        return value

    class Watched(Folding):
        def run_node(self, n: fx.Node) -> object:
            value = super().run_node(n)
            if n.op == "call_function":
                alive.append([self.env.get(node) is not None for node in (a, b, c)])
            return value

    Watched(fx.GraphModule({}, graph), take, frozenset()).values()
    assert taken == [0, 1, 2] and weights[3] is not None
    # At the second product nothing of the first is alive but its result.
    assert alive == [[True, True, False], [False, False, True]]
    del d


def test_a_fold_never_ends_in_memory_of_others() -> None:
    graph = folds(GRAPHS["the weight itself"])
    (found,) = Folding(
        graph, [A, B, COLUMN, SCALE].__getitem__, frozenset({A.untyped_storage().data_ptr()})
    ).values()
    assert torch.equal(found, A.t()) and found.data_ptr() != A.data_ptr()
