"""Maps of the ball as people write them, for tests of what becomes of them."""

import torch


def norm(x):
    return x.norm(dim=-1, keepdim=True).clamp_min(1e-15)


def expmap0(x):
    return torch.tanh(norm(x)) * x / norm(x)


def logmap0(x):
    return torch.atanh(norm(x).clamp_max(0.99)) * x / norm(x)
