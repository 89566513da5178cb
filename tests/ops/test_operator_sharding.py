"""Every placement that a sharding rule offers gives, part by part, what the operator gives on the whole."""

import pytest
import torch
from operator_cases import LOW_RANK, arguments, overload, without_bias
from row_cases import NAMES as ROW_NAMES
from row_cases import row_arguments
from torch.distributed.tensor import DTensor

from stonefx.ops.library import _declared
from stonefx.ops.sharding import Dimensions

PARTS = 2
BATCHES = [(), (5,), (3, 4)]


def operands(name, batch):
    """Operands in float64 with this batch; numbers of the row that each row has for itself."""
    generator = torch.Generator().manual_seed(3)

    def normal(*shape):
        return 0.2 * torch.randn(*shape, generator=generator, dtype=torch.float64)

    if name in ROW_NAMES or name == "point_of_distances":
        return row_arguments(name, batch=batch) if name in ROW_NAMES else (normal(*batch, 6), c_of(batch))
    if name in ("expmap0", "logmap0", "mobius_add", *LOW_RANK):
        return arguments(name, batch=batch, c=None if name in LOW_RANK else c_of(batch))
    x, y, c = normal(*batch, 6, 4), normal(*batch, 7, 4), c_of(batch).unsqueeze(-1)
    return {
        "add_time": lambda: (normal(*batch, 6), c_of(batch)),
        "butterfly": lambda: (normal(*batch, 8), normal(4, 4, 2)),
        "hyper_butterfly": lambda: (normal(*batch, 8), normal(4, 4, 2), c_of(batch)),
        "poincare_cdist": lambda: (x, y, c),
        "klein_cdist": lambda: (x, y, c),
        "lorentz_cdist": lambda: (x, y, c),
        "poincare_cdist_epilogue": lambda: (x @ y.mT, x, y, c),
        "poincare_linear_epilogue": lambda: (normal(*batch, 6), normal(*batch, 4), normal(4), c_of(batch)),
        "poincare_hyperplanes": lambda: (
            normal(*batch, 5),
            normal(*batch, 6),
            normal(5),
            1 + normal(5),
            c_of(()),
        ),
    }[name]()


def c_of(batch):
    return torch.linspace(0.4, 0.9, torch.Size(batch).numel(), dtype=torch.float64).reshape(*batch, 1)


def part(tensor, place, rank):
    """What one process holds of a tensor."""
    if tensor is None or place == "whole":
        return tensor
    if place == "sum":
        return (0.75 if rank else 0.25) * tensor
    return tensor.chunk(PARTS, place)[rank]


def whole(parts, place):
    if place == "sum":
        return sum(parts)
    if place == "whole":
        assert all(torch.allclose(each, parts[0], rtol=1e-12, atol=0) for each in parts)
        return parts[0]
    return torch.cat(parts, place)


def agree(got, expected):
    assert got.shape == expected.shape
    scale = expected.abs().max().clamp_min(1e-300) if expected.numel() else 1.0
    assert got.numel() == 0 or ((got - expected).abs().max() <= 1e-12 * scale)


def check(operator, args, options, choices):
    expected = operator(*args, **options)
    results = expected if isinstance(expected, tuple) else (expected,)
    for to, of in choices:
        runs = [
            operator(*(part(a, p, rank) for a, p in zip(args, of, strict=True)), **options)
            for rank in range(PARTS)
        ]
        runs = [run if isinstance(run, tuple) else (run,) for run in runs]
        for each, place, result in zip(zip(*runs, strict=True), to, results, strict=True):
            agree(whole(each, place), result)


def shapes(args):
    return [None if a is None else a.shape for a in args]


BROADCASTS = {*ROW_NAMES, "mobius_add", "poincare_cdist", "klein_cdist", "lorentz_cdist"}
BIAS = {"low_rank_linear": 3, "pifa_linear": 4, "poincare_linear_epilogue": 2}


def variants(name, batch):
    """Operands that each row has for itself, that rows share, that repeat, and that are left out."""
    args, labels = operands(name, batch), _declared[name].dimensions.operands
    yield args
    numbers = [i for i, label in enumerate(labels) if label in ("*1", "*11")]
    yield tuple(a.reshape(-1)[0] if i in numbers else a for i, a in enumerate(args))
    vectors = [i for i, label in enumerate(labels) if label.startswith("*") and i not in numbers]
    if batch and name in BROADCASTS and len(vectors) > 1:
        own = [len(label) - 1 for label in labels]
        yield tuple(a.flatten(0, -own[i] - 1)[0] if i in vectors[1:] else a for i, a in enumerate(args))
        if name in ROW_NAMES or name == "mobius_add":
            yield tuple(a[:1] if i == 0 else a for i, a in enumerate(args))
    if name in BIAS:
        yield tuple(None if i == BIAS[name] else a for i, a in enumerate(args))


@pytest.mark.parametrize("batch", BATCHES, ids=str)
@pytest.mark.parametrize("name", list(_declared))
def test_every_choice_is_right(name, batch):
    dimensions = _declared[name].dimensions
    for args in variants(name, batch):
        choices = list(dimensions.forward(shapes(args)))
        assert len(choices) >= len([size for size in batch if size > 1])
        check(overload(f"{name}_forward"), args, {}, choices)
        grad = torch.randn_like(overload(f"{name}_forward")(*args))
        options, left_out = {}, ()
        if name in LOW_RANK:
            options = {"has_bias": args[BIAS[name]] is not None}
            left_out = () if options["has_bias"] else (BIAS[name],)
            args = without_bias(name, args)
        choices = list(dimensions.backward(shapes(args), left_out))
        check(overload(f"{name}_backward"), (grad, *args), options, choices)


def test_every_operator_has_rules():
    known = DTensor._op_dispatcher.sharding_propagator.op_strategy_funcs
    missing = [
        f"{name}{suffix}"
        for name in _declared
        for suffix in ("", "_forward", "_backward")
        if overload(f"{name}{suffix}") not in known
    ]
    assert not missing


def test_operands_that_rows_share_are_whole():
    rows = Dimensions(operands=("*d", "*d", "*1"), result="*d")
    # a row for all, a number for all, a batch of size 1
    (choice,) = rows.forward([(5, 3), (3,), ()])
    assert choice == ([0], [0, "whole", "whole"])
    (choice,) = rows.forward([(1, 5, 3), (5, 3), (1, 1)])
    assert choice == ([1], [1, 0, "whole"])
    (choice,) = rows.backward([(5, 3), (1, 3), (1,)])
    assert choice == ([0, 0, 0], [0, 0, "whole", "whole"])


def test_rows_that_cannot_be_split_are_left_whole():
    rows = Dimensions(operands=("*d", "*1"), result="*d")
    assert list(rows.forward([(3,), ()])) == []
    assert list(rows.forward([(1, 3), (1, 1)])) == []
