"""What the pictures take as models, curvatures, edges and axes, and what they say to anything else."""

import numpy
import pytest
import torch

from stonefx import plot

pyplot = pytest.importorskip("matplotlib.pyplot")
POINTS = torch.tensor([[0.0, 0.0], [0.6, 0.1], [-0.2, 0.5]])
EDGES = [(0, 1), (0, 2)]


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    pyplot.close("all")


ONE_DISK = {
    "tree": lambda **options: plot.tree(POINTS, EDGES, **options),
    "tessellation": lambda **options: plot.tessellation(7, 3, layers=1, **options),
}
ALL = {"geodesics": lambda **options: plot.geodesics(POINTS, POINTS.flip(0), **options), **ONE_DISK}


@pytest.mark.parametrize("draw", ALL.values(), ids=ALL)
def test_only_disks_are_shown(draw):
    with pytest.raises(
        ValueError,
        match="expected show to name disks, 'klein' or 'poincare', got 'lorentz'; compare_models draws the",
    ):
        draw(show="lorentz")
    with pytest.raises(ValueError, match=r"expected show to name disks, 'klein' or 'poincare', got 'disk'$"):
        draw(show="disk")
    assert len(draw(show="klein").axes) == 1


def test_one_disk_or_several():
    for draw in ONE_DISK.values():
        with pytest.raises(ValueError, match=r"expected show to be one disk, .* got \('klein', 'poincare'\)"):
            draw(show=("klein", "poincare"))
    (axes,) = plot.geodesics(POINTS, POINTS.flip(0), show="poincare").axes
    assert axes.get_title() == "Poincaré"
    with pytest.raises(ValueError, match=r"expected show to name disks, .* got none"):
        plot.geodesics(POINTS, POINTS, show=())
    with pytest.raises(ValueError, match=r"expected show to name disks, .* got 'lorentz'"):
        plot.geodesics(POINTS, POINTS, show=("klein", "lorentz"))


@pytest.mark.parametrize(
    "draw",
    [
        lambda c: plot.tree(POINTS, EDGES, c=c),
        lambda c: plot.geodesics(POINTS, POINTS, c=c),
        lambda c: plot.compare_models(POINTS, c=c),
    ],
)
def test_curvatures(draw):
    for c in (1, torch.tensor(1.0), torch.tensor(1), numpy.float32(1), numpy.array(1.0)):
        draw(c)
    for c, got in (
        ("1", "str"),
        (None, "NoneType"),
        ([1.0], "list"),
        (torch.ones(2), r"Tensor of shape \[2\]"),
    ):
        with pytest.raises(TypeError, match=f"expected c to be a number, or a 0-dim tensor, got {got}"):
            draw(c)
    with pytest.raises(ValueError, match=r"expected a curvature c > 0, got -1\.0"):
        draw(torch.tensor(-1.0))


@pytest.mark.parametrize(
    "edges",
    [
        set(EDGES),
        iter(EDGES),
        numpy.array(EDGES),
        torch.tensor(EDGES),
        list(torch.tensor(EDGES)),
    ],
    ids=lambda edges: type(edges).__name__,
)
def test_edges_may_be_any_iterable_of_pairs(edges):
    lines, _ = plot.tree(POINTS, edges).axes[0].collections
    assert len(lines.get_paths()) == len(EDGES)


def test_edges_that_are_none():
    for edges, got in (
        (3, r"3 \(int\)"),
        ([0, 1], r"\[0, 1\] \(list\)"),
        ([(0, 1), (1,)], r"\[\(0, 1\), \(1,\)\] \(list\)"),
        ("ab", r"'ab' \(str\)"),
    ):
        with pytest.raises(TypeError, match=rf"expected edges to be pairs of indices, such as .*, got {got}"):
            plot.tree(POINTS, edges)
    with pytest.raises(
        ValueError, match=r"edges of shape \[n, 2\] holding indices, got \[1, 3\], torch.int64"
    ):
        plot.compare_models(POINTS, edges=[(0, 1, 2)])


def test_a_tree_without_nodes():
    with pytest.raises(
        ValueError, match=r"expected at least one node to draw, got an embedding of shape \[0, 2\]"
    ):
        plot.tree(torch.zeros(0, 2), [])


def test_axes():
    for draw in ONE_DISK.values():
        with pytest.raises(TypeError, match=r"expected axes of matplotlib, .*subplots\(1, 1\), got int"):
            draw(axes=3)
    with pytest.raises(TypeError, match=r"expected axes of matplotlib, .*subplots\(1, 2\), got str"):
        plot.geodesics(POINTS, POINTS, axes=["left", "right"])
    figure, axes = pyplot.subplots(2, 1, squeeze=False)
    assert plot.geodesics(POINTS, POINTS.flip(0), axes=axes) is figure
