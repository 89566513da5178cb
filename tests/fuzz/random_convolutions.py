"""Random convolutions, pooling, resizing and channel norms of values `[batch, channels, *space]`."""

from __future__ import annotations

from random_builder import Builder, divisors, dtype_argument


def convolution(b: Builder, v: str) -> str | None:
    """A convolution with any padding, stride, dilation and groups; transposed ones too."""
    x = b.values[v]
    rank = x.dim() - 2
    if rank not in (1, 2, 3):
        return None
    channels = x.shape[1]
    groups = b.one(1, 1, 1, *divisors(channels))
    out = groups * b.one(1, 1, 2, 3, 4)
    kernel = (
        [b.one(1, 1, 2, 3, 3, 5) for _ in range(rank)] if b.chance(0.3) else [b.one(1, 1, 1, 2, 3, 3)] * rank
    )
    stride, dilation = b.one(1, 1, 1, 2, 3), b.one(1, 1, 1, 2)
    rest = f"{out}, {tuple(kernel)}, groups={groups}{b.one('', '', ', bias=False')}{dtype_argument(x)}"
    if b.chance(0.15):
        output_padding = b.one(0, stride - 1)
        options = (
            f"stride={stride}, padding={b.one(0, 0, 1)}, dilation={dilation}, output_padding={output_padding}"
        )
        return f"{b.layer(f'nn.ConvTranspose{rank}d({channels}, {rest}, {options})')}({v})"
    padding = b.one(0, 0, 1, 2, "'valid'", "'same'")
    stride = 1 if padding == "'same'" else stride
    mode = b.one(
        "", "", "", ", padding_mode='reflect'", ", padding_mode='circular'", ", padding_mode='replicate'"
    )
    made = (
        f"nn.Conv{rank}d({channels}, {rest}, stride={stride}, padding={padding}, dilation={dilation}{mode})"
    )
    return f"{b.layer(made)}({v})"


def functional_convolution(b: Builder, v: str) -> str | None:
    """A convolution with a parameter of its own, perhaps after an explicit padding."""
    x = b.values[v]
    rank = x.dim() - 2
    if rank not in (1, 2, 3):
        return None
    kernel = [b.one(1, 1, 3)] * rank
    weight = b.weight(b.one(2, 4, 8), x.shape[1], *kernel, like=x)
    pad = b.one("", f"{(1,) * 2 * rank}", f"{(1, 0) * rank}, 'replicate'", f"{(1,) * 2 * rank}, value=0.5")
    operand = f"F.pad({v}, {pad})" if pad else v
    return f"F.conv{rank}d({operand}, {weight}, stride={b.one(1, 1, 2)})"


def pointwise_pair(b: Builder, v: str) -> str | None:
    """A wider convolution next to a 1x1 one, in either order."""
    x = b.values[v]
    rank = x.dim() - 2
    if rank not in (1, 2, 3):
        return None
    dtype, middle, out = dtype_argument(x), b.width(), b.one(2, 4, 8)
    bias, padding = b.one("", ", bias=False"), b.one(0, 1, 1)
    point = b.layer(f"nn.Conv{rank}d({x.shape[1]}, {middle}, 1{b.one('', ', bias=False')}{dtype})")
    wide = b.layer(f"nn.Conv{rank}d({middle}, {out}, {b.one(1, 3)}, padding={padding}{bias}{dtype})")
    if b.chance(0.5):
        return f"{wide}({point}({v}))"
    wide = b.layer(
        f"nn.Conv{rank}d({x.shape[1]}, {middle}, 3, padding={padding}, stride={b.one(1, 2)}{bias}{dtype})"
    )
    return f"{b.layer(f'nn.Conv{rank}d({middle}, {out}, 1{dtype})')}({wide}({v}))"


def channel_norm(b: Builder, v: str) -> str | None:
    """A norm over channels: with fixed statistics (batch norm in evaluation), or with the value's own."""
    x = b.values[v]
    if x.dim() > 5:
        return None
    channels, dtype = x.shape[1], dtype_argument(x)
    if b.chance(0.7):
        rank = max(x.dim() - 2, 1)
        options = b.one("", "", ", affine=False", ", eps=0.1")
        return f"{b.layer(f'nn.BatchNorm{rank}d({channels}{options}{dtype})')}({v})"
    if x[0, 0].numel() < 4:
        return None
    groups = b.one(*divisors(channels))
    if b.chance(0.7) or x.dim() < 3:
        return f"{b.layer(f'nn.GroupNorm({groups}, {channels}{dtype})')}({v})"
    return f"F.instance_norm({v})"


def pool(b: Builder, v: str) -> str | None:
    """A mean, a sum or a pool over places."""
    x = b.values[v]
    rank = x.dim() - 2
    dim = b.random.randrange(1, x.dim())
    plain = [f"{v}.mean({dim}, keepdim=True)", f"{v}.sum({dim}, keepdim=True) * 0.25"]
    if x.dim() > 2:
        plain += [f"{v}.mean({dim})", f"{v}.mean(dim=-1)", f"torch.mean({v}, ({dim},))"]
    if x.dim() > 3:
        plain += [f"{v}.mean((-2, -1))", f"{v}.sum(dim=(2, 3)) / {x.shape[2] * x.shape[3]}"]
    if rank not in (1, 2, 3):
        return b.one(*plain)
    options = b.one(
        "", ", stride=1", ", padding=1", ", padding=1, count_include_pad=False", ", ceil_mode=True"
    )
    spatial = [
        f"F.avg_pool{rank}d({v}, {b.one(2, 3)}{options})",
        f"F.adaptive_avg_pool{rank}d({v}, {b.one(1, 2)})",
    ]
    spatial += [f"F.max_pool{rank}d({v}, 2)", f"F.adaptive_avg_pool{rank}d({v}, 1).flatten(1)"]
    return b.one(*plain, *spatial)


def resize(b: Builder, v: str) -> str | None:
    """An interpolation to another size."""
    rank = b.values[v].dim() - 2
    if rank not in (1, 2, 3):
        return None
    smooth = {1: "linear", 2: "bilinear", 3: "trilinear"}[rank]
    mode = b.one("nearest", smooth, smooth, "area", *(["bicubic"] if rank == 2 else []))
    aligned = (
        b.one("", ", align_corners=True", ", align_corners=False") if mode in (smooth, "bicubic") else ""
    )
    size = b.one("scale_factor=2", "scale_factor=0.5", f"size={(b.one(2, 3, 5, 8),) * rank}")
    return f"F.interpolate({v}, {size}, mode='{mode}'{aligned})"
