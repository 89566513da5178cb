"""What the pictures show: true geodesics, whole tilings, every point; and what bad input is told."""

from collections import Counter

import pytest
import torch

import stonefx.plot
from stonefx.geometry import klein, poincare
from stonefx.plot.disk import segments
from stonefx.plot.tilings import polygons

pyplot = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    pyplot.close("all")


def spiral(count, c=1.0):
    t = torch.linspace(0, 1, count, dtype=torch.float64)
    return (0.93 * t / c**0.5)[:, None] * torch.stack([(9 * t).cos(), (9 * t).sin()], 1)


@pytest.mark.parametrize("c", [0.3, 1.0, 4.0])
def test_geodesics_are_straight_in_the_klein_disk_and_orthogonal_arcs_in_the_poincare_disk(c):
    first, second = spiral(12, c)[1:9], spiral(12, c)[4:12]
    straight = segments(first, second, "klein", c)
    assert straight.shape[1] == 2
    assert torch.allclose(straight[:, 0], poincare.to_klein(first, c))
    arcs = segments(first, second, "poincare", c)
    on_lines = poincare.to_klein(arcs.reshape(-1, 2), c).reshape(arcs.shape)
    along, across = on_lines - straight[:, :1], straight[:, 1:] - straight[:, :1]
    assert (along[..., 0] * across[..., 1] - along[..., 1] * across[..., 0]).abs().max() < 1e-12 / c
    # A circle through two points that meets the boundary at right angles: |centre|^2 = radius^2 + 1 / c.
    for arc in arcs:
        a, m, b = arc[0], arc[32], arc[-1]
        centre = torch.linalg.lstsq(
            2 * torch.stack([m - a, b - a]), torch.stack([m @ m - a @ a, b @ b - a @ a])
        )[0]
        assert float(centre @ centre) == pytest.approx(float((a - centre) @ (a - centre)) + 1 / c, rel=1e-6)


@pytest.mark.parametrize(
    ("p", "q", "counts"), [(7, 3, [1, 7, 21, 56]), (5, 4, [1, 5, 15]), (3, 7, [1, 3, 6])]
)
def test_tilings_hold_each_polygon_once_and_all_of_one_size(p, q, counts):
    tiles, rings = polygons(p, q, len(counts) - 1)
    assert list(Counter(rings).values()) == counts
    sides = poincare.dist(tiles, tiles.roll(-1, 1))
    assert (sides - sides[0, 0]).abs().max() < 1e-9
    # q angles of 2 pi / q meet at each corner: check one by the hyperbolic law of cosines.
    side = float(sides[0, 0])
    across = float(poincare.dist(tiles[0, 0], tiles[0, 2]))
    cosine = (torch.cosh(torch.tensor(side)) ** 2 - torch.cosh(torch.tensor(across))) / torch.sinh(
        torch.tensor(side)
    ) ** 2
    assert float(torch.arccos(cosine)) == pytest.approx(2 * torch.pi / q, rel=1e-5)


def test_compare_models_shows_the_same_points_in_all_three():
    points = spiral(12)
    figure = stonefx.plot.compare_models(points, labels=["a"] * 6 + ["b"] * 6, edges=[(0, 5), (5, 11)])
    flat, ball, space = figure.axes
    shown = [torch.tensor(part.get_offsets()) for part in ball.collections[1:]]
    assert torch.allclose(torch.cat(shown), points)
    shown = [torch.tensor(part.get_offsets()) for part in flat.collections[1:]]
    assert torch.allclose(torch.cat(shown), poincare.to_klein(points))
    assert space.get_title() == "Lorentz"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    assert flat.get_aspect() == ball.get_aspect() == 1


def test_points_may_come_in_any_model():
    points = spiral(5, 2.0)
    same = [
        stonefx.plot.compare_models(points, c=2.0),
        stonefx.plot.compare_models(poincare.to_klein(points, 2.0), model="klein", c=2.0),
        stonefx.plot.compare_models(poincare.to_lorentz(points, 2.0), model="lorentz", c=2.0),
    ]
    shown = [torch.tensor(figure.axes[1].collections[-1].get_offsets()) for figure in same]
    assert torch.allclose(shown[0], shown[1]) and torch.allclose(shown[0], shown[2])


def test_axes_may_be_given():
    figure, axes = pyplot.subplots(1, 2)
    assert stonefx.plot.geodesics(spiral(3), spiral(3).flip(0), axes=axes) is figure
    with pytest.raises(ValueError, match="expected 2 axes, one for each of klein, poincare, got 1"):
        stonefx.plot.geodesics(spiral(3), spiral(3).flip(0), axes=axes[0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: stonefx.plot.compare_models(torch.ones(2, 2)),
            ValueError,
            r"norm < 1 / sqrt\(c\) = 1; .* of row 0",
        ),
        (
            lambda: stonefx.plot.compare_models(torch.zeros(2, 3)),
            ValueError,
            r"shape \[n, 2\].*got \[2, 3\]; reduce=",
        ),
        (lambda: stonefx.plot.compare_models([[0, 0]]), TypeError, "floating tensor, got list"),
        (
            lambda: stonefx.plot.compare_models(torch.zeros(2, 2), c=-1.0),
            ValueError,
            "curvature c > 0, got -1.0",
        ),
        (lambda: stonefx.plot.compare_models(torch.zeros(2, 2), model="disk"), ValueError, "got 'disk'"),
        (
            lambda: stonefx.plot.compare_models(torch.ones(1, 3), model="lorentz"),
            ValueError,
            "time = sqrt.* of row 0",
        ),
        (
            lambda: stonefx.plot.compare_models(torch.zeros(2, 2), labels=["a"]),
            ValueError,
            "expected 2 labels.*got 1",
        ),
        (
            lambda: stonefx.plot.tree(torch.zeros(2, 2), [(0, 2)]),
            ValueError,
            "edges between points 0 to 1, got 0 to 2",
        ),
        (
            lambda: stonefx.plot.tree(torch.zeros(2, 2), [(0, 1)], root=5),
            ValueError,
            "root to be a node, 0 to 1, got 5",
        ),
        (lambda: stonefx.plot.tree(torch.full((1, 2), torch.nan), []), ValueError, "finite embedding.*row 0"),
        (lambda: stonefx.plot.tessellation(4, 4), ValueError, r"tiling \{4, 4\} is Euclidean"),
        (lambda: stonefx.plot.tessellation(5, 3), ValueError, "is spherical"),
        (
            lambda: stonefx.plot.tessellation(7, 3, layers=-1),
            ValueError,
            "layers to be an integer of at least 0",
        ),
        (lambda: stonefx.plot.tessellation(9, 9, layers=6), ValueError, "more than 20,000 polygons"),
    ],
)
def test_bad_input_is_told_what_was_expected(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_klein_tree_has_straight_edges():
    figure = stonefx.plot.tree(spiral(4), [(0, 1), (1, 2), (2, 3)], show="klein")
    lines, nodes = figure.axes[0].collections
    assert all(len(path.vertices) == 2 for path in lines.get_paths())
    assert torch.allclose(klein.to_poincare(torch.tensor(nodes.get_offsets())), spiral(4))
