"""What a forward asks of its arguments and of the process holds at every call, or the call is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_forwards import Forward, optimized, rows, same
from torch import nn

import stonefx
from stonefx.capture import from_module
from stonefx.tracing.bytecode import _dispatch_tables
from stonefx.tracing.checks import same as same_constant
from stonefx.tracing.copies import copied, is_plain, resized

X, TRANSPOSED, GAPS = rows(), torch.randn(6, 5).t(), torch.randn(5, 12)[:, ::2]
IMAGE, LAST = torch.randn(2, 6, 4, 4), torch.randn(2, 6, 4, 4).to(memory_format=torch.channels_last)
WANTING = rows().requires_grad_()
MARKED = rows()
MARKED.mark = 1  # type: ignore[attr-defined]


def asked(question: Callable[..., bool]) -> Callable[..., Any]:
    """A forward that branches on a question about its arguments."""
    return lambda model, *args: model.chain(args[0]) * (2 if question(*args) else 3)


def over_channels(question: Callable[..., bool]) -> Callable[..., Any]:
    return lambda model, x: model.chain(x.permute(0, 2, 3, 1)) * (2 if question(x) else 3)


# A question, the example, calls that have its answer, calls that have another.
QUESTIONS: dict[str, tuple[Callable[..., Any], Any, list[Any], list[Any]]] = {
    "contiguous": (asked(lambda x: x.is_contiguous()), X, [rows(9), rows(1)], [TRANSPOSED, GAPS]),
    "not contiguous": (asked(lambda x: x.is_contiguous()), TRANSPOSED, [torch.randn(6, 9).t()], [X]),
    "example with gaps": (asked(lambda x: x.is_contiguous()), GAPS, [torch.randn(9, 12)[:, ::2]], [X]),
    "contiguity of a computed tensor": (asked(lambda x: (x + 1).t().is_contiguous()), X, [rows(9)], [TRANSPOSED]),
    "stride of one dimension": (asked(lambda x: x.stride(0) == 6), X, [rows(9)], [TRANSPOSED, GAPS]),
    "stride with gaps": (asked(lambda x: x.stride() == (12, 2)), GAPS, [torch.randn(9, 12)[:, ::2]], [X]),
    "stride, which varies": (asked(lambda x: x.stride()[0] == 1), TRANSPOSED, [torch.randn(6, 9).t()], [X]),
    "channels last": (
        over_channels(lambda x: x.is_contiguous(memory_format=torch.channels_last)),
        IMAGE, [torch.randn(3, 6, 4, 4)], [LAST],
    ),
    "not channels last": (
        over_channels(lambda x: x.is_contiguous(memory_format=torch.channels_last)),
        LAST, [torch.randn(3, 6, 4, 4).to(memory_format=torch.channels_last)], [IMAGE],
    ),
    "requires_grad": (asked(lambda x: x.requires_grad), X, [rows(9)], [WANTING]),
    "requires_grad of a computed tensor": (asked(lambda x: (x * 2).requires_grad), X, [rows(9)], [WANTING]),
    "requires_grad at capture": (asked(lambda x: x.requires_grad), WANTING, [rows(9).requires_grad_()], [X]),
    "is_leaf": (asked(lambda x: x.is_leaf), X, [WANTING], [WANTING * 1]),
    "isinstance": (asked(lambda x: isinstance(x, nn.Parameter)), X, [rows(9)], [nn.Parameter(X.clone())]),
    "a parameter at capture": (
        asked(lambda x: isinstance(x, (nn.Parameter, int))), nn.Parameter(X.clone()), [nn.Parameter(rows(9))], [X],
    ),
    "type": (asked(lambda x: type(x) is nn.Parameter), X, [rows(9)], [nn.Parameter(X.clone())]),
    "class": (asked(lambda x: x.__class__ is nn.Parameter), X, [rows(9)], [nn.Parameter(X.clone())]),
    "attribute": (asked(lambda x: hasattr(x, "mark")), X, [rows(9)], [MARKED]),
    "identity": (asked(lambda x, y: x is y), (X, X.clone()), [(rows(9), rows(9))], [(X, X)]),
    "no identity": (asked(lambda x, y: x is not y), (X, X.clone()), [(rows(9), rows(9))], [(X, X)]),
    "identity at capture": (asked(lambda x, y: x is y), (X, X), [(WANTING, WANTING)], [(X, X.clone())]),
    "sign of zero": (asked(lambda x, c: math.copysign(1, c) > 0), (X, 0.0), [(rows(9), 0.0)], [(X, -0.0)]),
    "value of an integer": (
        asked(lambda x, n: int(n) > 3), (X, torch.tensor(5)), [(rows(9), torch.tensor(5))], [(X, torch.tensor(2))],
    ),
}  # fmt: skip


def call_of(args: Any) -> tuple[Any, ...]:
    return args if isinstance(args, tuple) else (args,)


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_call_with_another_answer_is_refused(name: str) -> None:
    forward, example, alike, unlike = QUESTIONS[name]
    model = Forward(forward).eval()
    fast = optimized(model, *call_of(example))
    for args in [example, *alike]:
        same(fast(*call_of(args)), model(*call_of(args)))
    for args in unlike:
        with pytest.raises(ValueError, match=r"forward depends on|was 0.0 at capture"):
            fast(*call_of(args))


@pytest.mark.parametrize(
    ("forward", "example", "other", "message"),
    [
        (asked(lambda x: x.is_contiguous()), X, TRANSPOSED, "is_contiguous()`: it was True at capture, and"),
        (asked(lambda x: x.stride(0) == 6), X, TRANSPOSED, "`args[0]`: expected (6, 1), and they are (1, 5)"),
        (asked(lambda x: isinstance(x, nn.Parameter)), X, nn.Parameter(X), "isinstance(args[0], (<class 'torch.nn"),
        (asked(lambda x: x.requires_grad), X, WANTING, "`args[0].requires_grad`: it was False at capture"),
    ],
)  # fmt: skip
def test_the_refusal_names_the_question(forward: Any, example: Any, other: Any, message: str) -> None:
    fast = optimized(Forward(forward), example)
    with pytest.raises(ValueError, match=re.escape(message)):
        fast(other)


def test_who_asks_nothing_checks_nothing() -> None:
    fast = optimized(Forward(lambda model, x: model.chain(x)), X)
    model = Forward(lambda model, x: model.chain(x))
    for call in (X, TRANSPOSED, GAPS, WANTING, nn.Parameter(X.clone())):
        same(fast(call), model(call))
    checks = from_module(model, (X,)).checks
    assert not checks.particular and not checks.devices


def test_what_torch_asks_for_itself_is_no_condition() -> None:
    model = Forward(lambda model, x: model.mix(x, x, x)[0] + x, mix=nn.MultiheadAttention(6, 2)).eval()
    assert not from_module(model, (X,)).checks.facts


@pytest.mark.parametrize("enabled", [True, False])
def test_the_gradient_mode_is_the_callers(enabled: bool) -> None:
    model = Forward(lambda model, x: model.chain(x) * (2 if torch.is_grad_enabled() else 3)).eval()
    with torch.set_grad_enabled(enabled):
        fast = optimized(model, X)
        same(fast(rows(9)), model(rows(9)))
    with torch.set_grad_enabled(not enabled), pytest.raises(ValueError, match=r"torch.is_grad_enabled\(\)"):
        fast(X)


def test_a_mode_that_forward_sets_itself_is_no_condition() -> None:
    def forward(model: Any, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            factor = 2 if torch.is_grad_enabled() else 3
        return model.chain(x) * factor

    model = Forward(forward).eval()
    fast = optimized(model, X)
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            same(fast(X), model(X))


def test_autocast_is_a_condition_where_it_is_asked_for() -> None:
    model = Forward(lambda model, x: model.chain(x) * (2 if torch.is_autocast_enabled("cpu") else 3)).eval()
    fast = optimized(model, X)
    same(fast(X), model(X))
    with (
        torch.autocast("cpu"),
        pytest.raises(ValueError, match=r"is_autocast_enabled\('cpu'\)`: it was False"),
    ):
        fast(X)


def test_a_question_about_a_weight_is_asked_again() -> None:
    def forward(model: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(model.chain(x)) * (2 if model.scale.requires_grad else 3) * model.scale

    model = Forward(forward, scale=nn.Parameter(torch.ones(3))).eval()
    fast = optimized(model, X)
    same(fast(X), model(X))
    assert any("scale.requires_grad" in note for note in fast.report.notes)
    fast.scale.requires_grad_(False)
    with pytest.raises(ValueError, match=r"`scale.requires_grad`: it was True at capture"):
        fast(X)


def test_an_argument_that_forward_writes_to_shares_no_memory_with_another() -> None:
    def forward(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        first = model.chain(y)
        x.add_(1)
        return first + model.chain(y)

    model = Forward(forward).eval()
    fast = optimized(model, X.clone(), X.clone())
    whole = torch.randn(12, 6)
    parts = whole.clone()
    same(fast(parts[:6], parts[6:]), model(whole[:6], whole[6:]))
    same(parts, whole)
    for one, other in ((whole, whole), (whole[:6], whole[3:9])):
        with pytest.raises(ValueError, match=r"`args\[0\] shares no memory with args\[1\]`: it was True"):
            fast(one, other)


def overwritten(x: torch.Tensor) -> None:
    x[0] = 0


def overwritten_in_part(x: torch.Tensor) -> None:
    x[1:2, 2] = 5.0


def overwritten_where_positive(x: torch.Tensor) -> None:
    x[x > 0] = 0


def overwritten_by_name(x: torch.Tensor) -> None:
    torch.Tensor.__setitem__(x, 0, 7.0)


def grown_in_part(x: torch.Tensor) -> None:
    x[0] += 3


def filled(x: torch.Tensor) -> None:
    x.fill_(3)


@pytest.mark.parametrize("release", [True, False])
@pytest.mark.parametrize(
    "write",
    [
        overwritten,
        overwritten_in_part,
        overwritten_where_positive,
        overwritten_by_name,
        grown_in_part,
        filled,
    ],
)
def test_what_forward_does_to_an_argument_is_no_question(
    write: Callable[[torch.Tensor], None], release: bool
) -> None:
    def forward(model: Any, x: torch.Tensor) -> torch.Tensor:
        read = model.chain(x)
        write(x)
        return read

    model, example = Forward(forward).eval(), rows()
    fast = optimized(model, example, release=release)
    assert torch.equal(example, rows()) and fast.report.rewritten()
    with torch.no_grad():
        for count in (5, 7):
            mine, its = rows(count), rows(count)
            same(fast(mine), model(its))
            assert torch.equal(mine, its)


def test_parts_of_a_model_that_ask_are_called_with_any_layout() -> None:
    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 64), nn.Linear(64, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x)) * (2 if x.is_contiguous() else 3)

    def forward(model: Any, x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return model.part(model.part(x).t().contiguous().t())

    model = Forward(forward, part=Asking()).eval()
    same(stonefx.optimize(model, X)(X), model(X))


def test_recording_leaves_dynamo_as_it_was() -> None:
    from torch._dynamo.variables.tensor import TensorVariable

    def state() -> object:
        methods = {name: value for name, value in vars(TensorVariable).items() if callable(value)}
        return [list(table) for table in _dispatch_tables()], methods

    before = state()
    from_module(Forward(asked(lambda x: x.is_contiguous())), (X,))
    assert state() == before


@pytest.mark.parametrize(
    "value",
    [
        X,
        TRANSPOSED,
        GAPS,
        X.expand(3, 5, 6),
        WANTING,
        WANTING * 1,
        nn.Parameter(X),
        X[0, 0],
        X[:0],
        GAPS[:, None],
    ],
)
def test_a_copy_can_be_asked_like_the_original(value: torch.Tensor) -> None:
    (copy,) = copied((value,))
    assert (torch.equal(copy, value) and copy.data_ptr() != value.data_ptr()) or not value.numel()
    for question in ("shape", "dtype", "requires_grad", "is_leaf", "__class__"):
        assert getattr(copy, question) == getattr(value, question)
    assert copy.stride() == value.stride() and copy.is_contiguous() == value.is_contiguous()


def test_copies_are_shared_or_dense_as_wanted() -> None:
    one, other = copied((X, X))
    assert one is other and not is_plain((X, X))
    one, other = copied((X, GAPS), exact=False)
    assert one is not X and other.is_contiguous() and not is_plain((GAPS,)) and is_plain((X, TRANSPOSED))


@pytest.mark.parametrize("value", [X, TRANSPOSED, GAPS, torch.randn(5, 12)[:, :6]])
def test_another_number_of_rows_lies_in_memory_as_before(value: torch.Tensor) -> None:
    (made,) = resized((value,), 5, 7)
    assert torch.equal(made, torch.cat([value, value[:2]]))
    assert made.is_contiguous() == value.is_contiguous()
    assert made.t().is_contiguous() == value.t().is_contiguous()


@pytest.mark.parametrize(
    ("value", "expected", "equal"),
    [
        (0.0, -0.0, False), (0.0, 0.0, True), (math.nan, float("nan"), True), (1, True, False), (1, 1.0, False),
        (complex(0, -0.0), complex(0, 0.0), False), ("mean", "mean", True), (None, 0, False),
    ],
)  # fmt: skip
def test_constants_are_told_apart_by_sign_and_type(value: Any, expected: Any, equal: bool) -> None:
    assert same_constant(value, expected) is equal
