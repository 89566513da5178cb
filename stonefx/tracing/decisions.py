"""Branches of a forward on the model's own tensors, such as a curvature or a flag, taken as their values decide.

Dynamo cannot branch on a value. A value that only weights determine is known while the model is recorded; the graph
then relies on it, as it relies on what forward asks of its arguments (see `facts`).
"""

from __future__ import annotations

import dis
import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import fx
from torch._dynamo.variables.constant import ConstantVariable
from torch._dynamo.variables.tensor import SymNodeVariable, TensorVariable
from torch._dynamo.variables.torch import TorchInGraphFunctionVariable
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.utils._python_dispatch import TorchDispatchMode

from .bytecode import before_instructions

_JUMPS = [
    name
    for name in dis.opmap
    if ("JUMP_" in name and "_IF_" in name and "NONE" not in name) or name in ("TO_BOOL", "UNARY_NOT")
]
_COMPARISONS = (torch.equal, torch.allclose, torch.is_nonzero)
_ARGUMENTS = ("L['args']", "L['kwargs']", "L['batched']")
_IN_PLACE = frozenset(
    getattr(operator, name) for name in dir(operator) if name.startswith("i") and name != "is_"
)


class Decision:
    """A value that tensors of the model determine, computed again where they changed.

    Args:
        module: computes it.
        tensors: what `module` takes; those that `forget` names are given at each call instead.
        place: the line of the user's code that depends on it.
    """

    def __init__(self, module: fx.GraphModule, tensors: Sequence[torch.Tensor], place: str) -> None:
        self.module = module
        self.tensors: list[torch.Tensor | None] = list(tensors)
        self.place = place
        self._known: tuple[Any, Any] | None = None

    def forget(self, index: int) -> None:
        """Take this tensor as an argument from now on."""
        self.tensors[index] = None

    def __call__(self, *given: torch.Tensor) -> Any:
        """The value, for the tensors that were forgotten, in their order."""
        left = iter(given)
        tensors = [next(left) if tensor is None else tensor for tensor in self.tensors]
        state = [_state(tensor) for tensor in tensors]
        if self._known is None or self._known[0] != state or None in state:
            self._known = (state, _evaluated(self.module, tensors))
        return self._known[1]

    def __repr__(self) -> str:
        return self.place


def _state(tensor: torch.Tensor) -> Any:
    """What changes with the values of a tensor; None where nothing tells.

    Writes to `tensor.data` change no counter, but the values of small tensors can be had for less than a kernel.
    """
    if tensor.is_inference():
        return None
    small = tensor.tolist() if tensor.device.type == "cpu" and tensor.numel() <= 16 else None
    return id(tensor), tensor._version, tensor.data_ptr(), repr(small)


@dataclass
class Decisions:
    """The decisions of a recording, and what each came to."""

    taken: list[tuple[Decision, Any]] = field(default_factory=list)
    thread: int = field(default_factory=threading.get_ident)


@contextmanager
def decided_branches() -> Iterator[Decisions]:
    """Let Dynamo take branches on values that only the model's own tensors determine."""
    decisions = Decisions()

    def jump(tx: Any) -> None:
        condition = tx.stack[-1]
        if isinstance(condition, TensorVariable) or _is_unbacked(condition):
            value = _decide(tx, condition.as_proxy().node, bool, decisions)
            if value is not None:
                tx.stack[-1] = ConstantVariable.create(value)

    def evaluated(original: Callable[..., Any]) -> Callable[..., Any]:
        def evaluate_expr(self: SymNodeVariable, output_graph: Any = None) -> Any:
            if _is_unbacked(self):
                value = _decide(None, self.as_proxy().node, None, decisions)
                if value is not None:
                    return value
            return original(self, output_graph)

        return evaluate_expr

    def compared(original: Callable[..., Any]) -> Callable[..., Any]:
        def call_function(self: TorchInGraphFunctionVariable, tx: Any, args: Any, kwargs: Any) -> Any:
            if self.value in _COMPARISONS and args and all(isinstance(arg, TensorVariable) for arg in args):
                constants = {key: value.as_python_constant() for key, value in kwargs.items()}
                value = _decide(
                    tx, [arg.as_proxy().node for arg in args], None, decisions, self.value, constants
                )
                if value is not None:
                    return ConstantVariable.create(value)
            return original(self, tx, args, kwargs)

        return call_function

    with ExitStack() as stack:
        for owner, name, wrap in (
            (SymNodeVariable, "evaluate_expr", evaluated),
            (TorchInGraphFunctionVariable, "call_function", compared),
        ):
            stack.enter_context(patch.object(owner, name, wrap(getattr(owner, name))))
        stack.enter_context(before_instructions(_JUMPS, jump))
        yield decisions


def _is_unbacked(variable: Any) -> bool:
    return isinstance(variable, SymNodeVariable) and bool(free_unbacked_symbols(variable.sym_num))


def _decide(
    tx: Any,
    roots: fx.Node | list[fx.Node],
    convert: Callable[[Any], Any] | None,
    decisions: Decisions,
    function: Callable[..., Any] | None = None,
    keywords: dict[str, Any] | None = None,
) -> Any:
    """The value of a node of Dynamo's graph, or of a function of nodes; None where arguments or chance determine it."""
    if threading.get_ident() != decisions.thread:
        return None
    nodes = roots if isinstance(roots, list) else [roots]
    ancestors = _ancestors(nodes)
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    tensors: list[torch.Tensor] = []
    for node in ancestors:
        if node.op == "placeholder":
            held: Any = node.meta.get("grapharg")
            source = getattr(getattr(held, "source", None), "name", _ARGUMENTS[0])
            if source.startswith(_ARGUMENTS) or not isinstance(held.example, torch.Tensor):
                return None
            tensors.append(held.example)
        elif node.op not in ("call_function", "call_method") or any(map(_writes, node.users)):
            return None
        copies[node] = graph.node_copy(node, copies.__getitem__)
    result: Any = [copies[node] for node in nodes]
    if function is not None:
        result = graph.call_function(function, tuple(result), keywords or {})
    elif convert is not None:
        result = graph.call_function(convert, (result[0],))
    else:
        result = result[0]
    graph.output(result)
    decision = Decision(fx.GraphModule({}, graph), tensors, _place(tx))
    try:
        value = decision()
    except Exception:
        # Not one value, or random: Dynamo says what it thinks of it.
        return None
    decisions.taken.append((decision, value))
    return value


def _ancestors(nodes: list[fx.Node]) -> list[fx.Node]:
    """The nodes and all that they are computed from, each behind what it reads."""
    found: dict[fx.Node, None] = {}
    left = list(nodes)
    while left:
        node = left[-1]
        waiting = [argument for argument in node.all_input_nodes if argument not in found]
        if waiting:
            left += waiting
        else:
            found[left.pop()] = None
    return list(found)


def _writes(node: fx.Node) -> bool:
    if "out" in node.kwargs or node.target in _IN_PLACE:
        return True
    name = str(node.target if node.op == "call_method" else getattr(node.target, "__name__", ""))
    return name.endswith("_") and not name.endswith("__")


def _place(tx: Any) -> str:
    return f"{tx.f_code.co_filename}:{tx.lineno}" if tx is not None else "a size or number"


class _Deterministic(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise RuntimeError("a random number decides nothing")
        return func(*args, **(kwargs or {}))


def _evaluated(module: fx.GraphModule, tensors: Sequence[torch.Tensor]) -> Any:
    with torch.no_grad(), _Deterministic():
        return module(*tensors)
