"""Random linear maps, in the spellings that models use, and shifts and scales of features."""

from __future__ import annotations

from random_builder import Builder, Draft, divisors, dtype_argument


def linear(b: Builder, v: str) -> str:
    """A linear map of the last axis."""
    x = b.values[v]
    width, out = x.shape[-1], b.width()
    if b.chance(0.4):
        return f"{module(b, v, width, out)}({v})"
    if b.chance(0.15) and width == out:
        out = width
    forward = [f"F.linear({v}, {{oi}})", f"{v} @ {{oi}}.T", f"{v} @ {{io}}", f"torch.matmul({v}, {{oi}}.mT)"]
    forward += [f"torch.einsum('...i,oi->...o', {v}, {{oi}})", f"torch.einsum('...i,io->...o', {v}, {{io}})"]
    forward += [f"torch.tensordot({v}, {{oi}}, dims=([-1], [1]))", f"torch.inner({v}, {{oi}})"]
    forward += [f"({{oi}} @ {v}.unsqueeze(-1)).squeeze(-1)", f"({v}.unsqueeze(-2) @ {{io}}).squeeze(-2)"]
    forward += [f"F.linear({v}.flatten(0, -2), {{oi}}).reshape(*{v}.shape[:-1], {out})"]
    biased = [f"F.linear({v}, {{oi}}, {{b}})", f"{{b}} + {v} @ {{io}}", f"{v} @ {{oi}}.T - {{b}}"]
    if x.dim() == 2:
        forward += [f"torch.mm({v}, {{io}})", f"({{oi}} @ {v}.T).T", f"{v}.mm({{oi}}.t())"]
        biased += [f"torch.addmm({{b}}, {v}, {{io}})", f"torch.addmm({{b}}, {v}, {{io}}, beta=0.5, alpha=2)"]
        biased += [f"{{b}}.addmm({v}, {{oi}}.t(), beta=-1)"]
    if x.dim() == 3:
        forward += [f"torch.bmm({v}, {{io}}.expand({v}.shape[0], -1, -1))", f"({{oi}} @ {v}.mT).mT"]
        forward += [f"({{oi}} @ {v}.transpose(1, 2)).transpose(1, 2)"]
        biased += [f"torch.baddbmm({{b}}, {v}, {{io}}.expand({v}.shape[0], -1, -1), alpha=0.5)"]
        forward += [f"F.linear({v}.transpose(0, 1), {{oi}}).transpose(0, 1)"]
    spelled = b.one(*(forward if b.chance(0.5) else biased))
    return spelled.format(
        oi=b.weight(out, width, like=x) if "{oi}" in spelled else "",
        io=b.weight(width, out, like=x) if "{io}" in spelled else "",
        b=b.weight(out, like=x) if "{b}" in spelled else "",
    )


def module(b: Builder, v: str, width: int, out: int) -> str:
    """An `nn.Linear` for a value."""
    bias = b.one("", "", ", bias=False")
    return b.layer(f"nn.Linear({width}, {out}{bias}{dtype_argument(b.values[v])})")


def tied(b: Builder, v: str) -> str:
    """A map and its transpose."""
    width, out = b.values[v].shape[-1], b.width()
    weight = b.weight(out, width, like=b.values[v])
    return f"F.linear(F.linear({v}, {weight}), {weight}.t())"


def low_rank_adapter(b: Builder, v: str) -> str:
    """`W x + scale * B (A x)`."""
    width, out, rank = b.values[v].shape[-1], b.width(), b.one(1, 2, 4)
    base, down, up = module(b, v, width, out), module(b, v, width, rank), module(b, v, rank, out)
    term = f"{up}({down}({v}))"
    return f"{base}({v}) + " + b.one(f"{term} * 0.5", f"2 * {term}", term)


def heads(b: Builder, v: str) -> str | None:
    """A matrix for each group of features."""
    x = b.values[v]
    count = b.one(*divisors(x.shape[-1]))
    inner, out = x.shape[-1] // count, b.one(2, 3, 4)
    weight = b.weight(count, inner, out, like=x)
    split = f"{v}.unflatten(-1, ({count}, {inner}))"
    return b.one(
        f"torch.einsum('...hi,hio->...ho', {split}, {weight}).flatten(-2)",
        f"({split}.unsqueeze(-2) @ {weight}).flatten(-3)",
        f"torch.einsum('...i,hio->...ho', {v}, {b.weight(count, x.shape[-1], out, like=x)}).flatten(-2)",
    )


def batched(b: Builder, v: str) -> str | None:
    """Two or three products in a row, each with a matrix for each group of features."""
    x = b.values[v]
    count = b.one(*divisors(x.shape[-1]))
    width = x.shape[-1] // count
    if count == 1:
        return None
    text = f"{v}.reshape(-1, {count}, {width}).transpose(0, 1)"
    for _ in range(b.one(2, 2, 3)):
        out = b.one(2, 3, 5)
        io, oi = b.weight(count, width, out, like=x), b.weight(count, out, width, like=x)
        bias, one = b.weight(count, 1, out, like=x), b.weight(out, like=x)
        text = b.one(
            f"torch.bmm({text}, {io})",
            f"torch.baddbmm({bias}, {text}, {io})",
            f"torch.baddbmm({bias}, {text}, {oi}.mT, beta=0.5, alpha=2)",
            f"(torch.matmul({text}, {io}) + {one})",
            f"({bias} - ({oi} @ {text}.mT).mT * 0.5)",
            f"torch.einsum('gni,goi->gno', {text}, {oi})",
            f"torch.einsum('gio,ngi->ngo', {io}, {text}.permute(1, 0, 2)).transpose(0, 1)",
            f"F.linear({text}, {b.weight(out, width, like=x)}, {one})",
            f"F.dropout(torch.bmm({text}, {io}).contiguous(), 0.5, training=False)",
        )
        width = out
    return f"{text}.transpose(0, 1).reshape(*{v}.shape[:-1], {count * width})"


