"""The pictures of the gallery: `python tests/plot/pictures.py [FOLDER]` draws them; a test compares them."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import torch
from matplotlib import pyplot
from matplotlib.figure import Figure

import stonefx.plot
from stonefx.geometry import poincare


def points() -> tuple[torch.Tensor, list[str], list[tuple[int, int]]]:
    """Three rays of equally distant points."""
    steps = torch.arange(1, 6, dtype=torch.float64) * 0.3
    rays = [
        torch.tensor([torch.cos(a), torch.sin(a)]) for a in torch.tensor([0.4, 2.5, 4.6], dtype=torch.float64)
    ]
    placed = [poincare.expmap0(torch.outer(steps, ray)) for ray in rays]
    labels = [name for name in ("alpha", "beta", "gamma") for _ in steps]
    edges = [(5 * ray + step, 5 * ((ray + 1) % 3) + step) for ray in range(3) for step in range(5)]
    return torch.cat(placed), labels, edges


def binary_tree(depth: int = 6) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    """A tree of equal edges, each child turned away from its parent (Sarkar, "Low Distortion Delaunay Embedding")."""
    nodes, edges = [torch.zeros(2, dtype=torch.float64)], []
    level = [(0, torch.zeros(2, dtype=torch.float64), [0.5, 2.6, 4.7])]
    for ring in range(depth):
        following = []
        for place, at, angles in level:
            for angle in angles:
                way = torch.tensor([angle], dtype=torch.float64)
                step = poincare.expmap0(0.5 * torch.cat([way.cos(), way.sin()]))
                child = poincare.mobius_add(at, step)
                edges.append((place, len(nodes)))
                back = poincare.mobius_add(-child, at)
                turned = float(torch.atan2(back[1], back[0]))
                following.append((len(nodes), child, [turned + 2.1, turned - 2.1]))
                nodes.append(child)
        level = following if ring + 1 < depth else []
    return torch.stack(nodes), edges


def compare_models() -> Figure:
    placed, labels, edges = points()
    return stonefx.plot.compare_models(placed, labels=labels, edges=edges)


def reduced_models() -> Figure:
    """The three rays and some noise in twelve dimensions."""
    placed, labels, edges = points()
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64)).Q
    noise = poincare.expmap0(0.1 * torch.randn(len(placed), 12, generator=generator, dtype=torch.float64))
    wide = poincare.mobius_add(placed @ turn[:2], noise)
    return stonefx.plot.compare_models(wide, labels=labels, edges=edges, reduce="horopca")


def geodesics() -> Figure:
    angles = torch.linspace(0, 2 * torch.pi, 10, dtype=torch.float64)[:-1]
    ring = 0.93 * torch.stack([angles.cos(), angles.sin()], 1)
    return stonefx.plot.geodesics(ring, ring.roll(-2, 0))


def tree() -> Figure:
    return stonefx.plot.tree(*binary_tree())


def tessellation() -> Figure:
    return stonefx.plot.tessellation(7, 3, layers=4)


PICTURES = {each.__name__: each for each in (compare_models, geodesics, tree, tessellation)}

# A search found it, which may end elsewhere on another machine.
SEARCHED = {reduced_models.__name__: reduced_models}


def draw(name: str, folder: Path) -> Path:
    """Draw one picture into a folder."""
    path = folder / f"{name}.png"
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure = (PICTURES | SEARCHED)[name]()
        figure.savefig(path, dpi=80, metadata={"Software": None})
    pyplot.close(figure)
    return path


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2] / "docs" / "gallery")
    target.mkdir(parents=True, exist_ok=True)
    for each in PICTURES | SEARCHED:
        print(draw(each, target))
