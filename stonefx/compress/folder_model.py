"""The code that a transformers folder of a compressed model holds: torch and transformers alone.

`save_transformers` writes this file into the folder, followed by a class of the model, which makes the original and
puts the layers that `config.compression` describes in the places of those that were replaced. No module of this package
may be imported here.
"""

import torch
from torch import nn


class Int8Linear(nn.Module):
    """A linear layer of int8 weights with a scale an output channel, computed by torchao."""

    def __init__(self, inputs: int, outputs: int, bias: bool, dynamic: bool) -> None:
        super().__init__()
        self.inputs, self.dynamic = inputs, dynamic
        self.register_buffer("qdata", torch.empty(outputs, inputs, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(outputs, 1))
        self.register_buffer("zero_point", torch.zeros(outputs, 1, dtype=torch.int8))
        self.bias = nn.Parameter(torch.empty(outputs), requires_grad=False) if bias else None

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
        return torch.full((), torch.nan, dtype=like.dtype, device=like.device).expand(self.shape)


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
    """A layer from its description."""
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

LAYERS: dict = {
    "Linear": ("in_features", "out_features"),
    "Embedding": ("num_embeddings", "embedding_dim", "padding_idx"),
    **dict.fromkeys(("Conv1d", "Conv2d", "Conv3d"), CONVOLUTION),
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
