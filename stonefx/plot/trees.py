"""Trees and other graphs embedded in the hyperbolic plane."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from .disk import Model, curvature, draw_segments, empty_disk, in_model, one_disk, panels, segments
from .models import index_pairs
from .reduction import Method, in_the_plane

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def tree(
    embedding: Tensor,
    edges: Tensor | Iterable[tuple[int, int]],
    *,
    model: Literal["klein", "poincare", "lorentz"] = "poincare",
    c: float = 1.0,
    names: Sequence[str] | None = None,
    root: int = 0,
    show: Model = "poincare",
    axes: Any = None,
    reduce: Method | None = None,
) -> Figure:
    """Draw an embedded tree with its edges as geodesics and its nodes coloured by their depth.

    Args:
        embedding: `[n, 2]` in the Klein or Poincaré disk, or `[n, 3]` on the hyperboloid with the time first;
            with `reduce` of any number of dimensions.
        edges: pairs of indices, `[m, 2]` or any iterable of pairs.
        model: the model that `embedding` is in.
        c: curvature, a positive number or 0-dim tensor.
        names: what to write beside the nodes.
        root: the node of depth 0; nodes that no edge path reaches from it are grey.
        show: the disk model to show.
        axes: matplotlib axes to draw on; a new figure if left out.
        reduce: "horopca" or "tangent" brings nodes of more than two dimensions into the plane, see `reduce_points`.

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: `embedding` is no floating tensor, `c` no number, `edges` no pairs or `axes` no axes.
        ValueError: wrong shapes, a point outside the model, an index out of range, a wrong number of names, no node
            at all, or a model to show that is no disk.

    >>> import torch
    >>> figure = tree(torch.tensor([[0.0, 0.0], [0.6, 0.0], [-0.6, 0.0]]), [(0, 1), (0, 2)])
    >>> len(figure.axes[0].collections)
    2
    """
    c = curvature(c)
    show = one_disk(show)
    ball, caption = in_the_plane(embedding, model, c, reduce, "embedding")
    pairs = index_pairs(edges, len(ball))
    if names is not None and len(names) != len(ball):
        raise ValueError(f"expected {len(ball)} names, one a node, got {len(names)}")
    if len(ball) == 0:
        raise ValueError(
            "expected at least one node to draw, got an embedding of shape " + str(list(embedding.shape))
        )
    if not 0 <= root < len(ball):
        raise ValueError(f"expected root to be a node, 0 to {len(ball) - 1}, got {root}")
    figure, (panel,) = panels([show], axes, size=5.0)
    empty_disk(panel, show, c)
    if caption:
        panel.set_title(caption, fontsize="medium")
    lines = segments(ball[pairs[:, 0]], ball[pairs[:, 1]], show, c)
    draw_segments(panel, lines, colors="#8d8a84", linewidths=0.9, zorder=2)
    depth = depths(pairs, len(ball), root)
    shown = in_model(ball, show, c)
    from matplotlib import colormaps

    deepest = max(int(depth.max()), 1)
    shades = colormaps["viridis"]((depth.double() / deepest * 0.9).numpy())
    shades[(depth < 0).numpy()] = (0.6, 0.6, 0.6, 1.0)
    sizes = (34 * 0.72 ** depth.clamp_min(0).double()).clamp_min(7).numpy()
    across, up = shown.unbind(1)
    panel.scatter(across, up, s=sizes, c=shades, zorder=6, linewidths=0)
    for place, name in enumerate(names or ()):
        panel.annotate(
            name,
            tuple(shown[place].tolist()),
            xytext=(3, 3),
            textcoords="offset points",
            fontsize=7,
            zorder=7,
        )
    return figure


def depths(pairs: Tensor, count: int, root: int) -> Tensor:
    """The number of edges from the root to each node, `[count]`; -1 for a node that cannot be reached.

    >>> depths(torch.tensor([[0, 1], [2, 1]]), 4, 0).tolist()
    [0, 1, 2, -1]
    """
    beside: dict[int, list[int]] = {}
    for one, other in pairs.tolist():
        beside.setdefault(one, []).append(other)
        beside.setdefault(other, []).append(one)
    found = {root: 0}
    queue = [root]
    for node in queue:
        for neighbour in beside.get(node, ()):
            if neighbour not in found:
                found[neighbour] = found[node] + 1
                queue.append(neighbour)
    return torch.tensor([found.get(node, -1) for node in range(count)])
