"""A linear layer kept as two factors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from stonefx import ops

from .factored import FactoredLinear, draw, given_factors


class LowRankLinear(FactoredLinear):
    """A linear layer with the weight `b @ a`: two thin products in one operator.

    It holds `rank * (in_features + out_features)` numbers. `PifaLinear` of the same rank holds fewer.

    Args:
        in_features, out_features: last dimensions of input and output.
        rank: of the weight, at most both of them.
        bias: whether one is added.
        device, dtype: of the parameters `a` `[rank, in_features]`, `b` `[out_features, rank]` and `bias`
            `[out_features]`.

    Shapes: `[*batch, in_features]` to `[*batch, out_features]`.

    Raises:
        TypeError, ValueError: a size that is no integer of 0 or more, or a rank that is too large.
        RuntimeError: an input of another dtype, size or device.

    >>> layer = LowRankLinear(8, 6, 2)
    >>> layer
    LowRankLinear(in_features=8, out_features=6, rank=2, bias=True)
    >>> layer(torch.zeros(5, 8)).shape
    torch.Size([5, 6])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, rank, bias, device, dtype)
        self.a = nn.Parameter(torch.empty(self.rank, self.in_features, device=device, dtype=dtype))
        self.b = nn.Parameter(torch.empty(self.out_features, self.rank, device=device, dtype=dtype))
        self.reset_parameters()

    @classmethod
    def from_factors(cls, left: Tensor, right: Tensor, bias: Tensor | None = None) -> LowRankLinear:
        """The layer with the weight `left @ right`.

        The factors are balanced: each column of the one gets the length of its row of the other, so that both learn and
        round alike.

        Args:
            left: `[out, rank]`.
            right: `[rank, in]`, the dtype and device of `left`.
            bias: `[out]`, or None.

        Raises:
            RuntimeError: shapes, dtypes or devices that do not fit, or a factor that is not finite.

        >>> layer = LowRankLinear.from_factors(torch.tensor([[8.0], [0.0]]), torch.tensor([[2.0, 0.0]]))
        >>> layer.a, layer.b
        (Parameter containing:
        tensor([[4., 0.]], requires_grad=True), Parameter containing:
        tensor([[4.],
                [0.]], requires_grad=True))
        """
        b, a = given_factors(cls.__name__, left, right, bias)
        lengths_b, lengths_a = b.norm(dim=0), a.norm(dim=1)
        # A component that is 0 stays so.
        scale = torch.where((lengths_a > 0) & (lengths_b > 0), lengths_a / lengths_b, 1.0).sqrt()
        out, rank = b.shape
        made = cls(a.shape[1], out, rank, bias is not None, left.device, left.dtype)
        with torch.no_grad():
            made.a.copy_(a / scale[:, None])
            made.b.copy_(b * scale)
            if bias is not None and made.bias is not None:
                made.bias.copy_(bias)
        return made

    def reset_parameters(self) -> None:
        """Draw factors whose product has entries of the variance of those of `torch.nn.Linear`."""
        super().reset_parameters()
        draw(self.a, 1 / 3)
        draw(self.b, 1.0)

    def forward(self, input: Tensor) -> Tensor:
        """See the class."""
        return ops.low_rank_linear(input, self.a, self.b, self.bias)

    def plain(self) -> nn.Sequential:
        """The same map as two `torch.nn.Linear`, which can be saved and loaded without stonefx.

        >>> LowRankLinear(8, 6, 2).plain()
        Sequential(
          (0): Linear(in_features=8, out_features=2, bias=False)
          (1): Linear(in_features=2, out_features=6, bias=True)
        )
        """
        options = {"device": self.a.device, "dtype": self.a.dtype}
        first = skip_init(nn.Linear, self.in_features, self.rank, bias=False, **options)
        second = skip_init(nn.Linear, self.rank, self.out_features, bias=self.bias is not None, **options)
        with torch.no_grad():
            first.weight.copy_(self.a)
            second.weight.copy_(self.b)
            if self.bias is not None:
                second.bias.copy_(self.bias)
        return nn.Sequential(first, second).train(self.training)
