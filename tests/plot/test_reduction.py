"""Points of many dimensions brought into the plane."""

import pytest
import torch

from stonefx import plot
from stonefx.geometry import lorentz, poincare
from stonefx.plot.reduction import horospherical

pyplot = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    pyplot.close("all")


def cloud(rows=60, dim=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([1.5, 1.0, 0.3] + [0.1] * (dim - 3), dtype=torch.float64)
    return poincare.expmap0(torch.randn(rows, dim, generator=generator, dtype=torch.float64) * scale)


def spread(x, c=1.0):
    return float(poincare.cdist(x, x, c).square().mean())


@pytest.mark.parametrize("angle", [0.2, 0.7, 1.4])
def test_horospheres_are_kept_no_distance_grows_and_points_of_the_plane_stay(angle):
    """What the projection is defined by: the Busemann functions of both ideal points, the side of the origin."""
    q = torch.linalg.qr(torch.randn(7, 2, generator=torch.Generator().manual_seed(1)).double()).Q.T
    a = torch.tensor(angle, dtype=torch.float64)
    x = poincare.to_lorentz(cloud())
    y = horospherical(x, q, a)
    ideal = torch.stack([a.cos() * torch.ones(2), torch.stack([a.sin(), -a.sin()])])
    torch.testing.assert_close(y[:, :1] - y[:, 1:] @ ideal, x[:, :1] - x[:, 1:] @ q.T @ ideal)
    torch.testing.assert_close(lorentz.inner(y, y), torch.full((60,), -1.0, dtype=torch.float64))
    assert bool((lorentz.cdist(y, y) <= lorentz.cdist(x, x) + 1e-9).all())
    plane = poincare.expmap0(0.4 * torch.randn(30, 2, generator=torch.Generator().manual_seed(2)).double())
    lifted = poincare.to_lorentz(plane)
    origins = lifted[:, 0] * a.cos() > lifted[:, 1]
    found = lorentz.to_poincare(horospherical(poincare.to_lorentz(plane @ q), q, a))
    assert int(origins.sum()) > 5
    torch.testing.assert_close(found[origins], plane[origins])
    assert not torch.isclose(found[~origins], plane[~origins]).all(1).any()


@pytest.mark.parametrize("c", [1.0, 0.3])
@pytest.mark.parametrize("method", ["tangent", "horopca"])
def test_a_plane_in_many_dimensions_is_found(method, c):
    turn = torch.linalg.qr(torch.randn(9, 9, generator=torch.Generator().manual_seed(3)).double()).Q
    plane = poincare.expmap0(torch.randn(40, 2, generator=torch.Generator().manual_seed(4)).double(), c)
    moved = poincare.mobius_add(torch.full((9,), 0.1).double(), plane @ turn[:2], c)
    reduced = plot.reduce_points(moved, method, c)
    assert 0.9 < reduced.kept <= 1 + 1e-9
    assert poincare.gyromidpoint(reduced.points, c=c).norm() < 0.2 / c**0.5
    before, after = (poincare.cdist(x, x, c) for x in (moved, reduced.points))
    assert method == "tangent" or bool((after <= before + 1e-6).all())


def test_horopca_keeps_more_and_says_how_much():
    x = cloud()
    both = {method: plot.reduce_points(x, method) for method in ("tangent", "horopca")}
    assert both["tangent"].kept < both["horopca"].kept <= 1
    for reduced in both.values():
        assert reduced.kept == pytest.approx(spread(reduced.points) / spread(x))
        again = plot.reduce_points(x, "horopca")
        assert torch.equal(again.points, both["horopca"].points)


@pytest.mark.parametrize("method", ["tangent", "horopca"])
def test_few_points_and_equal_points(method):
    assert plot.reduce_points(torch.zeros(0, 5), method).points.shape == (0, 2)
    for x in (torch.zeros(1, 5), torch.full((3, 5), 0.2), cloud()[:2]):
        reduced = plot.reduce_points(x, method)
        assert reduced.points.shape == (len(x), 2) and reduced.points.isfinite().all()
    assert plot.reduce_points(cloud()[:2], method).kept == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("model", ["poincare", "klein", "lorentz"])
def test_pictures_of_many_dimensions(model):
    x = cloud()
    given = {"poincare": x, "klein": poincare.to_klein(x), "lorentz": poincare.to_lorentz(x)}[model]
    figure = plot.compare_models(given, model=model, reduce="horopca")
    assert figure.get_suptitle().startswith("HoroPCA of 7 dimensions: ")
    (axes,) = plot.tree(given, [(0, 1), (0, 2)], model=model, reduce="tangent").axes
    assert axes.get_title().startswith("Tangent PCA of 7 dimensions: ")


def test_messages():
    with pytest.raises(ValueError, match="expected reduce to be 'tangent' or 'horopca', got 'pca'"):
        plot.compare_models(cloud(), reduce="pca")
    with pytest.raises(
        ValueError, match=r"shape \[n, 2\] .* got \[60, 7\]; reduce='horopca' or 'tangent' brings"
    ):
        plot.tree(cloud(), [(0, 1)])
    with pytest.raises(ValueError, match=r"shape \[n, 2\] or wider for model 'poincare', got \[3, 1\]"):
        plot.compare_models(torch.zeros(3, 1), reduce="tangent")
    with pytest.raises(ValueError, match=r"shape \[n, dim\] with dim >= 2, got \[3\]"):
        plot.reduce_points(torch.zeros(3))
