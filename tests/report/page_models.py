"""Reports to show as pages: of a model with all kinds of sites, of 48 blocks, and of names that try to break out."""

import torch
from reports import report, site
from torch import nn
from torch.nn import functional as F

import stonefx
from stonefx.passes.refusal import Refusal
from stonefx.report import Report

HOSTILE = "</script><script>window.broken=1</script><img src=x onerror=window.broken=1>\"'&"


class Tangent(nn.Module):
    """An exponential map, spelled out."""

    def forward(self, v):
        norm = v.norm(dim=-1, keepdim=True).clamp_min(1e-15)
        return torch.tanh(norm) * v / norm


class Clamped(nn.Module):
    """What only looks like a logarithmic map."""

    def forward(self, x):
        norm = x.norm(dim=-1, keepdim=True).clamp(1e-5, 0.5)
        return torch.atanh(norm) * x / norm


class Head(nn.Module):
    """A low-rank pair, an activation, a residual, an active dropout, an exponential map and a near miss."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Linear(256, 16, bias=False)
        self.middle = nn.Linear(16, 16, bias=False)
        self.up = nn.Linear(16, 256)
        self.narrow = nn.Linear(256, 64)
        self.out = nn.Linear(64, 64)
        self.last = nn.Linear(64, 64)
        self.tangent, self.clamped = Tangent(), Clamped()

    def forward(self, x):
        y = F.gelu(self.up(self.middle(self.down(x)))) + x
        y = self.out(self.narrow(y))
        return self.clamped(self.tangent(self.last(F.dropout(y, 0.1))))


def model_report() -> Report:
    """The report of a model that has rewritten sites, refused ones and a near miss."""
    torch.manual_seed(0)
    made = stonefx.explain(nn.ModuleDict({"head": Head()}).eval()["head"], torch.randn(64, 256))
    made.measured = {"before": 3.2e-4, "after": 2.1e-4}
    return made


def tall_report(one: Report, blocks: int = 48) -> Report:
    """A report of a model of equal blocks."""
    return Report.merge((f"decoder.layers.{number}", one) for number in range(blocks))


def hostile_report() -> Report:
    """A report in which every text tries to be markup."""
    line = f"%y: f32[4] = aten.linear(%x, {HOSTILE}.weight)  # {HOSTILE}.py:3"
    why = Refusal("kept", weight=HOSTILE)
    return report(
        sites=[
            site(
                module_path=HOSTILE, source=f"/home/{HOSTILE}.py:3", nodes=("y",), guards={HOSTILE: HOSTILE}
            ),
            site(status="refused", reason=why, target=HOSTILE, module_path=HOSTILE, nodes=("y",)),
            site(status="near miss", reason=HOSTILE, pass_name=HOSTILE, output=HOSTILE),
        ],
        before=line,
        after=line.replace("aten", "stone"),
        notes=[HOSTILE],
        weights={HOSTILE: [HOSTILE]},
        backend={"door": HOSTILE},
        seconds={HOSTILE: 1.0},
    )
