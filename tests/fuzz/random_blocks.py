"""Random norms of rows, activations, attention, embeddings and changes of dtype."""

from __future__ import annotations

import torch
from random_builder import Builder, dtype_argument
from random_linear import module


def row_norm(b: Builder, v: str) -> str | None:
    """Layer or RMS norm over features, as a module, as a function or by hand."""
    x = b.values[v]
    width, dtype = x.shape[-1], dtype_argument(x)
    if width < 4:
        return None
    s = b.weight(width, like=x)
    return b.one(
        f"{b.layer(f'nn.LayerNorm({width}{dtype})')}({v})",
        f"{b.layer(f'nn.LayerNorm({width}, bias=False{dtype})')}({v})",
        f"{b.layer(f'nn.RMSNorm({width}{dtype})')}({v})",
        f"F.layer_norm({v}, ({width},))",
        f"F.rms_norm({v}, ({width},), {s})",
        f"{s} * ({v} * torch.rsqrt({v}.pow(2).mean(-1, keepdim=True) + 1e-5))",
        f"F.normalize({v} + 0.5, dim=-1)",
    )


def activation(b: Builder, v: str) -> str:
    """Something that no linear map passes."""
    u = b.like(v) or v
    return b.one(
        f"F.relu({v})", f"F.gelu({v})", f"F.silu({v})", f"torch.tanh({v})", f"{v}.sigmoid()", f"{v}.softmax(-1)",
        f"F.leaky_relu({v}, 0.1)", f"F.elu({v})", f"F.softplus({v})", f"F.hardtanh({v})", f"{v} * {u}.sigmoid()",
        f"{v}.clamp(-1, 1)", f"{v} * {u}", f"{v}.exp().clamp(max=5)", f"F.glu({v})", f"{v}.abs()",
        f"{v}.square() * 0.1",
    )  # fmt: skip


def nothing(b: Builder, v: str) -> str:
    """What evaluation mode makes an identity."""
    rate = 0.0 if b.train else 0.5
    return b.one(
        f"F.dropout({v}, {rate}, training=self.training)",
        f"{b.layer(f'nn.Dropout({rate})')}({v})",
        f"{b.layer('nn.Identity()')}({v})",
        f"{v}.detach()",
        f"{v}.to({b.values[v].dtype})",
        f"{v}.view_as({v})",
    )


def attention(b: Builder, v: str) -> str | None:
    """Self-attention over the second axis, with separate or joint projections."""
    x = b.values[v]
    if x.dim() != 3 or x.shape[1] > 64:
        return None
    width, count, size = x.shape[-1], b.one(1, 2, 4), b.one(2, 3, 4, 8)
    inner = count * size
    q, k, value = (f"{module(b, v, width, inner)}({v})" for _ in range(3))
    split, merged = f".unflatten(-1, ({count}, {size})).transpose(1, 2)", ".transpose(1, 2).flatten(2)"
    sdpa, causal = "F.scaled_dot_product_attention", b.one("", ", is_causal=True")
    whole = f"{sdpa}({q}{split}, {k}{split}, {value}{split}{causal})"
    scores = f"({q}{split} @ {k}{split}.mT / math.sqrt({size})).softmax(-1)"
    joint = (
        f"{module(b, v, width, 3 * inner)}({v}).unflatten(-1, (3, {count}, {size})).permute(2, 0, 3, 1, 4)"
    )
    out, back = module(b, v, inner, b.one(width, b.width())), module(b, v, inner, width)
    return b.one(
        f"{out}({whole}{merged})",
        f"{out}(({scores} @ {value}{split}){merged})",
        f"{out}({sdpa}(*{joint}{causal}){merged})",
        f"torch.softmax({q} @ {k}.mT, -1) @ {value}",
        f"{v} + {back}({whole}{merged})",
    )


def library_attention(b: Builder, v: str) -> str | None:
    """torch's own attention and encoder layers."""
    x = b.values[v]
    if x.dim() != 3 or x.shape[-1] % 2:
        return None
    width, dtype = x.shape[-1], dtype_argument(x)
    made = f"nn.MultiheadAttention({width}, 2, batch_first=True{dtype})"
    options = f"dropout=0.0, batch_first=True, norm_first={b.chance(0.5)}{dtype}"
    encoder = f"nn.TransformerEncoderLayer({width}, 2, 16, {options})"
    return b.one(
        f"{b.layer(made)}({v}, {v}, {v}, need_weights=False)[0]",
        f"{b.layer(encoder)}({v})",
    )


def convert(b: Builder, v: str) -> str | None:
    """Another dtype, for good or for one layer only."""
    x = b.values[v]
    other = b.one(torch.float32, torch.float64, torch.bfloat16)
    if other == x.dtype:
        return None
    if b.chance(0.4):
        return f"{v}.to({other})"
    layer = b.layer(f"nn.Linear({x.shape[-1]}, {b.width()}, dtype={other})")
    return f"{layer}({v}.to({other})).to({x.dtype})"
