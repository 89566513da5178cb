# ruff: noqa
import torch
from torch import nn


class LowRankLinear(nn.Sequential):
    @classmethod
    def from_factors(cls, a, b, bias):
        s = cls(
            nn.Linear(b.shape[1], b.shape[0], bias=False),
            nn.Linear(a.shape[1], a.shape[0], bias=bias is not None),
        )
        s[0].weight = nn.Parameter(b.clone())
        s[1].weight = nn.Parameter(a.clone())
        if bias is not None:
            s[1].bias = nn.Parameter(bias.clone())
        return s


class PifaLinear(nn.Module):
    @classmethod
    def from_factors(cls, a, b, bias):
        import numpy
        import scipy.linalg as sl

        s = cls()
        m, r = a.shape
        _, _, p = sl.qr(a.T.numpy(), mode="economic", pivoting=True)
        J = torch.as_tensor(p[:r].copy())
        Jc = torch.as_tensor(numpy.sort(p[r:]))
        T = torch.linalg.solve(a[J].T, a[Jc].T).T
        s.R = nn.Parameter(a[J] @ b)
        s.T = nn.Parameter(T)
        inv = torch.empty(m, dtype=torch.int32)
        inv[torch.cat([J, Jc])] = torch.arange(m, dtype=torch.int32)
        s.register_buffer("inv", inv)
        s.bias = None if bias is None else nn.Parameter(bias.clone())
        return s

    def forward(s, input):
        x = input
        y = x @ s.R.t()
        y = torch.cat([y, y @ s.T.t()], -1)[..., s.inv]
        return y if s.bias is None else y + s.bias
