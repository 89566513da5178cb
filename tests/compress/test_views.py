"""Views of linear layers, embeddings and recurrent layers."""

import pytest
import torch
from battery import check_all, check_products, flat, same, spectrum_of, views_of
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from stonefx.compress.data import Batch
from stonefx.compress.embedding import read
from stonefx.compress.spectrum import decompose
from stonefx.compress.standing import deferred
from stonefx.compress.statistics import measure

D = torch.float64


@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 5, 7), (2, 3, 4, 7)])
@pytest.mark.parametrize("bias", [False, True])
def test_linear(shape: tuple[int, ...], bias: bool) -> None:
    check_all(nn.Linear(7, 5, bias), torch.randn(shape, dtype=D))


def test_conv1d_of_transformers() -> None:
    conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D
    check_all(conv1d(5, 7), torch.randn(2, 3, 7, dtype=D))


@pytest.mark.parametrize("options", [{}, {"padding_idx": 0}, {"sparse": True}, {"scale_grad_by_freq": True}])
@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 3, 2)])
def test_embedding(options: dict, shape: tuple[int, ...]) -> None:
    layer = nn.Embedding(9, 6, **options)
    (view,) = check_all(layer, torch.randint(9, shape))
    pair = view.forms()["pair"].build(*spectrum_of(view).factors(3))
    assert pair(torch.tensor([[0]])).abs().sum() == 0 or "padding_idx" not in options


RECURRENT = [
    (kind, dict(bidirectional=both, num_layers=number, bias=bias, batch_first=first, **more))
    for kind, more in (
        (nn.LSTM, {}),
        (nn.LSTM, {"proj_size": 3}),
        (nn.GRU, {}),
        (nn.RNN, {}),
        (nn.RNN, {"nonlinearity": "relu"}),
    )
    for both, number, bias, first in (
        (False, 1, True, True),
        (True, 1, False, False),
        (True, 2, True, True),
        (False, 2, True, False),
    )
]


@pytest.mark.parametrize(("kind", "options"), RECURRENT)
def test_recurrent(kind: type[nn.RNNBase], options: dict) -> None:
    layer = kind(7, 5, **options)
    views = check_all(layer, torch.randn(3, 4, 7, dtype=D))
    # One sequence without a batch; packed sequences of unequal lengths; a state that is handed over.
    x = torch.randn(4, 7, dtype=D)
    check_products(views[0], (x,))
    pair = views[0].forms()["pair"].build(*spectrum_of(views[0]).factors(7))
    same(pair(x), layer(x))
    packed = pack_sequence([torch.randn(n, 7, dtype=D) for n in (2, 4, 3)], enforce_sorted=False)
    check_products(views[0], (packed,))
    for a, b in zip(pair(packed)[0], layer(packed)[0], strict=True):
        same(a, b)
    batch = torch.randn(2, 2, 7, dtype=D)
    _, state = layer(batch)
    same(pair(batch, state), layer(batch, state))
    pair.flatten_parameters()
    assert pair.hidden_size == 5 and pair.input_size == 7
    # What is observed is what the layer computes.
    y, result = views[0].observed((batch, state), layer(batch, state))
    same(result, layer(batch, state))
    assert y.shape[-1] == views[0].rows


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells(kind: type[nn.RNNCellBase]) -> None:
    layer = kind(7, 5)
    (view,) = check_all(layer, torch.randn(3, 7, dtype=D))
    x = torch.randn(3, 7, dtype=D)
    state = layer(x)
    pair = view.forms()["pair"].build(*spectrum_of(view).factors(7))
    same(pair(x, state), layer(x, state))


def test_gradients_of_recurrent_products_hold_the_state_too() -> None:
    layer = nn.LSTM(7, 5, batch_first=True).double()
    (view,) = views_of(layer)
    x = torch.randn(2, 4, 7, dtype=D)
    with torch.enable_grad():
        y, (_, (h, c)) = view.observed((x,), layer(x))
        (g,) = torch.autograd.grad((h * 2 + c).sum(), y)
    w = layer.weight_ih_l0
    _, (h, c) = layer(x)
    (expected,) = torch.autograd.grad((h * 2 + c).sum(), w)
    same(torch.einsum("spgi,spgj->ij", view.outputs(g), view.inputs((x,))), expected)


def test_a_deferred_weight_tells_facts_without_values() -> None:
    asked = []

    def compute() -> torch.Tensor:
        asked.append(1)
        return torch.full((2, 3), 4.0, dtype=D)

    weight = deferred((2, 3), torch.zeros(1, dtype=D), compute)
    facts = (
        weight.dtype,
        tuple(weight.shape),
        weight.device.type,
        weight.dim(),
        weight.size(0),
        weight.numel(),
    )
    assert facts == (D, (2, 3), "cpu", 2, 2, 6) and not asked
    assert isinstance(weight, torch.Tensor)
    same(nn.functional.linear(torch.ones(1, 3, dtype=D), weight), torch.full((1, 2), 12.0, dtype=D))
    assert type(weight + 0) is torch.Tensor and len(asked) == 2


def test_a_deferred_weight_passes_gradients_on() -> None:
    (view,) = views_of(nn.Linear(7, 5).double())
    pair = view.forms()["pair"].build(*spectrum_of(view).factors(2))
    pair.weight.sum().backward()
    assert all(p.grad is not None for name, p in pair.named_parameters() if "weight" in name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_factors_have_the_dtype_of_the_layer(dtype: torch.dtype) -> None:
    for layer, x in (
        (nn.Linear(8, 8), torch.randn(2, 8)),
        (nn.Conv1d(4, 4, 3), torch.randn(2, 4, 6)),
        (nn.Embedding(8, 8), torch.arange(3)),
        (nn.LSTM(8, 8), torch.randn(2, 3, 8)),
    ):
        layer = layer.to(dtype).requires_grad_(False)
        expected = flat(layer(x.to(dtype) if x.is_floating_point() else x))
        for view in views_of(layer):
            for form in view.forms().values():
                module = form.build(*spectrum_of(view).factors(view.full_rank))
                assert {p.dtype for p in module.parameters()} == {dtype}
                assert not any(p.requires_grad for p in module.parameters())
                got = flat(module(x.to(dtype) if x.is_floating_point() else x))
                torch.testing.assert_close(
                    got, expected, rtol=0.06, atol=0.06 if dtype != torch.float32 else 1e-4
                )


def test_positions_that_all_samples_share_are_one_sample() -> None:
    (view,) = views_of(nn.Embedding(9, 6).double())
    positions = torch.arange(2, 6)
    y, result = view.observed((positions,), view.layer(positions))
    assert view.inputs((positions,)).shape == (1, 4) and view.outputs(y).shape == (1, 4, 1, 6)
    same(result, view.layer(positions))
    labels = torch.tensor([3, 1, 1, 7])
    assert view.inputs((labels,)).shape == (4, 1)


def test_rows_that_were_never_picked_count_a_little() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(200, 32), nn.Linear(32, 4)).double()
    # Ten of 200 rows are seen, and the others lie in a few directions.
    with torch.no_grad():
        model[0].weight[10:] = torch.randn(190, 4, dtype=D) @ torch.randn(4, 32, dtype=D)
    (view,) = read("0", model[0])
    batches = [Batch((torch.randint(10, (4, 6)),), samples=4) for _ in range(3)]
    found = measure(model, [view], batches, gradients=False, output=lambda y: y)[0]
    assert (found.inputs > 0).all() and found.inputs.sum() == pytest.approx(1.0)
    a, b = decompose(view.matrix(), found).factors(14)
    same(a @ b, view.matrix())
