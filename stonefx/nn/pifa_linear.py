"""A linear layer of low rank kept as some of its rows and what makes the others of them."""

from __future__ import annotations

import operator

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import skip_init

from stonefx import ops

from .factored import FactoredLinear, draw, given_factors
from .pivots import interpolative_rows


class PifaLinear(FactoredLinear):
    """A linear layer of low rank, its weight kept as pivot rows and the combinations of them that are its other rows.

    It holds `rank * (in_features + out_features - rank)` numbers: never more than the dense layer, and less than
    `LowRankLinear` of the same rank (PIFA, arXiv 2501.19090). Two products and the order of the outputs are one
    operator.

    Args:
        in_features, out_features: last dimensions of input and output.
        rank: of the weight, at most both of them.
        bias: whether one is added.
        device, dtype: of the parameters `pivot` `[rank, in_features]`, `interpolation` `[out_features - rank, rank]`
            and `bias` `[out_features]`. The buffer `index` `[out_features]`, int32, says which of the pivot rows, then
            the others, each output is; in a new layer the pivots are the first outputs.

    Shapes: `[*batch, in_features]` to `[*batch, out_features]`.

    Raises:
        TypeError, ValueError: a size that is no integer of 0 or more, or a rank that is too large.
        RuntimeError: an input of another dtype, size or device.

    >>> layer = PifaLinear(8, 6, 2)
    >>> layer
    PifaLinear(in_features=8, out_features=6, rank=2, bias=True)
    >>> layer(torch.zeros(5, 8)).shape
    torch.Size([5, 6])
    """

    index: Tensor

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
        others = self.out_features - self.rank
        self.pivot = nn.Parameter(torch.empty(self.rank, self.in_features, device=device, dtype=dtype))
        self.interpolation = nn.Parameter(torch.empty(others, self.rank, device=device, dtype=dtype))
        self.register_buffer("index", torch.empty(self.out_features, device=device, dtype=torch.int32))
        self.reset_parameters()

    @classmethod
    def from_factors(cls, left: Tensor, right: Tensor, bias: Tensor | None = None) -> PifaLinear:
        """The layer with the weight `left @ right`, the same map up to rounding.

        Pivots are chosen in float64 so that no coefficient of the interpolation is above 2; they and the other rows
        each keep their order, which the operator is quickest with. The rank of the layer is that of `left`: less than
        its columns where some of them depend on others.

        Args:
            left: `[out, rank]`.
            right: `[rank, in]`, the dtype and device of `left`.
            bias: `[out]`, or None.

        Raises:
            RuntimeError: shapes, dtypes or devices that do not fit, or a factor that is not finite.
            ValueError: a rank above `in`.

        >>> left, right = torch.tensor([[1.0], [2.0], [-4.0]]), torch.tensor([[1.0, 3.0]])
        >>> layer = PifaLinear.from_factors(left, right)
        >>> layer.pivot.tolist(), layer.interpolation.tolist(), layer.index.tolist()
        ([[-4.0, -12.0]], [[-0.25], [-0.5]], [1, 2, 0])
        """
        exact_left, exact_right = (t.cpu() for t in given_factors(cls.__name__, left, right, bias))
        pivots, others, coefficients = interpolative_rows(exact_left, exact_right)
        sizes = (right.shape[1], left.shape[0], len(pivots))
        made = cls(*sizes, bias is not None, left.device, left.dtype)
        with torch.no_grad():
            made.pivot.copy_(exact_left[pivots] @ exact_right)
            made.interpolation.copy_(coefficients)
            made.index[torch.cat([pivots, others]).to(left.device)] = torch.arange(
                len(left), dtype=torch.int32, device=left.device
            )
            if bias is not None and made.bias is not None:
                made.bias.copy_(bias)
        return made

    def reset_parameters(self) -> None:
        """Draw outputs of the variance of those of `torch.nn.Linear`; the pivots are the first of them."""
        super().reset_parameters()
        draw(self.pivot, 1 / 3)
        draw(self.interpolation, 1.0)
        with torch.no_grad():
            self.index.copy_(torch.arange(self.out_features, device=self.index.device))

    def forward(self, input: Tensor) -> Tensor:
        """See the class."""
        return ops.pifa_linear(input, self.pivot, self.interpolation, self.index, self.bias)

    def plain(self) -> fx.GraphModule:
        """The same map in torch alone, which can be saved and loaded without stonefx.

        Its rows are put in order by a pass of their own, which this layer saves.

        >>> print(PifaLinear(8, 6, 2).plain().code.strip())
        def forward(self, x):
            pivot = self.pivot(x);  x = None
            interpolation = self.interpolation(pivot)
            cat = torch.cat([pivot, interpolation], -1);  pivot = interpolation = None
            index = self.index
            index_select = torch.index_select(cat, -1, index);  cat = index = None
            bias = self.bias
            add = index_select + bias;  index_select = bias = None
            return add
        """
        root = nn.Module()
        for name, weight in (("pivot", self.pivot), ("interpolation", self.interpolation)):
            out, width = weight.shape
            if name == "interpolation" and out == 0:
                continue
            linear = skip_init(nn.Linear, width, out, bias=False, device=weight.device, dtype=weight.dtype)
            with torch.no_grad():
                linear.weight.copy_(weight)
            root.add_module(name, linear)
        root.register_buffer("index", self.index.clone())
        if self.bias is not None:
            root.bias = nn.Parameter(self.bias.detach().clone())
        graph = fx.Graph()
        rows = hidden = graph.call_module("pivot", (graph.placeholder("x"),))
        if self.interpolation.shape[0] > 0:
            rows = graph.call_function(
                torch.cat, ([hidden, graph.call_module("interpolation", (hidden,))], -1)
            )
        y = graph.call_function(torch.index_select, (rows, -1, graph.get_attr("index")))
        if self.bias is not None:
            y = graph.call_function(operator.add, (y, graph.get_attr("bias")))
        graph.output(y)
        return fx.GraphModule(root, graph, "PlainPifaLinear").train(self.training)
