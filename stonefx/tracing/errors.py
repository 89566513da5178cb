"""The one error that capture raises, and how it finds the line of the user's code."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import fx

# Frames of the machinery, which stand below the user's line in every stack.
_MACHINERY = (str(Path(torch.__file__).parent), str(Path(__file__).parent))


class CaptureError(RuntimeError):
    """A model or graph cannot be turned into the graph language.

    The message says what failed, at which line of the user's code, and what to do about it.
    """


def capture_error(
    what: str, hint: str, location: str = "", cause: BaseException | None = None
) -> CaptureError:
    """Build a `CaptureError` whose message is `what`, then where, then why, then `hint`."""
    parts = [what]
    if location:
        parts.append(f"  at {location}")
    if cause is not None:
        parts.append(f"  because {type(cause).__name__}: {_first_lines(str(cause))}")
    parts.append(f"  {hint}")
    return CaptureError("\n".join(parts))


def node_location(node: fx.Node | None) -> str:
    """`file.py:line` (and the code there) of the user's line behind a node, or "" where none was kept."""
    trace = node.meta.get("stack_trace") if node is not None else None
    if not trace:
        return ""
    lines = [line.strip() for line in trace.strip().splitlines()]
    frames = [i for i, line in enumerate(lines) if line.startswith('File "')]
    if not frames:
        return ""
    frame = lines[frames[-1]]
    path, line = frame.split('"')[1], frame.split("line ")[1].split(",")[0]
    code = " ".join(lines[frames[-1] + 1 :])
    return f"{path}:{line}" + (f": {code}" if code else "")


def exception_location(error: BaseException) -> str:
    """`file.py:line` of the user's line that a failed Dynamo trace stood at, or "" where it is not known."""
    stack = getattr(error, "real_stack", None)
    if stack is None and error.__cause__ is not None:
        stack = getattr(error.__cause__, "real_stack", None)
    if stack is None:
        stack = traceback.extract_tb(error.__traceback__)
    return _innermost_user_frame(stack)


def _innermost_user_frame(stack: Iterable[traceback.FrameSummary]) -> str:
    for frame in reversed(list(stack)):
        if not frame.filename.startswith(_MACHINERY):
            return f"{frame.filename}:{frame.lineno}" + (f": {frame.line}" if frame.line else "")
    return ""


def _first_lines(text: str, limit: int = 600) -> str:
    text = text.strip()
    return text if len(text) <= limit else text[:limit] + " ..."


def is_wrapped(value: object) -> bool:
    """Whether a tensor is a functorch wrapper, which has no meaning outside the transform that made it."""
    return isinstance(value, torch.Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(value)
