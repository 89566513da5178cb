"""Other engines as optional arms: which take part, which are left out and why, and what a call allocates."""

import importlib.util
import json

import pytest
import torch
from torch import nn

from stonefx.benchmarks import Arm, Case, Settings, measure, result_document
from stonefx.benchmarks.allocations import peak_bytes
from stonefx.benchmarks.case import Subject, Work
from stonefx.benchmarks.engines import ENGINES, Engine, LeftOut, with_engines
from stonefx.benchmarks.picture import draw
from stonefx.benchmarks.results import left_out_lines, result_table
from stonefx.benchmarks.resume import earlier_results
from stonefx.benchmarks.roofline import ceilings, has_points

QUICK = Settings(rounds=2, min_rounds=2, seconds=1, sample_seconds=0)
WORK = Work(flops=2_000_000, bytes=40_000)


class Nested(nn.Module):
    """Takes tensors in a dictionary and as keywords, gives them in a dictionary, and does not read one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, 64), nn.Linear(64, 8)

    def forward(self, given, *, scale, unread):
        return {
            "out": self.down(self.up(given["x"]).relu()) * scale,
            "count": torch.ones(2, dtype=torch.int64),
        }


def floating(result):
    return [value for value in result.values() if value.is_floating_point()]


def nested_case(**changes) -> Case:
    torch.manual_seed(0)
    model, x = Nested().eval(), torch.randn(4, 16)
    kwargs = {"scale": torch.tensor([2.0]), "unread": torch.ones(3)}
    subject = Subject(model=model, args=({"x": x},), kwargs=kwargs, tensors=floating)
    arm = Arm(name="eager", call=lambda: floating(model({"x": x}, **kwargs)), work=WORK)
    with torch.no_grad():
        truth = [each.double() for each in arm.call()]
    return Case(**({"name": "nested", "arms": [arm], "truth": truth, "subject": subject} | changes))


def add(monkeypatch: pytest.MonkeyPatch, prepare, packages=()) -> None:
    monkeypatch.setitem(ENGINES, "other", Engine(packages, prepare))


def test_an_engine_is_an_arm_like_others(monkeypatch):
    add(monkeypatch, lambda subject: lambda: subject.tensors(subject.model(*subject.args, **subject.kwargs)))
    case = with_engines(nested_case(), ["other"])
    assert [arm.name for arm in case.arms] == ["eager", "other"] and not case.left_out
    result = measure(case, QUICK, peak=peak_bytes)
    assert result.arms[1].error == 0.0 and result.arms[1].work == WORK


def fails(subject):
    raise RuntimeError("\n  there is no kernel for this\nand more lines")


def declines(subject):
    raise LeftOut("it has its reasons")


@pytest.mark.parametrize(
    ("prepare", "packages", "changes", "reason"),
    [
        (fails, (), {}, "it does not take the model: RuntimeError: there is no kernel for this"),
        (declines, (), {}, "it has its reasons"),
        (fails, ("no_such_engine",), {}, 'no_such_engine not installed: pip install "stonefx[peers]"'),
        (fails, (), {"subject": None}, "no model of its own belongs to the case"),
        (fails, (), {"grad": True}, "the case records gradients"),
        (lambda subject: lambda: [torch.ones(3)], (), {}, r"shapes [(3,)], expected [(4, 8)]"),
    ],
)
def test_an_engine_that_cannot_is_left_out_with_the_reason(
    monkeypatch, tmp_path, prepare, packages, changes, reason
):
    add(monkeypatch, prepare, packages)
    case = with_engines(nested_case(**changes), ["other"])
    assert [arm.name for arm in case.arms] == ["eager"] and reason in case.left_out["other"]
    result = measure(case, QUICK)
    (line,) = left_out_lines([result])
    assert line.startswith("other left out: ") and reason in line
    machine = {"cpu": "a", "cores": 2, "threads": 2, "torch": "2", "gpu": None}
    document = result_document({"chain": [result]}, machine, QUICK, 0.1)
    (tmp_path / "a.json").write_text(json.dumps(document))
    assert earlier_results(tmp_path / "a.json", machine)["chain"][0].left_out == result.left_out


def test_a_reason_of_some_cases_names_them(monkeypatch):
    add(monkeypatch, declines)
    results = [
        measure(with_engines(nested_case(name=name), names), QUICK)
        for name, names in (("a", ["other"]), ("b", []))
    ]
    assert left_out_lines(results) == ["other left out of a: it has its reasons"]


def test_an_int8_engine_needs_linear_layers():
    if importlib.util.find_spec("torchao") is None:
        pytest.skip("torchao is not installed")
    subject = Subject(model=nn.Conv2d(3, 4, 1).eval(), args=(torch.ones(1, 3, 4, 4),))
    case = with_engines(nested_case(subject=subject), ["torchao"])
    assert case.left_out == {"torchao": "it quantizes nn.Linear, and the model has none"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["max-autotune", "onnxruntime", "openvino"])
def test_the_engines_compute_the_same(name):
    for package in ENGINES[name].packages:
        pytest.importorskip(package)
    case = with_engines(nested_case(), [name])
    assert not case.left_out
    result = measure(case, QUICK, peak=peak_bytes)
    assert result.arms[1].error < 1e-5
    assert (result.arms[1].peak_bytes is None) is not ENGINES[name].allocates


def test_the_peak_is_of_what_lives_at_once():
    x = torch.ones(1 << 16)
    size = x.nbytes

    def three():
        first = x + 1
        second = first * 2
        del first
        return second + 3

    for call, count in (
        (lambda: x + 1, 1),
        (lambda: (x + 1).mul_(2), 1),
        (three, 2),
        (lambda: [x + 1 for _ in "abc"], 3),
    ):
        assert count * size <= peak_bytes(call) < count * size + 1024
    with pytest.raises(ZeroDivisionError):
        peak_bytes(lambda: 1 / 0)
    assert peak_bytes(lambda: x + 1) >= size, "a call that fails leaves nothing switched on"


def test_the_peak_stands_in_table_and_json(tmp_path):
    x = torch.ones(1 << 16)
    arms = [
        Arm(name="eager", call=lambda: x + 1, work=WORK),
        Arm(name="outside", call=lambda: x + 1, allocates=False),
    ]
    result = measure(Case(name="a", arms=arms, truth=[x.double() + 1]), QUICK, peak=peak_bytes)
    assert " 256 KiB " in result_table([result]).splitlines()[2]
    machine = {"cpu": "a", "cores": 2, "threads": 2, "torch": "2", "gpu": None}
    document = result_document({"chain": [result]}, machine, QUICK, 0.1)
    first, second = document["suites"]["chain"][0]["arms"]
    assert x.nbytes <= first["peak_bytes"] < x.nbytes + 1024 and second["peak_bytes"] is None
    assert (first["flops"], first["bytes"]) == (WORK.flops, WORK.bytes) and "flops" not in second
    assert "torch's allocator" in document["measured"]
    (tmp_path / "a.json").write_text(json.dumps(document))
    (again,) = earlier_results(tmp_path / "a.json", machine)["chain"]
    assert [(arm.peak_bytes, arm.work) for arm in again.arms] == [
        (arm.peak_bytes, arm.work) for arm in result.arms
    ]


def test_the_ceilings_are_drawn_above_what_is_reached(tmp_path):
    found = ceilings()
    assert found["flops_per_second"] > 1e8 and found["bytes_per_second"] > 1e8
    result = measure(nested_case(), QUICK)
    document = result_document({"chain": [result]}, {"threads": 1}, QUICK, 0.1, found)
    assert document["ceilings"] == found and has_points(document)
    pytest.importorskip("matplotlib")
    for name, document_of in (("with.svg", document), ("without.svg", document | {"ceilings": None})):
        draw(document_of, tmp_path / name)
        text = (tmp_path / name).read_text()
        assert ("below the ceilings of the machine" in text) is (name == "with.svg")
    assert "GFLOP/s" in (tmp_path / "with.svg").read_text()
