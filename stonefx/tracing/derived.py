"""Custom autograd functions whose backward is the derivative of their forward, found by trying."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from .errors import node_location
from .opaque import body_of, custom_functions, erase_unused_attributes, splice

# Places inside and outside the domains of the functions that people differentiate by hand: artanh, arcosh and the like.
_PLACES = (-3.0, -1.5, -0.9, -0.5, -0.2, -0.05, 0.05, 0.2, 0.5, 0.9, 1.5, 2.0, 3.0)
_LEAST = 3  # places at which a derivative must have been seen


def look_into_derived(module: fx.GraphModule) -> list[str]:
    """Put the bodies of such functions in their place; return where in the user's code they were.

    Differentiated by autograd, a body gives the gradient that the function gave wherever the forward depends on its
    operands. Where it does not, as beyond a clamp, the function may have given one all the same, and the body gives 0.
    """
    found = [node for node in custom_functions(module) if _is_derived(module, node)]
    places = [node_location(node) for node in found]
    for node in found:
        splice(module, node)
    if found:
        erase_unused_attributes(module.graph)
        module.graph.lint()
        module.recompile()
    return places


def _is_derived(module: fx.GraphModule, node: fx.Node) -> bool:
    seen = 0
    for operands in _trials(node):
        try:
            given, derived = _gradients(module, node, operands)
        except Exception:  # whatever a body does at values that no model would give it
            return False
        finite = derived.isfinite()
        if bool((given.isfinite() & ~finite).any()):
            return False
        compared = finite & (derived != 0)
        seen += bool(compared.any())
        if not torch.allclose(given[compared], derived[compared], rtol=1e-4, atol=0.0):
            return False
    return seen >= _LEAST


def _trials(node: fx.Node) -> Iterator[list[Any]]:
    """Operands near each of the places, in the shapes of the example."""
    generator = torch.Generator().manual_seed(0)
    for place in _PLACES:
        yield [_near(place, operand, generator) for operand in node.args[2:]]


def _near(place: float, operand: Any, generator: torch.Generator) -> Any:
    if not isinstance(operand, fx.Node):
        return operand
    fake = operand.meta["val"]
    if not isinstance(fake, torch.Tensor):
        return _example(fake)
    if not fake.is_floating_point():
        raise TypeError("operands that are no floating-point tensors are not tried")
    noise = torch.rand([_example(size) for size in fake.shape], generator=generator, dtype=torch.float64)
    return (place * (1 + 0.01 * noise)).to(fake.dtype).requires_grad_()


def _example(size: Any) -> Any:
    return size.node.hint if isinstance(size, torch.SymInt | torch.SymFloat | torch.SymBool) else size


def _gradients(
    module: fx.GraphModule, node: fx.Node, operands: list[Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """By the function's own backward, and by autograd through its body."""
    target: Any = node.target
    attributes: Any = node.args[:2]
    forward, backward = (getattr(module, each.target) for each in attributes)
    found = []
    for run in (lambda *values: target(forward, backward, *values, **node.kwargs), body_of(node)):
        with torch.enable_grad():
            results = run(*operands)
        made = results if isinstance(results, tuple | list) else [results]
        sums = [each.sum() for each in made if isinstance(each, torch.Tensor) and each.requires_grad]
        gradients = torch.autograd.grad(sums, [each for each in operands if isinstance(each, torch.Tensor)])
        found.append(torch.cat([each.double().flatten() for each in gradients]))
    return found[0], found[1]
