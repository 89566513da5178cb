"""Text encoders."""

from __future__ import annotations

import transformers

from stonefx.benchmarks.zoo.sizes import SMALL, Built, Size, build

_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def bert(size: Size = SMALL) -> Built:
    config = transformers.BertConfig(**size.text, **_NO_DROPOUT)
    return build(transformers.BertModel, config), size.masked()


def roberta(size: Size = SMALL) -> Built:
    config = transformers.RobertaConfig(**size.text, **_NO_DROPOUT)
    return build(transformers.RobertaModel, config), size.masked()


def albert(size: Size = SMALL) -> Built:
    config = transformers.AlbertConfig(embedding_size=size.hidden // 2, **size.text, **_NO_DROPOUT)
    return build(transformers.AlbertModel, config), size.masked()


def electra(size: Size = SMALL) -> Built:
    config = transformers.ElectraConfig(embedding_size=size.hidden // 2, **size.text, **_NO_DROPOUT)
    return build(transformers.ElectraForPreTraining, config), size.masked()


def distilbert(size: Size = SMALL) -> Built:
    config = transformers.DistilBertConfig(
        vocab_size=size.vocabulary, max_position_embeddings=2 * size.length, n_layers=size.layers,
        n_heads=size.heads, dim=size.hidden, hidden_dim=size.feed_forward, dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    return build(transformers.DistilBertModel, config), size.masked()


def mobilebert(size: Size = SMALL) -> Built:
    config = transformers.MobileBertConfig(
        embedding_size=size.hidden // 4, intra_bottleneck_size=size.hidden // 4, true_hidden_size=size.hidden // 4,
        **size.text, **_NO_DROPOUT,
    )  # fmt: skip
    return build(transformers.MobileBertModel, config), size.masked()


def deberta_v2(size: Size = SMALL) -> Built:
    config = transformers.DebertaV2Config(
        relative_attention=True, position_buckets=size.length // 2, pos_att_type=["p2c", "c2p"],
        norm_rel_ebd="layer_norm", share_att_key=True, **size.text, **_NO_DROPOUT,
    )  # fmt: skip
    return build(transformers.DebertaV2Model, config), size.masked()


def fnet(size: Size = SMALL) -> Built:
    names = {name: value for name, value in size.text.items() if name != "num_attention_heads"}
    config = transformers.FNetConfig(hidden_dropout_prob=0.0, **names)
    return build(transformers.FNetModel, config), {"input_ids": size.tokens()}


def mpnet(size: Size = SMALL) -> Built:
    config = transformers.MPNetConfig(**size.text, **_NO_DROPOUT)
    return build(transformers.MPNetModel, config), size.masked()


def convbert(size: Size = SMALL) -> Built:
    config = transformers.ConvBertConfig(embedding_size=size.hidden // 2, **size.text, **_NO_DROPOUT)
    return build(transformers.ConvBertModel, config), size.masked()
