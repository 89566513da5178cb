"""A captured and rewritten graph, ready to become the call of a module that owns its weights."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import fx, nn

from ..capture import Capture
from ..passes.hoist import FoldSplit, evaluate_folds, fold_sources, split_folds
from ..passes.transpose import store_transposed
from ..tracing.functions import with_functions
from ..tracing.opaque import traced_functions
from ..tracing.ownership import reachable_tensors
from ..tracing.state import restored_state
from .calling import Call, build_functions, makes_tensors_on_a_device, returned_weights
from .codegen import Body, emit
from .compiled import CompiledGraph
from .weights import hook_tables, owner, weight

_FOLDED = "folded"


@dataclass
class Program:
    """A rewritten graph and where its inputs come from.

    Args:
        capture: the capture whose graph was rewritten; its graph has no folds any more.
        split: the folds that were hoisted out of it.
        inner: what runs the graph.
        names: placeholder -> name of the parameter or buffer in the module that runs the program.
        read: names of the weights that the folds read, in the order that they take them.
        rows: placeholders of arguments that must come in row-major order, as they did at capture.
        holder: name of the submodule that holds the folded weights and the graph's own tensors.
        has_original: the module that runs the program has the forward that was captured, too.
        inference: the graph for calls that want no gradient, where custom functions and checkpoints are looked into;
            None where that is the same graph.
        constants: name in the holder -> tensor that the model has beside its parameters and buffers.
    """

    capture: Capture
    split: FoldSplit
    inner: str
    names: dict[str, str]
    read: list[str]
    rows: frozenset[str]
    holder: str
    has_original: bool = True
    inference: fx.GraphModule | None = None
    constants: dict[str, torch.Tensor] = field(default_factory=dict)

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
        if self.split.folds is None:
            return {}
        values = evaluate_folds(self.split.folds, [weight(source, name) for name in self.read])
        return dict(zip(self._fold_names(), values, strict=True))

    def use_without_gradients(self, inference: fx.GraphModule) -> None:
        """Let calls that want no gradient run another graph, of the same placeholders."""
        taken = {name.rpartition(".")[2] for name in self.names.values()}
        self.inference = inference
        for target, tensor in _attributes(inference).items():
            if target not in self.names:
                self.names[target] = f"{self.holder}.{_leaf(target, taken)}"
                self.constants[self.names[target]] = tensor

    @property
    def dropped(self) -> list[str]:
        """Names of the weights that only folds read: they are not part of the optimized module."""
        kept = {*self.names.values(), *returned_weights(self.capture.output)}
        unread = dict.fromkeys(name for name in self.read if name not in kept)
        return [*unread, *(alias for alias, name in self.capture.aliases.items() if name in unread)]

    @property
    def weights(self) -> dict[str, list[str]]:
        """For each name in `dropped` the names of the folded weights that hold it now."""
        renamed: dict[str, list[str]] = {}
        for operand, origins in zip(self._fold_names(), fold_sources(self.split), strict=True):
            for index in origins:
                renamed.setdefault(self.read[index], []).append(self.names[operand])
        own = [name for name in self.dropped if name not in self.constants]
        return {name: renamed[self.capture.aliases.get(name, name)] for name in own}

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
                "stonefx.optimize again with example inputs like these"
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
        weights = partial(weight, module) if kept else None
        reason = self.capture.mismatch(args, kwargs, weights)
        if reason is None and (names := traced_functions(self.module)):
            return (
                f"a gradient is wanted, and {', '.join(dict.fromkeys(names))} was captured without its backward, since "
                "neither a weight nor an example input required a gradient"
            )
        return reason or "the arguments are not those of the captured call"

    def adopt(self, source: nn.Module) -> nn.Module:
        """Give an owned model the folded weights and take those away that only folds read; in place."""
        holder = nn.Module()
        source.add_module(self.holder, holder)
        known = reachable_tensors(source)
        for name, tensor in self.constants.items():
            # What is not part of the copied model may be changed by others, who know nothing of this one.
            value = (
                tensor
                if id(tensor) in known
                else tensor.detach().clone().requires_grad_(tensor.requires_grad)
            )
            holder.register_buffer(name.removeprefix(f"{self.holder}."), value, persistent=False)
        weights = [weight(source, name) for name in self.read]
        values = evaluate_folds(self.split.folds, weights) if self.split.folds is not None else ()
        for operand, value, origins in zip(self._fold_names(), values, fold_sources(self.split), strict=True):
            leaf = self.names[operand].removeprefix(f"{self.holder}.")
            needs_grad = any(weights[index].requires_grad for index in origins)
            if any(isinstance(weights[index], nn.Parameter) for index in origins):
                holder.register_parameter(leaf, nn.Parameter(value, requires_grad=needs_grad))
            else:
                persistent = any(self.read[index] not in self.constants for index in origins)
                holder.register_buffer(leaf, value.requires_grad_(needs_grad), persistent=persistent)
        for name in self.dropped:
            table, leaf = owner(source, name)
            del table[leaf]
        if not holder._parameters and not holder._buffers:
            del source._modules[self.holder]
        return source

    def plain_devices(self) -> list[str]:
        """The devices on which autocast must be off: it would have changed dtypes inside the maps that were fused."""
        fused = any(
            isinstance(node.target, torch._ops.OpOverload)
            and node.target.namespace == "stone"
            and node.target is not torch.ops.stone.low_rank_linear.default
            for graph in self.graphs
            for node in graph.graph.nodes
        )
        devices = {check.device_type for check in self.capture.checks.tensors.values()}
        return sorted(devices) if fused else []

    def _fold_names(self) -> list[str]:
        return [n.name for n in self.module.graph.find_nodes(op="placeholder") if "fold_input" in n.meta]

    def functions(self, module: nn.Module) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """The `forward` and `__call__` of a module that adopted this program."""
        tables: dict[int, tuple[str, dict[str, Any]]] = {}
        parameters = self.capture.signature.parameters
        symbols = self.capture.checks.symbols
        reserved = {*parameters, *symbols}

        def variable(name: str) -> str:
            while name in reserved:
                name += "_"
            reserved.add(name)
            return name

        def expression(name: str) -> str:
            table, leaf = owner(module, name)
            if id(table) not in tables:
                tables[id(table)] = (variable(f"weights_{len(tables)}"), table)
            return f"{tables[id(table)][0]}[{leaf!r}]"

        inputs = {name: expression(path) for name, path in self.names.items()}
        inputs |= {name: str(path) for name, path in self.capture.arguments.items()}
        inputs |= {name: f"{path}.shape[{dim}]" for name, (path, dim) in self.capture.sizes.items()}
        dropped = set(self.dropped)
        asked = [name for name in self.capture.checks.weights if name not in dropped]
        direct = {name: expression(name) for name in (*returned_weights(self.capture.output), *asked)}
        in_rows = {name: variable(f"rows_{number}") for number, name in enumerate(sorted(self.rows))}
        rows = [
            f"{row} = {inputs[name]} if {inputs[name]}.is_contiguous() else {inputs[name]}.contiguous()"
            for name, row in in_rows.items()
        ]
        body = self._body(self.inference or self.module, inputs | in_rows, reserved)
        training, wanted = None, ""
        if traced_functions(self.module):
            wanted = self._wanted(inputs, body)
        elif self.inference is not None and self.inner == "eager":
            wanted = self._wanted(inputs, body)
            training = self._body(self.module, inputs | in_rows, reserved | body.taken)
            training.lines[:0] = rows
            body.constants |= training.constants
        body.lines[:0] = rows
        body.constants |= dict(tables.values())
        call = Call(
            self.capture,
            body,
            direct.get,
            any(makes_tensors_on_a_device(graph) for graph in self.graphs),
            self.plain_devices(),
            wanted,
            training,
        )
        return build_functions(call, hook_tables(module))

    def _wanted(self, inputs: dict[str, str], body: Body) -> str:
        """The expression for whether a call wants a gradient."""
        values = [
            inputs[node.name]
            for node in self.module.graph.find_nodes(op="placeholder")
            if node.users and isinstance(node.meta.get("val"), torch.Tensor)
        ]
        enabled = body.constant(torch.is_grad_enabled, "is_grad_enabled")
        return f"{enabled}() and ({' or '.join(f'{value}.requires_grad' for value in values) or 'False'})"

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
        compiled = body.constant(CompiledGraph(self.module, self.inner, self.inference), "compiled")
        operands = [inputs[name] for name in placeholders]
        body.lines = [f"{results} = {compiled}({', '.join(operands)})"]
        outputs = self.module.graph.output_node().args[0]
        body.results = [f"{results}[{index}]" for index in range(len(outputs))]  # type: ignore[arg-type]
        return body


def make_program(capture: Capture, inner: str, rows: frozenset[str]) -> Program:
    """Hoist the folds out of a rewritten capture and name everything that its graph reads."""
    if inner == "eager":
        store_transposed(capture.module)
    originals = [node.name for node in capture.module.graph.find_nodes(op="placeholder")]
    split = split_folds(capture.module)
    names: dict[str, str] = {}
    taken: set[str] = set()
    holder = _FOLDED
    while any(name.split(".")[0] == holder for name in capture.weights.values()):
        holder += "_"
    own = {name: f"{holder}.{_leaf(name, taken)}" for name in capture.constants}
    for node in capture.module.graph.find_nodes(op="placeholder"):
        if node.name in capture.weights:
            names[node.name] = capture.weights[node.name]
        elif "fold_input" in node.meta:
            names[node.name] = f"{holder}.{_leaf(node.meta['fold_input'], taken)}"
        elif node.name in own:
            names[node.name] = own[node.name]
    attributes = {target: f"{holder}.{_leaf(target, taken)}" for target in _attributes(capture.module)}
    names |= attributes
    read = [(capture.weights | own)[originals[index]] for index in split.weights]
    used = {*names.values(), *read}
    constants = {own[name]: tensor for name, tensor in capture.constants.items() if own[name] in used}
    constants |= {attributes[target]: tensor for target, tensor in _attributes(capture.module).items()}
    return Program(capture, split, inner, names, read, rows, holder, constants=constants)


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
