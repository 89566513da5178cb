"""Other engines that run the model of a case, as optional arms: `stonefx bench regions --peers onnxruntime,openvino`.

An engine whose package is not there, or that cannot take a model, is left out with the reason.
"""

from __future__ import annotations

import copy
import importlib.util
import io
import logging
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from stonefx.benchmarks.case import Arm, Case, Subject

# Computes the tensors of one call of a subject.
Call = Callable[[], list[torch.Tensor]]
INSTALL = 'pip install "stonefx[peers]"'


class LeftOut(Exception):
    """An engine cannot take part in a case; the message says why."""


@dataclass(frozen=True)
class Engine:
    """Another engine.

    Args:
        packages: what it imports, by the names of import.
        prepare: compiles a subject.
        allocates: its memory comes from torch's allocator, so that its peak can be told.
    """

    packages: tuple[str, ...]
    prepare: Callable[[Subject], Call]
    allocates: bool = True


def with_engines(case: Case, names: Sequence[str]) -> Case:
    """A case with an arm for each engine, and with the reasons of those that are left out.

    >>> case = Case(name="negation", arms=[Arm(name="eager", call=lambda: torch.ones(2))], truth=[])
    >>> with_engines(case, ["torchao"]).left_out
    {'torchao': 'no model of its own belongs to the case'}
    """
    arms, left_out = list(case.arms), dict(case.left_out)
    for name in names:
        engine, start = ENGINES[name], time.perf_counter()
        try:
            call = _prepared(case, engine)
        except LeftOut as reason:
            left_out[name] = str(reason)
            continue
        spent = time.perf_counter() - start
        work = case.arms[0].work
        arms.append(Arm(name=name, call=call, work=work, allocates=engine.allocates, prepared_seconds=spent))
    return replace(case, arms=arms, left_out=left_out)


def _prepared(case: Case, engine: Engine) -> Call:
    subject = case.subject
    if subject is None:
        raise LeftOut("no model of its own belongs to the case")
    if case.grad:
        raise LeftOut("the case records gradients, which it does not compute")
    missing = [name for name in engine.packages if importlib.util.find_spec(name) is None]
    if missing:
        raise LeftOut(f"{' and '.join(missing)} not installed: {INSTALL}")
    tensors = pytree.tree_leaves((subject.model.state_dict(), subject.args, subject.kwargs))
    device = next((value.device.type for value in tensors if isinstance(value, torch.Tensor)), "cpu")
    if engine.packages and device != "cpu":
        raise LeftOut(f"it is set up for the CPU here, and the case runs on {device}")
    try:
        with torch.no_grad(), _quiet():
            call = engine.prepare(subject)
            _check_shapes(case, call())  # compiles, where the engine does so at its first call
            return call
    except LeftOut:
        raise
    except Exception as error:  # whatever a compiler of others makes of a model
        raise LeftOut(f"it does not take the model: {_first_line(error)}") from error


def _check_shapes(case: Case, results: Sequence[torch.Tensor]) -> None:
    found, expected = ([tuple(each.shape) for each in values] for values in (results, case.truth))
    if found != expected:
        raise LeftOut(f"it gives tensors of shapes {found}, expected {expected}")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'without a message'}"[:200]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters log and warn of."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def _max_autotune(subject: Subject) -> Call:
    model = torch.compile(copy.deepcopy(subject.model), mode="max-autotune", dynamic=False)
    return partial(_run, model, subject)


def _autotuned(mode: str, subject: Subject) -> Call:
    """Another mode of inductor; on the CPU they are its own."""
    device = next((value.device.type for value in subject.model.state_dict().values()), "cpu")
    if device != "cuda":
        raise LeftOut(f"its mode is for CUDA, and the model is on {device}")
    return partial(_run, torch.compile(copy.deepcopy(subject.model), mode=mode, dynamic=False), subject)


def _torchao(subject: Subject) -> Call:
    """Linear layers in int8, compiled by inductor: another function than the model's, as its error says."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    if not any(isinstance(module, nn.Linear) for module in subject.model.modules()):
        raise LeftOut("it quantizes nn.Linear, and the model has none")
    model = copy.deepcopy(subject.model)
    quantize_(model, Int8DynamicActivationInt8WeightConfig())
    return partial(_run, torch.compile(model, dynamic=False), subject)


def _run(model: nn.Module | Callable[..., Any], subject: Subject) -> list[torch.Tensor]:
    return subject.tensors(model(*subject.args, **subject.kwargs))


def _exported(subject: Subject) -> tuple[bytes, list[torch.Tensor]]:
    """The model as ONNX, and the tensors that it takes, in order."""
    buffer = io.BytesIO()
    program = torch.onnx.export(
        _Flat(subject), tuple(_inputs(subject)), dynamo=True, external_data=False, verbose=False
    )
    assert program is not None
    program.save(buffer)  # type: ignore[arg-type]  # it writes to files that are open as well
    return buffer.getvalue(), _inputs(subject)


def _inputs(subject: Subject) -> list[torch.Tensor]:
    leaves = pytree.tree_leaves((subject.args, subject.kwargs))
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


class _Flat(nn.Module):
    """A subject as a model that takes its tensors in a row and gives those of its result."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.model = subject.model
        self._tensors = subject.tensors
        self._leaves, self._spec = pytree.tree_flatten((subject.args, subject.kwargs))

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The tensors of the model's result."""
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, torch.Tensor) else leaf for leaf in self._leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self._spec)
        return tuple(self._tensors(self.model(*args, **kwargs)))


def _onnxruntime(subject: Subject) -> Call:
    import onnxruntime

    model, inputs = _exported(subject)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    fed = _fed(model, inputs, {each.name for each in session.get_inputs()})

    def call() -> list[torch.Tensor]:
        return [torch.from_numpy(each) for each in session.run(None, fed)]

    return call


def _fed(model: bytes, inputs: Sequence[torch.Tensor], read: Collection[str]) -> dict[str, Any]:
    """Arrays by the names of inputs; what the model does not read is no input of an engine any more."""
    import onnx

    names = [each.name for each in onnx.load_from_string(model).graph.input]
    return {name: x.numpy() for name, x in zip(names, inputs, strict=True) if name in read}


def _openvino(subject: Subject) -> Call:
    import openvino

    model, inputs = _exported(subject)
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model=model), "CPU", settings)
    fed = _fed(model, inputs, {each.get_any_name() for each in compiled.inputs})
    request = compiled.create_infer_request()

    def call() -> list[torch.Tensor]:
        found = request.infer(fed, share_inputs=True, share_outputs=True)
        return [torch.from_numpy(found[output]) for output in compiled.outputs]

    return call


ENGINES: dict[str, Engine] = {
    "max-autotune": Engine((), _max_autotune),
    "max-autotune-no-cudagraphs": Engine((), partial(_autotuned, "max-autotune-no-cudagraphs")),
    "reduce-overhead": Engine((), partial(_autotuned, "reduce-overhead")),
    "torchao": Engine(("torchao",), _torchao),
    "onnxruntime": Engine(("onnx", "onnxscript", "onnxruntime"), _onnxruntime, allocates=False),
    "openvino": Engine(("onnx", "onnxscript", "openvino"), _openvino, allocates=False),
}
