"""Small transformers models with random weights: what real graphs look like, each built in under a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn

Inputs = dict[str, Any]
Builder = Callable[[], tuple[nn.Module, Inputs]]

_VOCABULARY = 64
_TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def _tokens(batch: int = 2, length: int = 8) -> torch.Tensor:
    return torch.randint(2, _VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(1))


def _floats(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def _build(model: Callable[[Any], nn.Module], config: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model(config).eval()


def _text(with_cache: bool = False) -> Inputs:
    tokens = _tokens()
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    return inputs | ({"use_cache": False} if with_cache else {})


def bert() -> tuple[nn.Module, Inputs]:
    config = transformers.BertConfig(vocab_size=_VOCABULARY, max_position_embeddings=16, **_TEXT)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    return _build(transformers.BertModel, config), _text()


def albert() -> tuple[nn.Module, Inputs]:
    config = transformers.AlbertConfig(
        vocab_size=_VOCABULARY, embedding_size=16, max_position_embeddings=16, **_TEXT
    )
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    return _build(transformers.AlbertModel, config), _text()


def gpt2() -> tuple[nn.Module, Inputs]:
    config = transformers.GPT2Config(
        vocab_size=_VOCABULARY, n_positions=16, n_embd=32, n_layer=2, n_head=4,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return _build(transformers.GPT2LMHeadModel, config), _text(with_cache=True)


def llama() -> tuple[nn.Module, Inputs]:
    config = transformers.LlamaConfig(
        vocab_size=_VOCABULARY, max_position_embeddings=16, num_key_value_heads=2, **_TEXT
    )
    return _build(transformers.LlamaForCausalLM, config), _text(with_cache=True)


def bloom() -> tuple[nn.Module, Inputs]:
    config = transformers.BloomConfig(
        vocab_size=_VOCABULARY, hidden_size=32, n_layer=2, n_head=4, hidden_dropout=0.0, attention_dropout=0.0
    )
    return _build(transformers.BloomForCausalLM, config), _text(with_cache=True)


def mixtral() -> tuple[nn.Module, Inputs]:
    config = transformers.MixtralConfig(
        vocab_size=_VOCABULARY, max_position_embeddings=16, num_key_value_heads=2, num_local_experts=4,
        output_router_logits=False, **_TEXT,
    )  # fmt: skip
    return _build(transformers.MixtralForCausalLM, config), _text(with_cache=True)


def t5() -> tuple[nn.Module, Inputs]:
    config = transformers.T5Config(
        vocab_size=_VOCABULARY, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.0,
        decoder_start_token_id=0,
    )  # fmt: skip
    inputs = {"input_ids": _tokens(), "decoder_input_ids": _tokens(length=5), "use_cache": False}
    return _build(transformers.T5ForConditionalGeneration, config), inputs


def mamba() -> tuple[nn.Module, Inputs]:
    config = transformers.MambaConfig(
        vocab_size=_VOCABULARY, hidden_size=32, state_size=4, num_hidden_layers=2, use_mambapy=False
    )
    return _build(transformers.MambaForCausalLM, config), {"input_ids": _tokens(), "use_cache": False}


def whisper() -> tuple[nn.Module, Inputs]:
    config = transformers.WhisperConfig(
        vocab_size=_VOCABULARY, num_mel_bins=8, d_model=32, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64,
        max_source_positions=10, max_target_positions=16, dropout=0.0, pad_token_id=0, bos_token_id=1,
        eos_token_id=1, decoder_start_token_id=1,
    )  # fmt: skip
    features = {"input_features": _floats(2, 8, 20), "decoder_input_ids": _tokens(length=5)}
    return _build(transformers.WhisperForConditionalGeneration, config), features | {"use_cache": False}


def vit() -> tuple[nn.Module, Inputs]:
    config = transformers.ViTConfig(image_size=16, patch_size=4, **_TEXT)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    return _build(transformers.ViTForImageClassification, config), {"pixel_values": _floats(2, 3, 16, 16)}


def mobilenet_v2() -> tuple[nn.Module, Inputs]:
    config = transformers.MobileNetV2Config(
        image_size=32, depth_multiplier=0.25, min_depth=8, classifier_dropout_prob=0.0
    )
    model = _build(transformers.MobileNetV2ForImageClassification, config)
    return model, {"pixel_values": _floats(2, 3, 32, 32)}


def segformer() -> tuple[nn.Module, Inputs]:
    config = transformers.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[16, 32], patch_sizes=[7, 3],
        strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout_prob=0.0,
        drop_path_rate=0.0,
    )  # fmt: skip
    model = _build(transformers.SegformerForSemanticSegmentation, config)
    return model, {"pixel_values": _floats(2, 3, 32, 32)}


MODELS: dict[str, Builder] = {
    "bert": bert,
    "albert": albert,
    "gpt2": gpt2,
    "llama": llama,
    "bloom": bloom,
    "mixtral": mixtral,
    "t5": t5,
    "mamba": mamba,
    "whisper": whisper,
    "vit": vit,
    "mobilenet_v2": mobilenet_v2,
    "segformer": segformer,
}
