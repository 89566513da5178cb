"""A captured and rewritten graph, ready to become the call of a module that owns its weights."""

from __future__ import annotations

import re
import types
import warnings
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import fx, nn

from ..capture import Capture
from ..passes.graph.transpose import store_transposed
from ..passes.hoist import FoldSplit, evaluate_folds, fold_sources, split_folds
from ..rewriting import StonefxWarning
from ..runtime import FreshFolds
from ..tracing.functions import with_functions
from ..tracing.opaque import lacks_gradients, traced_functions
from ..tracing.ownership import reachable_tensors
from ..tracing.state import restored_state
from .calling import Call, makes_tensors_on_a_device, packed, returned_weights
from .codegen import Body, build, emit
from .compiled import CompiledGraph
from .folding import Folding
from .following import Folds, bytes_of, folds_at, following, owned_and_followed
from .weights import Reading, current_weight, global_hook_tables, owner, owner_or_none, weight

# Operators of ours that autocast changes as it changes `aten::linear`.
_CAST_BY_AUTOCAST = frozenset(
    getattr(torch.ops.stone, f"{name}{suffix}").default
    for name in ("low_rank_linear", "pifa_linear")
    for suffix in ("", "_forward")
)
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
        owned: the folds of weights that nothing else reads any more; the module that runs the program has their values.
        followed: the folds of weights that stay in the model, where a write to one reaches them.
        inner: what runs the graph.
        names: placeholder -> name of the parameter or buffer in the module that runs the program.
        rows: placeholders of arguments that must come in row-major order, as they did at capture.
        holder: what the names of folded weights and of the graph's own tensors begin with.
        has_original: the module that runs the program has the forward that was captured, too.
        release: weights that only folds read are freed; else the model keeps all, and every fold follows them.
        inference: the graph for calls that want no gradient, where custom functions and checkpoints are looked into;
            None where that is the same graph.
        constants: tensors beside the model's parameters and buffers that the graph or its folds read, by name.
        frozen: placeholders of tensors of which a custom function of the graph gives no gradient, since none was
            wanted of them at capture.
        shown: what modules that lose weights say of themselves when they are printed, by path.
        renamed: the folded weights that hold a weight, by its name.
        notes: of the report; why folds of kept weights are not used is added when it comes up.
    """

    capture: Capture
    owned: Folds
    followed: Folds
    inner: str
    names: dict[str, str]
    rows: frozenset[str]
    holder: str
    has_original: bool = True
    release: bool = True
    inference: fx.GraphModule | None = None
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    frozen: frozenset[str] = frozenset()
    shown: dict[str, str] = field(default_factory=dict)
    renamed: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def module(self) -> fx.GraphModule:
        """The graph that runs."""
        return self.capture.module

    @property
    def graphs(self) -> list[fx.GraphModule]:
        """All graphs that run."""
        return [self.module] if self.inference is None else [self.module, self.inference]

    def folded(self, source: nn.Module) -> dict[str, torch.Tensor]:
        """The folded weights by placeholder, from the weights of the captured model."""
        found: dict[str, torch.Tensor] = {}
        for folds in (self.owned, self.followed):
            if folds.graph is not None:
                read = [
                    self.constants[name] if name in self.constants else weight(source, name)
                    for name in folds.read
                ]
                found |= zip(folds.operands, evaluate_folds(folds.graph, read), strict=True)
        return found

    def use_without_gradients(self, inference: fx.GraphModule) -> None:
        """Let calls that want no gradient run another graph, of the same placeholders."""
        taken = {name.removeprefix(f"{self.holder}_") for name in self.names.values()}
        self.inference = inference
        for target, tensor in _attributes(inference).items():
            if target not in self.names:
                self.names[target] = f"{self.holder}_{_leaf(target, taken)}"
                self.constants[self.names[target]] = tensor

    @property
    def dropped(self) -> list[str]:
        """Names of the weights that only folds read: they are not part of the optimized module."""
        kept = {*self.names.values(), *returned_weights(self.capture.output), *self.followed.read}
        unread = dict.fromkeys(name for name in self.owned.read if name not in kept)
        return [*unread, *(alias for alias, name in self.capture.aliases.items() if name in unread)]

    @property
    def used(self) -> set[str]:
        """Names of the model's weights that the graph, its folds or its checks read."""
        capture = self.capture
        read = {
            *capture.weights.values(),
            *self.owned.read,
            *self.followed.read,
            *returned_weights(capture.output),
            *capture.checks.weights,
        }
        return read - self.constants.keys()

    @cached_property
    def released(self) -> dict[str, list[str]]:
        """For each name in `dropped` the names of the folded weights that hold it now."""
        own = [name for name in self.dropped if name not in self.constants]
        return {name: self.renamed.get(self.capture.aliases.get(name, name), []) for name in own}

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

    def mismatch(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Why a call of the module that runs the program is not covered by the graph, in words."""
        for device in self.plain_devices():
            if torch.is_autocast_enabled(device):
                return (
                    f"autocast is on for {device}, and hyperbolic maps were fused for the dtypes without it"
                )
        kept = set(self.capture.checks.weights).isdisjoint(self.dropped)
        weights = partial(current_weight, module) if kept else None
        reason = self.capture.mismatch(args, kwargs, weights)
        if reason is None and self.frozen:
            names = ", ".join(dict.fromkeys(traced_functions(self.module))) or "a custom function"
            return (
                f"a gradient is wanted, and {names} was captured without its backward for it, since it was not wanted "
                "of the weights and example inputs at capture"
            )
        return reason or "the arguments are not those of the captured call"

    def adopt(self, source: nn.Module, foreign: frozenset[int] = frozenset()) -> nn.Module:
        """Give an owned model the folded weights and take those away that only folds read; in place.

        Args:
            source: the model.
            foreign: addresses of storages that others own, so that no folded weight may end there.
        """
        if not self.release:
            return source
        self.shown = {path: source.get_submodule(path).extra_repr() for path in self._losing()}
        known = reachable_tensors(source) if self.constants else set()
        for name, tensor in self.constants.items():
            # What is not part of the copied model may be changed by others, who know nothing of this one.
            value = (
                tensor
                if id(tensor) in known
                else tensor.detach().clone().requires_grad_(tensor.requires_grad)
            )
            source._buffers[name] = value
            source._non_persistent_buffers_set.add(name)
        facts = [weight(source, name) for name in self.owned.read]
        grad = [tensor.requires_grad for tensor in facts]
        learned = [isinstance(tensor, nn.Parameter) for tensor in facts]
        kept = [weight(source, name) for name in self.used if name not in self.released]
        kept += [weight(source, name) for name in self.constants]
        foreign |= {tensor.untyped_storage().data_ptr() for tensor in kept}
        del facts, kept
        moved = self._moved(source)
        values = iter(self._fold(source, foreign))
        for operand, origins in zip(self.owned.operands, fold_sources(self.owned.graph), strict=True):
            name, value = self.names[operand], next(values)
            wanted = any(grad[index] for index in origins)
            if any(learned[index] for index in origins):
                source._parameters[name] = nn.Parameter(value, requires_grad=wanted)
            else:
                source._buffers[name] = value.requires_grad_(wanted)
                if all(self.owned.read[index] in self.constants for index in origins):
                    source._non_persistent_buffers_set.add(name)
        for name, value in moved.items():
            table: dict[str, Any] = source._parameters if isinstance(value, nn.Parameter) else source._buffers
            table[name] = value
        source._non_persistent_buffers_set.difference_update(self.constants.keys() - source._buffers.keys())
        return source

    def _moved(self, source: nn.Module) -> dict[str, torch.Tensor]:
        """The weights that the graph goes on to read under new names, by these."""
        weights = self.capture.weights
        return {
            name: weight(source, weights[operand])
            for operand, name in self.names.items()
            if operand in weights and weights[operand] != name
        }

    def _losing(self) -> set[str]:
        return {name.rpartition(".")[0] for name in self.dropped}

    def _fold(self, source: nn.Module, foreign: frozenset[int]) -> list[torch.Tensor]:
        gone: dict[str, list[str]] = {}
        for name in self.dropped:
            gone.setdefault(self.capture.aliases.get(name, name), []).append(name)

        def take(index: int) -> torch.Tensor:
            tensor = weight(source, self.owned.read[index])
            # A module that the model holds in several places, such as a manifold, has one table under several names.
            held = [owner(source, name) for name in gone.get(self.owned.read[index], ())]
            for table, leaf in {(id(table), leaf): (table, leaf) for table, leaf in held}.values():
                del table[leaf]
            return tensor

        return [] if self.owned.graph is None else Folding(self.owned.graph, take, foreign).values()

    def plain_devices(self) -> list[str]:
        """The devices on which autocast must be off: it would have changed dtypes inside the maps that were fused."""
        fused = any(
            isinstance(node.target, torch._ops.OpOverload)
            and node.target.namespace == "stone"
            and node.target not in _CAST_BY_AUTOCAST
            for graph in self.graphs
            for node in graph.graph.nodes
        )
        devices = {check.device_type for check in self.capture.checks.tensors.values()}
        return sorted(devices) if fused else []

    @cached_property
    def compiled(self) -> CompiledGraph:
        """The graph for an inner compiler, the same for all copies of a model."""
        return CompiledGraph(self.module, self.inner, self.inference)

    @cached_property
    def fresh(self) -> FreshFolds:
        """The folds of weights that are kept, evaluated again when these change."""
        assert self.followed.graph is not None
        return FreshFolds(self.followed.graph, self._note_original, owned=self.release)

    def _note_original(self, reason: str) -> None:
        """Say, once, why folds of some weights are not used."""
        note = f"the original forward runs for some weights: {reason}"
        if note not in self.notes:
            self.notes.append(note)
            warnings.warn(f"stonefx: {note}", StonefxWarning, 2)

    def current_folds(self, weights: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        """The folds of the kept weights as they are now; None where the original forward must run.

        It must where a later write to the weights might not show or the folds do not hold for their values; where all
        weights are kept, so that a user asked for the original, also where gradients are wanted or under transforms, in
        which a weight stands for many. Where it cannot, since other weights are gone, the folds are computed in this
        very call.

        Raises:
            RuntimeError: the folds do not hold for the values, and the original forward is gone.
        """
        assert self.followed.graph is not None
        transformed = torch._C._functorch.maybe_current_level() is not None or torch.compiler.is_compiling()
        wanted = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
        if not self.release and (transformed or wanted):
            return None
        if transformed:
            return tuple(self.followed.graph(*weights))
        known = self.fresh(list(weights))
        if known is not None:
            return following(self.followed.graph, known, weights) if wanted else known
        if not self.original_missing:
            return None
        try:
            return self.fresh.computed(weights)
        except ValueError as error:
            raise RuntimeError(
                f"{error}: weights of it were changed, and the original forward, which would run then, is gone. Call "
                "stonefx.optimize on the changed original, or with release=False, which keeps all weights"
            ) from None

    def code(self, module: nn.Module) -> Code:
        """The call over the weights of a module that adopted this program.

        Raises:
            AttributeError: a weight that the graph reads is not there.
        """
        tables: dict[int, tuple[str, dict[str, Any]]] = {}
        held: dict[str, Any] = {} if self.release else module.__dict__["_stone_record"].constants
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
            place = (held, name) if name in held else owner_or_none(module, name)
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
        dropped = set(self.dropped)
        asked = [name for name in self.capture.checks.weights if name not in dropped]
        direct = {name: expression(name) for name in (*returned_weights(self.capture.output), *asked)}
        folds = {name: variable(name) for name in self.followed.operands}
        inputs |= folds
        followed = [expression(name) for name in self.followed.read]
        in_rows = {name: variable(f"rows_{number}") for number, name in enumerate(sorted(self.rows))}
        prepared = [
            f"{row} = {inputs[name]} if {inputs[name]}.is_contiguous() else {inputs[name]}.contiguous()"
            for name, row in in_rows.items()
        ]
        body = self._body(self.inference or self.module, inputs | in_rows, reserved)
        training, wanted, refused = None, "", ""
        if self.frozen:
            refused = self._wanted(inputs, body, [name for name in self._tensors() if name in self.frozen])
        if self.inference is not None and self.inner == "eager":
            wanted = self._wanted(inputs, body, self._tensors())
            training = self._body(self.module, inputs | in_rows, reserved | body.taken)
            body.constants |= training.constants
        call = Call(
            self.capture,
            body,
            direct.get,
            any(makes_tensors_on_a_device(graph) for graph in self.graphs),
            self.plain_devices(),
            refused,
            wanted,
            training,
        )
        if folds:
            prepared[:0] = self._following(body, folds, followed, call.forwarded())
        call.prepared[:] = prepared
        call.computed[:] = [
            f"{local} = {body.constant(reading, 'read')}()" for local, reading in readings.values()
        ]
        body.constants |= dict(tables.values())
        return _code(call)

    def _following(self, body: Body, folds: dict[str, str], weights: list[str], forwarded: str) -> list[str]:
        """Statements that fetch the folds of weights that may have changed."""
        known = body.variable("known")
        current = body.constant(self.current_folds, "current_folds")
        pack = body.constant(packed, "packed")
        return [
            f"{known} = {current}(({''.join(f'{weight}, ' for weight in weights)}))",
            f"if {known} is None:",
            f"    return self._run_original(*{pack}({forwarded}))",
            f"{', '.join(folds.values())}, = {known}",
        ]

    def _tensors(self) -> list[str]:
        """The placeholders that some node reads and that are tensors."""
        placeholders = self.module.graph.find_nodes(op="placeholder")
        return [n.name for n in placeholders if n.users and isinstance(n.meta.get("val"), torch.Tensor)]

    def _wanted(self, inputs: dict[str, str], body: Body, placeholders: list[str]) -> str:
        """The expression for whether a call wants a gradient of one of these."""
        if not placeholders:
            return ""
        enabled = body.constant(torch.is_grad_enabled, "is_grad_enabled")
        return f"{enabled}() and ({' or '.join(f'{inputs[name]}.requires_grad' for name in placeholders)})"

    def _body(self, module: fx.GraphModule, inputs: dict[str, str], reserved: set[str]) -> Body:
        if self.inner == "eager":
            body = emit(with_functions(module), inputs, reserved)
            if changes_state(module):
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


def make_program(
    capture: Capture, inner: str, rows: frozenset[str], release: bool = True, held: Collection[str] = ()
) -> Program:
    """Hoist the folds out of a rewritten capture and name everything that its graph reads.

    Args:
        capture: its graph was rewritten.
        inner: what will run the graph.
        rows: as of `Program`.
        release: as of `Program`.
        held: names of weights that something outside of the captured model holds as well.
    """
    if inner == "eager":
        store_transposed(capture.module)
    placeholders = capture.module.graph.find_nodes(op="placeholder")
    originals = [node.name for node in placeholders]
    required = [bool(getattr(node.meta.get("val"), "requires_grad", False)) for node in placeholders]
    split = split_folds(capture.module)
    names: dict[str, str] = {}
    first = {name.split(".")[0] for name in {*capture.weights.values(), *capture.aliases}}
    holder = _FOLDED
    while any(name == holder or name.startswith(f"{holder}_") for name in first):
        holder += "_"
    taken: set[str] = set()
    own = {name: f"{holder}_{_leaf(name, taken)}" for name in capture.constants}
    folded = []
    for node in capture.module.graph.find_nodes(op="placeholder"):
        if node.name in capture.weights:
            names[node.name] = capture.weights[node.name]
        elif node.name in own:
            names[node.name] = own[node.name]
        elif "fold_input" in node.meta:
            folded.append(node)
    read = [(capture.weights | own)[originals[index]] for index in split.weights]
    shown = {capture.aliases.get(name, name) for name in (*returned_weights(capture.output), *held)}
    sizes = {
        capture.weights[node.name]: node.meta["val"] for node in placeholders if node.name in capture.weights
    }
    owned, followed, moved = owned_and_followed(
        [{read[index] for index in origins} for origins in fold_sources(split.folds)],
        [bytes_of(node.meta["val"]) for node in folded],
        {name: bytes_of(value) for name, value in sizes.items()},
        {name for name in names.values() if name in sizes},
        shown,
        release,
    )
    attributes = {target: f"{holder}_{_leaf(target, taken)}" for target in _attributes(capture.module)}
    names |= attributes
    renamed: dict[str, list[str]] = {}
    sources = fold_sources(split.folds)
    for position in owned:
        node = folded[position]
        names[node.name] = f"{holder}_{_leaf(node.meta['fold_input'], taken)}"
        for index in sources[position]:
            renamed.setdefault(read[index], []).append(names[node.name])
    for operand, name in list(names.items()):
        if name in moved:
            names[operand] = f"{holder}_{_leaf(name, taken)}"
            renamed.setdefault(name, []).append(names[operand])
    used = {*names.values(), *read}
    constants = {own[name]: tensor for name, tensor in capture.constants.items() if own[name] in used}
    constants |= {attributes[target]: tensor for target, tensor in _attributes(capture.module).items()}
    return Program(
        capture,
        folds_at(split, read, folded, owned),
        folds_at(split, read, folded, followed),
        inner,
        names,
        rows,
        holder,
        release=release,
        constants=constants,
        frozen=_without_gradient(capture.module, originals, required, split),
        renamed=renamed,
    )


def _without_gradient(
    module: fx.GraphModule, originals: list[str], required: list[bool], split: FoldSplit
) -> frozenset[str]:
    """The placeholders of whose tensors the custom functions of a graph give no gradient.

    Args:
        module: the graph, without its folds.
        originals, required: the placeholders that it had with them, and whether each required a gradient at capture.
        split: the folds.
    """
    placeholders = module.graph.find_nodes(op="placeholder")
    if not traced_functions(module) and not any(map(lacks_gradients, module.graph.nodes)):
        return frozenset()
    # What required a gradient at capture did not reach the functions that were traced into.
    known = dict(zip(originals, required, strict=True))
    folds = [node.name for node in placeholders if "fold_input" in node.meta]
    for name, origins in zip(folds, fold_sources(split.folds), strict=True):
        known[name] = any(required[split.weights[index]] for index in origins)
    return frozenset(node.name for node in placeholders if not known[node.name])


def _code(call: Call) -> Code:
    """The model's `forward`, and a `__call__` that goes straight to the operations unless all modules have hooks."""
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
