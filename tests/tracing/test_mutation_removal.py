"""In-place operators: which become functional, and which must stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx
from torch.utils.checkpoint import checkpoint

from stonefx.capture import from_dynamo
from stonefx.tracing.mutation import functional_form, functional_twin, is_mutating, written_placeholders


def retraced(function: Callable[..., Any], *inputs: torch.Tensor) -> tuple[fx.GraphModule, Any]:
    graphs: list[fx.GraphModule] = []

    def backend(gm: fx.GraphModule, example_inputs: list[Any]) -> Callable[..., Any]:
        graphs.append(from_dynamo(gm, example_inputs))
        return graphs[-1].forward

    torch._dynamo.reset()
    result = torch.compile(function, backend=backend, fullgraph=True)(*inputs)
    return graphs[0], result


def kept(graph: fx.GraphModule) -> list[str]:
    return [str(node.target).split(".")[1] for node in graph.graph.nodes if is_mutating(node)]


def chain(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y.add_(1)
    y.neg_()
    return y.mul_(3)


def masked(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y.masked_fill_(y > 1, 0.0)
    y[x > 0] = 5.0
    return y


def through_the_base_of_a_view(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    z = y.view(-1)
    z.add_(1)
    return z


def seen_through_a_view(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y.view(-1).add_(1)
    return y


def seen_through_the_base(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    z = y[0]
    y.add_(1)
    return z


def an_input(x: torch.Tensor) -> torch.Tensor:
    return x.add_(1)


def a_view_of_an_input(x: torch.Tensor) -> torch.Tensor:
    x[0].zero_()
    return x * 2


def without_its_gradient(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    with torch.no_grad():
        y.mul_(3)
    return y


def wholly_without_gradient(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = x * 2
        y.mul_(3)
    return y + x


def of_another_dtype(x: torch.Tensor) -> torch.Tensor:
    y = x.to(torch.bfloat16)
    return y.add_(x)


def a_result_of_a_checkpoint(x: torch.Tensor) -> torch.Tensor:
    y = checkpoint(torch.sin, x, use_reentrant=False)
    y.add_(1)
    return y


def overwritten(x: torch.Tensor) -> torch.Tensor:
    y = torch.zeros(3, 4)
    y.copy_(x * 2)
    return torch.tanh(y)


def to_a_power(x: torch.Tensor) -> torch.Tensor:
    return (x.abs() + 1).pow_(-0.5).ldexp_(torch.tensor(2))


def to_the_power_of_a_tensor(x: torch.Tensor) -> torch.Tensor:
    y = x.abs() + 1
    y **= x
    return y


def to_a_power_in_double(x: torch.Tensor) -> torch.Tensor:
    return (x.double().abs() + 1).float_power_(1.5)


def a_polygamma(x: torch.Tensor) -> torch.Tensor:
    return (x.abs() + 1).polygamma_(1)


def a_dropout_that_does_nothing(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.dropout(x * 2, 0.5, training=False, inplace=True)


CASES: list[tuple[Callable[..., Any], list[str]]] = [
    (chain, []),
    (masked, []),
    (through_the_base_of_a_view, []),
    (seen_through_a_view, ["add_"]),
    (seen_through_the_base, ["add_"]),
    (an_input, ["add_"]),
    (a_view_of_an_input, ["zero_"]),
    (without_its_gradient, ["mul_"]),
    (wholly_without_gradient, []),
    (of_another_dtype, ["add_"]),
    (a_result_of_a_checkpoint, ["add_"]),
    (overwritten, ["copy_"]),
    (to_a_power, []),
    (to_the_power_of_a_tensor, []),
    (to_a_power_in_double, []),
    (a_polygamma, []),
    (a_dropout_that_does_nothing, []),
]


@pytest.mark.parametrize(("function", "expected"), CASES, ids=[function.__name__ for function, _ in CASES])
def test_only_what_nobody_sees_becomes_functional(function: Callable[..., Any], expected: list[str]) -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    first, second = x * 1, x * 1
    graph, came = retraced(function, first)
    wanted = function(second)
    assert kept(graph) == expected
    assert torch.equal(came, wanted) and torch.equal(first, second)
    assert came.requires_grad == wanted.requires_grad
    gradients = [
        torch.autograd.grad(y.float().square().sum(), x, retain_graph=True)[0] for y in (came, wanted)
    ]
    assert torch.equal(*gradients)


def test_written_placeholders_are_found_through_views() -> None:
    def write(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        x[0].view(2, 2).zero_()
        z.add_(1)
        return x + y + z

    graph, _ = retraced(write, torch.ones(4, 4), torch.ones(4, 4), torch.ones(4, 4))
    assert {node.name for node in written_placeholders(graph.graph)} == {"x", "z"}


def in_place_overloads() -> list[torch._ops.OpOverload]:
    """Every ATen operator that writes to its first argument alone, by its name."""
    found = []
    for name in sorted({schema.name for schema in torch._C._jit_get_all_schemas()}):
        namespace, leaf = name.split("::")
        packet = getattr(torch.ops.aten, leaf, None) if namespace == "aten" else None
        for overload in packet.overloads() if packet is not None else ():
            operator = getattr(packet, overload)
            written = [
                argument.alias_info is not None and argument.alias_info.is_write
                for argument in operator._schema.arguments
            ]
            tensor = bool(written) and str(operator._schema.arguments[0].type) == "Tensor"
            if operator._schema.is_mutable and tensor and written[0] and not any(written[1:]):
                found.append(operator)
    return found


def synthesised(argument: torch.Argument, number: int, like: torch.Tensor) -> Any:
    """Some value of an argument's type."""
    kind = str(argument.type)
    if kind == "Tensor":
        return like.clone() if number == 0 else like + number
    return {"number": 2, "float": 0.5, "int": number % 2, "bool": False, "SymInt": 0}[kind]


