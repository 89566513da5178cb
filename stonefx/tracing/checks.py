"""What a later call must satisfy for a captured graph to be valid for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from .arguments import Path, Weight, children, walk_arguments
from .facts import Fact, Relied
from .sizes import Dimension, Sizes, evaluate

Size = int | str | None


@dataclass(frozen=True)
class TensorCheck:
    """A tensor argument: `sizes` holds an int, an expression over symbols, or None where any size will do.

    `strides` is None where any layout will do.
    """

    dtype: torch.dtype
    device_type: str
    sizes: tuple[Size, ...]
    strides: tuple[int | str, ...] | None


@dataclass(frozen=True)
class Checks:
    """The conditions of a captured graph on a call.

    Attributes:
        tensors: every tensor argument.
        containers: type and keys (or length) of every container among the arguments.
        constants: every other argument, compared by type and value, see `same`.
        symbols: the dimension that each symbol is read from.
        guards: Python conditions over the symbols.
        facts: what else forward asked of the call and of the process, and was told.
        devices: forward asked for the device of a tensor, so that each must be on the type of device that it was on.
        kernel_guards: the guards that only torch's stand-ins for kernels asked for, see `Sizes`.
    """

    tensors: dict[Path, TensorCheck]
    containers: dict[Path, tuple[type, tuple[Any, ...]]]
    constants: dict[Path, Any]
    symbols: dict[str, Dimension]
    guards: tuple[str, ...]
    facts: tuple[Fact, ...]
    devices: bool
    kernel_guards: tuple[str, ...] = ()

    @property
    def gradients(self) -> bool | None:
        """The gradient mode that a call must be in; None where forward did not ask."""
        return next((fact.answer for fact in self.facts if fact.question == "is_grad_enabled"), None)

    @property
    def particular(self) -> bool:
        """Whether forward asked for more than values, dtypes and sizes, so that other calls may come out otherwise."""
        return bool(self.facts) or any(check.strides is not None for check in self.tensors.values())

    @property
    def weights(self) -> list[str]:
        """Names of the weights that facts are about."""
        return list(
            dict.fromkeys(path.name for fact in self.facts for path in fact.paths if isinstance(path, Weight))
        )

    def without(self, guards: Collection[str]) -> Checks:
        """The same conditions less some guards."""
        kept = tuple(guard for guard in self.guards if guard not in guards)
        kernel = tuple(guard for guard in self.kernel_guards if guard not in guards)
        return replace(self, guards=kept, kernel_guards=kernel)

    def mismatch(
        self, arguments: Mapping[str, Any], weights: Callable[[str], torch.Tensor] | None = None
    ) -> str | None:
        """The first condition that a call breaks, in words; None where it breaks none.

        Args:
            arguments: of the call, bound to their parameters.
            weights: the model's weight of a name; without it, facts about weights are taken as given.
        """
        return next(self._mismatches(arguments, weights), None)

    def _mismatches(
        self, arguments: Mapping[str, Any], weights: Callable[[str], torch.Tensor] | None
    ) -> Iterator[str]:
        for path, value in walk_arguments(arguments):
            if path in self.containers:
                yield from _container_mismatch(path, self.containers[path], value)
            elif path in self.constants:
                expected = self.constants[path]
                if not same(value, expected):
                    yield f"the argument `{path}` was {expected!r} at capture, and now is {_shown(value)}"
            elif path in self.tensors:
                yield from _tensor_mismatch(path, self.tensors[path], value)
            else:
                yield f"the argument `{path}` was not there at capture, and now is {_shown(value)}"
        sizes = {name: path.read(arguments).shape[dim] for name, (path, dim) in self.symbols.items()}
        for path, check in self.tensors.items():
            for dim, size in enumerate(check.sizes):
                if isinstance(size, str) and (came := path.read(arguments).shape[dim]) != evaluate(
                    size, sizes
                ):
                    yield (
                        f"dimension {dim} of `{path}` must be {evaluate(size, sizes)} ({size}, where "
                        f"{self._where(size)}), and is {came}"
                    )
            if check.strides is not None:
                strides = tuple(int(evaluate(str(stride), sizes)) for stride in check.strides)
                if (laid := path.read(arguments).stride()) != strides:
                    yield f"forward depends on the strides of `{path}`: expected {strides}, and they are {laid}"
        for fact in self.facts:
            if weights is None and any(isinstance(path, Weight) for path in fact.paths):
                continue
            tensors = [
                weights(path.name) if isinstance(path, Weight) and weights else path.read(arguments)  # type: ignore[union-attr]
                for path in fact.paths
            ]
            if not fact.holds(*tensors):
                yield f"forward depends on `{fact}`: it was {fact.answer} at capture, and now is {fact.now(*tensors)}"
        for guard in self.guards:
            if not evaluate(guard, sizes):
                yield f"the graph holds where {guard}, and {self._where(guard)} is {_listed(sizes, guard)}"

    def _where(self, expression: str) -> str:
        used = [name for name in self.symbols if name in expression]
        return ", ".join(f"{name} = {self.symbols[name][0]}.shape[{self.symbols[name][1]}]" for name in used)


def make_checks(
    arguments: Mapping[str, Any],
    sizes: Sizes,
    relied: Relied,
) -> Checks:
    """The conditions that the recorded call sets for later ones.

    Args:
        arguments: the recorded call's arguments by parameter, defaults filled in.
        sizes: the dynamic dimensions; all others must come as they were.
        relied: what the graph relies on beside values, dtypes and sizes.
    """
    checks = Checks(
        {}, {}, {}, sizes.symbols, sizes.guards, relied.facts, relied.devices, sizes.kernel_guards
    )
    for path, value in walk_arguments(arguments):
        if isinstance(value, torch.Tensor):
            shape = tuple(sizes.dimensions.get((path, dim), size) for dim, size in enumerate(value.shape))
            checks.tensors[path] = TensorCheck(
                value.dtype, value.device.type, shape, relied.strides.get(path)
            )
        elif (steps := children(value)) is not None:
            checks.containers[path] = (type(value), tuple(key for (_, key), _ in steps))
        else:
            checks.constants[path] = value
    return checks


def same(value: Any, expected: Any) -> bool:
    """Whether a constant argument came as it was at capture: -0.0 is not 0.0, and NaN is NaN.

    >>> same(0.0, -0.0), same(float("nan"), float("nan")), same(1, True), same(torch.float32, torch.float32)
    (False, True, False, True)
    """
    if value is expected:
        return True
    if type(value) is not type(expected):
        return False
    if isinstance(value, (float, complex)):
        return repr(value) == repr(expected)
    return bool(value == expected)


def _container_mismatch(path: Path, expected: tuple[type, tuple[Any, ...]], value: Any) -> Iterator[str]:
    kind, keys = expected
    if type(value) is not kind:
        yield f"the argument `{path}` was a {kind.__name__} at capture, and now is {_shown(value)}"
    elif (came := tuple(key for (_, key), _ in children(value) or ())) != keys:
        yield f"the argument `{path}` held {list(keys)} at capture, and now holds {list(came)}"


def _tensor_mismatch(path: Path, expected: TensorCheck, value: Any) -> Iterator[str]:
    if not isinstance(value, torch.Tensor):
        yield f"the argument `{path}` was a tensor at capture, and now is {_shown(value)}"
        return
    if value.dtype != expected.dtype:
        yield f"the argument `{path}` must have dtype {expected.dtype}, and has {value.dtype}"
    if value.device.type != expected.device_type:
        yield f"the argument `{path}` must be on {expected.device_type}, and is on {value.device}"
    if value.dim() != len(expected.sizes):
        yield f"the argument `{path}` must have {len(expected.sizes)} dimensions, and has shape {_shape(value)}"
        return
    for dim, size in enumerate(expected.sizes):
        if isinstance(size, int) and value.shape[dim] != size:
            yield f"dimension {dim} of `{path}` must be {size}, and its shape is {_shape(value)}"


def _shown(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {_shape(value)} and dtype {value.dtype}"
    return repr(value) if children(value) is None else f"a {type(value).__name__}"


def _shape(value: torch.Tensor) -> str:
    return str(list(value.shape))


def _listed(sizes: Mapping[str, int], expression: str) -> str:
    return ", ".join(str(size) for name, size in sizes.items() if name in expression)
