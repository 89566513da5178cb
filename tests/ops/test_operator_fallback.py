"""Without the native library the references run, with one warning that says how to build it."""

import pytest
from test_operator_instruction_sets import run

PROGRAM = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import stonefx.ops
    import torch
    from torch.library import opcheck
    from operator_cases import NAMES, arguments, overload, requiring
    for name in NAMES:
        args = arguments(name)
        opcheck(overload(name), requiring(args))
        assert torch.autograd.gradcheck(overload(name), requiring(args))
    try:
        overload("expmap0")(torch.zeros(2, dtype=torch.int64), torch.tensor(1.0))
    except RuntimeError as error:
        print(error)
ours = [str(w.message) for w in caught if "stonefx" in str(w.message)]
assert len(ours) == 1, ours
print(ours[0])
"""


def test_the_references_run_with_one_warning():
    done = run(PROGRAM, STONEFX_NATIVE="0")
    assert done.returncode == 0, done.stderr
    error, warning = done.stdout.strip().splitlines()
    assert error.startswith("stone::expmap0: x must be float32, float64, bfloat16 or float16, got int64;")
    assert warning == (
        "stonefx runs its operators in plain torch on the CPU: STONEFX_NATIVE=0 is set. Unset STONEFX_NATIVE."
    )


@pytest.mark.parametrize("content", [None, b"not a library"], ids=["missing", "broken"])
def test_a_library_that_is_missing_or_broken(content, tmp_path):
    path = None
    if content is not None:
        path = str(tmp_path / "libstonefx_cpu.so")
        (tmp_path / "libstonefx_cpu.so").write_bytes(content)
    code = f"""
import stonefx.native as native
native.find = lambda name: {path!r}
import warnings
warnings.simplefilter("error")
try:
    import stonefx.ops
except RuntimeWarning as warning:
    print(warning)
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    expected = "libstonefx_cpu is not installed" if content is None else f"{path} does not load: "
    assert expected in done.stdout
    assert "pip install --no-build-isolation --no-deps --force-reinstall ." in done.stdout
