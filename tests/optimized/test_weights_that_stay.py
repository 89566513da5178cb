"""A weight that the graph goes on to read may change later, and what was computed from it must not stay behind."""

import pytest
import torch
from torch import nn

import stonefx


class Normed(nn.Module):
    """A weight that is read as it is and through its norm."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 16))
        self.scale = nn.Parameter(torch.randn(8))

    def forward(self, x):
        return torch.tanh(x @ self.weight.t()) / self.weight.norm(dim=1) * self.scale.exp()


@pytest.mark.parametrize("release", [True, False])
def test_training_an_optimized_model_keeps_its_values_together(release):
    torch.manual_seed(0)
    model, x = Normed().eval(), torch.randn(4, 16)
    fast = stonefx.optimize(model, x, release=release)
    split = [site for site in fast.report.sites if site.code == "split_weight"]
    assert [site.figures["weight"] for site in split] == (["weight"] if release else [])
    assert not release or "release=False" in split[0].reason.cure
    # What is computed from a weight that nothing else reads is folded all the same.
    assert any("exp" in site.reason for site in fast.report.rewritten("weight_expression"))
    with torch.no_grad():
        for each in (model, fast):
            dict(each.named_parameters())["weight"].mul_(1.5)
        torch.testing.assert_close(fast(x), model(x))


def test_a_compiled_model_computes_it_again():
    torch.manual_seed(0)
    model, x = Normed().eval(), torch.randn(4, 16)
    with torch.no_grad():
        fast = torch.compile(model, backend="stone", options={"inner": "eager"})
        torch.testing.assert_close(fast(x), model(x))
        model.weight.mul_(1.5)
        torch.testing.assert_close(fast(x), model(x))
    assert len(stonefx.last_report().rewritten("weight_expression")) == 2
