"""The count of floating-point operations, against torch's own counter and against products written out."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stonefx.passes.cost.flops import node_flops, product_flops

PRODUCTS = {
    "linear": (F.linear, [(3, 4, 5), (6, 5), (6,)]),
    "mm": (torch.mm, [(4, 5), (5, 6)]),
    "bmm": (torch.bmm, [(3, 4, 5), (3, 5, 6)]),
    "matmul": (torch.matmul, [(2, 3, 4, 5), (5, 6)]),
    "addmm": (torch.addmm, [(6,), (4, 5), (5, 6)]),
    "baddbmm": (torch.baddbmm, [(3, 1, 6), (3, 4, 5), (3, 5, 6)]),
    "tensordot": (lambda x, w: torch.tensordot(x, w, dims=([0, 2], [1, 0])), [(3, 4, 5), (5, 3, 6)]),
    "einsum": (lambda x, w: torch.einsum("gni,gio->gno", x, w), [(3, 4, 5), (3, 5, 6)]),
    "einsum, the group summed": (lambda x, w: torch.einsum("gni,gio->no", x, w), [(3, 4, 5), (3, 5, 6)]),
    "einsum, an ellipsis": (lambda x, w: torch.einsum("...i,oi->...o", x, w), [(3, 4, 5), (6, 5)]),
    "convolution": (F.conv2d, [(2, 3, 8, 8), (4, 3, 3, 3)]),
    "groups": (lambda x, w: F.conv1d(x, w, stride=2, groups=2), [(2, 4, 9), (6, 2, 3)]),
    "transposed": (lambda x, w: F.conv_transpose2d(x, w, stride=2), [(2, 3, 4, 4), (3, 5, 2, 2)]),
    "attention": (F.scaled_dot_product_attention, [(1, 2, 4, 8), (1, 2, 7, 8), (1, 2, 7, 8)]),
}


def counted(function, shapes):
    module = make_fx(function, pre_dispatch=True, tracing_mode="fake")(*(torch.randn(s) for s in shapes))
    return [node_flops(node) for node in module.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_count_what_torch_counts(name):
    function, shapes = PRODUCTS[name]
    # Torch counts no fused attention on a CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        function(*(torch.randn(shape) for shape in shapes))
    assert max(counted(function, shapes)) == counter.get_total_flops() > 0


def test_anything_else_counts_the_entries_that_it_reads_or_writes():
    assert counted(lambda x: x.sum(-1), [(3, 4)]) == [12]
    assert counted(lambda x: x.unsqueeze(0) + torch.zeros(5, 1, 1), [(3, 4)])[-1] == 60


def test_a_product_over_no_extents_is_one_multiplication_and_one_addition():
    assert product_flops() == 2
    assert product_flops(0, 5) == 0
