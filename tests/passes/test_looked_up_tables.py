"""A map behind a look-up is folded into the table, where the weights then take no more bytes."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import stonefx

ROWS, INPUTS, OUTPUTS, LENGTH = 30, 24, 8, 6


class Table(nn.Module):
    """Tokens looked up in a table, and a map of what was found."""

    def __init__(self, rows=ROWS, inputs=INPUTS, outputs=OUTPUTS, **options):
        super().__init__()
        self.table, self.map = nn.Embedding(rows, inputs, **options), nn.Linear(inputs, outputs)

    def forward(self, tokens):
        return self.map(self.table(tokens))


class Positions(Table):
    """With positions, looked up in another table."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Embedding(LENGTH + 5, INPUTS)

    def forward(self, tokens):
        return self.map(self.table(tokens) + self.positions(torch.arange(tokens.shape[1])))


class Parameter(Table):
    """With positions that are a parameter, and the usual factor."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, LENGTH + 5, INPUTS))

    def forward(self, tokens):
        return self.map(self.table(tokens) * INPUTS**0.5 - self.positions[:, : tokens.shape[1]])


class Sum(Table):
    """Three tables, one of them for two features, and a second map behind a mean."""

    def __init__(self):
        super().__init__()
        self.types, self.positions = nn.Embedding(2, INPUTS), nn.Embedding(LENGTH, INPUTS)
        self.head = nn.Linear(OUTPUTS, 3, bias=False)

    def forward(self, tokens):
        places = self.positions(torch.arange(LENGTH)) + self.types(torch.arange(LENGTH) % 2)
        return self.head(self.map(self.table(tokens) + places + self.types(tokens % 2)).mean(1))


class Rows(nn.Module):
    """Rows of a parameter, by an index, behind the map and a view."""

    def __init__(self, select):
        super().__init__()
        self.rows, self.map, self.select = (
            nn.Parameter(torch.randn(ROWS, INPUTS)),
            nn.Linear(INPUTS, OUTPUTS),
            select,
        )

    def forward(self, tokens):
        return self.map(self.select(self.rows, tokens)).relu()


MODELS = {
    "a table": Table,
    "two maps": lambda: nn.Sequential(Table(outputs=40), nn.Linear(40, OUTPUTS)),
    "fewer rows than features": lambda: Table(rows=3, outputs=50),
    "a row without gradient": lambda: Table(padding_idx=2),
    "a row without gradient, from the end": lambda: Table(padding_idx=-1),
    "positions": Positions,
    "positions that are a parameter": Parameter,
    "sums of tables": Sum,
    "index": lambda: Rows(lambda rows, tokens: rows[tokens]),
    "index_select": lambda: Rows(
        lambda rows, tokens: rows.index_select(0, tokens.flatten()).unflatten(0, (-1, LENGTH))
    ),
    "transposed": lambda: Rows(lambda rows, tokens: F.embedding(tokens, rows).transpose(0, 1)),
    "a masked sum": lambda: Rows(lambda rows, tokens: (rows[tokens] * (tokens > 3).unsqueeze(-1)).sum(1)),
}


def tokens(batch, below=3):
    return torch.randint(0, below, (batch, LENGTH), generator=torch.Generator().manual_seed(batch))


def made(name):
    torch.manual_seed(0)
    return MODELS[name]().eval()


def assert_close(got, want, model, inputs):
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(inputs)
    if exact.numel():
        own, error = (float((each - exact).abs().max()) for each in (want, got))
        assert error <= 4 * own + 8 * torch.finfo(want.dtype).eps * float(exact.abs().max())


@pytest.mark.parametrize("name", MODELS)
def test_the_map_is_folded_into_the_table(name):
    model = made(name)
    before = sum(each.numel() for each in model.parameters())
    fast = stonefx.optimize(model, (tokens(4),), machine="default")
    (site,) = fast.report.rewritten("linear_chain")
    added = [line for line in fast.report.diff().splitlines() if line.startswith("+")]
    assert not any("aten.linear" in line for line in added), site.reason
    assert site.flops_after == 0 and site.params_before > site.params_after
    assert sum(each.numel() for each in fast.parameters()) < before
    for batch in (4, 2, 7, 0):
        given = tokens(batch)
        want, got = model(given), fast(given)
        assert got.shape == want.shape and got.dtype == want.dtype and got.stride() == want.stride()
        assert_close(got, want, model, given)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["a table", "positions"])
def test_in_other_dtypes(name, dtype):
    model = made(name).to(dtype)
    fast = stonefx.optimize(model, (tokens(4),), machine="default")
    assert fast.report.rewritten("linear_chain")
    with torch.no_grad():
        assert_close(fast(tokens(7)), model(tokens(7)), model, tokens(7))


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_the_weights_that_stay(name):
    model = made(name).double()
    fast = stonefx.optimize(
        model, (tokens(4, ROWS if "fewer" not in name else 3),), release=False, machine="default"
    )
    given = tokens(7, ROWS if "fewer" not in name and "from the end" in name else 3)
    for each in (model, fast):
        each(given).sin().sum().backward()
    found = dict(fast.named_parameters())
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(found[key].grad, parameter.grad, rtol=1e-9, atol=1e-9)


def test_a_table_that_others_read_is_followed():
    """Two rows take fewer bytes than the map that goes; the table itself is read by the output as well."""

    class Tied(Table):
        def forward(self, tokens):
            return self.map(self.table(tokens)).relu().mean() + F.linear(
                torch.ones(INPUTS), self.table.weight
            )

    torch.manual_seed(0)
    model = Tied(rows=2, outputs=64).eval()
    fast = stonefx.optimize(model, (tokens(4, 2),), machine="default")
    assert fast.report.rewritten("linear_chain")
    torch.testing.assert_close(fast(tokens(5, 2)), model(tokens(5, 2)))
    kept = stonefx.optimize(model, (tokens(4, 2),), machine="default", release=False)
    with torch.no_grad():
        for each in (model, kept):
            each.table.weight.mul_(2)
            each.map.bias.add_(1)
    torch.testing.assert_close(kept(tokens(5, 2)), model(tokens(5, 2)))


def refused(model, door="optimize", **options):
    if door == "optimize":
        with pytest.warns(stonefx.StonefxWarning):
            report = stonefx.optimize(model, (tokens(4),), machine="default", **options).report
    else:
        torch._dynamo.reset()
        with torch.no_grad(), pytest.warns(stonefx.StonefxWarning):
            torch.compile(model, backend="stone", options={"inner": "eager", "machine": "default"})(tokens(4))
        report = stonefx.last_report()
    (site,) = report.sites
    assert site.status == "refused"
    return site


def test_a_larger_table_is_refused_with_its_bytes():
    site = refused(Table(10 * ROWS, outputs=40).eval())
    assert site.code == "table_larger"
    before, after = 4 * (10 * ROWS * INPUTS + INPUTS * 40 + 40), 4 * 10 * ROWS * 40
    assert (site.figures["before"], site.figures["after"]) == (before, after)
    assert "table.weight" in site.reason and f"{before:,}" in site.reason


def test_a_table_that_stays_is_no_gain():
    class Tied(Table):
        def forward(self, tokens):
            return self.map(self.table(tokens)).relu() + self.table.weight.sum()

    site = refused(Tied().eval())
    assert site.code == "table_larger" and site.figures["before"] == 4 * (INPUTS * OUTPUTS + OUTPUTS)


def test_what_the_model_keeps_is_not_doubled():
    site = refused(Table().eval(), "compile")
    assert site.code == "table_larger" and site.figures["before"] == 0


class Between(nn.Module):
    """Positions between two maps."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(LENGTH, INPUTS), nn.Linear(INPUTS, OUTPUTS)
        self.positions = nn.Parameter(torch.randn(LENGTH, INPUTS))

    def forward(self, tokens):
        return self.second(self.first(F.one_hot(tokens, LENGTH).to(self.positions.dtype)) + self.positions)


