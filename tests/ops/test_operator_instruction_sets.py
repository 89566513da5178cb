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


def run(code, **environment):
    path = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", native.build_info()["instruction_sets"])
def test_every_instruction_set_agrees_with_the_reference(name):
    if name not in native.build_info()["instruction_sets_usable"]:
        pytest.skip(f"this CPU lacks {name}")
    done = run(PROGRAM, STONEFX_CPU_ISA=name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "agreed"


def test_an_unknown_instruction_set_is_refused():
    done = run("import stonefx.ops", STONEFX_CPU_ISA="mmx")
    assert done.returncode != 0
    assert "STONEFX_CPU_ISA=mmx is unknown; use one of baseline, avx2, avx512, or unset it" in done.stderr
