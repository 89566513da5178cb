"""Random rearrangements: permutations, reshapes, slices, splits, concatenations."""

from __future__ import annotations

from random_builder import Builder, Draft, divisors


def rearrange(b: Builder, v: str) -> str | None:
    """Axes permuted, merged or split; the batch stays first."""
    x = b.values[v]
    n, width = x.dim(), x.shape[-1]
    options = [
        f"{v}.contiguous()",
        f"{v}.clone()",
        f"{v}.unsqueeze({b.one(1, -1, n)})",
        f"{v}.flatten(1)",
        f"{v}.reshape({v}.shape[0], -1)",
    ]
    parts = b.one(*divisors(width))
    options += [f"{v}.unflatten(-1, ({parts}, {width // parts}))", f"{v}.reshape({v}.shape[0], {parts}, -1)"]
    options += [f"{v}.view(*{v}.shape[:-1], {parts}, -1)", f"{v}[:, None]", f"{v}[..., None]"]
    if n > 2:
        order = list(range(1, n))
        b.random.shuffle(order)
        i, j = b.random.sample(range(1, n), 2)
        options += [f"{v}.permute(0, {', '.join(map(str, order))})"] * 3
        options += [f"{v}.transpose({i}, {j})"] * 3 + [f"torch.movedim({v}, {i}, {j})", f"{v}.mT"]
        options += [
            f"{v}.flatten({n - 2})",
            f"{v}.flatten(1, {n - 2})",
            f"{v}.transpose({i}, {j}).reshape({v}.shape)",
        ]
        options += [f"{v}.squeeze({i})", f"{v}.permute(0, {', '.join(map(str, order))}).contiguous()"]
    if n < 5 and x.numel() < 1000:
        options += [
            f"{v}.unsqueeze(1).expand(-1, {b.one(2, 3)}{', -1' * (n - 1)})",
            f"{v}.repeat_interleave(2, dim=-1)",
        ]
        options += [f"{v}.repeat(1{', 1' * (n - 2)}, 2)"]
    if n == 4:
        options += [f"F.pixel_shuffle({v}, 2)", f"F.pixel_unshuffle({v}, 2)", f"F.channel_shuffle({v}, 2)"]
        options += [f"{v}.contiguous(memory_format=torch.channels_last)"]
    return b.one(*options)


def pick(b: Builder, v: str) -> str | None:
    """A part of a value."""
    x = b.values[v]
    n = x.dim()
    dim = b.random.randrange(1, n)
    size = x.shape[dim]
    start = b.random.randrange(size)
    stop = b.random.randrange(start + 1, size + 1)
    at = ", ".join([":"] * dim)
    options = [
        f"{v}[{at}, {start}:{stop}]",
        f"{v}.narrow({dim}, {start}, {stop - start})",
        f"{v}[{at}, ::2]",
        f"{v}.flip({dim})",
    ]
    options += [f"{v}.roll(1, {dim})", f"torch.chunk({v}, 2, {dim})[0]", f"{v}[..., {start % x.shape[-1]}:]"]
    if n > 2:
        options += [f"{v}.select({dim}, {start})", f"{v}[{at}, -1]", f"{v}[..., 0]"]
    index = b.layer(f"nn.Buffer(torch.tensor({[b.random.randrange(size) for _ in range(b.one(1, 2, 4))]}))")
    options += [f"{v}.index_select({dim}, {index})", f"{v}[{at}, {index}]"]
    return b.one(*options)


def split(b: Builder, v: str) -> Draft | None:
    """A value cut along an axis, every part kept."""
    x = b.values[v]
    dim = b.one(-1, -1, b.random.randrange(1, x.dim()))
    size = x.shape[dim]
    if size < 2:
        return None
    cut = b.random.randrange(1, size)
    options = [Draft(f"{v}.split([{cut}, {size - cut}], dim={dim})", 2)]
    options += [
        Draft(f"torch.split({v}, {-(-size // 2)}, {dim})", 2),
        Draft(f"{v}.tensor_split(2, dim={dim})", 2),
    ]
    if size % 3 == 0:
        options += [Draft(f"{v}.chunk(3, dim={dim})", 3)]
    if size <= 3 and x.dim() > 2:
        options += [Draft(f"{v}.unbind({dim})", size)]
    return b.one(*options)


def concatenate(b: Builder, v: str) -> str:
    """Values side by side."""
    u = b.like(v) or v
    dim = b.one(-1, -1, b.random.randrange(1, b.values[v].dim()))
    return b.one(
        f"torch.cat([{v}, {u}], dim={dim})",
        f"torch.cat([{v} * 2, {u}, {v}], {dim})",
        f"torch.stack([{v}, {u}], dim={b.one(1, -1)})",
        f"torch.cat([{v}, {v}.mean({dim}, keepdim=True)], dim={dim})",
        f"F.pad({v}, (1, 2))",
    )


def change(b: Builder, v: str) -> Draft | None:
    """A value changed in place, whole or through a view, so that everything that shares its memory changes too."""
    x = b.values[v]
    if v in b.inputs and not b.chance(0.15):
        return None
    s, last = b.weight(x.shape[-1], like=x), x.shape[-1] - 1
    whole = [f"{v}.add_(1)", f"{v}.mul_(0.5)", f"{v} += {s}", f"{v} *= {s}", f"{v}.relu_()", f"{v}.sub_({s})"]
    whole += [
        f"F.relu({v}, inplace=True)",
        f"{v}.neg_()",
        f"{v}.div_(2)",
        f"{v}.clamp_(-1, 1)",
        f"{v}.tanh_()",
    ]
    parts = [
        f"{v}[..., 0] = 0",
        f"{v}[:, 0].mul_(2)",
        f"{v}[..., {last}:].add_(0.5)",
        f"{v}.select(-1, {last}).neg_()",
    ]
    parts += [
        f"{v}.view(-1).mul_(0.5)",
        f"{v}[:, :1] = {v}[:, -1:]",
        f"{v}[..., ::2] *= 0.5",
        f"{v}.transpose(0, 1).add_(0.1)",
    ]
    other = b.like(v)
    if other:
        whole += [f"{v}.add_({other})", f"{v} -= {other}", f"{v}.copy_({other})", f"{v}.lerp_({other}, 0.5)"]
        parts += [f"{v}[..., 0] = {other}[..., -1]"]
    return Draft(b.one(*whole, *parts), 0)
