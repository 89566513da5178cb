"""A pointwise convolution, a resampling and a convolution become a resampling and one convolution."""

import pytest
import torch
from test_carries import check_rewritten
from torch import nn
from torch.nn import functional as F

MODES = {
    "nearest": {"mode": "nearest"},
    "nearest-exact": {"mode": "nearest-exact"},
    "bilinear": {"mode": "bilinear", "align_corners": False},
    "bilinear, corners": {"mode": "bilinear", "align_corners": True},
    "bicubic": {"mode": "bicubic", "align_corners": False},
    "bicubic, corners": {"mode": "bicubic", "align_corners": True},
    "antialiased": {"mode": "bilinear", "align_corners": False, "antialias": True},
}
FACTORS = {
    "2": {"scale_factor": 2},
    "3": {"scale_factor": 3.0},
    "2.3 and 0.7": {"scale_factor": (2.3, 0.7)},
    "1.7, worked out anew": {"scale_factor": 1.7, "recompute_scale_factor": True},
    "a size": {"size": (11, 5)},
}


class Upsampled(nn.Module):
    """The end of a decoder: more channels, more pixels, and a convolution over them."""

    def __init__(self, how, bias):
        super().__init__()
        self.how = how
        self.widen = nn.Conv2d(4, 32, 1, bias=bias)
        # A constant ends at a border of zeros, which a merged one would not.
        self.smooth = nn.Conv2d(32, 4, 3, padding=0 if bias else 1, bias=bias)

    def forward(self, x):
        return self.smooth(F.interpolate(self.widen(x), **self.how))


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("mode", MODES)
def test_one_convolution_is_left(mode, factor):
    torch.manual_seed(0)
    bias = (len(mode) + len(factor)) % 2 == 0
    model = Upsampled(MODES[mode] | FACTORS[factor], bias).eval()
    check_rewritten(model, [torch.randn(2, 4, 5, 7)], False, "conv2d")
