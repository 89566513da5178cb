"""The one error that capture raises, and how it finds the line of the user's code."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import fx

_TORCH = str(Path(torch.__file__).parent)
_OWN = str(Path(__file__).parent)
_ADVICE = re.compile(r"\n\s*(?:Developer debug context|from user code|For more information|Set TORCHDYNAMO)")


class CaptureError(RuntimeError):
    """A model or graph cannot be turned into the graph language.

    The message says what failed, at which line of the user's code, and what to do about it.
    """


class ModelError(CaptureError):
    """The model itself raises on the example inputs; the message ends with what it raises."""


class BatchDependentNumber(CaptureError):
    """A model returns a number of which it cannot be told whether it depends on the batch size."""


class FastPathError(CaptureError):
    """A module is left as it is with all that is in it, since no graph gives what its fast path in torch gives."""


class Uncapturable(CaptureError):
    """A call of which no part can be captured either, so that there is no use in trying."""


def capture_error(
    what: str,
    hint: str,
    location: str = "",
    cause: BaseException | None = None,
    kind: type[CaptureError] = CaptureError,
) -> CaptureError:
    """Build a `CaptureError` whose message is `what`, then where, then why, then `hint`."""
    parts = [what]
    if location:
        parts.append(f"  at {location}")
    if cause is not None:
        parts.append(f"  because {type(cause).__name__}: {_gist(str(cause))}")
    parts.append(f"  {hint}")
    return kind("\n".join(parts))


def first_line(error: BaseException) -> str:
    """Of what an error says; its type where it says nothing.

    >>> first_line(ValueError("so\\nand so")), first_line(NotImplementedError())
    ('so', 'NotImplementedError')
    """
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def as_capture_errors(subject: str) -> Iterator[None]:
    """Make a `CaptureError` of whatever fails inside: what cannot be captured is left as it is, whatever the cause."""
    try:
        yield
    except CaptureError:
        raise
    except Exception as error:
        hint = "It runs as it is; please report this."
        raise capture_error(
            f"the capture of {subject} failed inside", hint, exception_location(error), error
        ) from error


def node_location(node: fx.Node | None) -> str:
    """`file.py:line` (and the code there) of the user's line behind a node, or "" where none was kept."""
    trace = node.meta.get("stack_trace") if node is not None else None
    if not trace:
        return ""
    lines = [line.strip() for line in trace.strip().splitlines()]
    frames = [i for i, line in enumerate(lines) if line.startswith('File "')]
    if not frames:
        return ""
    users = [i for i in frames if not lines[i].split('"')[1].startswith(_TORCH)]
    last = (users or frames)[-1]
    path, line = lines[last].split('"')[1], lines[last].split("line ")[1].split(",")[0]
    code = next(iter(lines[last + 1 :]), "")
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
    frames = [frame for frame in stack if not frame.filename.startswith(_OWN)]
    users = [frame for frame in frames if not frame.filename.startswith(_TORCH)]
    for frame in reversed(users or frames):
        return f"{frame.filename}:{frame.lineno}" + (f": {frame.line}" if frame.line else "")
    return ""


def _gist(text: str, limit: int = 600) -> str:
    """The part of a message of Dynamo's that is for users: what comes before its debugging advice."""
    text = _ADVICE.split(text.strip())[0].strip()
    return text if len(text) <= limit else text[:limit] + " ..."


def is_wrapped(value: object) -> bool:
    """Whether a tensor is a functorch wrapper, which has no meaning outside the transform that made it."""
    return isinstance(value, torch.Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(value)