def batched_sum(b: Builder, v: str) -> str | None:
    """Two products of one value, each with a matrix for each group of features, added up."""
    x = b.values[v]
    count = b.one(*divisors(x.shape[-1]))
    width, out = x.shape[-1] // count, b.one(2, 3, 5)
    if count == 1:
        return None

    def product() -> str:
        io, oi = b.weight(count, width, out, like=x), b.weight(count, out, width, like=x)
        bias, one = b.weight(count, 1, out, like=x), b.weight(width, out, like=x)
        return b.one(
            f"torch.bmm(t, {io})",
            f"torch.baddbmm({bias}, t, {io}, alpha=0.5)",
            f"({oi} @ t.mT).mT",
            f"torch.einsum('gni,goi->gno', t, {oi})",
            f"torch.bmm(torch.bmm(t, {b.weight(count, width, 1, like=x)}), {b.weight(count, 1, out, like=x)})",
            f"(t @ {one} + {bias})",
        )

    total = b.one(
        f"{product()} + {product()}",
        f"{product()} - 0.5 * {product()}",
        f"torch.add({product()}, {product()}, alpha=-2) + {b.weight(out, like=x)}",
        f"{product()} + ({product()} - {product()})",
        f"{product()} + {product()}.tanh() + {product()}",
    )
    source = f"{v}.reshape(-1, {count}, {width}).transpose(0, 1)"
    text = f"(lambda t: {total})({source})"
    return f"{text}.transpose(0, 1).reshape(*{v}.shape[:-1], {count * out})"


def fan_out(b: Builder, v: str) -> Draft:
    """Several maps of one value."""
    width, count = b.values[v].shape[-1], b.one(2, 3)
    out = b.width()
    return Draft(", ".join(f"{module(b, v, width, out)}({v})" for _ in range(count)), count)


def fan_in(b: Builder, v: str) -> str:
    """Maps of two values into one."""
    u = b.like(v) or v
    width, out = b.values[v].shape[-1], b.width()
    first, second = module(b, v, width, out), module(b, v, width, out)
    return b.one(
        f"{first}({v}) + {second}({u})",
        f"{first}({v}) - 0.5 * {second}({u})",
        f"torch.cat([{first}({v}), {second}({u})], -1)",
        f"torch.stack([{first}({v}), {second}({u})], 1).sum(1)",
    )


def affine(b: Builder, v: str) -> str:
    """A shift or scale, by numbers, by one entry a feature or by one entry alone."""
    x = b.values[v]
    s, one = b.weight(x.shape[-1], like=x), b.weight(1, like=x)
    plain = [
        f"{v} * 0.5",
        f"{v} + 1",
        f"-{v}",
        f"2 - {v}",
        f"{v} / 3",
        f"{v} * 0.5 + 0.25",
        f"0.7 * {v} - {v}",
    ]
    plain += [
        f"torch.rsub({v}, 1)",
        f"{v} / math.sqrt({x.shape[-1]})",
        f"torch.neg({v})",
        f"torch.sub(1, {v}, alpha=2)",
    ]
    features = [f"{v} * {s}", f"{v} + {s}", f"{s} - {v}", f"{v} - {s}", f"torch.add({v}, {s}, alpha=2)"]
    features += [f"torch.addcmul({s}, {v}, {s})", f"{v} * {s} + {s}", f"torch.add({s}, {v}, alpha=-0.5)"]
    features += [
        f"torch.lerp({v}, {s}.expand_as({v}), 0.25)",
        f"{v} / (2 + {s})",
        f"torch.addcdiv({s}, {v}, 1 + {s} * {s})",
    ]
    single = [f"{v} * {one}", f"{v} + {one}", f"{one} - {v}", f"{v} * {one}.squeeze()"]
    tables = [f"{v} + {b.weight(*x.shape[1:], like=x)}"]
    tables += [f"{v} * {b.weight(x.shape[1], *([1] * (x.dim() - 2)), like=x)}"] if x.dim() > 2 else []
    return b.one(*b.one(plain, features, features, single, tables))


def combine(b: Builder, v: str) -> str:
    """A sum of two values of one shape, or a residual connection."""
    u = b.like(v)
    if u is None or b.chance(0.4):
        inner = f"{module(b, v, b.values[v].shape[-1], b.values[v].shape[-1])}({v})"
        return b.one(f"{v} + {inner}", f"{inner} + {v}", f"{v} - {inner}", f"0.5 * {v} + 0.5 * {inner}")
    return b.one(
        f"{v} + {u}", f"{v} - {u}", f"{v} + 0.5 * {u}", f"torch.add({v}, {u}, alpha=2)", f"torch.lerp({v}, {u}, 0.3)",
        f"torch.stack([{v}, {u}]).mean(0)", f"sum([{v}, {u}, {v}])", f"({v} + {u}) / 2", f"{v} + {u} + {v}",
    )  # fmt: skip
