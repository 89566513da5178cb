"""Ctrl-C and SIGTERM end a command with one line, and with nothing half-written."""

from __future__ import annotations

import _thread
import contextlib
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

STOPPED, LINE = 130, "Stopped."
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_PAUSE = 0.3  # seconds until what did not stop is interrupted again


def is_command() -> bool:
    """Whether this process was started as `stonefx` or as `python -m stonefx`.

    >>> is_command()
    False
    """
    given = sys.orig_argv
    as_module = "-mstonefx" in given or ("-m", "stonefx") in itertools.pairwise(given)
    return as_module or Path(sys.argv[0] if sys.argv else "").stem == "stonefx"


def stop_at_once() -> None:
    """Until a command begins there is nothing to tidy up, and an exception would print where torch is imported."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        os.write(2, f"{LINE}\n".encode())
        os._exit(STOPPED)

    _install(stop)


@contextlib.contextmanager
def stoppable(*, last: Callable[[], object]) -> Iterator[None]:
    """In this block a signal that asks the process to stop raises `KeyboardInterrupt`.

    Again and again until the block ends, as the exception is lost where it is raised in a finalizer or under an
    `except` for everything; a second Ctrl-C right after the first one disturbs nothing.

    Args:
        last: called after a block that was stopped, when no signal disturbs any more.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stopping = _Stopping()
    before = _install(stopping)
    unraisable = sys.unraisablehook
    sys.unraisablehook = lambda lost: (
        None if lost.exc_type is KeyboardInterrupt else unraisable(lost)  # which is raised again
    )
    try:
        yield
    finally:
        stopping.ended = True
        sys.unraisablehook = unraisable
        if stopping.asked:
            last()
        for number, handler in before.items():
            # What is left of a command is the end of the interpreter, which would print an exception.
            signal.signal(number, signal.SIG_IGN if is_command() else handler)


class _Stopping:
    """The handler of signals of one block."""

    def __init__(self) -> None:
        self.ended = False
        self.asked = 0.0
        self.main = threading.get_ident()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.ended or now - self.asked < 0.9 * _PAUSE:
            return
        if not self.asked:
            # The class Thread takes a lock, which may be held where the signal came.
            _thread.start_new_thread(self._insist, (number,))
        self.asked = now
        raise KeyboardInterrupt

    def _insist(self, number: int) -> None:
        while not self.ended:
            time.sleep(_PAUSE)
            if not self.ended:
                # Unlike `_thread.interrupt_main` this also ends a wait.
                signal.pthread_kill(self.main, number)


def _install(handler: Callable[[int, FrameType | None], Any]) -> dict[int, Any]:
    """Set the handler of each signal that is not ignored, as after `nohup`; returns what was there."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    taken = {number: was for number, was in before.items() if was is not None and was is not signal.SIG_IGN}
    for number in taken:
        signal.signal(number, handler)
    return taken
