"""A random module as text: statements over values, and the layers that they use."""

from __future__ import annotations

import linecache
import re
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType

import torch
from torch import nn

HEADER = "import math\n\nimport torch\nfrom torch import nn\nfrom torch.nn import functional as F\n\n\n"
# Where modules and inputs are: "cpu" or "cuda". Their values are drawn on the CPU, so that they are the same.
PLACE = {"device": "cpu"}
_DTYPE = re.compile(r"torch\.(bfloat16|float16|float32)\b")


@dataclass(frozen=True)
class Statement:
    """`targets = source`, or `source` alone where there are no targets."""

    targets: tuple[str, ...]
    source: str

    def reads(self) -> set[str]:
        """The values that it reads."""
        return set(re.findall(r"\bv\d+\b", self.source))

    def layers(self) -> set[str]:
        """The attributes of the module that it uses."""
        return set(re.findall(r"\bself\.(\w+)", self.source))

    def __str__(self) -> str:
        return f"{', '.join(self.targets)} = {self.source}" if self.targets else self.source


@dataclass(frozen=True)
class Input:
    """A tensor argument `[batch, *sizes]`: normal values, or indices below `indices` where that is given.

    With `transposed`, its last two axes lie in memory the other way round.
    """

    sizes: tuple[int, ...]
    indices: int = 0
    transposed: bool = False
    dtype: torch.dtype = torch.float32

    def draw(self, batch: int, seed: int) -> torch.Tensor:
        """A value of this input."""
        generator = torch.Generator().manual_seed(seed)
        shape = [batch, *self.sizes]
        if self.indices:
            return torch.randint(0, self.indices, shape, generator=generator)
        if self.transposed:
            shape[-1], shape[-2] = shape[-2], shape[-1]
        value = torch.randn(shape, generator=generator).to(self.dtype)
        return value.mT if self.transposed else value


@dataclass(frozen=True)
class Program:
    """A module whose forward runs `statements` and returns `outputs`.

    `layers` maps an attribute to the expression that makes it. With `train` the module is in training mode and its
    gradients are compared too.
    """

    seed: int
    inputs: Mapping[str, Input]
    layers: Mapping[str, str]
    statements: Sequence[Statement]
    outputs: Sequence[str]
    train: bool = False

    def source(self, *, exact: bool = False) -> str:
        """The module as Python. With `exact` every conversion to a narrower dtype is one to float64."""
        forward = [str(statement) for statement in self.statements]
        if exact:
            forward = [_DTYPE.sub("torch.float64", line) for line in forward]
        returned = f"({', '.join(self.outputs)})" if len(self.outputs) > 1 else self.outputs[0]
        return HEADER + "\n".join(
            [
                "class RandomModule(nn.Module):",
                "    def __init__(self):",
                "        super().__init__()",
                *(f"        self.{name} = {made}" for name, made in self.layers.items()),
                "",
                f"    def forward(self, {', '.join(self.inputs)}):",
                *(f"        {line}" for line in forward),
                f"        return {returned}",
                "",
            ]
        )

    def module(self, *, exact: bool = False) -> nn.Module:
        """The module, with weights that depend on the seed and on their names only."""
        source = self.source(exact=exact)
        holder = ModuleType(f"random_module_{self.seed}{'_exact' if exact else ''}")
        file = f"{holder.__name__}.py"
        # Dynamo imports the module again by its name; errors and reports quote its lines.
        sys.modules[holder.__name__] = holder
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        exec(compile(source, file, "exec"), vars(holder))
        module: nn.Module = holder.RandomModule()
        fill_weights(module, self.seed)
        module = module.double() if exact else module
        return module.to(PLACE["device"]).train(self.train)

    def draw(self, batch: int) -> list[torch.Tensor]:
        """One value an input."""
        return [
            one.draw(batch, 97 * self.seed + 7 * batch + index).to(PLACE["device"])
            for index, one in enumerate(self.inputs.values())
        ]

    def pruned(self, outputs: Iterable[str] | None = None) -> Program:
        """Without the statements and layers that the outputs do not need; what changes a value in place stays."""
        outputs = list(outputs or self.outputs)
        needed, kept = set(outputs), []
        for statement in reversed(self.statements):
            changes = not statement.targets and statement.reads() & needed
            if changes or needed & set(statement.targets):
                needed |= statement.reads()
                kept.append(statement)
        kept.reverse()
        used = set().union(*(statement.layers() for statement in kept))
        layers = {name: made for name, made in self.layers.items() if name in used}
        return replace(self, statements=kept, layers=layers, outputs=outputs)


@torch.no_grad()
def fill_weights(module: nn.Module, seed: int) -> None:
    """Give every parameter and statistic a value that an error would show in: no bias is 0, no scale is 1."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}.{name}".encode()))
        drawn = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            drawn = 0.5 + drawn.abs()
        elif tensor.dim() >= 2:
            drawn *= (tensor[0].numel()) ** -0.5
        elif name.endswith("weight"):
            drawn = 1 + 0.3 * drawn
        else:
            drawn *= 0.3
        tensor.copy_(drawn)
