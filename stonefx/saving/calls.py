"""How a captured model is called, as JSON and back: signature, arguments, conditions, result."""

from __future__ import annotations

import inspect
from typing import Any

from torch import fx

from ..capture import Capture, Checks, TensorCheck
from ..tracing.facts import Fact
from .values import decode, encode


def call_document(capture: Capture) -> dict[str, Any]:
    """What `call_of` needs to restore everything of a capture but its graph and weights.

    Raises:
        TypeError: a default or constant argument, or a class of a container, cannot be found by another process.
    """
    return {
        "signature": [_parameter(parameter) for parameter in capture.signature.parameters.values()],
        "output": encode(capture.output),
        "training": capture.training,
        "aliases": capture.aliases,
        "tensors": [
            [encode(path), encode(check.dtype), check.device_type, list(check.sizes), encode(check.strides)]
            for path, check in capture.checks.tensors.items()
        ],
        "containers": [
            [encode(path), encode(kind), encode(keys)]
            for path, (kind, keys) in capture.checks.containers.items()
        ],
        "constants": [[encode(path), encode(value)] for path, value in capture.checks.constants.items()],
        "symbols": [[name, encode(path), dim] for name, (path, dim) in capture.checks.symbols.items()],
        "guards": list(capture.checks.guards),
        "facts": [
            encode((fact.paths, fact.question, fact.arguments, fact.answer, fact.keywords))
            for fact in capture.checks.facts
        ],
        "devices": capture.checks.devices,
    }


def call_of(document: dict[str, Any]) -> Capture:
    """A capture without graph, weights and arguments, for `dataclasses.replace` to fill in.

    Raises:
        ImportError: a class that the call names cannot be imported here.
    """
    checks = Checks(
        tensors={
            decode(path): TensorCheck(decode(dtype), device_type, tuple(sizes), decode(strides))
            for path, dtype, device_type, sizes, strides in document["tensors"]
        },
        containers={
            decode(path): (decode(kind), decode(keys)) for path, kind, keys in document["containers"]
        },
        constants={decode(path): decode(value) for path, value in document["constants"]},
        symbols={name: (decode(path), dim) for name, path, dim in document["symbols"]},
        guards=tuple(document["guards"]),
        facts=tuple(Fact(*decode(fact)) for fact in document["facts"]),
        devices=document["devices"],
    )
    return Capture(
        module=fx.GraphModule({}, fx.Graph()),
        weights={},
        aliases=dict(document["aliases"]),
        constants={},
        arguments={},
        sizes={},
        output=decode(document["output"]),
        checks=checks,
        training=document["training"],
        signature=inspect.Signature([_restored(parameter) for parameter in document["signature"]]),
    )


def _parameter(parameter: inspect.Parameter) -> list[Any]:
    named = [parameter.name, parameter.kind.name]
    return named if parameter.default is parameter.empty else [*named, encode(parameter.default)]


def _restored(document: list[Any]) -> inspect.Parameter:
    name, kind, *default = document
    made = inspect.Parameter(name, inspect._ParameterKind[kind])
    return made.replace(default=decode(default[0])) if default else made
