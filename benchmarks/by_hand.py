"""What a user would write by hand, to measure against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


def merged(layers: Sequence[nn.Linear]) -> nn.Linear:
    """One `nn.Linear` for several in a row, multiplied in float64 and rounded once.

    >>> merged([nn.Linear(4, 8), nn.Linear(8, 2)]).weight.shape
    torch.Size([2, 4])
    """
    weight, bias = layers[0].weight.detach().double(), layers[0].bias.detach().double()
    for layer in layers[1:]:
        weight = layer.weight.detach().double() @ weight
        bias = layer.weight.detach().double() @ bias + layer.bias.detach().double()
    result = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device).eval()
    with torch.no_grad():
        result.weight.copy_(weight)
        result.bias.copy_(bias)
    return result


class SegmentationByHand(nn.Module):
    """A SegFormer decode head with one map for each scale, applied before it is interpolated.

    Args:
        head: the head, in eval mode.
    """

    def __init__(self, head: Any) -> None:
        super().__init__()
        norm, fuse = head.batch_norm, head.linear_fuse.weight.detach().double().flatten(1)
        scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
        count, width = len(head.linear_c), fuse.shape[0]
        bias = norm.bias.detach().double() - norm.running_mean.double() * scale
        self.maps = nn.ParameterList()
        for place, layer in enumerate(head.linear_c):
            start = (count - 1 - place) * width  # the head concatenates from the coarsest scale
            part = scale[:, None] * fuse[:, start : start + width]
            self.maps.append(nn.Parameter((part @ layer.proj.weight.detach().double()).float()))
            bias = bias + part @ layer.proj.bias.detach().double()
        self.bias, self.classifier = nn.Parameter(bias.float()), head.classifier

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Feature maps `[batch, channels, height, width]`, the finest first, to logits at its size."""
        size = features[0].shape[2:]
        total = None
        for place, (weight, feature) in enumerate(zip(self.maps, features, strict=True)):
            mapped = F.conv2d(feature, weight[:, :, None, None], None if place else self.bias)
            if mapped.shape[2:] != size:
                mapped = F.interpolate(mapped, size=size, mode="bilinear", align_corners=False)
            total = mapped if total is None else total + mapped
        assert total is not None
        return self.classifier(total.relu())
