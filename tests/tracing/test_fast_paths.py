"""What torch's attention layers give on their fast paths, through both doors: modules, masks, dtypes, gradients."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import stonefx
from stonefx.tracing.fast_paths import KINDS, MASKS

ROWS, LENGTH, WIDTH = 3, 5, 16
X = torch.randn(ROWS, LENGTH, WIDTH)


def layer(**options: Any) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(WIDTH, 4, 32, batch_first=True, **options)


class Attention(nn.Module):
    """Attention of a sequence to itself."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        self.options = options

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> Any:
        return self.attention(x, x, x, key_padding_mask=mask, **self.options)[0]


class Masked(nn.Module):
    """A module that takes its mask by a name of its own."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> Any:
        return self.inside(x, src_key_padding_mask=mask)


class Whole(nn.Module):
    """`nn.Transformer`, with a mask for the source."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Transformer(WIDTH, 2, 1, 1, 16, batch_first=True)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> Any:
        return self.inside(x, x, src_key_padding_mask=mask)


class Classifier(nn.Module):
    """A model that an encoder is a part of, with chains before and behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH))
        self.encoder = nn.TransformerEncoder(layer(), 1)
        self.behind = nn.Sequential(nn.Linear(WIDTH, 64), nn.Linear(64, 3))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> Any:
        return self.behind(self.encoder(self.before(x), src_key_padding_mask=mask))


MODULES: dict[str, Callable[[], nn.Module]] = {
    "layer": lambda: Masked(layer()),
    "layer, norm first": lambda: Masked(layer(norm_first=True)),
    "encoder": lambda: Masked(nn.TransformerEncoder(layer(), 2, norm=nn.LayerNorm(WIDTH))),
    "encoder that does not look at its mask": lambda: Masked(nn.TransformerEncoder(layer(), 1, mask_check=False)),
    "encoder without nested tensors": lambda: Masked(nn.TransformerEncoder(layer(), 1, enable_nested_tensor=False)),
    "attention": lambda: Attention(need_weights=False),
    "attention with its weights": Attention,
    "transformer": Whole,
    "classifier": Classifier,
}  # fmt: skip


def masks() -> dict[str, torch.Tensor | None]:
    none = torch.zeros(ROWS, LENGTH, dtype=torch.bool)
    padded, holes = none.clone(), none.clone()
    padded[0, 3:] = padded[1, 4:] = True
    holes[0, 1] = holes[1, 0] = True
    row = padded.clone()
    row[2] = True
    return {
        "no mask": None, "nothing masked": none, "padding": padded, "holes": holes, "a row": row,
        "all": torch.ones_like(none), "padding in numbers": torch.zeros(ROWS, LENGTH).masked_fill(padded, -torch.inf),
        "numbers": torch.randn(ROWS, LENGTH),
    }  # fmt: skip


def run(model: Callable[..., Any], *call: Any, grad: bool = False) -> Any:
    with torch.set_grad_enabled(grad):
        try:
            return model(*call).detach()
        except RuntimeError as error:  # of an empty nested tensor
            return str(error)


def check(found: Any, expected: Any) -> None:
    if isinstance(expected, str):
        assert found == expected
    else:
        torch.testing.assert_close(found, expected, equal_nan=True)


def optimized(model: nn.Module, *call: Any) -> nn.Module:
    torch.compiler.reset()
    return stonefx.optimize(model, call)


# One of each kind of difference; the others take minutes.
QUICK = {("layer", "numbers"), ("encoder", "padding"), ("encoder", "all"), ("attention", "a row")}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "mask"),
    [
        pytest.param(*pair, marks=[] if pair in QUICK else pytest.mark.slow)
        for pair in itertools.product(MODULES, masks())
    ],
)
def test_masks_act_as_in_eager_with_gradients_and_without(name: str, mask: str) -> None:
    model, call = MODULES[name]().eval(), (X, masks()[mask])
    expected = {grad: run(model, *call, grad=grad) for grad in (False, True)}
    if isinstance(expected[False], str):
        with (
            pytest.raises(stonefx.CaptureError, match="raises on the example inputs in plain PyTorch"),
            torch.no_grad(),
        ):
            optimized(model, *call)
    fast = optimized(model, *call)
    for grad, result in expected.items():
        check(run(fast, *call, grad=grad), result)
    # Another number of rows.
    other = torch.randn(2, LENGTH, WIDTH), None if call[1] is None else call[1][:2]
    check(run(fast, *other), run(model, *other))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["layer", "encoder", "attention"])
@pytest.mark.parametrize("mask", ["padding", "a row", "numbers"])
def test_the_compiler_changes_nothing_of_what_dynamo_makes_of_a_mask(name: str, mask: str) -> None:
    model, call = MODULES[name]().eval(), (X, masks()[mask])
    torch.compiler.reset()
    expected = run(torch.compile(model, backend="eager"), *call)
    torch.compiler.reset()
    check(run(torch.compile(model, backend="stone", options={"inner": "eager"}), *call), expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["layer", "encoder", "attention"])
def test_masks_act_as_in_eager_in_every_dtype(name: str, dtype: torch.dtype) -> None:
    model, call = MODULES[name]().eval().to(dtype), (X.to(dtype), masks()["a row"])
    fast = optimized(model, *call)
    for grad in (False, True):
        check(run(fast, *call, grad=grad), run(model, *call, grad=grad))


@pytest.mark.filterwarnings("ignore")
def test_what_is_around_an_encoder_is_optimized_and_the_report_names_it() -> None:
    model, call = Classifier().eval(), (X, masks()["padding"])
    fast = optimized(model, *call)
    assert [site.target for site in fast.report.rewritten()] == ["linear_chain"] * 2
    notes = " ".join(fast.report.notes)
    assert "nn.TransformerEncoder is called with src_key_padding_mask" in notes
    assert f"{__file__}:" in notes and "set_fastpath_enabled(False)" in notes
    assert isinstance(fast.encoder, nn.TransformerEncoder)
    for twin in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        check(run(twin, *call), run(model, *call))
    assert type(pickle.loads(pickle.dumps(fast.encoder))) is nn.TransformerEncoder


@pytest.mark.filterwarnings("ignore")
def test_a_mask_that_comes_later_meets_an_encoder_between_two_breaks() -> None:
    class Broken(Classifier):
        def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> Any:
            torch._dynamo.graph_break()
            return super().forward(x, mask)

    model = Broken().eval()
    fast = optimized(model, X)
    for mask in (masks()["padding"], None):
        check(run(fast, X, mask), run(model, X, mask))


def test_with_the_fast_paths_off_an_encoder_is_captured_and_holds_while_they_are() -> None:
    model, call = MODULES["encoder"]().eval(), (X, masks()["padding"])
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        fast = optimized(model, *call)
        assert "whole model against the original" in fast.report.notes[0]
        check(run(fast, *call), run(model, *call))
        padded = fast(*call)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    with pytest.warns(stonefx.StonefxWarning, match="get_fastpath_enabled"):
        found = run(fast, *call)
    check(found, run(model, *call))
    assert not torch.allclose(found, padded)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_in_training_nothing_is_left() -> None:
    model, call = Classifier().train(), (X, masks()["padding"])
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.MultiheadAttention):
            module.p = module.dropout = 0.0
    fast = optimized(model, *call)
    assert "whole model against the original" in fast.report.notes[0]
    check(run(fast, *call, grad=True), run(model, *call, grad=True))


@pytest.mark.filterwarnings("ignore")
def test_nested_tensors_run_as_they_are() -> None:
    model = nn.TransformerEncoder(layer(), 1).eval()
    nested = torch.nested.nested_tensor([torch.randn(2, WIDTH), torch.randn(4, WIDTH)])
    with torch.no_grad():
        fast = optimized(model, nested)
        check(fast(nested).to_padded_tensor(0.0), model(nested).to_padded_tensor(0.0))


@pytest.mark.parametrize("kind", KINDS)
def test_the_masks_are_arguments_of_the_forward(kind: type[nn.Module]) -> None:
    code = kind.forward.__code__
    assert set(MASKS[kind]) <= set(code.co_varnames[: code.co_argcount])
