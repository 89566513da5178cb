"""Small random models of real architectures; needs `transformers`.

`ARCHITECTURES` maps a name to a builder of the model and the keyword arguments of one call.

>>> model, inputs = ARCHITECTURES["bert"](TINY)
>>> model(**inputs).last_hidden_state.shape
torch.Size([2, 8, 32])
"""

from __future__ import annotations

from collections.abc import Callable

from stonefx.benchmarks.zoo.decoders import (
    bloom,
    falcon,
    gemma2,
    gpt2,
    gpt_neox,
    llama,
    mistral,
    opt,
    phi,
    qwen2,
    qwen3,
)
from stonefx.benchmarks.zoo.diffusion import dit, unet, vae
from stonefx.benchmarks.zoo.encoder_decoders import bart, pegasus, t5, whisper
from stonefx.benchmarks.zoo.encoders import (
    albert,
    bert,
    convbert,
    deberta_v2,
    distilbert,
    electra,
    fnet,
    mobilebert,
    mpnet,
    roberta,
)
from stonefx.benchmarks.zoo.graphs import appnp, gcn, graphsage, sgc
from stonefx.benchmarks.zoo.sizes import SMALL, TINY, Built, Inputs, Size
from stonefx.benchmarks.zoo.speech import (
    hubert,
    hubert_classifier,
    wav2vec2,
    wav2vec2_classifier,
    wavlm_classifier,
    whisper_classifier,
)
from stonefx.benchmarks.zoo.state_space import mamba, mamba2, rwkv
from stonefx.benchmarks.zoo.vision import (
    beit,
    clip,
    convnext,
    deit,
    dinov2,
    dpt,
    mobilenet_v2,
    resnet,
    segformer,
    vit,
)

__all__ = ["ARCHITECTURES", "SMALL", "TINY", "Built", "Inputs", "Size"]

ARCHITECTURES: dict[str, Callable[[Size], Built]] = {
    builder.__name__: builder
    for builder in (
        *(bert, roberta, albert, electra, distilbert, mobilebert, deberta_v2, fnet, mpnet, convbert),
        *(gpt2, gpt_neox, llama, mistral, qwen2, qwen3, gemma2, phi, falcon, opt, bloom),
        *(t5, bart, pegasus, whisper),
        *(vit, deit, beit, dinov2, convnext, resnet, mobilenet_v2, segformer, dpt, clip),
        *(wav2vec2, hubert),
        *(wav2vec2_classifier, hubert_classifier, wavlm_classifier, whisper_classifier),
        *(gcn, sgc, graphsage, appnp),
        *(mamba, mamba2, rwkv),
        *(unet, vae, dit),
    )
}
