"""Random algebraic rearrangements of the formulas all match, and random changes of a constant never do."""

import math
from collections.abc import Callable

import pytest
import torch
from graphs import trace
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import stonefx.ops  # noqa: F401  (registers the operators)
from stonefx.passes.hyperbolic import HYPERBOLIC
from stonefx.passes.site import Context
from stonefx.passes.verify import Verifier

X = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.2
Y = torch.randn(8, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.2
C = torch.tensor(0.8, dtype=torch.float64)


class Writer:
    """Writes products, sums, quotients and norms in one of their spellings, drawn at random."""

    def __init__(self, draw: Callable[[st.SearchStrategy], int]) -> None:
        self.draw = draw

    def pick(self, *spellings: Callable[[], Tensor]) -> Tensor:
        return spellings[self.draw(st.integers(0, len(spellings) - 1))]()

    def times(self, a: Tensor, b: Tensor) -> Tensor:
        spellings = [lambda: a * b, lambda: b * a, lambda: -(-a * b)]
        if b.ndim == 0 or b.shape[-1] == 1:  # for rows, 1 / b is a function of their entries
            spellings.append(lambda: a / (1 / b))
        return self.pick(*spellings)

    def over(self, a: Tensor, b: Tensor) -> Tensor:
        return self.pick(
            lambda: a / b,
            lambda: a * b.reciprocal(),
            lambda: (1 / b) * a,
            lambda: a * b.pow(-1),
            lambda: (a / b.sqrt()) * b.rsqrt(),
        )

    def plus(self, a: Tensor | float, b: Tensor) -> Tensor:
        return self.pick(lambda: a + b, lambda: b + a, lambda: a - (-b), lambda: torch.rsub(-b, a))

    def square(self, a: Tensor) -> Tensor:
        return self.pick(lambda: a * a, lambda: a**2, lambda: a.square(), lambda: a.pow(2.0))

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        return self.pick(
            lambda: (a * b).sum(-1, keepdim=True),
            lambda: torch.einsum("bi,bi->b", b, a).unsqueeze(-1),
            lambda: torch.linalg.vecdot(a, b)[:, None],
            lambda: (b * a).sum(dim=1).reshape(-1, 1),
        )

    def square_norm(self, a: Tensor) -> Tensor:
        return self.pick(
            lambda: self.square(a).sum(-1, keepdim=True),
            lambda: self.dot(a, a),
            lambda: self.square(torch.linalg.vector_norm(a, dim=-1, keepdim=True)),
        )

    def norm(self, a: Tensor) -> Tensor:
        return self.pick(
            lambda: a.norm(dim=-1, keepdim=True),
            lambda: a.norm(p=2, dim=-1).unsqueeze(-1),
            lambda: (-a).norm(dim=-1, keepdim=True),
            lambda: (a * a).sum(-1, keepdim=True).sqrt(),
            lambda: (a**2).sum(-1, True) ** 0.5,
            lambda: torch.linalg.norm(a, dim=1, keepdim=True).expand(-1, a.shape[1]),
        )

    def tanh(self, u: Tensor) -> Tensor:
        return self.pick(lambda: torch.tanh(u), lambda: -torch.tanh(-u), lambda: u.tanh())

    def artanh(self, u: Tensor) -> Tensor:
        return self.pick(
            lambda: torch.atanh(u),
            lambda: 0.5 * (torch.log(1 + u) - torch.log(1 - u)),
            lambda: 0.5 * torch.log((1 + u) / (1 - u)),
            lambda: (torch.log1p(u) - torch.log1p(-u)) / 2,
            lambda: -torch.atanh(-u),
        )

    def product(self, upper: list[Tensor], lower: list[Tensor]) -> Tensor:
        """A product of factors and reciprocal factors, taken in any order."""
        order = self.draw(
            st.permutations([(f, True) for f in range(len(upper))] + [(f, False) for f in range(len(lower))])
        )
        result = None
        for index, multiply in order:
            factor = upper[index] if multiply else lower[index]
            if result is None:
                result = factor if multiply else 1 / factor
            else:
                result = self.times(result, factor) if multiply else self.over(result, factor)
        return result


def radial(w: Writer, kind: str, x: Tensor, s: Tensor | float) -> Tensor:
    inside = w.times(w.norm(x), s) if isinstance(s, Tensor) else w.norm(x) * s
    function = w.tanh(inside) if kind == "expmap0" else w.artanh(inside)
    lower = [w.norm(x)] + ([s] if isinstance(s, Tensor) else [])
    result = w.product([function, x], lower)
    return result if isinstance(s, Tensor) else result / s


def mobius(w: Writer, x: Tensor, y: Tensor, c: Tensor) -> Tensor:
    cxy, cx, cy = c * w.dot(x, y), w.times(c, w.square_norm(x)), w.times(w.square_norm(y), c)
    of_x = w.plus(w.plus(1.0, w.times(cxy, torch.full((), 2.0, dtype=x.dtype))), cy)
    of_y = w.plus(1.0, -cx)
    below = w.plus(w.plus(1.0, 2 * cxy), w.times(cx, cy))
    if w.draw(st.booleans()):
        return w.over(w.plus(w.times(of_x, x), w.times(of_y, y)), below)
    return w.plus(w.times(w.over(of_x, below), x), w.times(w.over(of_y, below), y))


def rewritten(function, *inputs):
    before = trace(lambda _, *given: function(*given), *inputs)
    after = trace(lambda _, *given: function(*given), *inputs)
    return before, after, HYPERBOLIC.run(after, Context())


def record(data):
    """The draws of one example, so that tracing twice makes the same choices."""
    taken: list = []

    def replay():
        position = iter(range(10**9))

        def draw(strategy):
            index = next(position)
            if index == len(taken):
                taken.append(data.draw(strategy))
            return taken[index]

        return Writer(draw)

    return replay


@pytest.mark.parametrize("kind", ["expmap0", "logmap0"])
@given(data=st.data(), learned=st.booleans())
@settings(max_examples=15, deadline=None, derandomize=True)
def test_rearranged_radial_maps_match(kind, data, learned):
    writer = record(data)
    if learned:
        before, after, sites = rewritten(
            lambda x, c: radial(writer(), kind, x, c.sqrt()), X, torch.tensor(0.8).double()
        )
    else:
        before, after, sites = rewritten(lambda x: radial(writer(), kind, x, math.sqrt(1.3)), X)
    assert [(s.target, s.status, s.reason) for s in sites] == [(kind, "rewritten", "")]
    assert Verifier({}).check(before, after, sites[0]) is None


@given(data=st.data())
@settings(max_examples=15, deadline=None, derandomize=True)
def test_rearranged_mobius_add_matches(data):
    writer = record(data)
    before, after, sites = rewritten(
        lambda x, y, c: mobius(writer(), x, y, c), X, Y, torch.tensor(0.8).double()
    )
    assert [(s.target, s.status, s.reason) for s in sites] == [("mobius_add", "rewritten", "")]
    assert Verifier({}).check(before, after, sites[0]) is None


@given(data=st.data(), wrong=st.sampled_from([1 + 1e-6, 0.5, 2.0, 1 - 1e-6, -1.0]))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_a_changed_constant_never_matches(data, wrong):
    writer = record(data)

    def function(x, c):
        w = writer()
        u = w.times(w.norm(x), c.sqrt())
        return w.product([w.tanh(u * wrong), x], [w.norm(x), c.sqrt()])

    _, _, sites = rewritten(function, X, C)
    if wrong == -1.0:  # -expmap0(x) is expmap0(-x)
        assert [s.status for s in sites] == ["rewritten"]
    else:
        assert [s.status for s in sites] == ["near miss"]
        assert "different curvature" in sites[0].reason or "missing" in sites[0].reason
