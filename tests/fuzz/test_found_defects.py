"""What random modules found, each as small as it became."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import stonefx


class Widened(nn.Module):
    """A region in float32 whose result goes on in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x)).double() * 2


def test_a_wide_result_of_a_narrow_region_is_judged_by_the_region() -> None:
    torch.manual_seed(0)
    model, x = Widened().eval(), torch.randn(4, 8)
    fast = stonefx.optimize(model, x)
    assert fast.report.rewritten("linear_chain")
    torch.testing.assert_close(fast(x), model(x), rtol=1e-5, atol=1e-6)


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).detach())


def test_no_gradient_goes_through_a_detach() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 8, requires_grad=True)
    fast = stonefx.optimize(Detached().eval(), x)
    fast(x).sum().backward()
    assert x.grad is None or not x.grad.any()


class OneHead(nn.Module):
    """Features that are cut into a single head by `unflatten`."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            layer(x).unflatten(-1, (1, 8)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def test_a_single_head_cut_by_unflatten() -> None:
    torch.manual_seed(0)
    model, x = OneHead().eval(), torch.randn(4, 9, 8)
    fast = stonefx.optimize(model, x)
    torch.testing.assert_close(fast(x), model(x), rtol=1e-5, atol=1e-6)


class ViewedConvolutions(nn.Module):
    """Two convolutions that merge, and a view of their result that a channels-last one would not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(6, 2, 1, bias=False)
        self.second = nn.Conv1d(2, 4, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(self.first(x))
        y.view(-1).mul_(0.5)
        return y


def test_a_merged_convolution_keeps_the_memory_format_of_its_result() -> None:
    torch.manual_seed(0)
    model, x = ViewedConvolutions().eval(), torch.randn(5, 6, 24)
    fast = stonefx.optimize(model, x)
    assert fast.report.rewritten("conv_chain")
    result = fast(x)
    assert result.is_contiguous()
    torch.testing.assert_close(result, model(x), rtol=1e-5, atol=1e-6)


class ReturnsTransposed(nn.Module):
    """Returns its argument the other way round, which Dynamo leaves out of the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x.mT, self.layer(x), y.T, y.H


def test_an_attribute_of_an_argument_may_be_returned() -> None:
    model = ReturnsTransposed().eval()
    fast = stonefx.optimize(model, (torch.randn(2, 9, 4), torch.randn(2, 3)))
    x, y = torch.randn(5, 9, 4), torch.randn(5, 3)
    turned, mapped, first, second = fast(x, y)
    assert turned.data_ptr() == x.data_ptr() and turned.stride() == x.mT.stride()
    torch.testing.assert_close(mapped, model.layer(x))
    assert torch.equal(first, y.T) and torch.equal(second, y.H)


class TwoFeatureAxes(nn.Module):
    """A sum of a convolution of a single image, features first, and of a linear map, features last."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(4, 4, 1, bias=False)
        self.second = nn.Conv3d(4, 4, 1, bias=False)
        self.linear = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.rand(1))
        self.last = nn.Linear(4, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = (self.second(self.first(x)) + self.linear(x)) / 2 * self.scale.squeeze()
        return self.last(y.view_as(y))


def test_of_two_regions_that_end_at_one_value_one_is_merged() -> None:
    torch.manual_seed(0)
    model, x = TwoFeatureAxes().eval(), torch.randn(4, 4, 5, 4)
    fast = stonefx.optimize(model, x)
    (site,) = fast.report.rewritten("conv_chain")
    assert site.params_after < site.params_before
    (other,) = [each for each in fast.report.sites if "is merged instead" in each.reason]
    assert other.reason == "the region that ends at 'mul' with its features along axis 0 is merged instead"
    torch.testing.assert_close(fast(x), model(x), rtol=1e-5, atol=1e-6)


class ShiftedJoin(nn.Module):
    """Maps of two values, joined, and something done to all features that mixes none of them."""

    def __init__(self, finish) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 6))
        self.second = nn.Linear(5, 6)
        self.finish = finish

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.finish(torch.cat([self.first(x), self.second(y)], -1))


@pytest.mark.parametrize(
    "finish",
    [lambda z: z.add_(1), lambda z: z * -2 + 0.5, lambda z: z[..., 3:9], lambda z: z.split([7, 5], -1)[1]],
    ids=["shifted", "scaled", "sliced", "split"],
)
def test_what_follows_a_join_is_done_to_all_of_it(finish) -> None:
    torch.manual_seed(0)
    model, inputs = ShiftedJoin(finish).eval(), (torch.randn(40, 8), torch.randn(40, 5))
    fast = stonefx.optimize(model, inputs)
    assert not [site for site in fast.report.sites if "verification" in site.reason]
    assert fast.report.rewritten("linear_chain")
    torch.testing.assert_close(fast(*inputs), model(*inputs), rtol=1e-5, atol=1e-6)


class NormBesideItsInput(nn.Module):
    """A norm, and a map of what the norm reads, joined: that value is computed inside and read by the norm too."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(7, 8, bias=False)
        self.norm = nn.LayerNorm(8, bias=False)
        self.first, self.second = nn.Linear(8, 6, bias=False), nn.Linear(8, 6, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(x)
        return torch.cat([self.first(self.norm(y)), self.second(y)], -1)


def test_a_value_that_a_norm_reads_is_probed_once() -> None:
    torch.manual_seed(0)
    model, x = NormBesideItsInput().to(torch.bfloat16).eval(), torch.randn(4, 8, 7, dtype=torch.bfloat16)
    fast = stonefx.optimize(model, x)
    assert not [site for site in fast.report.sites if "verification" in site.reason]
    torch.testing.assert_close(fast(x), model(x), rtol=0.05, atol=0.05)


class Pooled(nn.Module):
    """Sums of what maps give into one place, by indices that the model or its caller holds."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.behind = nn.Linear(8, 8), nn.Linear(8, 8)
        self.places = nn.Buffer(torch.zeros(4, dtype=torch.long))

    def forward(self, x: torch.Tensor, places: torch.Tensor | None = None) -> torch.Tensor:
        places = self.places if places is None else places
        index = places.view(1, -1, 1).expand(x.shape[0], -1, x.shape[2])
        made = x.new_zeros((x.shape[0], 1, x.shape[2])).scatter_add(1, index, self.linear(x))
        return self.behind(made)


@pytest.mark.parametrize("given", [False, True])
def test_probes_are_indices_in_range(given: bool) -> None:
    torch.manual_seed(0)
    model, x = Pooled().eval(), torch.randn(3, 4, 8)
    inputs = (x, model.places.clone()) if given else (x,)
    fast = stonefx.optimize(model, inputs)
    assert fast.report.rewritten("linear_chain"), fast.report
    torch.testing.assert_close(fast(*inputs), model(*inputs), rtol=1e-5, atol=1e-5)
