"""Small transformers models with random weights: what real graphs look like, each built in under a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from stonefx.benchmarks.zoo import ARCHITECTURES, TINY, Built
from stonefx.benchmarks.zoo.decoders import mixtral

_NAMES = "bert albert gpt2 llama bloom t5 mamba whisper vit mobilenet_v2 segformer".split()

MODELS: dict[str, Callable[[], Built]] = {
    **{name: partial(ARCHITECTURES[name], TINY) for name in _NAMES},
    # Its experts are chosen by the data, so that it is captured in parts only: one layer takes Dynamo ten seconds.
    "mixtral": partial(mixtral, replace(TINY, layers=1)),
}
