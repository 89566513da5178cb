"""Example inputs from their shapes: the option `--input`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch

Examples = tuple[Any, ...] | dict[str, Any]

_INPUT = re.compile(r"((?P<name>[A-Za-z_]\w*)=)?(?P<shape>\d+(x\d+)*)(:(?P<dtype>\w+))?")


def parse_input(text: str, generator: torch.Generator | None = None) -> torch.Tensor:
    """An example input from its shape: normal values, or 0 and 1 for integers, or True.

    Args:
        text: sizes joined by `x` and an optional dtype, such as `8x128` or `2x16:int64`.
        generator: of the values.

    Raises:
        ValueError: the text has another form, or torch has no such dtype.

    >>> parse_input("2x3:int64").shape
    torch.Size([2, 3])
    """
    match = _INPUT.fullmatch(text)
    if match is None:
        raise ValueError(f"expected sizes such as 8x128, 2x16:int64 or mask=2x16:bool, got {text!r}")
    shape = [int(size) for size in match["shape"].split("x")]
    dtype = getattr(torch, match["dtype"] or "float32", None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"torch has no dtype {match['dtype']!r}; try float32, float64, bfloat16 or int64")
    if dtype == torch.bool:
        return torch.ones(shape, dtype=dtype)
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 2, shape, generator=generator, dtype=dtype)


def parse_inputs(texts: Sequence[str]) -> Examples:
    """Example inputs from their shapes, the same values in every run: positional, or by name where they have names.

    Raises:
        ValueError: a text has another form, or some have names and some have none.

    >>> [tuple(x.shape) for x in parse_inputs(["8x128", "8"])]
    [(8, 128), (8,)]
    >>> list(parse_inputs(["ids=2x16:int64", "mask=2x16:bool"]))
    ['ids', 'mask']
    """
    generator = torch.Generator().manual_seed(0)
    values = [parse_input(text, generator) for text in texts]
    names = [text.partition("=")[0] for text in texts if "=" in text]
    if not names:
        return tuple(values)
    if len(names) < len(texts):
        raise ValueError(f"name all inputs or none: {', '.join(texts)}")
    if len(set(names)) < len(names):
        raise ValueError(f"the inputs {', '.join(names)} have the same name twice")
    return dict(zip(names, values, strict=True))
