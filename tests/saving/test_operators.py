"""Which operators a file may call."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import fx

from stonefx.saving.aten import ATEN
from stonefx.saving.operators import check_call, name_of, operator

# Arguments that could name a file, a storage, a callback, another device's stream or random state.
HARMLESS = {
    "Tensor",
    "int",
    "bool",
    "float",
    "number",
    "ScalarType",
    "Layout",
    "Device",
    "MemoryFormat",
    "str",
    "Generator",
}
WORDS = set(
    "rounding_mode padding UPLO driver approximate mode reduce interpolation pad_mode side equation padding_side "
    "indexing ord p norm assert_msg".split()
)


def overloads() -> list[str]:
    """Every registered overload of a listed operator of ATen."""
    found = []
    for qualified in torch._C._dispatch_get_all_op_names():
        namespace, _, rest = qualified.partition("::")
        name, _, overload = rest.partition(".")
        if namespace == "aten" and name in ATEN:
            found.append(f"aten.{name}.{overload or 'default'}")
    return found


def test_what_is_listed_computes_tensors_from_tensors_and_numbers() -> None:
    names = overloads()
    known = {
        name for name in ATEN if hasattr(torch.ops.aten, name)
    }  # a release of torch may have dropped one
    assert {name.split(".")[1] for name in names} == known and len(ATEN - known) < 5
    refused = 0
    for name in names:
        try:
            target = operator(name, "it")
        except ValueError:
            refused += 1
            continue
        assert name_of(target) == name
        for argument in target._schema.arguments:
            kind = re.sub(r"^(?:(?:Optional|List)\[)*|\]*$", "", str(argument.real_type))
            assert kind in HARMLESS, (name, argument.name)
            assert kind != "str" or argument.name in WORDS, (name, argument.name)
    # Overloads of a listed name that take something else, such as names of dimensions.
    assert refused < 20


def test_what_writes_or_skips_its_checks_is_not_listed() -> None:
    suspicious = re.compile(
        r"backward|sparse|unsafe_(?!chunk|split|view)|fbgemm|mkldnn|file|print|storage(?!_offset)|^set_|save|nested|ctc|native_batch_norm"
    )
    assert [name for name in ATEN if suspicious.search(name)] == []


def test_our_own_operators_are_listed() -> None:
    for qualified in torch._C._dispatch_get_all_op_names():
        if qualified.startswith("stone::"):
            name = f"stone.{qualified[7:]}.default"
            if name.endswith("_backward.default"):
                with pytest.raises(ValueError, match="an operator that a graph may call"):
                    operator(name, "it")
            else:
                assert name_of(operator(name, "it")) == name


def test_calls_of_functions() -> None:
    graph = fx.Graph()
    size = graph.placeholder("size")
    mode = graph.call_function(operator("torch.autocast.enter", "it"))
    calls: dict[str, list[Any]] = {
        "operator.add": [size, 1],
        "operator.floordiv": [size, size],
        "operator.getitem": [size, 0],
        "operator.pow": [size, 2],
        "math.floor": [size],
        "torch.sym_max": [1, size],
        "torch.sym_sum": [[size, size, 3]],
        "torch.set_grad_enabled": [True],
        "torch.autocast.enter": ["cpu", None, True, None],
        "torch.autocast.exit": [mode],
    }
    for name, args in calls.items():
        check_call(operator(name, "it"), args, {}, "it")
        for given, named in ((["text"], {}), (args, {"key": 1}), ([], {}), ([graph, *args[1:]], {})):
            with pytest.raises(ValueError, match=f"it: expected arguments of {re.escape(name)}, got"):
                check_call(operator(name, "it"), given, named, "it")
    with pytest.raises(ValueError, match=r"expected arguments of torch\.autocast\.exit"):
        check_call(operator("torch.autocast.exit", "it"), [size], {}, "it")
