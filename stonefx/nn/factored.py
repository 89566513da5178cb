"""What the linear layers of low rank share: sizes, a bias or none, and factors to start from."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stonefx.ops import checks

from .arguments import size


class FactoredLinear(nn.Module):
    """A linear layer from `in_features` to `out_features` whose matrix has at most a given rank.

    Args:
        in_features, out_features, rank, bias, device, dtype: those of the layers.

    Raises:
        TypeError, ValueError: a size that is no integer of 0 or more, or a rank above `in_features` or `out_features`.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        bias: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        layer = type(self).__name__
        self.in_features = size(layer, "in_features", in_features)
        self.out_features = size(layer, "out_features", out_features)
        self.rank = size(layer, "rank", rank)
        if self.rank > min(self.in_features, self.out_features):
            raise ValueError(
                f"{layer}: rank must be at most in_features and out_features, got rank {self.rank} for "
                f"{self.in_features} to {self.out_features}; a matrix of that shape has no larger rank"
            )
        vector = torch.empty(self.out_features, device=device, dtype=dtype)
        self.register_parameter("bias", nn.Parameter(vector) if bias else None)

    def reset_parameters(self) -> None:
        """Draw the bias as `torch.nn.Linear` does."""
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features > 0 else 0.0
            nn.init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}, "
            f"bias={self.bias is not None}"
        )


def draw(weight: Tensor, variance: float) -> None:
    """Fill a matrix `[out, in]` evenly, so that `out` entries have `variance` times the variance of `in` ones."""
    bound = math.sqrt(3 * variance / weight.shape[1]) if weight.shape[1] > 0 else 0.0
    nn.init.uniform_(weight, -bound, bound)


def given_factors(layer: str, left: Tensor, right: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Factors of a weight `left @ right`, in float64.

    Args:
        layer: its name, for the message.
        left: `[out, rank]`.
        right: `[rank, in]`, the dtype and device of `left`.
        bias: `[out]`, or None.

    Raises:
        RuntimeError: shapes, dtypes or devices that do not fit, or a factor that is not finite.

    >>> given_factors("LowRankLinear", torch.ones(3, 1), torch.ones(1, 2), None)[0].dtype
    torch.float64
    """
    checks.floating(layer, "left", left)
    checks.same_dtype(layer, "left and right", left, right)
    checks.same_device(layer, "left and right", left, right)
    fits = left.dim() == 2 and right.dim() == 2 and left.shape[1] == right.shape[0]
    if bias is not None:
        checks.same_dtype(layer, "left and bias", left, bias)
        checks.same_device(layer, "left and bias", left, bias)
        fits = fits and bias.dim() == 1 and bias.shape[0] == left.shape[0]
    if not fits:
        raise RuntimeError(
            f"{layer}: expected factors [out, rank] and [rank, in] of a weight and bias [out], got "
            f"{checks.shape(left)}, {checks.shape(right)} and {'none' if bias is None else checks.shape(bias)}"
        )
    for label, factor in (("left", left), ("right", right)):
        if not bool(torch.isfinite(factor).all()):
            raise RuntimeError(
                f"{layer}: {label} must be finite, got {int((~torch.isfinite(factor)).sum())} entries that are not; "
                "look at what the factors were made of"
            )
    return left.detach().double(), right.detach().double()
