"""`nn.TransformerEncoder` with layers that take no nested tensors: zeros for padding, as it gives with its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PaddedEncoder(nn.TransformerEncoder):
    """What an encoder becomes while one of its layers is no plain one, and back.

    With plain layers `nn.TransformerEncoder` packs padded sequences into nested tensors, where it can, and what comes
    out for padding is zero (before its last norm). What stands in for layers takes no nested tensors: here the layers
    work on all positions, and those of padding become zero in the same calls.
    """

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """See `nn.TransformerEncoder`."""
        if src_key_padding_mask is None or mask is not None or not self._nests(src, src_key_padding_mask):
            return super().forward(src, mask, src_key_padding_mask, is_causal)
        if not torch.compiler.is_compiling():
            self.__dict__["zeroed"] = True
        padding = _padding(src_key_padding_mask)
        lowest = torch.zeros_like(padding, dtype=src.dtype).masked_fill(padding, -torch.inf)
        y = src
        for layer in self.layers:
            y = layer(y, src_mask=None, is_causal=bool(is_causal), src_key_padding_mask=lowest)
        y = y.masked_fill(padding[..., None], 0.0)
        return y if self.norm is None else self.norm(y)

    def _nests(self, src: Tensor, src_key_padding_mask: Tensor) -> bool:
        """Whether torch would have made nested tensors in this call."""
        first = self.layers[0]
        checked = getattr(self, "mask_check", True)
        if (
            not torch.backends.mha.get_fastpath_enabled()
            or first.training
            or src.dim() != 3
            or src.is_nested
            or torch.is_autocast_enabled()
            or (checked and torch.compiler.is_compiling())
            or (
                torch.is_grad_enabled()
                and (src.requires_grad or any(p.requires_grad for p in first.parameters()))
            )
        ):
            return False
        padding = _padding(src_key_padding_mask)
        return not checked or bool((padding[:, 1:] >= padding[:, :-1]).all())


def _padding(mask: Tensor) -> Tensor:
    """True where nothing counts: of masks that are added -inf is there."""
    return mask if mask.dtype == torch.bool else mask.bool()


def follow(encoder: nn.TransformerEncoder) -> None:
    """Make an encoder padded or its own class again, by what its layers are now."""
    state = vars(encoder)
    plain = all(_is_plain(layer) for layer in encoder.layers)
    if not plain and state.get("use_nested_tensor"):
        state["use_nested_tensor"] = False
        if type(encoder) is nn.TransformerEncoder:
            encoder.__class__ = PaddedEncoder
        else:
            # One with a forward of its own: padding is what it is in training.
            state["_used_nested_tensor"] = True
    elif plain and (type(encoder) is PaddedEncoder or state.pop("_used_nested_tensor", False)):
        state["use_nested_tensor"] = True
        if type(encoder) is PaddedEncoder:
            _unpad(encoder)


def _unpad(encoder: nn.TransformerEncoder) -> None:
    encoder.__class__ = nn.TransformerEncoder


def _is_plain(layer: nn.Module) -> bool:
    if not isinstance(layer, nn.TransformerEncoderLayer):
        return True
    linears = (layer.linear1, layer.linear2)
    return type(layer.self_attn) is nn.MultiheadAttention and all(
        type(linear) is nn.Linear
        and type(linear.weight) is nn.Parameter
        and type(linear.weight.data) is Tensor
        for linear in linears
    )


def fused(model: nn.Module) -> list[str]:
    """Paths of what torch computes in one call while all its layers are plain ones, the innermost first."""
    found = [
        path
        for path, module in model.named_modules()
        if path and isinstance(module, (nn.TransformerEncoder, nn.TransformerEncoderLayer))
    ]
    return found[::-1]


def without_fast_paths(model: nn.Module) -> None:
    """Keep torch's own encoder layers from the fast path, where one of their parts is no plain layer of torch.

    It would read weights that are not there.

    Raises:
        TypeError: an encoder gives zeros for padding, which torch does for plain layers alone.
    """
    for path, module in model.named_modules():
        if isinstance(module, nn.TransformerEncoderLayer) and not _is_plain(module):
            # Nothing else reads it.
            module.activation_relu_or_gelu = 0
        if type(module) is PaddedEncoder:
            if vars(module).get("zeroed"):
                raise TypeError(
                    f"plain: {path or 'the model'} is an nn.TransformerEncoder that gives zeros for padding, which "
                    "torch does where all its layers are plain; save the model where stonefx is installed: "
                    "torch.save(model, path), or leave its layers out with layers="
                )
            _unpad(module)
