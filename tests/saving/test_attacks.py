"""Files that were written to do harm: they are refused, or do what a graph may do and nothing else."""

from __future__ import annotations

import dataclasses
import json
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forged import calls, forged, part
from safetensors.torch import save_file
from saved_models import Batch, Positional, Structured, chain, x
from torch import nn

import stonefx
from stonefx.saving.file import _stamp

CALL = Batch(x(4), 3.0, {"y": x(4)}), [(x(4), x(4))]
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    return {
        "chain": stonefx.save(stonefx.optimize(chain(8, 64, 8), x(4)), folder / "chain"),
        "positional": stonefx.save(
            stonefx.optimize(Positional().eval(), (x(4), x(4))), folder / "positional"
        ),
        "structured": stonefx.save(stonefx.optimize(Structured().eval(), CALL), folder / "structured"),
    }


def set_call(name: str, *args: Any, **kwargs: Any) -> Change:
    """Make the first call of the graph another one."""

    def change(document: dict[str, Any]) -> None:
        calls(document)[0] = [name, list(args), [[key, value] for key, value in kwargs.items()]]

    return change


DAMAGED = r"is damaged or no file that stonefx\.save wrote: "
CANARY = "/tmp/stonefx-was-here"
NODE = {"node": 0}


@pytest.mark.parametrize(
    "change",
    [
        set_call("aten.save.default", NODE, CANARY),
        set_call("aten.from_file.default", CANARY, True, 8),
        set_call("aten.from_file.out", CANARY, True, 8, out=NODE),
        set_call("aten._print.default", "text"),
        set_call("aten.warn.default", "text"),
        set_call("aten.__class__.default", NODE),
        set_call("aten.add.__class__", NODE, NODE),
        set_call("aten.add.op", NODE, NODE),
        set_call("aten.add_.t", NODE, NODE),
        set_call("aten.set_.source_Tensor", NODE, NODE),
        set_call("aten._sparse_coo_tensor_unsafe.default", NODE, NODE, {"list": [4]}),
        set_call("aten.sparse_coo_tensor.indices", NODE, NODE),
        set_call("aten.fbgemm_linear_fp16_weight.default", NODE, NODE, NODE),
        set_call("aten.max_pool2d_with_indices_backward.default", NODE),
        set_call("stone.expmap0_backward.default", NODE, NODE, NODE),
        set_call("aten.relu", NODE),
        set_call("aten.relu.default.op", NODE),
        set_call("aten.relu.default\n", NODE),
        set_call("relu", NODE),
        set_call("os.system", CANARY),
        set_call("builtins.eval", CANARY),
        set_call("builtins.open", CANARY, "w"),
        set_call("operator.call", NODE),
        set_call("operator.attrgetter", "__class__"),
        set_call("operator.methodcaller", "numpy"),
        set_call("torch.load", CANARY),
        set_call("torch.hub.load", CANARY),
        set_call("torch.ops.load_library", CANARY),
        set_call("load_library.x.y", CANARY),
    ],
    ids=lambda change: change.__closure__[2].cell_contents.strip(),
)
def test_operators_outside_of_the_list(change: Change, files: dict[str, Path]) -> None:
    with pytest.raises(
        ValueError, match=r"damaged.*an operator that a graph may call, got|not there in torch|opera.*trust"
    ):
        stonefx.load(forged(files["chain"], change))
    assert not Path(CANARY).exists()


