"""Sizes and conditions on them, as trees and as Python."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from stonefx.saving.expressions import check, source_of, tree_of, value_of

SIZES = {"s0": 7, "s1": 12}


def evaluated(source: str) -> Any:
    return eval(source, {"math": math}, dict(SIZES))


@pytest.mark.parametrize(
    "source",
    [
        "s0", "2*s0", "s0 + 3*s1 - 1", "(s0 + 1) // 2", "s0 % 4", "-s0 + 20", "s0**2", "(-s0)**2", "(-3)**2 + s0",
        "s0 / 2", "s0 == 7", "s0 != 7", "s0*s1 % 2 == 0", "2 <= s0 and s0 <= 64", "s0 < 3 or s1 >= 12", "not s0 > 3",
        "2 < s0 < 9", "max(1, s0)", "min(s0, s1, 4)", "math.floor(0.5*s0)", "math.ceil(s0 / 4)", "math.trunc(s0/3)",
        "math.sqrt(s1)", "(3 if s0 > 4 else s1)", "abs(s0 - s1)", "int(s0 / 2)", "float(s0)", "round(s0 / 2)",
        "-(-(s0 - 9))", "s0 - (s1 - 2)", "(s0 // 2) * 2", "s0 // (2 * 2)", "(s0 < s1) == (s1 > s0)",
    ],
)  # fmt: skip
def test_source_and_tree_say_the_same(source: str) -> None:
    tree = check(tree_of(source), "it", SIZES)
    assert value_of(tree, SIZES) == evaluated(source) == evaluated(source_of(tree))


def random_tree(chance: random.Random, depth: int) -> Any:
    if depth == 0 or chance.random() < 0.2:
        return chance.choice(["s0", "s1", chance.randint(-9, 9)])

    def inner() -> Any:
        return random_tree(chance, depth - 1)

    match chance.randrange(7):
        case 0 | 1:
            return [chance.choice(["add", "sub", "mul"]), inner(), inner()]
        case 2:
            return [chance.choice(["floordiv", "mod", "truediv"]), inner(), chance.choice([2, 3, -5])]
        case 3:
            return [chance.choice(["neg", "not", "abs", "math.floor", "int", "float"]), inner()]
        case 4:
            return [chance.choice(["eq", "ne", "lt", "le", "gt", "ge"]), inner(), inner()]
        case 5:
            return [chance.choice(["max", "min"]), inner(), inner(), inner()]
        case _:
            return ["if", ["lt", inner(), inner()], inner(), inner()]


def test_random_trees() -> None:
    for seed in range(500):
        tree = check(random_tree(random.Random(seed), 4), "it", SIZES)
        source = source_of(tree)
        value = evaluated(source)
        assert value_of(tree, SIZES) == value, source
        assert evaluated(source_of(tree_of(source))) == value, source


@pytest.mark.parametrize(
    "source",
    [
        "print(s0)", "__import__('os')", "s0.real", "s0[0]", "lambda: s0", "[s0]", "s0 if", "'s0'", "f'{s0}'",
        "s0 << 9", "(s0 := 3)", "x", "math.factorial(s0)", "max(s0, key=abs)", "s0 ** s1", "s0 ** 99", "1j", "1e999",
        "s0 @ s1",
    ],
)  # fmt: skip
def test_what_is_no_arithmetic_of_sizes(source: str) -> None:
    with pytest.raises(TypeError, match="cannot save the size expression"):
        tree_of(source)
