"""How large the models are, and their seeded weights and inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Inputs = dict[str, Any]
Built = tuple[nn.Module, Inputs]


@dataclass(frozen=True, kw_only=True)
class Size:
    """Sizes that every architecture understands, in its own way.

    Args:
        hidden: width of the residual stream.
        heads: attention heads.
        layers: of an encoder or a decoder.
        feed_forward: width between the two layers of a feed-forward block.
        vocabulary: tokens.
        batch: rows of every input.
        length: tokens a row.
        image: pixels along an edge.
        patch: pixels along the edge of a patch.
        samples: of a waveform.
    """

    hidden: int = 128
    heads: int = 4
    layers: int = 2
    feed_forward: int = 512
    vocabulary: int = 512
    batch: int = 2
    length: int = 64
    image: int = 64
    patch: int = 8
    samples: int = 6400

    @property
    def text(self) -> dict[str, int]:
        """What most configurations of text models call these."""
        return {
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.feed_forward,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 2 * self.length,
        }

    @property
    def image_text(self) -> dict[str, int]:
        """What most configurations of vision transformers call these."""
        return {
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.feed_forward,
            "image_size": self.image,
            "patch_size": self.patch,
        }

    def tokens(self, length: int | None = None) -> torch.Tensor:
        """Token indices `[batch, length]`, none of them a special token."""
        generator = torch.Generator().manual_seed(1)
        return torch.randint(3, self.vocabulary, (self.batch, length or self.length), generator=generator)

    def masked(self, **more: Any) -> Inputs:
        """Tokens with an attention mask of ones."""
        tokens = self.tokens()
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), **more}

    def floats(self, *shape: int) -> torch.Tensor:
        """Normal values `[batch, *shape]`."""
        return torch.randn(self.batch, *shape, generator=torch.Generator().manual_seed(2))

    def pixels(self) -> Inputs:
        """Images `[batch, 3, image, image]`."""
        return {"pixel_values": self.floats(3, self.image, self.image)}


SMALL = Size()
TINY = Size(
    hidden=32, heads=4, feed_forward=64, vocabulary=64, length=8, image=32, patch=4, samples=800
)  # fmt: skip


def build(model: Callable[..., nn.Module], *arguments: Any) -> nn.Module:
    """A model in evaluation mode with weights of seed 0, without dropout; the random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = model(*arguments).eval()
    for module in made.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return made