@pytest.mark.parametrize(
    "change",
    [
        set_call("aten.relu.default", "text"),
        set_call("aten.relu.default", NODE, NODE),
        set_call("aten.relu.default"),
        set_call("aten.relu.default", NODE, **{"out": NODE}),
        set_call("aten.relu.default", **{"self": NODE, "x=1); print": NODE}),
        set_call("aten.relu.default", NODE, **{"self": NODE}),
        set_call("aten.uniform_.default", NODE, **{"from": 1.0}),
        set_call("aten.div.Tensor_mode", NODE, NODE, rounding_mode="floor'); print('"),
        set_call("aten.gelu.default", NODE, approximate={"object": "builtins:print"}),
        set_call("aten.to.dtype", NODE, {"dtype": "load"}),
        set_call("aten.to.dtype", NODE, {"layout": "strided"}),
        set_call("aten.sum.dim_IntList", NODE, {"list": ["0"]}),
        set_call("aten.rand.generator", {"list": [2]}, generator=NODE),
        set_call("operator.getitem", NODE, "__class__"),
        set_call("operator.getitem", {"list": [1]}, 0),
        set_call("operator.mul", "text", 10**9),
        set_call("operator.mul", 10**9, 10**9),
        set_call("operator.pow", NODE, 10**9),
        set_call("operator.pow", NODE, NODE),
        set_call("torch.set_grad_enabled", NODE),
        set_call("torch.set_grad_enabled", 1),
        set_call("torch.autocast.enter", "cpu'", None, True, True),
        set_call("torch.autocast.enter", "cpu", "bfloat16", True, True),
        set_call("torch.autocast.exit", NODE),
        set_call("aten.relu.default", {"node": 99}),
        set_call("aten.relu.default", {"node": -1}),
        set_call("aten.relu.default", {"node": True}),
        set_call("aten.relu.default", {"node": 0.0}),
        set_call("aten.relu.default", {"node": 0, "path": 1}),
        set_call("aten.relu.default", {"container": {"class": "builtins:list", "items": []}}),
        lambda document: calls(document)[0][1].__setitem__(0, {"node": len(part(document)["inputs"])}),
        lambda document: part(document)["graph"]["results"].append({"object": "builtins:print"}),
    ],
)  # fmt: skip
def test_arguments_of_other_kinds(change: Change, files: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=DAMAGED):
        stonefx.load(forged(files["chain"], change))


def argument(document: dict[str, Any]) -> dict[str, Any]:
    """The first input of the graph that is an argument."""
    return next(row for row in part(document)["inputs"] if "argument" in row)


def set_parameter(name: Any, kind: Any = "POSITIONAL_OR_KEYWORD", *default: Any) -> Change:
    return lambda document: part(document)["call"]["signature"].append([name, kind, *default])


@pytest.mark.parametrize(
    "change",
    [
        *(
            set_parameter(name, "KEYWORD_ONLY")
            for name in ("self", "class", "a b", "a=print()", "a\n", "", "1a", "__debug__", "ﬁt", None, 3, "x")
        ),
        set_parameter("a", "ANY"),
        set_parameter("a", "VAR_KEYWORD", 1),
        set_parameter("a", "KEYWORD_ONLY", 1, 2),
        set_parameter("a", "KEYWORD_ONLY", {"object": "os:system"}),
        set_parameter("a", "KEYWORD_ONLY", {"object": "torch.hub:load"}),
        set_parameter("a", "KEYWORD_ONLY", {"object": "torch:load"}),
        lambda document: part(document)["call"]["signature"].reverse(),
        lambda document: part(document)["call"]["symbols"].append(["print()", ["x", []], 1]),
        lambda document: part(document)["call"]["symbols"].append(["x", ["x", []], 1]),
        lambda document: part(document)["call"]["symbols"].append(["s999", ["x", []], 7]),
        lambda document: part(document)["call"]["symbols"].append(["s999", ["z", []], 0]),
        lambda document: part(document)["call"]["tensors"].append(part(document)["call"]["tensors"][0]),
        lambda document: part(document)["call"]["tensors"][0].__setitem__(2, "cpu' or print('"),
        lambda document: part(document)["inputs"][0].__setitem__("weight", "__class__"),
        lambda document: part(document)["inputs"].append(argument(document)),
        lambda document: document.__setitem__("model", "A: pass\nimport os"),
        lambda document: document["tensors"][0].__setitem__(0, "forward"),
        lambda document: document["tensors"][0].__setitem__(0, "_modules.x"),
        lambda document: document["tensors"][0].__setitem__(0, ".".join("a" * 5000)),
        lambda document: document["tensors"][0].__setitem__(0, "a..b"),
        lambda document: document["tensors"][1].__setitem__(0, document["tensors"][0][0] + ".inside"),
        lambda document: document["tensors"][0].__setitem__(5, [0, 0]),
        lambda document: document["tensors"].pop(),
        lambda document: document["parts"].__setitem__("another", document["parts"][""]),
        lambda document: part(document).__setitem__("inner", "os"),
        lambda document: part(document).__setitem__("report", "[]"),
        lambda document: document.__setitem__("report", '{"schema": 1, "sites": [{"__class__": 1}]}'),
    ],
)  # fmt: skip
def test_names_and_tables(change: Change, files: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"forged"):
        stonefx.load(forged(files["positional"], change))


def set_fact(question: Any, *paths: Any, arguments: Any = (), answer: Any = True) -> Change:
    def change(document: dict[str, Any]) -> None:
        part(document)["call"]["facts"].append([list(paths), question, list(arguments), answer, []])

    return change


X = {"path": [["x", []], None]}


