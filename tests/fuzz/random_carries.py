"""Random operations on the axes that carry features: masks, products from the other side, indices, message passing."""

from __future__ import annotations

from random_builder import Builder
from random_linear import module


def _index(b: Builder, size: int, *shape: int) -> str:
    """A constant of indices below a size."""
    count = 1
    for each in shape:
        count *= each
    numbers = [b.random.randrange(size) for _ in range(count)]
    return b.layer(f"nn.Buffer(torch.tensor({numbers}).reshape({list(shape)}))")


def carry(b: Builder, v: str) -> str | None:
    """An operation on the axes other than the last, with what it reads computed from another value or a constant."""
    x = b.values[v]
    if x.dim() != 3:
        return None
    count, width = x.shape[1], x.shape[-1]
    other = b.random.choice([name for name, value in b.values.items() if value.is_floating_point()])
    like = b.values[other]
    if like.dim() < 2 or like.dtype != x.dtype:
        return None
    row = f"{other}.flatten(1).mean(1)"  # [batch]
    scores = f"({v}.amax(-1) * 0.1)"  # [batch, count]
    parts = b.one(1, 2, 3)
    shape = f"({v}.shape[0], {parts}, {width})"
    index = _index(b, count, parts)
    target = _index(b, parts, count)
    wide = f"{target}.view(1, -1, 1).expand({v}.shape[0], -1, {width})"
    reduce = b.one("sum", "mean")
    lengths = b.layer(f"nn.Buffer(torch.tensor([{count - count // 2}, {count // 2}]))")
    return b.one(
        f"{v} * {row}.view(-1, 1, 1)",
        f"{v} / (2 + {row}.abs().view(-1, 1, 1))",
        f"{v} * {scores}.sigmoid().unsqueeze(-1)",
        f"{v}.masked_fill(({scores} > 0).unsqueeze(-1), 0.0)",
        f"torch.where(({scores} > 0).unsqueeze(-1), {v}, torch.zeros_like({v}))",
        f"({v} * ({scores} > 0).to({x.dtype}).unsqueeze(-1)).sum(1) / {count}",
        f"({scores}.softmax(1).unsqueeze(-1) * {v}).sum(1)",
        f"({scores}.softmax(1).unsqueeze(1) @ {v}).squeeze(1)",
        f"torch.bmm(({scores}.unsqueeze(2) - {scores}.unsqueeze(1)).softmax(-1), {v})",
        f"torch.einsum('bq,bk,bkf->bqf', {scores}, {scores}, {v})",
        f"({v}.mT @ {scores}.unsqueeze(2)).mT",
        f"{b.weight(parts, count, like=x)} @ {v}",
        f"F.linear({v}.mT, {b.weight(parts, count, like=x)}).mT",
        f"{v}.index_select(1, {index})",
        f"{v}[:, {index}]",
        f"{v}.gather(1, {index}.view(1, -1, 1).expand({v}.shape[0], -1, {width}))",
        f"{v}.new_zeros({shape}).index_add(1, {target}, {v})",
        f"{v}.new_zeros({shape}).scatter_add(1, {wide}, {v})",
        f"{v}.new_zeros({shape}).scatter_reduce(1, {wide}, {v}, '{reduce}')",
        f"torch.zeros_like({v}).index_add(1, {_index(b, count, count)}, {v})",
        f"torch.segment_reduce({v}.transpose(0, 1), 'sum', lengths={lengths})",
        f"{v}.cumsum(1) / {count}",
        f"{v}.repeat_interleave(2, 1)",
        f"{v}.unfold(1, {min(2, count)}, 1).mean(-1)",
        f"{v}.roll(1, 1)",
        f"F.adaptive_avg_pool1d({v}.mT, {parts}).mT",
        f"F.interpolate({v}.mT, scale_factor=2.0).mT",
        f"F.pixel_shuffle({v}.permute(2, 0, 1).unsqueeze(-1), 1).squeeze(-1).permute(1, 2, 0)",
    )


