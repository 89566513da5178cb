"""Views of convolutions and transposed convolutions."""

import random

import pytest
import torch
from battery import check_all
from torch import nn

from stonefx.compress.convolution import PLAIN, TRANSPOSED


def drawn(seed: int, transposed: bool) -> tuple[nn.Module, torch.Tensor]:
    """A layer with random geometry, and an input that fits."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    axes = draw.choice((1, 1, 2, 2, 2, 3))
    groups = draw.choice((1, 1, 1, 2, 3))
    given, made = groups * draw.choice((2, 3, 4)), groups * draw.choice((2, 3, 5))
    kernel = tuple(draw.choice((1, 2, 3)) for _ in range(axes))
    stride = tuple(draw.choice((1, 1, 2, 3)) for _ in range(axes))
    dilation = tuple(draw.choice((1, 1, 2)) for _ in range(axes))
    size = tuple(draw.randint(5, 8) for _ in range(axes))
    options = {"groups": groups, "dilation": dilation, "bias": draw.random() < 0.7}
    if transposed:
        padding = tuple(draw.randint(0, d * (k - 1)) for d, k in zip(dilation, kernel, strict=True))
        output_padding = tuple(draw.randrange(max(s, d)) for s, d in zip(stride, dilation, strict=True))
        options |= {"padding": padding, "output_padding": output_padding}
    else:
        options["padding_mode"] = draw.choice(("zeros", "zeros", "reflect", "replicate", "circular"))
        options["padding"] = draw.choice(("number", "same", "valid"))
        if options["padding"] == "same":
            stride = 1
        elif options["padding"] == "number":
            options["padding"] = tuple(draw.randint(0, 2) for _ in range(axes))
    kind = (TRANSPOSED if transposed else PLAIN)[axes - 1]
    layer = kind(given, made, kernel, stride=stride, **options)
    return layer, torch.randn(draw.choice((1, 2)), given, *size, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(60))
def test_convolutions(seed: int) -> None:
    layer, x = drawn(seed, transposed=False)
    check_all(layer, x)


@pytest.mark.parametrize("seed", range(40))
def test_transposed_convolutions(seed: int) -> None:
    layer, x = drawn(1000 + seed, transposed=True)
    check_all(layer, x)