class Asking(type):
    """A metaclass that answers what it is asked."""

    def __instancecheck__(cls, instance: Any) -> bool:
        raise AssertionError("nothing of the class runs")


class Asked(metaclass=Asking):
    pass


@pytest.mark.parametrize(
    "change",
    [
        set_fact("backward", X), set_fact("share_memory_", X), set_fact("numpy", X), set_fact("__class__.mro", X),
        set_fact("resize_", X, arguments=[10**9]), set_fact("load"), set_fact("set_default_dtype"),
        set_fact("decision", X),
        set_fact("is_contiguous"), set_fact("is_grad_enabled", X), set_fact("__reduce__", X), set_fact("to", X),
        set_fact("isinstance", X, arguments=[{"object": "test_attacks:Asked"}]),
        set_fact("isinstance", X, arguments=[{"tuple": [{"object": "test_attacks:Asked"}]}]),
        set_fact("isinstance", X, arguments=[{"object": "os:system"}]), set_fact(None, X),
        set_fact("is", X, {"output": 0}),
        set_fact("is_contiguous", {"path": [["z", []], None]}), set_fact("is_contiguous", {"weight": "gone"}),
        set_fact("is_contiguous", {"path": [["x", []], "grad_fn"]}),
    ],
)  # fmt: skip
def test_questions_that_are_none(change: Change, files: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"forged"):
        stonefx.load(forged(files["positional"], change))


def nested(levels: int) -> Any:
    tree: Any = "S"
    for _ in range(levels):
        tree = ["neg", tree]
    return tree


@pytest.mark.parametrize(
    "guard",
    [
        "print()", "s999", "__import__('os')", True, None, ["call", "print"], ["print", "S"], ["eval", "S"],
        ["add", "S"], ["add", "S", 1, 2], ["pow", "S", 10**9], ["pow", 9, "S"], ["pow", "S", -1], ["neg"], [],
        [[]], ["add", "S", {"node": 0}], ["eq", "S", 2**64], ["if", "S", 1], ["math.factorial", "S"], ["max"],
        nested(60), ["lt", "S", 0], ["mod", "S", 0],
    ],
    ids=repr,
)  # fmt: skip
def test_conditions_that_are_no_arithmetic(guard: Any, files: dict[str, Path]) -> None:
    def change(document: dict[str, Any]) -> None:
        call = part(document)["call"]
        # A symbol of the file, whatever torch called it.
        call["guards"].append(json.loads(json.dumps(guard).replace('"S"', json.dumps(call["symbols"][0][0]))))

    with pytest.raises(ValueError, match=DAMAGED):
        stonefx.load(forged(files["chain"], change))


@pytest.mark.parametrize(
    "place",
    [
        ["batch", [["attr", "__class__"]]], ["batch", [["attr", "x"], ["attr", "grad_fn"]]], ["batch", [["item", "x"]]],
        ["nobody", []], ["batch; print()", []], ["pairs", [["item", 7]]], ["pairs", [["item", False]]],
        ["pairs", [["item", "0"]]], ["pairs", [["attr", "append"]]], ["batch", [["attr", "x.data"]]], ["batch"],
        "batch",
    ],
    ids=repr,
)  # fmt: skip
def test_places_that_are_not_in_the_call(place: Any, files: dict[str, Path]) -> None:
    def change(document: dict[str, Any]) -> None:
        part(document)["call"]["result"]["dict"][0][1] = {"path": [place, None]}

    with pytest.raises(ValueError, match=DAMAGED):
        stonefx.load(forged(files["structured"], change))


def test_a_key_is_never_source(files: dict[str, Path]) -> None:
    key = "a'\"]\n; open('" + CANARY + "', 'w') #"

    def change(document: dict[str, Any]) -> None:
        text = json.dumps(document)
        document.clear()
        document.update(
            json.loads(text.replace('"y"', json.dumps(key)).replace('"pair"', json.dumps(key + "2")))
        )

    loaded = stonefx.load(forged(files["structured"], change))
    batch, pairs = CALL
    result = loaded(dataclasses.replace(batch, extra={key: x(4)}), pairs)
    assert {key + "2", "batch", "type", "no"} == {*result}
    assert not Path(CANARY).exists()


class Gadget(OrderedDict[str, Any]):
    """Does something when it is made."""

    made = 0

    def __init__(self, *args: Any) -> None:
        Gadget.made += 1
        super().__init__(*args)


@dataclasses.dataclass
class Restored:
    x: Any

    def __setstate__(self, state: Any) -> None:
        Gadget.made += 1


