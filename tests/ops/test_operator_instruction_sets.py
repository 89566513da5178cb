"""The same source compiled for each instruction set, each in a process of its own."""

import os
import subprocess
import sys

import pytest

from stonefx import native

PROGRAM = """
import torch
from operator_cases import DTYPES, HYPERBOLIC, arguments, declared, overload, relative
from stonefx import native
import stonefx.ops
import os
assert native.build_info()["instruction_set"] == os.environ["STONEFX_CPU_ISA"]
for dtype in DTYPES:
    eps = torch.finfo(dtype).eps
    for dim in (1, 17, 64):
        for name in HYPERBOLIC:
            args = [a.double() for a in arguments(name, dtype, batch=(41,), dim=dim)]
            grad = torch.randn(41, dim, generator=torch.Generator().manual_seed(1)).to(dtype)
            narrow = [a.to(dtype) for a in args]
            exact = declared(name).reference(*args)
            # a sum of opposite rows cancels in float64 itself
            assert relative(overload(name)(*narrow), exact) < (8 if name != "mobius_add" else 64) * eps, name
            got = overload(f"{name}_backward")(grad, *narrow)
            expected = declared(name).backward_reference(grad.double(), *args)
            for one, other in zip(got[:-1], expected[:-1], strict=True):
                assert relative(one, other) < 128 * eps, (name, dtype, dim)
print("agreed")
"""


ROWS = """
import os
import torch
from row_cases import NAMES, agree, guards, overload, row_arguments
from operator_cases import DTYPES
from stonefx import native
from stonefx.ops import ROW_FORMULAS
assert native.build_info()["instruction_set"] == os.environ["STONEFX_CPU_ISA"]
for dtype in DTYPES:
    eps = torch.finfo(dtype).eps
    for name in NAMES:
        formula = ROW_FORMULAS[name]
        # 1 to 17 entries: whole vectors, parts of one, and both; 41 rows: a block and a part of one
        for dim in (1, 2, 5, 8, 17):
            if dim == 1 and name.startswith("sphere"):
                continue
            for options in ({}, guards(name)):
                narrow = [a.to(dtype) for a in row_arguments(name, batch=(41,), dim=dim)]
                wide = [a.double() for a in narrow]
                result = overload(name)(*narrow, **options)
                # The reference in float64 has its own rounding errors.
                agree(result, formula.evaluate(*wide, **options), max(64 * eps, 1e-12))
                grad = torch.randn(result.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
                got = overload(f"{name}_backward")(grad, *narrow, **options)
                expected = formula.gradients(grad.double(), *wide, **options)
                for one, other in zip(got, expected, strict=True):
                    scale = other.abs().max().clamp_min(1e-6)
                    assert (one.double() - other).abs().max() < max(512 * eps, 1e-11) * scale, (name, dtype, dim)
print("agreed")
"""

OTHERS = """
import os
import torch
from operator_cases import DTYPES, points
import stonefx.ops
from stonefx import native
from stonefx.ops import butterfly, hyper_butterfly, poincare_cdist, lorentz_cdist, klein_cdist
from stonefx.ops import hnnpp_linear, pifa_linear, poincare_linear, poincare_mlr
assert native.build_info()["instruction_set"] == os.environ["STONEFX_CPU_ISA"]
def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
def hyperboloid(x):
    return torch.cat([(1 + x.square().sum(-1, keepdim=True)).sqrt(), x], -1)
rows_in_order = torch.tensor([k for k in range(67) if k % 5 < 2] + [k for k in range(67) if k % 5 > 1])
index = rows_in_order.argsort().int()
others = torch.randperm(67, generator=torch.Generator().manual_seed(5)).int()
pifa = [normal(9, 19), normal(27, 19, seed=1), 0.2 * normal(40, 27, seed=2), normal(67, seed=3)]
cases = {
    "pifa_linear": (lambda x, p, t, b: pifa_linear(x, p, t, index, b), pifa),
    "pifa_linear, any order": (lambda x, p, t, b: pifa_linear(x, p, t, others, b), pifa),
    "pifa_linear, no bias": (lambda x, p, t: pifa_linear(x, p, t, index), pifa[:3]),
    "butterfly": (butterfly, [normal(9, 16), normal(4, 8, 2)]),
    "hyper_butterfly": (hyper_butterfly, [points(9, 16), 0.5 * normal(4, 8, 2)]),
    "poincare_cdist": (poincare_cdist, [points(70, 19), points(33, 19, seed=1)]),
    "lorentz_cdist": (lorentz_cdist, [hyperboloid(normal(70, 19)), hyperboloid(normal(33, 19, seed=1))]),
    "klein_cdist": (klein_cdist, [points(70, 19), points(33, 19, seed=1)]),
    "poincare_linear": (poincare_linear, [points(35, 19), 0.3 * normal(21, 19), points(21, seed=2)]),
    "hnnpp_linear": (hnnpp_linear, [points(35, 19), normal(19, 21), normal(21, seed=1)]),
    "poincare_mlr": (poincare_mlr, [points(70, 19), points(21, 19, seed=1), normal(21, 19, seed=2)]),
}
for dtype in DTYPES:
    eps = torch.finfo(dtype).eps
    for name, (function, operands) in cases.items():
        narrow = [a.to(dtype).requires_grad_() for a in operands]
        wide = [a.detach().double().requires_grad_() for a in narrow]
        got, expected = function(*narrow), function(*wide)
        grad = normal(*expected.shape, seed=3).to(dtype)
        assert (got.double() - expected).abs().max() < 64 * eps * expected.abs().max(), (name, dtype)
        ours = torch.autograd.grad(got, narrow, grad)
        theirs = torch.autograd.grad(expected, wide, grad.double())
        for one, other in zip(ours, theirs, strict=True):
            assert (one.double() - other).abs().max() < 512 * eps * other.abs().max(), (name, dtype)
print("agreed")
"""


def run(code, **environment):
    path = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )


def _marked(name):
    info = native.build_info()
    if name not in info["instruction_sets_usable"]:
        return pytest.param(name, marks=pytest.mark.skip(reason=f"this CPU lacks {name}"))
    # All other tests run the one that is in use.
    return pytest.param(name, marks=[pytest.mark.slow] if name == info["instruction_set"] else [])


INSTRUCTION_SETS = [_marked(name) for name in native.build_info()["instruction_sets"]]


@pytest.mark.parametrize("program", [PROGRAM, ROWS, OTHERS], ids=["maps", "rows", "others"])
@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_every_instruction_set_agrees_with_the_reference(name, program):
    """What is no row formula is compared with its float64 kernel, which other tests compare with the reference."""
    done = run(program, STONEFX_CPU_ISA=name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "agreed"


def test_an_unknown_instruction_set_is_refused():
    done = run("import stonefx.ops", STONEFX_CPU_ISA="mmx")
    assert done.returncode != 0
    assert "STONEFX_CPU_ISA=mmx is unknown; use one of baseline, avx2, avx512, or unset it" in done.stderr
