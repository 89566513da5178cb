"""Encoders with a decoder."""

from __future__ import annotations

from typing import Any

import transformers

from stonefx.benchmarks.zoo.sizes import SMALL, Built, Inputs, Size, build


def _pair(size: Size) -> Inputs:
    decoded = size.tokens(max(size.length // 2, 5))
    return {"input_ids": size.tokens(), "decoder_input_ids": decoded, "use_cache": False}


def _bart_names(size: Size) -> dict[str, Any]:
    return {
        "d_model": size.hidden,
        "encoder_layers": size.layers,
        "decoder_layers": size.layers,
        "encoder_attention_heads": size.heads,
        "decoder_attention_heads": size.heads,
        "encoder_ffn_dim": size.feed_forward,
        "decoder_ffn_dim": size.feed_forward,
        "vocab_size": size.vocabulary,
        "dropout": 0.0,
    }


def t5(size: Size = SMALL) -> Built:
    config = transformers.T5Config(
        vocab_size=size.vocabulary, d_model=size.hidden, d_kv=size.hidden // size.heads, d_ff=size.feed_forward,
        num_layers=size.layers, num_heads=size.heads, dropout_rate=0.0, decoder_start_token_id=0,
    )  # fmt: skip
    return build(transformers.T5ForConditionalGeneration, config), _pair(size)


def bart(size: Size = SMALL) -> Built:
    config = transformers.BartConfig(max_position_embeddings=2 * size.length, **_bart_names(size))
    return build(transformers.BartForConditionalGeneration, config), _pair(size)


def pegasus(size: Size = SMALL) -> Built:
    config = transformers.PegasusConfig(max_position_embeddings=2 * size.length, **_bart_names(size))
    return build(transformers.PegasusForConditionalGeneration, config), _pair(size)


def whisper(size: Size = SMALL) -> Built:
    frames = 2 * size.length
    config = transformers.WhisperConfig(
        num_mel_bins=size.hidden // 4, max_source_positions=frames // 2, max_target_positions=2 * size.length,
        pad_token_id=0, bos_token_id=1, eos_token_id=1, decoder_start_token_id=1, **_bart_names(size),
    )  # fmt: skip
    model = build(transformers.WhisperForConditionalGeneration, config)
    features = size.floats(size.hidden // 4, frames)
    decoded = size.tokens(max(size.length // 2, 5))
    return model, {"input_features": features, "decoder_input_ids": decoded, "use_cache": False}
