"""Text decoders, without a key-value cache."""

from __future__ import annotations

import transformers

from stonefx.benchmarks.zoo.sizes import SMALL, Built, Size, build


def gpt2(size: Size = SMALL) -> Built:
    config = transformers.GPT2Config(
        vocab_size=size.vocabulary, n_positions=2 * size.length, n_embd=size.hidden, n_layer=size.layers,
        n_head=size.heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return build(transformers.GPT2LMHeadModel, config), size.masked(use_cache=False)


def gpt_neox(size: Size = SMALL) -> Built:
    config = transformers.GPTNeoXConfig(hidden_dropout=0.0, attention_dropout=0.0, **size.text)
    return build(transformers.GPTNeoXForCausalLM, config), size.masked(use_cache=False)


def llama(size: Size = SMALL) -> Built:
    config = transformers.LlamaConfig(num_key_value_heads=size.heads // 2, **size.text)
    return build(transformers.LlamaForCausalLM, config), size.masked(use_cache=False)


def mistral(size: Size = SMALL) -> Built:
    config = transformers.MistralConfig(
        num_key_value_heads=size.heads // 2, sliding_window=size.length // 2, **size.text
    )
    return build(transformers.MistralForCausalLM, config), size.masked(use_cache=False)


def mixtral(size: Size = SMALL) -> Built:
    config = transformers.MixtralConfig(
        num_key_value_heads=size.heads // 2, num_local_experts=4, output_router_logits=False, **size.text
    )
    return build(transformers.MixtralForCausalLM, config), size.masked(use_cache=False)


def qwen2(size: Size = SMALL) -> Built:
    config = transformers.Qwen2Config(num_key_value_heads=size.heads // 2, **size.text)
    return build(transformers.Qwen2ForCausalLM, config), size.masked(use_cache=False)


def qwen3(size: Size = SMALL) -> Built:
    config = transformers.Qwen3Config(
        num_key_value_heads=size.heads // 2, head_dim=size.hidden // size.heads, **size.text
    )
    return build(transformers.Qwen3ForCausalLM, config), size.masked(use_cache=False)


def gemma2(size: Size = SMALL) -> Built:
    config = transformers.Gemma2Config(
        num_key_value_heads=size.heads // 2, head_dim=size.hidden // size.heads, sliding_window=size.length // 2,
        query_pre_attn_scalar=size.hidden // size.heads, **size.text,
    )  # fmt: skip
    return build(transformers.Gemma2ForCausalLM, config), size.masked(use_cache=False)


def phi(size: Size = SMALL) -> Built:
    config = transformers.PhiConfig(**size.text)
    return build(transformers.PhiForCausalLM, config), size.masked(use_cache=False)


def falcon(size: Size = SMALL) -> Built:
    config = transformers.FalconConfig(
        vocab_size=size.vocabulary, hidden_size=size.hidden, num_hidden_layers=size.layers,
        num_attention_heads=size.heads, max_position_embeddings=2 * size.length,
    )  # fmt: skip
    return build(transformers.FalconForCausalLM, config), size.masked(use_cache=False)


def opt(size: Size = SMALL) -> Built:
    names = {name: value for name, value in size.text.items() if name != "intermediate_size"}
    config = transformers.OPTConfig(
        ffn_dim=size.feed_forward, word_embed_proj_dim=size.hidden // 2, dropout=0.0, **names
    )
    return build(transformers.OPTForCausalLM, config), size.masked(use_cache=False)


def bloom(size: Size = SMALL) -> Built:
    config = transformers.BloomConfig(
        vocab_size=size.vocabulary, hidden_size=size.hidden, n_layer=size.layers, n_head=size.heads,
        hidden_dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    return build(transformers.BloomForCausalLM, config), size.masked(use_cache=False)
