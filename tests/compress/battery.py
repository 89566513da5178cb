"""What must hold for every view of every layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stonefx.compress import layers
from stonefx.compress.spectrum import Spectrum, decompose
from stonefx.compress.statistics import Statistics, gram
from stonefx.compress.views import View, layer_weights


def views_of(layer: nn.Module) -> list[View]:
    """All views of a layer that is all of a model, of those too that are too small to gain."""
    views = next(v for reader in layers.READERS if (v := reader("0", layer)) is not None)
    assert not isinstance(views, str), views
    return list(views)


def check_all(layer: nn.Module, *arguments: Any) -> list[View]:
    """The battery over all views and joint forms of a float64 layer; the views."""
    layer = layer.double().eval()
    views = views_of(layer)
    for view in views:
        check_products(view, arguments)
        check_full_rank(view, arguments)
        check_best(view, arguments)
        for joint in view.joints(views):
            a, x = spectrum_of(joint.outer).projection(joint.outer.full_rank)
            b = spectrum_of(joint.inner).factors(joint.inner.full_rank)
            module = joint.build((a, x), b)
            assert stored(module) == joint.numbers(joint.outer.full_rank, joint.inner.full_rank)
            same(module(*arguments), layer(*arguments))
            same(dense(module.weight), layer.weight)
    return views


def check_products(view: View, arguments: tuple[Any, ...]) -> None:
    """The products are what the layer's result is linear in: `sum g (W x) = <dL/dy, y - bias>` for any gradient."""
    with torch.enable_grad():
        y, _ = view.observed(arguments, view.layer(*arguments))
    gradient = torch.randn_like(y)
    x, g, w = view.inputs(arguments), view.outputs(gradient), view.matrix()
    assert w.shape == (view.groups, view.rows, view.columns)
    assert g.shape[:3] == (*x.shape[:2], view.groups), (g.shape, x.shape)
    if view.indexed:
        products = w[0].t()[x][:, :, None]
    else:
        assert x.shape[2:] == (view.groups, view.columns)
        products = torch.einsum("gij,spgj->spgi", w, x)
    bias = getattr(view.layer, "bias", None)
    no_bias = y.detach()
    if isinstance(bias, Tensor):
        axis = (
            1
            if isinstance(view.layer, nn.modules.conv._ConvNd) and y.dim() == len(view.layer.kernel_size) + 2
            else 0
        )
        axis = axis if isinstance(view.layer, nn.modules.conv._ConvNd) else y.dim() - 1
        no_bias = no_bias - bias.detach().reshape([-1 if i == axis else 1 for i in range(y.dim())])
    torch.testing.assert_close((g * products).sum(), (gradient * no_bias).sum(), rtol=1e-9, atol=1e-9)


def check_full_rank(view: View, arguments: tuple[Any, ...]) -> None:
    """A form of full rank is the layer, answers for its weight and stores as many numbers as it says."""
    expected = view.layer(*arguments)
    spectrum = spectrum_of(view)
    for form in view.forms().values():
        module = form.build(*spectrum.factors(view.full_rank))
        same(module(*arguments), expected)
        assert stored(module) == form.numbers(view.full_rank)
        assert (
            not any(p.requires_grad != view.layer.weight.requires_grad for p in module.parameters())
            if hasattr(view.layer, "weight")
            else True
        )
        if hasattr(module, "weight"):
            assert module.weight.shape == view.layer.weight.shape
            assert module.weight.dtype == view.layer.weight.dtype
            same(dense(module.weight), view.layer.weight)
        for rank in range(1, min(view.full_rank, 3)):
            reduced = form.build(*spectrum.factors(rank))
            assert stored(reduced) == form.numbers(rank)
            assert flat(reduced(*arguments)).shape == flat(expected).shape


def check_best(view: View, arguments: tuple[Any, ...]) -> None:
    """With `G = I` the spectrum's tail is what the products really lose: half the sum of squares a position."""
    x = view.inputs(arguments)
    rows = x.reshape(-1, *x.shape[2:])
    if view.indexed:
        counts = torch.bincount(rows.flatten(), minlength=view.columns).double()[None] / len(rows)
        statistics = Statistics(counts, None, len(rows))
    else:
        statistics = Statistics(gram(rows) / len(rows), None, len(rows))
    spectrum = decompose(view.matrix(), statistics)
    rank = max(1, view.full_rank // 2)
    a, b = spectrum.factors(rank)
    change = a @ b - view.matrix()
    moved = change[0].t()[rows] if view.indexed else torch.einsum("gij,ngj->ngi", change, rows)
    lost = 0.5 * moved.square().sum() / len(rows)
    torch.testing.assert_close(
        spectrum.tails[rank], lost, rtol=1e-6, atol=1e-9 * float(spectrum.tails[0] + 1)
    )


def spectrum_of(view: View) -> Spectrum:
    """Of the plain matrix with gradients that are not alike, so that factors are not orthogonal."""
    factor = torch.randn(view.groups, view.rows, view.rows, dtype=torch.float64)
    root = torch.linalg.cholesky(factor @ factor.mT + torch.eye(view.rows, dtype=torch.float64))
    whitened = root.mT @ view.matrix()
    u, s, _ = torch.linalg.svd(whitened, full_matrices=False)
    tails = s.square().sum(0)
    left = torch.linalg.solve_triangular(root.mT, u, upper=True)
    return Spectrum(left, u.mT @ whitened, u.mT @ root.mT, tails, torch.zeros_like(tails))


def stored(module: nn.Module) -> int:
    """Weights of all parts."""
    return layer_weights(module)


def dense(weight: Tensor) -> Tensor:
    """The values of a deferred weight."""
    return weight + 0


def flat(result: Any) -> Tensor:
    """The main tensor of a result."""
    while isinstance(result, tuple):
        result = result[0]
    return result


def same(a: Any, b: Any) -> None:
    """Equal up to rounding in float64."""
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
