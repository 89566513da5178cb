"""The code that a transformers folder of a compressed model holds: torch and transformers alone.

This file is written into the folder. For a model of transformers a class of the model follows, which makes the
original and puts the layers that `config.compression` describes in the places of those that were replaced; for any
other one `load` does that. No module of the package that wrote it may be imported here.
"""

import json
from pathlib import Path

import torch
from torch import nn


def without_values(shape: tuple, like: torch.Tensor) -> torch.Tensor:
    """NaN in the place of each value, in the memory of one."""
    return torch.full((), torch.nan, dtype=like.dtype, device=like.device).expand(shape)


class Int8Linear(nn.Module):
    """A linear layer of int8 weights with a scale an output channel, computed by torchao."""

    qdata: torch.Tensor
    scale: torch.Tensor

    def __init__(self, inputs: int, outputs: int, bias: bool, dynamic: bool) -> None:
        super().__init__()
        self.inputs, self.dynamic = inputs, dynamic
        self.in_features, self.out_features = inputs, outputs
        self.register_buffer("qdata", torch.empty(outputs, inputs, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(outputs, 1))
        self.register_buffer("zero_point", torch.zeros(outputs, 1, dtype=torch.int8))
        self.bias = nn.Parameter(torch.empty(outputs), requires_grad=False) if bias else None

    @property
    def weight(self) -> torch.Tensor:
        """NaN in the place of each value, for code that asks its dtype, device and shape."""
        # A buffer for it that is not stored would have transformers draw the weights around it anew.
        return without_values(self.qdata.shape, self.scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x [*batch, inputs]` to `[*batch, outputs]`."""
        from torchao.quantization import Int8Tensor
        from torchao.quantization.granularity import PerRow
        from torchao.quantization.quantize_.workflows import QuantizeTensorToInt8Kwargs

        weight = Int8Tensor(
            self.qdata,
            self.scale,
            [1, self.inputs],
            x.dtype,
            zero_point=self.zero_point,
            act_quant_kwargs=QuantizeTensorToInt8Kwargs(granularity=PerRow()) if self.dynamic else None,
        )
        return nn.functional.linear(x, weight, self.bias)


class Factors(nn.Sequential):
    """Layers that stand for one whose weight the model asks for its dtype, device and shape; it has no values."""

    def __init__(self, shape: list) -> None:
        super().__init__()
        self.shape = tuple(shape)

    @property
    def weight(self) -> torch.Tensor:
        """NaN, in the place of each value."""
        tensors = (*self.parameters(), *self.buffers())
        like = next(t for t in tensors if t.is_floating_point())
        return without_values(self.shape, like)


class Graph(nn.Module):
    """A layer whose forward is written out below."""

    def __init__(self, parameters: dict, buffers: dict, children: dict) -> None:
        super().__init__()
        for name, (shape, dtype) in parameters.items():
            value = torch.empty(shape, dtype=getattr(torch, dtype))
            self.register_parameter(name, nn.Parameter(value, requires_grad=False))
        for name, (shape, dtype) in buffers.items():
            self.register_buffer(name, torch.empty(shape, dtype=getattr(torch, dtype)))
        for name, child in children.items():
            self.add_module(name, build(child))


GRAPHS: dict = {}


def build(layer: dict) -> nn.Module:
    """A layer from its description, with the plain attributes of the one that it stands in for."""
    made = build_bare(layer)
    for name, value in layer.get("facts", {}).items():
        if not hasattr(type(made), name):
            made.__dict__.setdefault(name, tuple(value) if isinstance(value, list) else value)
    return made


def build_bare(layer: dict) -> nn.Module:
    """A layer from its description, without these."""
    kind, arguments = layer["class"], dict(layer["arguments"])
    if kind == "Sequential":
        made: nn.Module = Factors(layer["weight"]) if "weight" in layer else nn.Sequential()
        for name, child in arguments.items():
            made.add_module(name, build(child))
        return made
    if kind == "Int8Linear":
        return Int8Linear(**arguments)
    if kind == "Graph":
        return GRAPHS[arguments.pop("code")](**arguments)
    if kind == "Conv1D":
        from transformers.pytorch_utils import Conv1D

        return Conv1D(**arguments)
    if kind not in LAYERS:
        raise ValueError(f"a layer of class {kind!r} is not known; known are {', '.join(LAYERS)}")
    return getattr(nn, kind)(**arguments)


CONVOLUTION = (
    *("in_channels", "out_channels", "kernel_size"),
    *("stride", "padding", "dilation", "groups", "padding_mode"),
)

RECURRENT = ("input_size", "hidden_size", "num_layers", "batch_first", "dropout", "bidirectional")

LAYERS: dict = {
    "Linear": ("in_features", "out_features"),
    "Embedding": ("num_embeddings", "embedding_dim", "padding_idx"),
    **dict.fromkeys(("Conv1d", "Conv2d", "Conv3d"), CONVOLUTION),
    **dict.fromkeys(
        ("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"), (*CONVOLUTION, "output_padding")
    ),
    "LSTM": (*RECURRENT, "proj_size"),
    "GRU": RECURRENT,
    "RNN": (*RECURRENT, "nonlinearity"),
    **dict.fromkeys(("LSTMCell", "GRUCell"), ("input_size", "hidden_size")),
    "RNNCell": ("input_size", "hidden_size", "nonlinearity"),
    "LayerNorm": ("normalized_shape", "eps", "elementwise_affine"),
    **dict.fromkeys(
        ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d"), ("num_features", "eps", "momentum", "affine")
    ),
    "Identity": (),
}


def put(model: nn.Module, layers: dict) -> None:
    """Put the described layers where they belong."""
    for path, layer in layers.items():
        parent, _, name = path.rpartition(".")
        same = layer["class"] == "Same"
        made = model.get_submodule(layer["arguments"]["path"]) if same else build(layer)
        setattr(model.get_submodule(parent), name, made)


def load(model: nn.Module, folder: str = "") -> nn.Module:
    """Make a model, as its own code makes it, the compressed one of a folder; of this file's where none is named."""
    from safetensors.torch import load_file

    place = Path(folder) if folder else Path(__file__).parent
    document = json.loads((place / "compression.json").read_text(encoding="utf-8"))
    put(model, document["layers"])
    state = load_file(place / "model.safetensors")
    left = model.load_state_dict(state, strict=False, assign=True)
    missing = sorted({*left.missing_keys} - {*document["tied"]})
    if missing or left.unexpected_keys:
        raise ValueError(
            f"the model is not the one that was compressed: the folder has no {missing}, and the model no "
            f"{left.unexpected_keys}"
        )
    for name, first in document["tied"].items():
        (path, _, own), (other, _, there) = name.rpartition("."), first.rpartition(".")
        setattr(model.get_submodule(path), own, getattr(model.get_submodule(other), there))
    return model.eval()
