"""The symbolic sizes of a recording: which dimension each symbol is, and what the trace assumed of it."""

from __future__ import annotations

import builtins
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import sympy  # type: ignore[import-untyped]
import torch
from torch import fx
from torch._dynamo.source import TensorProperty, TensorPropertySource
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.printers import PythonPrinter

from .arguments import Path

_TORCH = FilePath(torch.__file__).parent
# Where torch computes shapes and layouts in the place of a kernel, or calls what does so outside of Python.
_KERNELS = tuple(
    str(_TORCH / name)
    for name in "_subclasses _decomp _refs _prims _prims_common _meta_registrations _dynamo/utils.py".split()
)

Dimension = tuple[Path, int]


@dataclass(frozen=True)
class Sizes:
    """The dynamic dimensions of a call.

    Attributes:
        dimensions: for each dynamic dimension its size: an int that the trace settled on, or a Python expression
            over symbols, such as "s0" or "2*s0".
        symbols: for each symbol the dimension it is read from.
        guards: Python conditions over the symbols that the graph assumes, such as "s0 % 2 == 0".
        kernel_guards: those of them that no line of the model asked for, but torch's own stand-in for a kernel,
            such as the batch below 16 at which a convolution would choose another layout.
        values: Dynamo's sources of other numbers, such as the `item()` of an argument, that the graph assumes to be
            what they were.
    """

    dimensions: dict[Dimension, int | str]
    symbols: dict[str, Dimension]
    guards: tuple[str, ...]
    kernel_guards: tuple[str, ...]
    values: tuple[Any, ...] = ()


def read_sizes(module: fx.GraphModule, call: Mapping[str, Any], paths: Mapping[int, Path]) -> Sizes:
    """Read the symbols of a retraced graph.

    Args:
        module: the graph.
        call: the recorded function's own variables (`args`, `kwargs`), in which Dynamo's sources are read.
        paths: paths of the call's tensors by `id`.
    """
    env = shape_env(module)
    if env is None:
        return Sizes({}, {}, (), ())
    dimensions: dict[Dimension, Any] = {}
    others: dict[Any, Any] = {}
    for symbol, sources in env.var_to_sources.items():
        found = [source_dimension(source, call, paths) for source in sources]
        dimensions |= {dimension: env.replace(symbol) for dimension in found if dimension is not None}
        if all(dimension is None for dimension in found):
            others[symbol] = sources[0]
    symbols: dict[str, Dimension] = {}
    for dimension, size in dimensions.items():
        if isinstance(size, sympy.Symbol):
            symbols.setdefault(str(size), dimension)
    plain = {key: _plain(size) for key, size in dimensions.items()}
    guards, kernel_guards = _guards(env, set(symbols))
    assumed = {symbol for guard in env.guards for symbol in guard.expr.free_symbols}
    values = [
        source for symbol, source in others.items() if symbol in assumed or env.replace(symbol).is_number
    ]
    return Sizes(plain, symbols, guards, kernel_guards, tuple(values))


def shape_env(module: fx.GraphModule) -> ShapeEnv | None:
    """The shape environment of a graph's fake tensors."""
    for node in module.graph.nodes:
        mode = getattr(node.meta.get("val"), "fake_mode", None)
        if mode is not None and mode.shape_env is not None:
            return mode.shape_env
    return None


def source_dimension(source: Any, call: Mapping[str, Any], paths: Mapping[int, Path]) -> Dimension | None:
    """The dimension of an argument that one of Dynamo's sources reads; None for any other source."""
    if not isinstance(source, TensorPropertySource) or source.prop is not TensorProperty.SIZE:
        return None
    # A source's name is the expression that Dynamo's own guards evaluate.
    value = eval(source.base.name, {"L": dict(call)})
    path = paths.get(id(value))
    return None if path is None or source.idx is None else (path, source.idx)


def fake_strides(value: torch.Tensor, known: Collection[str]) -> tuple[int | str, ...]:
    """The strides of a fake tensor: ints, or Python expressions over the symbols that are known at a call."""
    env = getattr(getattr(value, "fake_mode", None), "shape_env", None)

    def plain(stride: Any) -> int | str:
        if isinstance(stride, int):
            return stride
        assert env is not None
        formula = env.replace(stride.node.expr)
        examples = getattr(env, "backed_var_to_val", None) or env.var_to_val
        unknown = {symbol: examples[symbol] for symbol in formula.free_symbols if str(symbol) not in known}
        return _plain(formula.xreplace(unknown))

    return tuple(map(plain, value.stride()))


def is_stride(source: Any) -> bool:
    """Whether one of Dynamo's sources is a stride, which it takes for a number of its own where there are gaps."""
    return isinstance(source, TensorPropertySource) and source.prop is TensorProperty.STRIDE


def _plain(size: sympy.Basic) -> int | str:
    return int(size) if size.is_number else _source(size)


def evaluate(expression: str, sizes: Mapping[str, int]) -> Any:
    """The value of a condition or size over the symbols; such expressions come from `read_sizes` only."""
    return eval(expression, {"__builtins__": builtins, "math": math}, dict(sizes))


def _guards(env: ShapeEnv, symbols: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    conditions: dict[str, bool] = {}
    for guard in env.guards:
        condition = env.simplify(env.replace(guard.expr))
        if condition is sympy.true or not condition.free_symbols:
            continue
        if {str(symbol) for symbol in condition.free_symbols} <= symbols:
            of_kernel = len(condition.free_symbols) == 1 and _asked_by_a_kernel(guard)
            text = _source(condition)
            conditions[text] = conditions.get(text, True) and of_kernel
    for symbol, bounds in env.var_to_range.items():
        name = str(symbol)
        known = [text for text in conditions if name in text]
        if name in symbols and bounds.lower > 0 and not _excluded(known, name, int(bounds.lower) - 1):
            conditions[f"{name} >= {bounds.lower}"] = False
        finite = bounds.upper not in (int_oo, sympy.oo) and bounds.upper < 2**62
        if name in symbols and finite and not _excluded(known, name, int(bounds.upper) + 1):
            conditions[f"{name} <= {bounds.upper}"] = False
    return tuple(conditions), tuple(text for text, of_kernel in conditions.items() if of_kernel)


def _excluded(conditions: list[str], symbol: str, size: int) -> bool:
    """Whether a condition on this symbol alone rules a size out already."""
    for condition in conditions:
        try:
            if not evaluate(condition, {symbol: size}):
                return True
        except NameError:
            continue
    return False


def _asked_by_a_kernel(guard: Any) -> bool:
    frame = getattr(guard.sloc, "framework_loc", None)
    return frame is not None and frame.filename.startswith(_KERNELS)


def _source(expression: sympy.Basic) -> str:
    return PythonPrinter().doprint(expression)
