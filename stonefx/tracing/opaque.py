"""Higher-order operators: recorded whole, or, where no gradient can tell the difference, as their bodies.

Traced into, a custom autograd function would silently lose its backward and a checkpoint its recomputation. Where no
gradient is wanted there is neither, so the body of each is kept beside it, see `inlined`.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import fx
from torch._dynamo.variables.base import VariableTracker
from torch._dynamo.variables.misc import AutogradFunctionVariable
from torch._functorch.autograd_function import autograd_function_apply
from torch._higher_order_ops.wrap import tag_activation_checkpoint
from torch.fx.experimental.proxy_tensor import track_tensor_tree
from torch.utils import _pytree as pytree

from .errors import capture_error, node_location
from .state import recording_paused
from .subclasses import is_subclass

# Of another release's operator the body may have another form; what has further settings is left alone.
_KNOWN = frozenset({"non_differentiable_idx", "saved_for_backward_idx", "dirty_idx"})
_BODY = "body without gradients"
_LACKS = "some gradients are left out"
_TRACED = "custom functions traced into"


@contextmanager
def noted_functions() -> Iterator[list[str]]:
    """The names of the custom functions that Dynamo traces into, since nothing that it traces requires a gradient.

    Their backward is not in the graph, which is none for a call that wants a gradient. A function inside a `no_grad` of
    the forward's own has none anyway.
    """
    names: list[str] = []
    original, ambient = AutogradFunctionVariable.call_apply, torch.is_grad_enabled()
    thread = threading.get_ident()

    def call_apply(self: AutogradFunctionVariable, tx: Any, args: Any, kwargs: Any) -> Any:
        tensors: list[Any] = []

        def visit(value: VariableTracker) -> None:
            # Whole numbers and truth values never have a gradient.
            dtype = getattr(value, "dtype", None)
            if value.is_tensor() and (dtype is None or dtype.is_floating_point or dtype.is_complex):
                tensors.append(value)

        VariableTracker.visit(visit, (args, kwargs))
        enabled = torch.is_grad_enabled()
        required = any(value.requires_grad is not False for value in tensors)
        traced = bool(tensors) and ((enabled and not required) or (not enabled and not ambient))
        if traced and threading.get_ident() == thread:
            names.append(self.fn_cls.__name__)
        return original(self, tx, args, kwargs)

    with patch.object(AutogradFunctionVariable, "call_apply", call_apply):
        yield names


def traced_functions(module: fx.GraphModule) -> list[str]:
    """What `noted_functions` noted of a captured graph."""
    names: list[str] = module.meta.setdefault(_TRACED, [])
    return names


def is_higher_order(node: fx.Node) -> bool:
    """Whether a node calls a higher-order operator, such as a checkpoint or a custom autograd function."""
    return node.op == "call_function" and isinstance(node.target, torch._ops.HigherOrderOperator)


def is_checkpoint(node: fx.Node) -> bool:
    """Whether a node calls a body that is computed again for its gradient."""
    return node.target is tag_activation_checkpoint and not node.kwargs.get("context_fn")


def is_custom_function(node: fx.Node) -> bool:
    """Whether a node calls a custom autograd function of the form that is known here."""
    known = node.target is autograd_function_apply and not node.kwargs.keys() - _KNOWN
    return known and not node.kwargs.get("dirty_idx")


def lacks_gradients(node: fx.Node) -> bool:
    """Whether a custom function has no gradient for some operand, which required none while it was traced."""
    return bool(node.meta.get(_LACKS))


def wants_gradient(node: fx.Node) -> bool:
    """Whether a gradient may flow through a node of Dynamo's, as Dynamo found when it traced the node."""
    example = node.meta.get("example_value")
    return example is None or any(
        isinstance(value, torch.Tensor) and value.requires_grad for value in pytree.tree_leaves(example)
    )


def without_switches(body: fx.GraphModule) -> fx.GraphModule:
    """The body of a custom function less the switches of gradient mode that Dynamo writes around it."""
    module = fx.GraphModule(body, copy_of(body.graph))
    for node in module.graph.find_nodes(op="call_function", target=torch._C._set_grad_enabled):
        module.graph.erase_node(node)
    module.recompile()
    return module


def bodies(module: fx.GraphModule) -> list[fx.GraphModule]:
    """What stands ready to be put into a graph in the place of its higher-order operators, see `inlined`."""
    return [node.meta[_BODY] for node in module.graph.nodes if _BODY in node.meta]


def body_of(node: fx.Node) -> fx.GraphModule:
    """What may be put in the place of a node, see `inlined`."""
    body: fx.GraphModule = node.meta[_BODY]
    return body


def custom_functions(module: fx.GraphModule) -> list[fx.Node]:
    """The custom autograd functions of a captured graph that a body can stand for."""
    found = [node for node in module.graph.nodes if _BODY in node.meta and is_custom_function(node)]
    return [node for node in found if _is_taken_apart(node)]


