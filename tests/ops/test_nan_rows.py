"""NaN in any entry of any operand reaches every entry of the row's result, and of its gradients, that depends on it.

What depends on what is read off the derivatives of the references at a generic row, so that no table lists it.
"""

import math
from functools import cache, partial

import pytest
import torch
from operator_cases import arguments, declared, module
from row_cases import GUARDED, guards, overload, row_arguments
from row_cases import NAMES as FORMULAS

from stonefx.ops import ROW_FORMULAS

OTHERS = ("expmap0", "logmap0", "mobius_add", "add_time", "point_of_distances")
WIDE = 19  # whole vectors of every instruction set, and a part of one
# How long rows are: near the origin, near the boundary of a ball, outside and far out on the hyperboloid.
LENGTHS = {"ordinary": None, "tiny": 1e-9, "boundary": 1 - 1e-6, "far": 1e3, "farther": 1e8}
DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def reference(name):
    if name in ROW_FORMULAS:
        return ROW_FORMULAS[name].evaluate
    return module(name).FORMULA.evaluate if name == "point_of_distances" else declared(name).reference


def options(name, guarded):
    return guards(name) if guarded and name in ROW_FORMULAS else {}


def base(name, length=None, dim=WIDE):
    """The operands of one row, all of them rows of their own."""
    if name in ROW_FORMULAS:
        operands = row_arguments(name, batch=(1,), dim=dim)
        count = len(ROW_FORMULAS[name].vectors)
    else:
        kind = "mobius_add" if name == "mobius_add" else "expmap0"
        operands = arguments(kind, batch=(1,), dim=dim)
        count = len(operands) - 1
    if length is None:
        return operands
    scale = operands[count].rsqrt() if count < len(operands) else 1.0
    rows = [length * scale * v / v.norm(dim=-1, keepdim=True) for v in operands[:count]]
    return (*rows, *operands[count:])


def flat(function, operands):
    """A function of the entries of all operands of one row."""
    sizes = [v.shape[-1] for v in operands]
    return lambda entries: function(*(v[None] for v in entries.split(sizes))).reshape(-1)


@cache
def dependence(name):
    """What of the result depends on each entry, and what of the gradients on each entry and on each of the gradient.

    With guards and without: a bound may hold at the one row or at the other.
    """
    operands = base(name)
    entries = torch.cat([v.reshape(-1) for v in operands])
    first, second = [], []
    for guarded in (False, True):
        function = flat(partial(reference(name), **options(name, guarded)), operands)
        weights = torch.randn(
            function(entries).shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64
        )
        gradient = torch.func.grad(lambda e, f=function, w=weights: (f(e) * w).sum())
        first.append(torch.func.jacrev(function)(entries))
        second.append(torch.func.jacrev(gradient)(entries))
    assert all(each.isfinite().all() for each in (*first, *second)), name
    return (first[0] != 0) | (first[1] != 0), (second[0] != 0) | (second[1] != 0)


def planted(operands, extra=0):
    """Each operand repeated, with NaN in one entry of one operand a row; then `extra` rows and one without."""
    count = sum(v.shape[-1] for v in operands)
    rows, begin = [v.repeat(count + extra + 1, 1) for v in operands], 0
    for v in rows:
        for e in range(v.shape[-1]):
            v[begin + e, e] = math.nan
        begin += v.shape[-1]
    return rows, count


@pytest.mark.parametrize(
    "name, guarded",
    [(name, False) for name in (*FORMULAS, *OTHERS)] + [(name, True) for name in GUARDED],
)
def test_nan_reaches_the_results_that_depend_on_it(name, guarded):
    depends = dependence(name)[0].T
    for dtype in DTYPES:
        for label, length in LENGTHS.items():
            rows, count = planted(base(name, length))
            got = overload(f"{name}_forward")(*(v.to(dtype) for v in rows), **options(name, guarded))
            got = got.reshape(count + 1, -1)
            lost = depends & ~got[:count].isnan()
            assert not lost.any(), (name, dtype, label, lost.nonzero()[:4].tolist())
            more = ~depends & got[:count].isnan() & ~got[count].isnan()
            assert not more.any(), (name, dtype, label, more.nonzero()[:4].tolist())


@pytest.mark.parametrize("name", (*FORMULAS, *OTHERS))
def test_nan_reaches_the_gradients_that_depend_on_it(name):
    first, second = dependence(name)
    for dtype in DTYPES:
        for label, length in LENGTHS.items():
            operands = base(name, length)
            rows, count = planted(operands, extra=len(first))
            rows = [v.to(dtype) for v in rows]
            shape = overload(f"{name}_forward")(*rows).shape
            grad = torch.randn(shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64).to(
                dtype
            )
            for r, row in enumerate(grad.view(count + len(first) + 1, -1)[count:-1]):
                row[r] = math.nan
            got = torch.cat([g.double() for g in overload(f"{name}_backward")(grad, *rows)], -1)
            lost = torch.cat([second.T, first]) & ~got[:-1].isnan()
            assert not lost.any(), (name, dtype, label, lost.nonzero()[:4].tolist())
