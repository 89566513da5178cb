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


def _classifier(config: Any, model: Any, size: Size) -> Built:
    settings = config(**_names(size), classifier_proj_size=size.hidden, num_labels=12)
    return build(model, settings), {"input_values": size.floats(size.samples)}


def wav2vec2_classifier(size: Size = SMALL) -> Built:
    return _classifier(transformers.Wav2Vec2Config, transformers.Wav2Vec2ForSequenceClassification, size)


def hubert_classifier(size: Size = SMALL) -> Built:
    return _classifier(transformers.HubertConfig, transformers.HubertForSequenceClassification, size)


def wavlm_classifier(size: Size = SMALL) -> Built:
    return _classifier(transformers.WavLMConfig, transformers.WavLMForSequenceClassification, size)


def whisper_classifier(size: Size = SMALL) -> Built:
    config = transformers.WhisperConfig(
        d_model=size.hidden, encoder_layers=size.layers, encoder_attention_heads=size.heads,
        encoder_ffn_dim=size.feed_forward, max_source_positions=size.length, num_mel_bins=80,
        classifier_proj_size=size.hidden, num_labels=12, vocab_size=size.vocabulary,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    model = build(transformers.WhisperForAudioClassification, config)
    return model, {"input_features": size.floats(80, 2 * size.length)}
