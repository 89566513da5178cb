"""Recurrent and state-space language models, in their plain torch formulation."""

from __future__ import annotations

import transformers

from stonefx.benchmarks.zoo.sizes import SMALL, Built, Size, build


def mamba(size: Size = SMALL) -> Built:
    config = transformers.MambaConfig(
        vocab_size=size.vocabulary, hidden_size=size.hidden, state_size=4, num_hidden_layers=size.layers,
        use_mambapy=False,
    )  # fmt: skip
    inputs = {"input_ids": size.tokens(min(size.length, 16)), "use_cache": False}
    return build(transformers.MambaForCausalLM, config), inputs


def mamba2(size: Size = SMALL) -> Built:
    config = transformers.Mamba2Config(
        vocab_size=size.vocabulary, hidden_size=size.hidden, state_size=16, num_hidden_layers=size.layers,
        num_heads=2 * size.hidden // 32, head_dim=32, n_groups=1, chunk_size=size.length // 2,
    )  # fmt: skip
    return build(transformers.Mamba2ForCausalLM, config), {"input_ids": size.tokens(), "use_cache": False}


def rwkv(size: Size = SMALL) -> Built:
    config = transformers.RwkvConfig(
        vocab_size=size.vocabulary, context_length=2 * size.length, hidden_size=size.hidden,
        num_hidden_layers=size.layers, attention_hidden_size=size.hidden, intermediate_size=size.feed_forward,
        use_cache=False,
    )  # fmt: skip
    return build(transformers.RwkvModel, config), {"input_ids": size.tokens(min(size.length, 16))}
