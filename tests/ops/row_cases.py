"""Arguments for every operator of row formulas."""

import torch
from operator_cases import points

from stonefx.ops import ROW_FORMULAS

NAMES = tuple(ROW_FORMULAS)
# Values at which every guard takes effect in some of the rows.
ACTIVE = {
    "min_gap": 0.7,
    "min_norm": 0.3,
    "tanh_limit": 0.2,
    "atanh_limit": 0.25,
    "min_denominator": 0.9,
    "denominator_offset": 1e-2,
    "max_radius": 0.4,
    "eps": 0.5,
    "curvature_offset": 0.1,
    "max_argument": 0.3,
    "min_argument": 1.1,
    "offset": 1.3,
    "min_squares": 0.05,
}
GUARDED = tuple(name for name in NAMES if ROW_FORMULAS[name].guards)


def guards(name):
    return {label: ACTIVE[label] for label in ROW_FORMULAS[name].guards}


def overload(name):
    return getattr(torch.ops.stone, name).default


def row_arguments(name, dtype=torch.float64, batch=(7,), dim=5, scalars=None, radius=0.7):
    """Vectors, then scalars, none near the boundary; those of the sphere lie on it."""
    formula = ROW_FORMULAS[name]
    vectors = [
        points(*batch, 3 if formula.separate and v else dim + formula.time_in, seed=v + 1, radius=radius)
        for v in range(len(formula.vectors))
    ]
    c = torch.linspace(0.3, 1.1, max(1, torch.Size(batch).numel()), dtype=torch.float64)
    c = c[: torch.Size(batch).numel()].reshape(*batch, 1) if batch else c[0]
    if name.startswith("sphere") and name != "sphere_project":
        fixed = 2 if formula.vectors[-1] == "y" else 1
        vectors[:fixed] = [v / v.norm(dim=-1, keepdim=True) / c.sqrt() for v in vectors[:fixed]]
    values = [c, 0.3 + 0.5 * c][: len(formula.scalars)] if scalars is None else scalars
    return tuple(operand.to(dtype) for operand in (*vectors, *values))


def agree(got, expected, bound):
    """Row by row: the error over the norm of the row."""
    got, expected = got.double(), expected.double()
    if expected.dim() == 0:
        got, expected = got[None], expected[None]
    scale = expected.norm(dim=-1, keepdim=True).clamp_min(1e-300)
    assert got.shape == expected.shape
    assert ((got - expected).norm(dim=-1, keepdim=True) <= bound * scale).all(), (
        (got - expected).norm(dim=-1, keepdim=True) / scale
    ).max()
