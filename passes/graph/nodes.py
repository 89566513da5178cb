"""What a node of a graph stands for: its fake value, and where the user's code made it."""

from __future__ import annotations

import re

import torch
from torch import fx


def is_weight(node: fx.Node) -> bool:
    """Whether a node is a parameter or buffer of the model (`capture` marks these with `meta["weight"]`)."""
    return "weight" in node.meta


def val(node: fx.Node) -> torch.Tensor:
    """The fake tensor that stands for a node's value."""
    return node.meta["val"]


_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
# Frames of the recording itself; a model whose forward is all torch's own has no others.
_RECORDING = re.compile(r"[/\\]stonefx[/\\]tracing[/\\]")


def source_line(node: fx.Node) -> str:
    """`file.py:line` of the user's code behind a node, or "" where the trace kept none."""
    frames = [
        frame
        for frame in _FRAME.findall(node.meta.get("stack_trace") or "")
        if not _RECORDING.search(frame[0])
    ]
    return f"{frames[-1][0]}:{frames[-1][1]}" if frames else ""


def short_line(node: fx.Node) -> str:
    """The same without the folders, as sentences name it."""
    return re.split(r"[/\\\\]", source_line(node))[-1]


def module_path(node: fx.Node) -> str:
    """Path of the innermost module that a node came from, such as `encoder.layer.0.attention`."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ""
    path = list(stack.values())[-1][0]
    return clean_path(path)


def clean_path(path: str) -> str:
    """Turn Dynamo's spelling `L['self']._modules['a']._modules['0']` into `a.0`."""
    path = re.sub(r"^L\['(\w+)'\]\.?", "", path)
    path = re.sub(r"\._modules\['([^']+)'\]", r".\1", "." + path if path.startswith("_modules") else path)
    path = re.sub(r"\['?([^'\]]+)'?\]", r".\1", path)
    return path.strip(".")