def test_positions_between_two_maps():
    torch.manual_seed(0)
    model = Between().eval()
    fast = stonefx.optimize(model, (tokens(4),), machine="default")
    (site,) = fast.report.rewritten("linear_chain")
    assert sum(each.numel() for each in fast.parameters()) == OUTPUTS * (LENGTH + LENGTH + 1), site.reason
    assert_close(fast(tokens(7)), model(tokens(7)), model, tokens(7))
    site = refused(model, "compile")
    assert site.code == "table_larger" and "positions" in site.reason


def test_weights_without_the_feature_axis_are_no_table():
    """One feature along the second axis, which the weight does not have."""

    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.map, self.shift = nn.Linear(5, INPUTS), nn.Parameter(torch.randn(INPUTS))
            self.convolution = nn.Conv1d(1, 4, 2, stride=2, bias=False)

        def forward(self, x):
            return self.convolution(self.map(x) - self.shift)

    torch.manual_seed(0)
    model, x = One().eval(), torch.randn(3, 1, 5)
    fast = stonefx.optimize(model, (x,), machine="default")
    torch.testing.assert_close(fast(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("option", ["sparse", "scale_grad_by_freq"])
def test_other_gradients_are_refused(option):
    site = refused(Table(**{option: True}).eval())
    assert site.code == "table_gradient" and "table.weight" in site.reason


def test_a_table_that_is_to_be_kept():
    site = refused(Table().eval(), keep=("table",))
    assert site.code == "kept" and "table.weight" in site.reason


def test_a_table_that_is_normed_in_place_stays():
    torch.manual_seed(0)
    model = Table(max_norm=1.0).eval()
    fast = stonefx.optimize(model, (tokens(4),), machine="default", on_error="eager")
    with torch.no_grad():
        torch.testing.assert_close(fast(tokens(7)), model(tokens(7)))


@pytest.mark.parametrize("where", ["mean", "padding"])
def test_look_alikes(where):
    """A norm between, and positions that depend on the features: nothing is folded."""

    class Between(Table):
        def forward(self, tokens):
            found = self.table(tokens)
            return self.map(F.normalize(found, dim=-1) if where == "mean" else found.softmax(-1))

    torch.manual_seed(0)
    model = Between().eval()
    fast = stonefx.optimize(model, (tokens(4),), machine="default")
    assert not fast.report.rewritten("linear_chain")
    torch.testing.assert_close(fast(tokens(7)), model(tokens(7)))
