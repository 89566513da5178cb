"""What a model returns, as a template whose leaves say where each tensor comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .arguments import Leaf, Path, children, is_constant, rebuild, walk
from .errors import capture_error


@dataclass(frozen=True)
class Output(Leaf):
    """A leaf: output number `index` of the graph."""

    index: int


@dataclass(frozen=True)
class Weight(Leaf):
    """A leaf: a parameter or buffer of the model, returned as it is."""

    name: str


def result_template(
    result: Any, outputs: Sequence[Any], arguments: Mapping[int, Path], weights: Mapping[int, str]
) -> Any:
    """The nest of containers of `result` with an `Output`, `Path` or `Weight` for each tensor.

    Args:
        result: what the model returned on the recorded run.
        outputs: what the graph returned on it.
        arguments: paths of the call's tensors by `id`.
        weights: names of the model's tensors by `id`.

    Raises:
        CaptureError: a tensor is none of these, or the result holds an object that capture cannot look into.
    """
    origin: dict[int, Any] = {}
    for i, output in enumerate(outputs):
        if isinstance(output, torch.Tensor):
            origin.setdefault(id(output), Output(i))
    origin |= {key: Weight(name) for key, name in weights.items()}
    origin |= arguments
    for path, value in walk(result, Path("result")):
        if isinstance(value, torch.Tensor):
            if id(value) not in origin:
                raise capture_error(
                    f"the tensor `{path}` of the result is no output of the graph",
                    "Return tensors that forward computes, or its arguments.",
                )
        elif children(value) is None and not is_constant(value):
            raise capture_error(
                f"`{path}` of the result is a {type(value).__name__}, which capture cannot look into",
                "Return tensors and constants in tuples, lists, dicts or dataclasses "
                "(of transformers models: pass use_cache=False).",
            )
    return rebuild(result, lambda value: origin[id(value)] if isinstance(value, torch.Tensor) else value)


def fill(
    template: Any, outputs: Sequence[Any], arguments: Mapping[str, Any], weights: Mapping[str, torch.Tensor]
) -> Any:
    """The result of a call: a template with the tensors of this call in place of its leaves."""

    def leaf(value: Any) -> Any:
        if isinstance(value, Output):
            return outputs[value.index]
        if isinstance(value, Path):
            return value.read(arguments)
        if isinstance(value, Weight):
            return weights[value.name]
        return value

    return rebuild(template, leaf)
