"""Random algebraic rearrangements of the formulas all match, and random changes of a constant never do."""

import itertools
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


WRONG = [0.5, 2.0, *(1 + sign * 10.0**-digits for digits in (6, 12) for sign in (1, -1))]


@given(data=st.data(), wrong=st.sampled_from([*WRONG, -1.0]))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_a_changed_multiple_is_carried(data, wrong):
    """`tanh(a n) / (b n) x` is the map at `a / b x`: what is changed is multiplied by, and never dropped."""
    writer = record(data)

    def function(x, c):
        w = writer()
        u = w.times(w.norm(x), c.sqrt())
        return w.product([w.tanh(u * wrong), x], [w.norm(x), c.sqrt()])

    before, after, sites = rewritten(function, X, C)
    assert [(site.target, site.status) for site in sites] == [("expmap0", "rewritten")]
    agree(after(X, C), before(X, C))


def agree(value, expected):
    error = (value - expected).abs().max() / expected.abs().max()
    assert error <= 128 * torch.finfo(torch.float64).eps, error


def squares(x):
    return (x * x).sum(-1, keepdim=True)


def mobius_add(k, x, y, c):
    x2, y2, xy = squares(x), squares(y), (x * y).sum(-1, keepdim=True)
    of_x = k[0] + k[1] * 2 * c * xy + k[2] * c * y2
    below = k[5] + k[6] * 2 * c * xy + k[7] * c * c * x2 * y2
    return (of_x * x + (k[3] - k[4] * c * x2) * y) / below


def poincare_dist(k, x, y, c):
    gaps = (k[2] - k[3] * c * squares(x)) * (k[4] - k[5] * c * squares(y))
    return torch.acosh(k[0] + k[1] * 2 * c * squares(x - y) / gaps) / c**0.5


def poincare_dist_by_artanh(k, x, y, c):
    x2, y2, xy = squares(x), squares(y), (x * y).sum(-1, keepdim=True)
    above = k[0] * c * x2 - k[1] * 2 * c * xy + k[2] * c * y2
    return torch.atanh(torch.sqrt(above / (k[3] - k[4] * 2 * c * xy + k[5] * c * c * x2 * y2)))


def klein_dist(k, x, y, c):
    gaps = (k[2] - k[3] * c * squares(x)) * (k[4] - k[5] * c * squares(y))
    return torch.acosh((k[0] - k[1] * c * (x * y).sum(-1, keepdim=True)) / torch.sqrt(gaps))


def mobius_scalar_mul(k, x, y, c):
    n = x.norm(dim=-1, keepdim=True)
    return torch.tanh(3 * torch.atanh(k[0] * c**0.5 * n)) * x / (k[1] * c**0.5 * n)


def conformal_factor(k, x, y, c):
    return k[0] * 2 / (k[1] - c * squares(x))


# Each with how many constants it has, and which of them a guard or another curvature may stand for.
CONSTANTS = {
    mobius_add: (8, (5,)),
    poincare_dist: (6, ()),
    poincare_dist_by_artanh: (6, ()),
    klein_dist: (6, ()),
    mobius_scalar_mul: (2, ()),
    conformal_factor: (2, (1,)),
}


@pytest.mark.parametrize("c", [0.8, 40.0])
@pytest.mark.parametrize("function", CONSTANTS, ids=lambda f: f.__name__)
def test_a_changed_constant_never_matches(function, c):
    """Not by 1e-12 in float64: what is rewritten has every constant right, to rounding."""
    target, (count, free) = function.__name__.removesuffix("_by_artanh"), CONSTANTS[function]
    x, y = X / c**0.5, Y / c**0.5
    for place, wrong in [(0, 1.0), *itertools.product(range(count), WRONG)]:
        constants = [wrong if i == place else 1.0 for i in range(8)]
        graph = trace(lambda _, x, y, k=constants: function(k, x, y, c), x, y)
        sites = HYPERBOLIC.run(graph, Context())
        if wrong == 1:
            assert [(site.target, site.status) for site in sites] == [(target, "rewritten")]
        elif place in free:
            agree(graph(x, y), function(constants, x, y, c))
        else:
            assert not [s for s in sites if s.target == target and s.status == "rewritten"], (place, wrong)
