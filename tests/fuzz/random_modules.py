"""`generate(seed)`: one random program for each seed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from random_blocks import activation, attention, convert, library_attention, nothing, row_norm
from random_builder import Builder, Draft
from random_carries import between_maps, carry, computed_weight, table
from random_convolutions import (
    channel_norm,
    convolution,
    functional_convolution,
    pointwise_pair,
    pool,
    resize,
)
from random_linear import (
    affine,
    batched,
    batched_sum,
    combine,
    fan_in,
    fan_out,
    heads,
    linear,
    low_rank_adapter,
    tied,
)
from random_program import Input, Program
from random_views import change, concatenate, pick, rearrange, split

Operation = Callable[[Builder, str], Draft | str | None]

# Operation -> how often it is tried.
OPERATIONS: dict[Operation, int] = {
    linear: 16,
    affine: 8,
    combine: 7,
    rearrange: 8,
    pick: 3,
    split: 3,
    concatenate: 3,
    convolution: 6,
    functional_convolution: 2,
    pointwise_pair: 4,
    channel_norm: 4,
    pool: 3,
    resize: 2,
    row_norm: 3,
    activation: 4,
    nothing: 3,
    fan_out: 3,
    fan_in: 3,
    low_rank_adapter: 2,
    tied: 1,
    heads: 2,
    batched: 2,
    batched_sum: 1,
    attention: 2,
    library_attention: 1,
    convert: 1,
    change: 3,
    carry: 6,
    between_maps: 4,
    computed_weight: 3,
    table: 3,
}


def generate(seed: int) -> Program:
    """The random program of a seed.

    >>> generate(3) == generate(3)
    True
    """
    b = Builder(seed)
    b.train = b.chance(0.15)
    _first_values(b)
    operations, weights = list(OPERATIONS), list(OPERATIONS.values())
    for _ in range(b.random.randrange(3, 14)):
        for _ in range(8):
            (operation,) = b.random.choices(operations, weights)
            if b.add(operation(b, b.operand())):
                break
    return b.program()


def _first_values(b: Builder) -> None:
    width = b.width()
    sizes = b.one(
        (width,), (b.one(4, 6, 9), width), (b.one(4, 6, 9), width), (width, b.one(8, 9)), (width, 8, 7),
        (width, 6, 6), (b.one(2, 4), 4, 5, 4),
    )  # fmt: skip
    if b.chance(0.1):
        tokens = b.add_input(Input((b.one(4, 6),), indices=11))
        b.add(f"{b.layer(f'nn.Embedding(11, {width})')}({tokens})")
        return
    dtype = b.one(*[torch.float32] * 12, torch.float64, torch.bfloat16)
    transposed = len(sizes) > 1 and b.chance(0.1)
    b.add_input(Input(sizes, transposed=transposed, dtype=dtype))
    if b.chance(0.15):
        b.add_input(Input(sizes, dtype=dtype))
