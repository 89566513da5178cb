"""Without the native library the references run, with one warning that says how to build it."""

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
        opcheck(overload(name), requiring(args), test_utils=("test_schema", "test_faketensor"))
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
