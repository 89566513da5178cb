"""Run in a process of its own: load every file of a folder and compare with the results saved beside it."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch

import stonefx


def flat(result: Any) -> list[torch.Tensor]:
    """The tensors of a result, dataclasses taken apart."""
    if dataclasses.is_dataclass(result):
        result = vars(result)
    if isinstance(result, torch.Tensor):
        return [result]
    items = result.values() if isinstance(result, dict) else result if isinstance(result, tuple) else ()
    return [tensor for item in items for tensor in flat(item)]


if __name__ == "__main__":
    for path in sorted(Path(sys.argv[1]).glob("*.safetensors")):
        loaded = stonefx.load(path)
        (args, kwargs), expected = torch.load(path.with_suffix(".results"), weights_only=False)
        with torch.no_grad():
            torch.testing.assert_close(flat(loaded(*args, **kwargs)), flat(expected), rtol=0, atol=0)
        print(path.stem)
