"""The generated call of an optimized model: signature, conditions on the arguments, operations, result."""

from __future__ import annotations

import builtins
import dataclasses
import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import fx

from ..capture import Capture, Output, Path, Shape, Weight
from ..tracing.arguments import children, rebuild
from ..tracing.checks import same
from .codegen import Body

_STARS: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
_CALLED = re.compile(r"\b(?:abs|float|int|math|max|min|round)\b(?=[(.])")
UNREADABLE = (AttributeError, TypeError, KeyError, IndexError, ValueError)


@dataclasses.dataclass(frozen=True)
class Call:
    """What goes around the operations of a captured graph.

    Args:
        capture: signature, checks and result template.
        body: the operations, and the names in use.
        weight: the expression for a weight that is returned as it is or was asked for something, by name; None for
            one that was folded away, which nobody can change.
        checks_device: the graph makes tensors on a fixed device, so the arguments must be on the captured one.
        plain_devices: devices on which autocast must be off.
        refused: the expression for whether a call wants a gradient that the graph does not give.
        wanted: the expression for whether a call wants a gradient, where that makes a difference.
        training: the operations for a call that wants one.
        computed: statements that compute weights, before the arguments are looked at.
        prepared: statements behind the checks that get the inputs of the operations ready.
    """

    capture: Capture
    body: Body
    weight: Callable[[str], Any]
    checks_device: bool
    plain_devices: list[str]
    refused: str = ""
    wanted: str = ""
    training: Body | None = None
    computed: list[str] = dataclasses.field(default_factory=list)
    prepared: list[str] = dataclasses.field(default_factory=list)

    def source(self, name: str, prologue: list[str]) -> str:
        """The source of one function with the signature of the model's forward and `self` before it."""
        before = [*prologue, *self.computed, *self.check(), *self.prepared]
        lines = [f"def {name}(self{self.parameters()}):", *indented(before)]
        if self.refused:
            lines += [f"    if {self.refused}:", f"        {self._refusal()}"]
        if self.training is not None and self.wanted:
            result = dataclasses.replace(self, body=self.training).result(self.capture.output)
            training = [*self.training.lines, f"return {result}"]
            lines += [f"    if {self.wanted}:", *indented(indented(training))]
        lines += indented(self.body.lines)
        lines.append(f"    return {self.result(self.capture.output)}")
        return "\n".join(lines)

    def _refusal(self) -> str:
        return f"return self._refuse(*{self.body.constant(packed, 'packed')}({self.forwarded()}))"

    def parameters(self) -> str:
        """The parameters of forward after `self`, with their defaults as constants."""
        parts = []
        seen_star = False
        parameters = list(self.capture.signature.parameters.values())
        for index, parameter in enumerate(parameters):
            if parameter.kind is parameter.VAR_POSITIONAL:
                seen_star = True
                parts.append(f"*{parameter.name}")
                continue
            if parameter.kind is parameter.VAR_KEYWORD:
                parts.append(f"**{parameter.name}")
                continue
            if parameter.kind is parameter.KEYWORD_ONLY and not seen_star:
                seen_star = True
                parts.append("*")
            default = parameter.default
            given = "" if default is inspect.Parameter.empty else f"={self.literal(default)}"
            parts.append(parameter.name + given)
            following = parameters[index + 1].kind if index + 1 < len(parameters) else None
            if parameter.kind is parameter.POSITIONAL_ONLY and following is not parameter.POSITIONAL_ONLY:
                parts.append("/")
        return "".join(f", {part}" for part in parts)

    def forwarded(self) -> str:
        """The arguments, as an argument list that passes them on."""
        parts = []
        for parameter in self.capture.signature.parameters.values():
            prefix = _STARS.get(parameter.kind, "")
            named = f"{parameter.name}=" if parameter.kind is parameter.KEYWORD_ONLY else ""
            parts.append(f"{named}{prefix}{parameter.name}")
        return ", ".join(parts)

    def check(self) -> list[str]:
        """Statements that refuse arguments for which the graph was not captured."""
        conditions = list(self.conditions())
        if not conditions:
            return []
        unreadable = self.body.constant(UNREADABLE, "unreadable")
        fits = self.body.variable("fits")
        return [
            "try:",
            f"    {fits} = {' and '.join(conditions)}",
            f"except {unreadable}:",
            f"    {fits} = False",
            f"if not {fits}:",
            f"    {self._refusal()}",
        ]

    def conditions(self) -> Iterator[str]:
        """One expression a condition, in the order in which they can be evaluated."""
        checks = self.capture.checks
        for device in self.plain_devices:
            yield f"not {self.body.constant(torch.is_autocast_enabled, 'is_autocast_enabled')}({device!r})"
        for path, (kind, keys) in checks.containers.items():
            # The signature itself makes *args a tuple and **kwargs a dict.
            yield f"{self.function('type')}({path}) is {self.body.constant(kind, kind.__name__)}"
            if issubclass(kind, tuple | list):
                yield f"{self.function('len')}({path}) == {len(keys)}"
            elif issubclass(kind, Mapping):
                yield f"{self.function('tuple')}({path}) == {self.literal(keys)}"
        for path, value in checks.constants.items():
            if value is None or value is True or value is False or isinstance(value, type):
                yield f"{path} is {self.literal(value)}"
            else:
                yield f"{self.body.constant(same, 'same')}({path}, {self.literal(value)})"
        bound = {dimension: name for name, dimension in checks.symbols.items()}
        derived = []
        for path, check in checks.tensors.items():
            shape = self.body.variable("shape")
            yield f"{path}.dtype is {self.literal(check.dtype)}"
            if self.checks_device or checks.devices:
                yield f"{path}.device.type == {check.device_type!r}"
            yield f"{self.function('len')}({shape} := {path}.shape) == {len(check.sizes)}"
            for dim, size in enumerate(check.sizes):
                if (path, dim) in bound:
                    yield f"({bound[path, dim]} := {shape}[{dim}]) >= 0"
                elif isinstance(size, int):
                    yield f"{shape}[{dim}] == {size}"
                elif size is not None:
                    derived.append(f"{shape}[{dim}] == ({self.arithmetic(size)})")
            if check.strides is not None:
                strides = "".join(f"{self.arithmetic(str(stride))}, " for stride in check.strides)
                derived.append(f"{path}.stride() == ({strides})")
        yield from derived
        for fact in checks.facts:
            asked = [self.weight(path.name) if isinstance(path, Weight) else str(path) for path in fact.paths]
            if None not in asked:
                yield f"{self.body.constant(fact.holds, f'same_{fact.question}')}({', '.join(asked)})"
        yield from (f"({self.arithmetic(guard)})" for guard in checks.guards)

    def function(self, name: str) -> str:
        """A builtin, or `math`, under a name that no parameter of forward hides."""
        found = getattr(builtins, name, math)
        hidden = found is math or name in self.capture.signature.parameters
        return self.body.constant(found, name) if hidden else name

    def arithmetic(self, expression: str) -> str:
        """An expression over sizes, whose functions no parameter of forward hides."""
        return _CALLED.sub(lambda name: self.function(name[0]), expression)

    def literal(self, value: Any) -> str:
        """A value as an expression."""
        if value is None or type(value) in (bool, int, str):
            return repr(value)
        return self.body.constant(value, getattr(value, "__name__", type(value).__name__))

    def result(self, template: Any) -> str:
        """The expression for the call's result."""
        if isinstance(template, Output):
            return self.body.results[template.index] + (".item()" if template.item else "")
        if isinstance(template, Shape):
            entries = ", ".join(self.result(entry) for entry in template.entries)
            return f"{self.body.constant(torch.Size, 'Size')}(({entries},))"
        if isinstance(template, Path):
            return str(template)
        if isinstance(template, Weight):
            return self.weight(template.name)
        steps = children(template)
        if steps is None:
            return self.literal(template)
        items = [self.result(item) for _, item in steps]
        if type(template) is tuple:
            return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
        if type(template) is list:
            return f"[{', '.join(items)}]"
        if type(template) is dict:
            return "{" + ", ".join(f"{k!r}: {v}" for ((_, k), _), v in zip(steps, items, strict=True)) + "}"
        leaves = [self.result(leaf) for leaf in slots(template)]
        return f"{self.body.constant(maker(template), 'make')}({', '.join(leaves)})"


def indented(lines: list[str]) -> list[str]:
    """Lines one level further in."""
    return ["    " + line for line in lines]


def packed(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call as a pair."""
    return args, kwargs


def is_slot(value: Any) -> bool:
    """Whether a leaf of a result template stands for a value of the call."""
    return isinstance(value, Output | Path | Shape | Weight)


def slots(template: Any) -> list[Any]:
    """The leaves of a result template that stand for values of the call, in the order in which `rebuild` meets them."""
    found: list[Any] = []
    rebuild(template, lambda value: found.append(value) if is_slot(value) else value)
    return found


def returned_weights(template: Any) -> list[str]:
    """Names of the weights that a result holds as they are."""
    return [leaf.name for leaf in slots(template) if isinstance(leaf, Weight)]


def maker(template: Any) -> Callable[..., Any]:
    """A function of the values of `slots` that makes the container."""

    def make(*values: Any) -> Any:
        left = iter(values)
        return rebuild(template, lambda value: next(left) if is_slot(value) else value)

    return make


def makes_tensors_on_a_device(module: fx.GraphModule) -> bool:
    """Whether an operation names a device, so that the graph only holds where its inputs were at capture."""
    return any(isinstance(node.kwargs.get("device"), torch.device) for node in module.graph.nodes)
