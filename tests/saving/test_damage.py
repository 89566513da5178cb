"""A damaged file never gives another model, and a forged one only calls what a graph may call."""

from __future__ import annotations

import copy
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from forged import contents
from saved_models import CASES
from torch import fx, nn

import stonefx
from stonefx.optimized import OptimizedModule, program_of
from stonefx.saving.file import Contents, write
from stonefx.saving.operators import name_of, operator

MODELS = ("chain", "structured", "buffers", "modes", "bodies", "sizes")
# What a forger would try in the place of a part of a document.
ODD = (
    None, True, False, -1, 0, 1, 3, 64, 2**63, -(2**70), 0.5, -0.0, "", "s0", "self", "x", "__class__",
    "aten.save.default", "aten.relu.default", "aten.from_file.default", "operator.getitem", "os:system",
    "builtins:eval", "eager", "inductor", "a'b\n\"", [], {}, [[]], {"node": 0}, {"node": 10**6}, {"node": True},
    {"tuple": []}, {"list": [1]}, {"dict": [["a", 1]]}, {"object": "os:system"}, {"enum": ["re:RegexFlag", "A"]},
    {"container": {"class": "subprocess:Popen", "items": [[0, "ls"]]}}, {"float": "nan"}, {"float": "1"},
    {"dtype": "float32"}, {"dtype": "load"}, {"device": ["cuda", 0]}, {"path": [["x", []], None]}, {"output": 9},
    {"weight": "gone"}, {"size": [-1]}, {"bytes": "zz"}, ["add", "s0", 1], ["pow", "s0", 10**9], ["os.system", 1],
)  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    made = {}
    for name in MODELS:
        torch.manual_seed(0)
        case = CASES[name]
        fast = stonefx.optimize(case.make().train(case.train), inner=case.inner)
        args, kwargs = case.call(4)
        with warnings.catch_warnings(action="ignore"):
            fast(*args, **kwargs)
        made[name] = stonefx.save(fast, folder / name)
    return made


def damaged(content: bytes, chance: random.Random) -> bytes:
    """A file of other bytes: some flipped, cut out, put in, exchanged, or the end lost."""
    data = bytearray(content)
    # Half of all damages lie in the header, where every byte means something.
    length = 8 + int.from_bytes(content[:8], "little")
    at = chance.randrange(length if chance.random() < 0.5 else len(data))
    size = chance.choice((1, 1, 4, 64))
    match chance.randrange(7):
        case 0 | 1:
            data[at] ^= 1 << chance.randrange(8)
        case 2:
            del data[at:]
        case 3:
            del data[at : at + size]
        case 4:
            data[at:at] = chance.randbytes(size)
        case 5:
            other = chance.randrange(len(data) - size)
            at = min(at, len(data) - size)
            data[at : at + size], data[other : other + size] = (
                data[other : other + size],
                data[at : at + size],
            )
        case 6:
            data[at : at + size] = bytes(len(data[at : at + size]))
    return bytes(data)


def test_a_thousand_damages(files: dict[str, Path], tmp_path: Path) -> None:
    originals = [path.read_bytes() for path in files.values()]
    path = tmp_path / "damaged"
    done = 0
    for seed in range(1100):
        chance = random.Random(seed)
        content = chance.choice(originals)
        data = damaged(content, chance)
        if data == content:
            continue
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"damaged|did not write|version"):
            stonefx.load(path)
        done += 1
    assert done >= 1000


def places(document: Any, found: list[tuple[Any, Any]] | None = None) -> list[tuple[Any, Any]]:
    """Every container of a document with a key or position in it."""
    found = [] if found is None else found
    if isinstance(document, dict | list):
        for key in document if isinstance(document, dict) else range(len(document)):
            found.append((document, key))
            places(document[key], found)
    return found


def changed(document: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """A document with one to three of its parts replaced, left out, doubled, renamed or exchanged."""
    document = copy.deepcopy(document)
    for _ in range(chance.randint(1, 3)):
        # The report is one long text, which a change of its own reaches.
        parts = [place for place in places(document) if place[1] not in ("version",)]
        holder, key = chance.choice(parts)
        match chance.randrange(6):
            case 0 | 1:
                holder[key] = copy.deepcopy(chance.choice(ODD))
            case 2:
                del holder[key]
            case 3 if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
            case 4 if isinstance(holder, dict):
                holder[chance.choice(("", "node", "container", "x"))] = holder.pop(key)
            case _:
                other, at = chance.choice(parts)
                holder[key] = copy.deepcopy(other[at]) if at in range(len(other)) or at in other else None
    return document


def assert_calls_listed_operators_only(loaded: nn.Module) -> None:
    for part in loaded.modules():
        if isinstance(part, OptimizedModule):
            for graph in program_of(part).graphs:
                assert_listed(graph)


def assert_listed(module: fx.GraphModule) -> None:
    for node in module.graph.nodes:
        if node.op == "get_attr":
            assert_listed(getattr(module, str(node.target)))
        elif node.op == "call_function":
            name = name_of(node.target)
            assert name is not None and operator(name, "the graph") is node.target
        else:
            assert node.op in ("placeholder", "output")


def test_a_thousand_forgeries(files: dict[str, Path], tmp_path: Path) -> None:
    originals = {name: contents(path) for name, path in files.items()}
    path = tmp_path / "forged"
    loads = 0
    for seed in range(1000):
        chance = random.Random(seed)
        name = chance.choice(MODELS)
        document = changed(originals[name].document, chance)
        write(path, Contents(document, originals[name].tensors))
        try:
            loaded = stonefx.load(path)
        except ValueError as error:
            assert str(path) in str(error)
            continue
        loads += 1
        assert_calls_listed_operators_only(loaded)
    # Some changes lie where any value will do, such as in the report.
    assert 0 < loads < 500
