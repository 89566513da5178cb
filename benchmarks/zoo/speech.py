"""Speech encoders over raw waveforms."""

from __future__ import annotations

from typing import Any

import transformers

from stonefx.benchmarks.zoo.sizes import SMALL, Built, Size, build


def _names(size: Size) -> dict[str, Any]:
    names = {name: value for name, value in size.text.items() if name != "max_position_embeddings"}
    channels = size.hidden // 2
    return names | {
        "conv_dim": (channels, channels, channels),
        "conv_kernel": (10, 8, 4),
        "conv_stride": (5, 4, 4),
        "num_feat_extract_layers": 3,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "feat_proj_dropout": 0.0,
        "layerdrop": 0.0,
    }


def wav2vec2(size: Size = SMALL) -> Built:
    config = transformers.Wav2Vec2Config(**_names(size))
    return build(transformers.Wav2Vec2Model, config), {"input_values": size.floats(size.samples)}


def hubert(size: Size = SMALL) -> Built:
    config = transformers.HubertConfig(**_names(size))
    return build(transformers.HubertModel, config), {"input_values": size.floats(size.samples)}