def between_maps(b: Builder, v: str) -> str | None:
    """A map, a carry, a map: what merges across it."""
    x = b.values[v]
    if x.dim() != 3:
        return None
    width, hidden, out = x.shape[-1], b.one(6, 12, 24, 64), b.width()
    inner = f"{module(b, v, width, hidden)}({v})"
    count = x.shape[1]
    source, target = _index(b, count, 7), _index(b, count, 7)
    mask = f"({v}.amax(-1) > 0).to({x.dtype})"
    lengths = b.layer(f"nn.Buffer(torch.tensor([{count - count // 2}, {count // 2}]))")
    middle = b.one(
        f"(lambda h: (h * {mask}.unsqueeze(-1)).mean(1, keepdim=True))",
        f"(lambda h: torch.zeros_like(h).index_add(1, {target}, h[:, {source}]))",
        f"(lambda h: ({v}.amax(-1).softmax(1).unsqueeze(1) @ h))",
        f"(lambda h: ({v}.amax(-1).unsqueeze(2) * {v}.amax(-1).unsqueeze(1) * 0.1) @ h)",
        f"(lambda h: h.index_select(1, {source}) * 0.5)",
        f"(lambda h: h.new_zeros(h.shape).scatter_add(1, {target}[:{count}].view(1, -1, 1)"
        f".expand_as(h[:, :7]), h[:, :7]))",
        "(lambda h: h.mean(1))",
        f"(lambda h: (h * {mask}.unsqueeze(-1)).sum(1) / (1 + {mask}.sum(1, keepdim=True)))",
        f"(lambda h: torch.einsum('bn,bnf->bf', {v}.amax(-1) * 0.1, h))",
        f"(lambda h: h.masked_fill({mask}.unsqueeze(-1) == 0, 0.0).sum(1) / h.shape[1])",
        f"(lambda h: h.new_zeros(h.shape[0], 2, h.shape[2]).index_add(1, {target} % 2, h[:, {source}]))",
        f"(lambda h: {b.weight(1, count, like=x)} @ h.cumsum(1))",
        f"(lambda h: torch.segment_reduce(h.transpose(0, 1), 'sum', lengths={lengths}).transpose(0, 1))",
        "(lambda h: h.sum(1, keepdim=True) / h.shape[1])",
        "(lambda h: F.avg_pool1d(h.mT, 2, 1, padding=1).mT)",
    )
    return f"{module(b, v, hidden, out)}({middle}({inner}))"


def table(b: Builder, v: str) -> str | None:
    """A map behind rows that are looked up in a table, and behind sums with positions."""
    x = b.values[v]
    if x.dim() != 3:
        return None
    count, width, rows = x.shape[1], x.shape[-1], b.one(2, 5, 40)
    held, places = b.weight(rows, width, like=x), b.weight(count + 2, width, like=x)
    index = _index(b, rows, count)
    spread = f"{index}.expand({v}.shape[0], -1)"
    found = b.one(
        f"F.embedding({spread}, {held})",
        f"F.embedding({spread}, {held}, padding_idx=1) * 2",
        f"{held}[{spread}]",
        f"{v} + F.embedding({index}, {held})",
        f"{v} - 2 * {held}.index_select(0, {index})",
        f"F.embedding({spread}, {held}) + {places}[:{count}]",
        f"{v} + ({places}[:{count}] + F.embedding({index}, {held}))",
        f"torch.sub(F.embedding({spread}, {held}), {places}[1:{count + 1}].unsqueeze(0), alpha=2)",
        f"(F.embedding({spread}, {held}) + {v}).sum(1, keepdim=True)",
    )
    return f"{module(b, v, width, b.width())}({found})"


def computed_weight(b: Builder, v: str) -> str:
    """A map whose weight is computed from parameters alone."""
    x = b.values[v]
    width, out = x.shape[-1], b.width()
    w, s, bias = b.weight(out, width, like=x), b.weight(out, 1, like=x), b.weight(out, like=x)
    order = list(range(width))
    b.random.shuffle(order)
    weight = b.one(
        f"torch._weight_norm({w}, {s}, 0)",
        f"{w} * {s}.exp()",
        f"{w} / {w}.norm()",
        f"{w}[:, {_index_of(b, order)}]",
        f"torch.cat([{w}, {b.weight(2, width, like=x)}])[2:]",
        f"{w}.to(torch.bfloat16).to({x.dtype})",
        f"({w} * 127).round().clamp(-127, 127).to(torch.int8).to({x.dtype}) * 0.01",
        f"({w} + {b.weight(out, 2, like=x)} @ {b.weight(2, width, like=x)})",
        f"torch.where({w} > 0, {w}, 0)",
    )
    return b.one(f"F.linear({v}, {weight}, {bias}.tanh())", f"F.linear({v}, {weight})", f"{v} @ ({weight}).T")


def _index_of(b: Builder, numbers: list[int]) -> str:
    return b.layer(f"nn.Buffer(torch.tensor({numbers}))")
