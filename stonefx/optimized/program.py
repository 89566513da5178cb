"""A captured and rewritten graph, ready to become the call of a module that owns its weights."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import fx, nn

from ..capture import Capture
from ..passes.transpose import store_transposed
from ..runtime import FoldSplit, FreshFolds, fold_sources, split_folds
from ..tracing.state import restored_state
from .calling import Call, makes_tensors_on_a_device, packed, returned_weights
from .codegen import Body, build, emit
from .compiled import CompiledGraph
from .folding import Folding
from .weights import Reading, global_hook_tables, owner, owner_or_none, weight

_FOLDED = "folded"
# Where a module keeps what its generated call reads.
TABLES = "_stone_tables"


@dataclass(frozen=True)
class Code:
    """A generated call.

    Args:
        functions: source of `forward` and of `__call__`.
        shared: what they name that is the same for every model of this code.
        own: what they name that belongs to one model, and that they find in its attribute `TABLES`.
    """

    functions: dict[str, str]
    shared: dict[str, Any]
    own: dict[str, Any]

    @property
    def key(self) -> Hashable:
        """Equal for codes that can be the class of the same objects."""
        named = [(name, _identity(value)) for name, value in sorted(self.shared.items())]
        return tuple(self.functions.items()), tuple(named)

    def build(self) -> dict[str, Callable[..., Any]]:
        """The functions, to be methods of a class."""
        return {name: build(text, name, self.shared) for name, text in self.functions.items()}


@dataclass
class Program:
    """A rewritten graph and where its inputs come from.

    Args:
        capture: the capture whose graph was rewritten; its graph has no folds any more.
        split: the folds that were hoisted out of it.
        inner: what runs the graph.
        names: placeholder -> name of the parameter or buffer in the module that runs the program.
        read: names of the model's weights that the folds read, in the order that they take them.
        rows: placeholders of arguments that must come in row-major order, as they did at capture.
        holder: what the names of folded weights and of the graph's own tensors begin with.
        has_original: the module that runs the program has the forward that was captured, too.
        release: weights that only folds read are freed; else the model keeps them, and the folds follow them.
        shown: what modules that lose weights say of themselves when they are printed, by path.
    """

    capture: Capture
    split: FoldSplit
    inner: str
    names: dict[str, str]
    read: list[str]
    rows: frozenset[str]
    holder: str
    has_original: bool = True
    release: bool = True
    shown: dict[str, str] = field(default_factory=dict)

    @property
    def module(self) -> fx.GraphModule:
        """The graph that runs."""
        return self.capture.module

    @property
    def dropped(self) -> list[str]:
        """Names of the weights that only folds read: they are not part of the optimized module."""
        if not self.release:
            return []
        kept = {*self.names.values(), *returned_weights(self.capture.output)}
        unread = dict.fromkeys(name for name in self.read if name not in kept)
        return [*unread, *(alias for alias, name in self.capture.aliases.items() if name in unread)]

    @property
    def used(self) -> set[str]:
        """Names of the weights that the graph or its folds read."""
        return {*self.capture.weights.values(), *self.read, *returned_weights(self.capture.output)}

    @cached_property
    def released(self) -> dict[str, list[str]]:
        """For each name in `dropped` the names of the folded weights that hold it now."""
        if not self.release:
            return {}
        renamed: dict[str, list[str]] = {}
        for operand, origins in zip(self._fold_names(), fold_sources(self.split), strict=True):
            for index in origins:
                renamed.setdefault(self.read[index], []).append(self.names[operand])
        return {name: renamed.get(self.capture.aliases.get(name, name), []) for name in self.dropped}

    @property
    def original_missing(self) -> str:
        """Why the captured forward cannot run instead of the graph, and what to do; empty where it can."""
        if not self.has_original:
            return (
                "A saved file holds the captured graph and not the original forward; call stonefx.optimize on the "
                "original with example inputs like these and save the result"
            )
        if self.dropped:
            return (
                "The model was captured for other arguments and its original weights are folded away; call "
                "stonefx.optimize again with example inputs like these, or with release=False, which keeps all weights "
                "and runs the original forward for other arguments"
            )
        return ""

    def mismatch(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Why a call is not covered by the graph, in words."""
        for device in self.plain_devices():
            if torch.is_autocast_enabled(device):
                return (
                    f"autocast is on for {device}, and hyperbolic maps were fused for the dtypes without it"
                )
        return self.capture.mismatch(args, kwargs) or "the arguments are not those of the captured call"

    def adopt(self, source: nn.Module, foreign: frozenset[int] = frozenset()) -> nn.Module:
        """Give an owned model the folded weights and take those away that only folds read; in place.

        Args:
            source: the model.
            foreign: addresses of storages that others own, so that no folded weight may end there.
        """
        if not self.release:
            return source
        self.shown = {path: source.get_submodule(path).extra_repr() for path in self._losing()}
        facts = [weight(source, name) for name in self.read]
        grad = [tensor.requires_grad for tensor in facts]
        learned = [isinstance(tensor, nn.Parameter) for tensor in facts]
        kept = {weight(source, name).untyped_storage().data_ptr() for name in self.used if name not in self.released}
        del facts
        values = iter(self._fold(source, foreign | kept))
        for operand, origins in zip(self._fold_names(), fold_sources(self.split), strict=True):
            name, value = self.names[operand], next(values)
            if any(learned[index] for index in origins):
                wanted = any(grad[index] for index in origins)
                source._parameters[name] = nn.Parameter(value, requires_grad=wanted)
            else:
                source._buffers[name] = value
                if not origins:
                    source._non_persistent_buffers_set.add(name)
        for name, tensor in {**self.capture.constants, **_attributes(self.module)}.items():
            source._buffers[self.names[name]] = tensor
            source._non_persistent_buffers_set.add(self.names[name])
        return source

    def _losing(self) -> set[str]:
        return {name.rpartition(".")[0] for name in self.dropped}

    def _fold(self, source: nn.Module, foreign: frozenset[int]) -> list[torch.Tensor]:
        gone: dict[str, list[str]] = {}
        for name in self.dropped:
            gone.setdefault(self.capture.aliases.get(name, name), []).append(name)

        def take(index: int) -> torch.Tensor:
            tensor = weight(source, self.read[index])
            for name in gone.get(self.read[index], ()):
                table, leaf = owner(source, name)
                del table[leaf]
            return tensor

        return Folding(self.split.folds, take, foreign).values() if self.split.folds is not None else []

    def plain_devices(self) -> list[str]:
        """The devices on which autocast must be off: it would have changed dtypes inside the maps that were fused."""
        fused = any(
            isinstance(node.target, torch._ops.OpOverload)
            and node.target.namespace == "stone"
            and node.target is not torch.ops.stone.low_rank_linear.default
            for node in self.module.graph.nodes
        )
        devices = {check.device_type for check in self.capture.checks.tensors.values()}
        return sorted(devices) if fused else []

    def _fold_names(self) -> list[str]:
        return [n.name for n in self.module.graph.find_nodes(op="placeholder") if "fold_input" in n.meta]

    @cached_property
    def compiled(self) -> CompiledGraph:
        """The graph for an inner compiler, the same for all copies of a model."""
        return CompiledGraph(self.module, self.inner)

    @cached_property
    def fresh(self) -> FreshFolds:
        """The folds of weights that are kept, evaluated again when these change."""
        assert self.split.folds is not None
        return FreshFolds(self.split.folds)

    def current_folds(self, weights: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        """The folds of the kept weights as they are now; None where the original forward must run.

        It must where gradients of these weights are wanted, and under transforms, in which a weight stands for many.
        """
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
            return None
        if torch._C._functorch.maybe_current_level() is not None or torch.compiler.is_compiling():
            return None
        return self.fresh(weights)

    def code(self, module: nn.Module) -> Code:
        """The call over the weights of a module that adopted this program.

        Raises:
            AttributeError: a weight that the graph reads is not there.
        """
        tables: dict[int, tuple[str, dict[str, Any]]] = {}
        parameters = self.capture.signature.parameters
        symbols = self.capture.checks.symbols
        reserved = {*parameters, *symbols}
        readings: dict[str, tuple[str, Reading]] = {}

        def variable(name: str) -> str:
            while name in reserved:
                name += "_"
            reserved.add(name)
            return name

        def expression(name: str) -> str:
            place = owner_or_none(module, name)
            if place is None:
                # A parametrisation or a pruning method computes it at every call.
                if name not in readings:
                    readings[name] = (variable(f"weight_{len(readings)}"), Reading(module, name))
                return readings[name][0]
            table, leaf = place
            if id(table) not in tables:
                tables[id(table)] = (variable(f"weights_{len(tables)}"), table)
            return f"{tables[id(table)][0]}[{leaf!r}]"

        inputs = {name: expression(path) for name, path in self.names.items()}
        inputs |= {name: str(path) for name, path in self.capture.arguments.items()}
        inputs |= {name: f"{path}.shape[{dim}]" for name, (path, dim) in self.capture.sizes.items()}
        returned = {name: expression(name) for name in returned_weights(self.capture.output)}
        folds = {} if self.release else {name: variable(name) for name in self._fold_names()}
        held = self._held(variable) if not self.release else {}
        in_rows = {name: variable(f"rows_{number}") for number, name in enumerate(sorted(self.rows))}
        body = self._body(inputs | in_rows | folds | {name: local for name, (local, _) in held.items()}, reserved)
        body.lines[:0] = [
            f"{row} = {inputs[name]} if {inputs[name]}.is_contiguous() else {inputs[name]}.contiguous()"
            for name, row in in_rows.items()
        ]
        call = Call(
            self.capture,
            body,
            returned.__getitem__,
            makes_tensors_on_a_device(self.module),
            self.plain_devices(),
        )
        if folds:
            weights = [expression(name) for name in self.read]
            body.lines[:0] = self._following(body, folds, weights, call.forwarded())
        for local, reading in readings.values():
            body.lines.insert(0, f"{local} = {body.constant(reading, 'read')}()")
        body.constants |= dict(tables.values()) | dict(held.values())
        return _code(call)

    def _following(
        self, body: Body, folds: dict[str, str], weights: list[str], forwarded: str
    ) -> list[str]:
        """Statements that fetch the folds of weights that may have changed."""
        known = body.variable("known")
        current = body.constant(self.current_folds, "current_folds")
        pack = body.constant(packed, "packed")
        return [
            f"{known} = {current}(({', '.join(weights)},))",
            f"if {known} is None:",
            f"    return self._run_original(*{pack}({forwarded}))",
            f"{', '.join(folds.values())}, = {known}",
        ]

    def _held(self, variable: Callable[[str], str]) -> dict[str, tuple[str, torch.Tensor]]:
        """The tensors that the graph holds itself, where no module has them."""
        tensors = {**self.capture.constants, **_attributes(self.module)}
        return {name: (variable(f"constant_{number}"), value) for number, (name, value) in enumerate(tensors.items())}

    def _body(self, inputs: dict[str, str], reserved: set[str]) -> Body:
        if self.inner == "eager":
            body = emit(self.module, inputs, reserved)
            if changes_state(self.module):
                # Without this an error inside a no_grad or autocast region would leave the process in it.
                devices = tuple({check.device_type for check in self.capture.checks.tensors.values()})
                restored = body.constant(partial(restored_state, devices), "restored_state")
                body.lines = [f"with {restored}():", *("    " + line for line in body.lines)]
            return body
        placeholders = [node.name for node in self.module.graph.find_nodes(op="placeholder")]
        body = Body(taken=set(reserved))
        results = body.variable("results")
        compiled = body.constant(self.compiled, "compiled")
        operands = [inputs[name] for name in placeholders]
        body.lines = [f"{results} = {compiled}({', '.join(operands)})"]
        outputs = self.module.graph.output_node().args[0]
        body.results = [f"{results}[{index}]" for index in range(len(outputs))]  # type: ignore[arg-type]
        return body


def make_program(capture: Capture, inner: str, rows: frozenset[str], release: bool = True) -> Program:
    """Hoist the folds out of a rewritten capture and name everything that its graph reads."""
    if inner == "eager":
        store_transposed(capture.module)
    originals = [node.name for node in capture.module.graph.find_nodes(op="placeholder")]
    split = split_folds(capture.module)
    names: dict[str, str] = {}
    taken = {name.split(".")[0] for name in {*capture.weights.values(), *capture.aliases}}
    holder = _FOLDED
    while any(name == holder or name.startswith(f"{holder}_") for name in taken):
        holder += "_"
    taken = set()
    for node in capture.module.graph.find_nodes(op="placeholder"):
        if node.name in capture.weights:
            names[node.name] = capture.weights[node.name]
        elif release and "fold_input" in node.meta:
            names[node.name] = f"{holder}_{_leaf(node.meta['fold_input'], taken)}"
        elif release and node.name in capture.constants:
            names[node.name] = f"{holder}_{_leaf(node.name, taken)}"
    if release:
        names |= {target: f"{holder}_{_leaf(target, taken)}" for target in _attributes(capture.module)}
    read = [capture.weights[originals[index]] for index in split.weights]
    return Program(capture, split, inner, names, read, rows, holder, release=release)


def _code(call: Call) -> Code:
    """The model's `forward`, and a `__call__` that goes straight to the operations unless there are hooks on all modules."""
    body = call.body
    module_call = body.constant(nn.Module.__call__, "module_call")
    tables = [body.constant(table, "hooks") for table in global_hook_tables()]
    prologue = [f"if {' or '.join(tables)}:", f"    return {module_call}(self, {call.forwarded()})"]
    texts = {name: call.source(name, before) for name, before in (("forward", []), ("__call__", prologue))}
    hooks = {*tables}
    own = {name: value for name, value in body.constants.items() if name not in hooks and _is_own(value)}
    shared = {name: value for name, value in body.constants.items() if name not in own}
    if own:
        fetch = f"    {', '.join(own)}, = self.{TABLES}"
        texts = {name: text.replace("\n", f"\n{fetch}\n", 1) for name, text in texts.items()}
    return Code(texts, shared, own)


def _is_own(value: Any) -> bool:
    """Whether an object belongs to one model, rather than to all of its kind."""
    if isinstance(value, types.FunctionType):
        return value.__closure__ is not None
    kinds = (dict, partial, types.MethodType, CompiledGraph, torch.Tensor, Reading)
    return isinstance(value, kinds)


def _identity(value: Any) -> Hashable:
    if isinstance(value, bool | int | float | str | bytes | tuple | slice):
        return type(value), repr(value)
    return id(value)


def changes_state(module: fx.GraphModule) -> bool:
    """Whether a graph switches grad mode or autocast on its way."""
    switches = (torch._C._set_grad_enabled, torch.amp.autocast_mode._enter_autocast)
    return any(node.target in switches for node in module.graph.nodes)


def _attributes(module: fx.GraphModule) -> dict[str, torch.Tensor]:
    """The tensors that a graph holds itself, by the target of their nodes."""
    found = {}
    for node in module.graph.find_nodes(op="get_attr"):
        value: Any = module
        for part in str(node.target).split("."):
            value = getattr(value, part)
        if isinstance(value, torch.Tensor):
            found[str(node.target)] = value
    return found


def _leaf(name: str, taken: set[str]) -> str:
    """A name that a module may register, told apart from those in use."""
    leaf = plain = re.sub(r"\W+", "_", name).strip("_")
    number = 1
    while leaf in taken:
        number += 1
        leaf = f"{plain}_{number}"
    taken.add(leaf)
    return leaf
