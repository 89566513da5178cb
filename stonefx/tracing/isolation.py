"""Recording leaves no trace: random state and Dynamo's settings."""

from __future__ import annotations

import ast
import functools
import logging
import random
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.fx.experimental import _config as shapes_config

from .arguments import Path, walk
from .errors import capture_error

_TABLES = ("_parameters", "_buffers", "_modules")


@contextmanager
def preserved_random_state(model: nn.Module) -> Iterator[None]:
    """Leave the generators of torch, NumPy and Python as they were, and those that the model holds."""
    devices = {tensor.device for tensor in [*model.parameters(), *model.buffers()]}
    cuda = sorted({device.index or 0 for device in devices if device.type == "cuda"})
    python, numpy = random.getstate(), np.random.get_state()
    own = [(generator, generator.get_state()) for generator in _generators(model)]
    try:
        with torch.random.fork_rng(devices=cuda):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for generator, state in own:
            generator.set_state(state)


def _generators(model: nn.Module) -> Iterator[torch.Generator]:
    for module in model.modules():
        for name, attribute in vars(module).items():
            for _, value in walk(attribute, Path(name)) if name not in _TABLES else ():
                if isinstance(value, torch.Generator):
                    yield value


# What a forward does to lists, counters and the like outside of the model would be lost; Dynamo says so in a warning,
# which `no_side_effects` reads. A torch without the setting finds out only what is stored into the model.
_SIDE_EFFECTS: dict[str, Any] = (
    {"side_effect_replay_policy": "warn"}
    if hasattr(torch._dynamo.config, "side_effect_replay_policy")
    else {}
)


_CACHED = type(functools.lru_cache(len))


def _given_once() -> dict[str, Any]:
    """The setting with which Dynamo passes over messages that come once in a process: warnings, and cached logging.

    A logger that speaks at every call is left to break the graph: what it says may depend on the call.
    """
    cached = {value for value in vars(logging.Logger).values() if isinstance(value, _CACHED)}
    if hasattr(torch._dynamo.config, "ignore_logging_functions"):
        return {"ignore_logging_functions": cached | {warnings.warn}}
    return {"ignore_logger_methods": cached}  # torch 2.11 knows of loggers alone


# Torch logs the traceback of an operator that it cannot run, which the error that is raised says; and torch 2.11 that
# of its own failure to write down the setting of `_given_once`.
_LOGS = tuple(
    logging.getLogger(f"torch.{name}") for name in ("_subclasses.fake_tensor", "_dynamo.metrics_context")
)


@contextmanager
def plain_dynamo(gradients: bool = True) -> Iterator[None]:
    """Dynamo as capture needs it: static unless marked, raising, whatever the caller has set."""
    with ExitStack() as stack:
        stack.enter_context(torch.compiler.set_stance("default"))
        stack.enter_context(_quiet())
        stack.enter_context(
            torch._dynamo.config.patch(
                suppress_errors=False,
                automatic_dynamic_shapes=False,
                assume_static_by_default=True,
                force_parameter_static_shapes=False,
                error_on_recompile=False,
                **_SIDE_EFFECTS,
                **_given_once(),
            )
        )
        # Batch 1 then needs no special case: a graph that treats it apart says so in a guard.
        stack.enter_context(shapes_config.patch(backed_size_oblivious=True))  # type: ignore[attr-defined]
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(gradients))
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging what the user cannot act on."""
    before = [log.disabled for log in _LOGS]
    for log in _LOGS:
        log.disabled = True
    try:
        yield
    finally:
        for log, disabled in zip(_LOGS, before, strict=True):
            log.disabled = disabled


@contextmanager
def no_side_effects(model: nn.Module) -> Iterator[None]:
    """Refuse a recording whose forward, or a hook in it, changed something beside its result and the model.

    Raises:
        CaptureError: with the names of what it changed.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    changed: dict[str, None] = {}
    for warning in caught:
        text = str(warning.message)
        if "side effects happened in the model.forward" not in text:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
            continue
        for source in ast.literal_eval(text.partition("double check: ")[2]):
            # An object without a source came into being inside the forward, and is gone or returned after it.
            if source == "<unknown source>":
                continue
            if not source.startswith("L['model']") or "__closure__" in source:
                name = re.findall(r"[A-Za-z_]\w*", source)[-1]
                changed["a variable of a closure" if name == "cell_contents" else name] = None
    if changed:
        raise capture_error(
            f"the forward of {type(model).__name__} changes {', '.join(changed)} beside its result",
            "A captured graph would not, and hooks would not run; return the value, or remove the hooks.",
        )
