"""Vision: transformers, convolutional networks, dense prediction, images with text."""

from __future__ import annotations

import transformers

from stonefx.benchmarks.zoo.sizes import SMALL, Built, Size, build

_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def vit(size: Size = SMALL) -> Built:
    config = transformers.ViTConfig(**size.image_text, **_NO_DROPOUT)
    return build(transformers.ViTForImageClassification, config), size.pixels()


def deit(size: Size = SMALL) -> Built:
    config = transformers.DeiTConfig(**size.image_text, **_NO_DROPOUT)
    return build(transformers.DeiTForImageClassificationWithTeacher, config), size.pixels()


def beit(size: Size = SMALL) -> Built:
    config = transformers.BeitConfig(
        use_relative_position_bias=True, drop_path_rate=0.0, **size.image_text, **_NO_DROPOUT
    )
    return build(transformers.BeitForImageClassification, config), size.pixels()


def dinov2(size: Size = SMALL) -> Built:
    config = transformers.Dinov2Config(**size.image_text, **_NO_DROPOUT)
    return build(transformers.Dinov2ForImageClassification, config), size.pixels()


def convnext(size: Size = SMALL) -> Built:
    half = size.hidden // 2
    config = transformers.ConvNextConfig(
        hidden_sizes=[half // 2, half, size.hidden, 2 * size.hidden], depths=[1, 1, 1, 1], drop_path_rate=0.0
    )
    return build(transformers.ConvNextForImageClassification, config), size.pixels()


def resnet(size: Size = SMALL) -> Built:
    config = transformers.ResNetConfig(
        embedding_size=size.hidden // 4, hidden_sizes=[size.hidden // 2, size.hidden, 2 * size.hidden],
        depths=[1, 2, 1], layer_type="bottleneck",
    )  # fmt: skip
    return build(transformers.ResNetForImageClassification, config), size.pixels()


def mobilenet_v2(size: Size = SMALL) -> Built:
    config = transformers.MobileNetV2Config(
        image_size=size.image, depth_multiplier=size.hidden / 128, min_depth=8, classifier_dropout_prob=0.0
    )
    return build(transformers.MobileNetV2ForImageClassification, config), size.pixels()


def segformer(size: Size = SMALL) -> Built:
    config = transformers.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[size.hidden // 2, size.hidden],
        patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2],
        decoder_hidden_size=size.hidden // 2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        classifier_dropout_prob=0.0, drop_path_rate=0.0,
    )  # fmt: skip
    return build(transformers.SegformerForSemanticSegmentation, config), size.pixels()


def dpt(size: Size = SMALL) -> Built:
    # One feature map of each block, at four resolutions.
    blocks = size.image_text | {"num_hidden_layers": 4}
    config = transformers.DPTConfig(
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[16, 32, 64, 64], fusion_hidden_size=size.hidden // 4,
        reassemble_factors=[4, 2, 1, 0.5], is_hybrid=False, **blocks, **_NO_DROPOUT,
    )  # fmt: skip
    return build(transformers.DPTForDepthEstimation, config), size.pixels()


def clip(size: Size = SMALL) -> Built:
    config = transformers.CLIPConfig(
        text_config={**size.text, "eos_token_id": 2},
        vision_config=size.image_text,
        projection_dim=size.hidden // 2,
    )
    return build(transformers.CLIPModel, config), size.masked() | size.pixels()