LIKES = [
    torch.rand(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5,
    torch.arange(1, 10).view(3, 3),
]


def test_every_operator_in_place_with_a_functional_twin_by_its_schema_is_that_twin() -> None:
    tried: set[str] = set()
    for operator in in_place_overloads():
        twin = functional_twin(operator)
        if twin is None:
            continue
        overload, order = twin
        mine, theirs = operator._schema.arguments, overload._schema.arguments
        assert [str(mine[i].type) for i in order] == [str(argument.type) for argument in theirs]
        renamed = {
            (mine[i].name, theirs[j].name) for j, i in enumerate(order) if mine[i].name != theirs[j].name
        }
        assert renamed <= {("self", "input")}, f"{operator} is not {overload}: {renamed}"
        for like in LIKES:
            graph = fx.Graph()
            required = [argument for argument in mine if not argument.has_default_value()]
            try:
                values = [synthesised(argument, number, like) for number, argument in enumerate(required)]
                torch.manual_seed(0)
                wanted = operator(*[v.clone() if isinstance(v, torch.Tensor) else v for v in values])
            except (KeyError, RuntimeError, IndexError):
                continue
            names = {
                id(v): graph.placeholder(f"p{i}") for i, v in enumerate(values) if isinstance(v, torch.Tensor)
            }
            node = graph.call_function(operator, tuple(names.get(id(v), v) for v in values))
            form = functional_form(node)
            assert form is not None and form[0] is overload
            back = {names[id(v)]: v for v in values if id(v) in names}
            args, kwargs = fx.map_arg((form[1], form[2]), back.__getitem__)
            torch.manual_seed(0)
            came = overload(*args, **kwargs)
            if came.dtype == wanted.dtype:
                torch.testing.assert_close(came, wanted, rtol=0, atol=0, equal_nan=True)
                tried.add(operator.name())
    assert {
        f"aten::{name}"
        for name in (
            "pow_.Scalar",
            "pow_.Tensor",
            "float_power_.Scalar",
            "ldexp_",
            "polygamma_",
            "__iand__.Tensor",
        )
    } <= tried
    assert len(tried) > 150, sorted(tried)


def test_a_dropout_in_place_draws_its_own_random_numbers() -> None:
    graph, _ = retraced(
        lambda x: torch.nn.functional.dropout(x * 2, 0.5, True, inplace=True), torch.ones(3, 4)
    )
    assert kept(graph) == ["dropout_"]


def test_no_functional_twin_of_an_overload_differs_in_its_types() -> None:
    """The twin is found by the arguments' types: `pow.Scalar` takes a number first, and `pow_.Scalar` a tensor."""
    assert functional_twin(torch.ops.aten.pow_.Scalar) == (torch.ops.aten.pow.Tensor_Scalar, (0, 1))
    assert functional_twin(torch.ops.aten.polygamma_.default) == (torch.ops.aten.polygamma.default, (1, 0))
    assert functional_twin(torch.ops.aten.fill_diagonal_.default) is None
    assert functional_twin(torch.ops.aten.add.out) is None
