"""What torch computes in one call is timed whole: a clock that counts what runs stands for the machine's."""

import pytest
import torch
from torch import nn

import stonefx
from stonefx.compress import latency
from stonefx.machine import clock

QUICK = {"forms": ["pair"], "max_ratio": 0.6, "progress": False}


class Counter:
    """Time passes where a module is called: as long as it is told for what is fused, and by weights for linear layers.

    A fused module that has run is charged alone, whatever it called within itself.
    """

    def __init__(self, fused, seconds):
        self.now, self.fused, self.seconds = 0.0, fused, seconds
        self.handles = [
            nn.modules.module.register_module_forward_pre_hook(self.before),
            nn.modules.module.register_module_forward_hook(self.after),
        ]
        self.starts = []

    def is_fused(self, module):
        if type(module) is not self.fused:
            return False
        if isinstance(module, nn.TransformerEncoderLayer):
            return type(module.self_attn) is nn.MultiheadAttention and type(module.linear1) is nn.Linear
        return not isinstance(module, nn.RNNBase) or module.num_layers > 1

    def before(self, module, args):
        if self.is_fused(module):
            self.starts.append(self.now)

    def after(self, module, args, result):
        if self.is_fused(module):
            self.now = self.starts.pop() + self.seconds
        elif isinstance(module, nn.Linear):
            self.now += 1e-6 * module.in_features * module.out_features
        elif isinstance(module, stonefx.nn.LowRankLinear):
            self.now += 1e-6 * module.rank * (module.in_features + module.out_features)
        elif isinstance(module, nn.RNNBase):
            self.now += 1e-6 * sum(p.numel() for p in module.parameters())

    def __call__(self):
        return self.now


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(64, 4, batch_first=True)
        self.head = nn.Linear(64, 64)

    def forward(self, x):
        return self.head(self.inner(x, x, x, need_weights=False)[0])


class Stacked(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.LSTM(64, 16, 2, batch_first=True)
        self.head = nn.Linear(16, 8)

    def forward(self, x):
        return self.head(self.inner(x)[0])


class Encoding(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.TransformerEncoderLayer(64, 4, 96, batch_first=True)
        self.head = nn.Linear(64, 64)

    def forward(self, x):
        return self.head(self.inner(x))


CASES = {
    "attention": (Attending, nn.MultiheadAttention, 1e-4, "both", False),
    "recurrent": (Stacked, nn.LSTM, 1e-4, "both", False),
    "encoder layer": (Encoding, nn.TransformerEncoderLayer, 1e-4, "both", False),
    "slow attention": (Attending, nn.MultiheadAttention, 1e3, "both", True),
    "slow encoder layer": (Encoding, nn.TransformerEncoderLayer, 1e3, "both", True),
    "attention, bytes alone": (Attending, nn.MultiheadAttention, 1e-4, "bytes", True),
}


@pytest.fixture
def clocked(monkeypatch):
    made = []

    def start(fused, seconds):
        counter = Counter(fused, seconds)
        made.append(counter)
        monkeypatch.setattr(clock, "clock_of", lambda device: counter)
        monkeypatch.setattr(latency, "_known", {})
        return counter

    yield start
    for counter in made:
        for handle in counter.handles:
            handle.remove()


@pytest.mark.parametrize("case", CASES)
def test_what_was_one_call_is_refused_where_its_parts_take_longer(clocked, case):
    build, fused, seconds, cost, kept = CASES[case]
    torch.manual_seed(0)
    model, data = build().eval(), [torch.randn(2, 4, 64) for _ in range(8)]
    clocked(fused, seconds)
    small, stats = stonefx.compress(model, data, cost=cost, **QUICK)
    changed = [r.path for r in stats.layers if r.path.startswith("inner.") and r.form.startswith("pair")]
    assert bool(changed) is kept
    if kept:
        return
    assert type(small.inner) is type(model.inner)
    reason = "slower than inner as it was, all of which was computed in one call"
    assert any(reason in row.reason for row in stats.layers)


class Reading(nn.Module):
    """Code that computes with the weights of its layers by itself."""

    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(32, 4)
        self.other = nn.MultiheadAttention(32, 4)
        self.head = nn.Linear(32, 32)

    def forward(self, x):
        weights = self.inner.in_proj_weight, self.inner.in_proj_bias
        out = self.inner.out_proj.weight, self.inner.out_proj.bias
        y, _ = nn.functional.multi_head_attention_forward(
            x, x, x, 32, 4, *weights, None, None, False, 0.0, *out, need_weights=False
        )
        return self.head(self.other(y, y, y, need_weights=False)[0])


def test_attention_whose_weights_are_read_stays_and_the_others_are_split():
    torch.manual_seed(0)
    model, data = Reading().eval(), [torch.randn(2, 4, 32) for _ in range(8)]
    small, stats = stonefx.compress(model, data, cost="bytes", **QUICK)
    assert type(small.inner) is nn.MultiheadAttention and stats.reached
    assert {row.path for row in stats.layers if row.form == "split"} == {"other"}
    assert any(
        "inner was not split into layers, which the model's code does not take" in n for n in stats.notes
    )


def test_layers_of_an_encoder_that_packs_padded_samples_are_timed():
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 2, 64, batch_first=True), 1)

        def forward(self, x, attention_mask):
            return self.encoder(x, src_key_padding_mask=attention_mask == 0)

    torch.manual_seed(0)
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    data = [{"x": torch.randn(2, 3, 32), "attention_mask": mask} for _ in range(8)]
    _, stats = stonefx.compress(Padded().eval(), data, layers="*linear*", **QUICK)
    rows = [row for row in stats.layers if "linear" in row.path]
    assert rows and all(row.seconds_before for row in rows)