def copy_of(graph: fx.Graph) -> fx.Graph:
    """A copy of a graph, its output node included."""
    copy = fx.Graph(graph.owning_module)
    copy.output(copy.graph_copy(graph, {}))
    return copy


def erase_unused_attributes(graph: fx.Graph) -> None:
    """Take the nodes away that only read an attribute which nobody uses."""
    for node in graph.find_nodes(op="get_attr"):
        if not node.users:
            graph.erase_node(node)


def copy_higher_order(
    node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any], body: fx.GraphModule | None = None
) -> Any:
    """Record a higher-order operator as it stands, its bodies as attributes, and return its fake result.

    Args:
        node: the node of Dynamo's graph.
        args, kwargs: its arguments in the running trace; bodies are `fx.GraphModule`s.
        body: what `inlined` may put in its place where no gradient is wanted: a graph of its tensors, that
            returns its results.
    """
    if "example_value" not in node.meta:
        raise capture_error(
            f"the higher-order operator `{node.target}` has no recorded result",
            "Call it outside the compiled function.",
            node_location(node),
        )
    mode = torch._ops._get_dispatch_mode_pre_dispatch(torch._C._TorchDispatchModeKey.PROXY)
    tracer = mode.tracer

    def recorded(argument: Any) -> Any:
        if isinstance(argument, torch.nn.Module):
            name = tracer.get_fresh_qualname(f"{node.name}_body")
            setattr(tracer.root, name, argument)
            return tracer.create_proxy("get_attr", name, (), {})
        return tracer.unwrap_proxy(argument)

    proxy = tracer.create_proxy(
        "call_function",
        node.target,
        pytree.tree_map(recorded, tuple(args)),
        pytree.tree_map(recorded, dict(kwargs)),
        name=node.name,
    )
    if body is not None:
        proxy.node.meta[_BODY] = body
    proxy.node.meta[_LACKS] = is_custom_function(node) and not all(map(_required, node.args[2:]))
    with recording_paused():
        result = pytree.tree_map(_fresh, node.meta["example_value"])
        return track_tensor_tree(result, proxy, constant=None, tracer=tracer)


def _required(operand: Any) -> bool:
    """Whether an operand of Dynamo's required a gradient, if it can."""
    example = operand.meta.get("example_value") if isinstance(operand, fx.Node) else None
    if not isinstance(example, torch.Tensor) or not (example.is_floating_point() or example.is_complex()):
        return True
    return example.requires_grad


def inlined(module: fx.GraphModule) -> fx.GraphModule | None:
    """A copy of a captured graph for calls that want no gradient: with bodies in the place of what stands for them.

    None where there is no custom function or checkpoint in it. Placeholders, and the names of all other nodes, stay.
    """
    functions = [node for node in module.graph.nodes if _BODY in node.meta and _is_taken_apart(node)]
    if not functions:
        return None
    copied: dict[fx.Node, fx.Node] = {}
    graph = fx.Graph(module)
    output = graph.graph_copy(module.graph, copied)
    graph.output(output)
    graph.output_node().meta = dict(module.graph.output_node().meta)
    result = fx.GraphModule(module, graph)
    for node in functions:
        splice(result, copied[node])
    erase_unused_attributes(graph)
    graph.lint()
    result.recompile()
    return result


def _is_taken_apart(node: fx.Node) -> bool:
    """Whether each result of a node is read on its own."""
    return all(user.target is operator.getitem for user in node.users)


def splice(module: fx.GraphModule, node: fx.Node) -> None:
    """Put the body of a higher-order operator in its place."""
    body = body_of(node)
    operands = iter(node.args[1 if node.target is tag_activation_checkpoint else 2 :])
    values: dict[fx.Node, Any] = {}
    with node.graph.inserting_before(node):
        for inner in body.graph.nodes:
            if inner.op == "placeholder":
                values[inner] = next(operands)
            elif inner.op == "get_attr":
                name = f"{node.name}_{inner.name}"
                setattr(module, name, getattr(body, str(inner.target)))
                values[inner] = node.graph.get_attr(name)
                values[inner].meta = dict(inner.meta)
            elif inner.op == "call_function":
                values[inner] = node.graph.node_copy(inner, values.__getitem__)
    results: Any = fx.map_arg(body.graph.output_node().args[0], values.__getitem__)
    for user in list(node.users):
        user.replace_all_uses_with(results[user.args[1]])
        node.graph.erase_node(user)
    node.graph.erase_node(node)


def _fresh(value: Any) -> Any:
    """A fake tensor like `value` that no other trace has recorded: no leaf, since it is computed."""
    if not isinstance(value, torch.Tensor):
        return value
    if is_subclass(value):
        fresh = value.detach()
    else:
        fresh = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)
    if not value.requires_grad:
        return fresh
    with torch.enable_grad():
        return fresh.requires_grad_().clone()