def set_result(cls: str, key: Any = "x") -> Change:
    def change(document: dict[str, Any]) -> None:
        part(document)["call"]["result"] = {"container": {"class": cls, "items": [[key, {"output": 0}]]}}

    return change


@pytest.mark.parametrize(
    "name",
    [
        "canary_module:Result", "test_attacks:Gadget", "test_attacks:Restored", "subprocess:Popen", "builtins:eval",
        "builtins:type", "os:system", "collections:Counter", "collections:defaultdict", "test_attacks:nobody",
        "test_attacks:Gadget.__init__", "torch.hub:load", "torch:nn.Module", "__main__:x", ":", "x", "sys:modules",
    ],
)  # fmt: skip
def test_classes_that_nobody_gave(
    name: str, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "canary_module.py").write_text(f"open({CANARY!r}, 'w')\nclass Result(dict): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = forged(files["chain"], set_result(name))
    Gadget.made = 0
    with pytest.raises(ValueError, match=r"classes=\[|the class of a tuple, list, dict or dataclass"):
        stonefx.load(path)
    assert Gadget.made == 0 and not Path(CANARY).exists() and "canary_module" not in sys.modules


def test_a_class_that_is_given_is_used(files: dict[str, Path]) -> None:
    path = forged(files["chain"], set_result("test_attacks:Gadget"))
    loaded = stonefx.load(path, classes=[Gadget])
    result = loaded(x(3))
    assert type(result) is Gadget and result["x"].shape == (3, 8)
    with pytest.raises(
        TypeError, match=r"classes: expected classes and functions, got 'test_attacks:Gadget'"
    ):
        stonefx.load(path, classes=["test_attacks:Gadget"])


def test_sizes_that_no_memory_holds(files: dict[str, Path]) -> None:
    # Loading allocates for the weights in the file and for nothing else, also where an inner compiler wants examples.
    full = set_call("aten.full.default", {"list": [2**50]}, 0.0)

    def wide(document: dict[str, Any]) -> None:
        full(document)
        argument(document)["stride"] = [2**50, 2**40]
        part(document)["inner"] = "aot_eager"

    for change in (full, wide):
        loaded = stonefx.load(forged(files["chain"], change))
        assert sum(tensor.nbytes for tensor in loaded.state_dict().values()) < 10**6


def test_texts_that_are_no_document(files: dict[str, Path], tmp_path: Path) -> None:
    whole = json.dumps({"version": 3})
    for text in (
        "[" * 10**5, '{"a":' * 10**5, '{"version": 3, "version": 3}', '{"version": NaN}', "1" * 5000, "null", "[]",
        "{", "", '{"version": 3.0}', '{"version": "2"}', '{"version": true}', whole,
    ):  # fmt: skip
        path = tmp_path / "file"
        save_file({"w": torch.ones(1)}, path, {"stonefx": text, "stonefx.sha256": "0" * 64})
        _stamp(path)
        with pytest.raises(ValueError, match=DAMAGED):
            stonefx.load(path)


def test_files_of_other_kinds(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return open, (CANARY, "w")

    path = tmp_path / "file"
    for content in (
        pickle.dumps(Bomb()),
        b"\xff" * 64,
        b"",
        (2**62).to_bytes(8, "little") + b"{}",
        bytes(8),
        b"PK\x03\x04",
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=DAMAGED):
            stonefx.load(path)
    torch.save(Bomb(), path)
    with pytest.raises(ValueError, match=DAMAGED):
        stonefx.load(path)
    assert not Path(CANARY).exists()


def test_operators_of_another_library(tmp_path: Path) -> None:
    library = torch.library.Library("stonefx_test", "DEF")
    library.define("twice(Tensor x, str how) -> Tensor")
    library.impl("twice", lambda x, how: x * 2, "CPU")

    @torch.library.register_fake("stonefx_test::twice", lib=library)
    def _(x: torch.Tensor, how: str) -> torch.Tensor:
        return torch.empty_like(x)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = chain(8, 64, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = torch.ops.stonefx_test.twice(self.layers(x), "so")
            return result

    fast = stonefx.optimize(Twice().eval(), x(4))
    path = stonefx.save(fast, tmp_path / "model")
    with pytest.raises(
        ValueError, match=r"calls stonefx_test\.twice\.default.*pass stonefx\.load\(path, operators="
    ):
        stonefx.load(path)
    value = x(3)
    assert torch.equal(stonefx.load(path, operators=["stonefx_test"])(value), fast(value))
    library._destroy()
    with pytest.raises(ValueError, match=r"twice\.default, which is not there in torch"):
        stonefx.load(path, operators=["stonefx_test"])
