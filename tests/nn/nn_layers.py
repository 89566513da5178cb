"""The layers of the tests, by name, and points to feed them."""

import torch

from stonefx import nn as snn
from stonefx import ops

C = 0.5
LAYERS = {
    "butterfly": lambda c=C, **k: snn.HyperButterflyLayer(8, 3, curvature=c, **k),
    "klein": lambda c=C, **k: snn.KleinLayer(8, 4, curvature=c, **k),
    "poincare": lambda c=C, **k: snn.PoincareLinear(8, 4, c=c, **k),
    "mlr": lambda c=C, **k: snn.PoincareMLR(8, 4, c=c, **k),
    "lorentz": lambda c=C, **k: snn.LorentzLinear(7, 4, c=c, **k),
    "lorentz, rescaled": lambda c=C, **k: snn.LorentzLinear(7, 4, c=c, form="rescale", scale=2.0, **k),
}


def points(name, radius, c=C, dtype=torch.float32, rows=5):
    """Points of 8 coordinates with space parts `radius / sqrt(c)` long."""
    directions = torch.randn(rows, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if name.startswith("lorentz"):
        space = torch.nn.functional.normalize(directions[:, 1:], dim=-1) * (radius / c**0.5)
        return ops.add_time(space, c).to(dtype)
    return (torch.nn.functional.normalize(directions, dim=-1) * (radius / c**0.5)).to(dtype)
