"""Several layers that are made smaller together: the interface between blocks and the search."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from stonefx.tracing.errors import first_line

from .data import Batch
from .layers import replace
from .losses import Directions
from .statistics import Statistics
from .views import View


@dataclass(frozen=True)
class Block(ABC):
    """Layers between which some units may be left out, such as the two of a feed-forward block.

    Attributes:
        paths: of all layers that change.
        view: the layer that reads the units: what it is given and what its result matters decide which go.
    """

    paths: tuple[str, ...]
    view: View

    name: ClassVar[str]
    """The form's name in `forms=` and in reports."""

    @abstractmethod
    def reduction(self, statistics: Statistics) -> Reduction:
        """The order in which units are kept, from the statistics of `view`."""


class Reduction(ABC):
    """A block with its units in order.

    Attributes:
        directions: parts of the block's result by the order in which they are kept, for their sampled losses.
        parts: how many of the directions belong to one unit.
        sizes: how many units may be kept; fewer than all.
    """

    directions: Directions
    parts: int = 1
    sizes: Sequence[int]

    @abstractmethod
    def numbers(self, size: int) -> int:
        """How many weights all layers of the block then store, biases not counted."""

    @abstractmethod
    def loss(self, size: int) -> float:
        """From covariances alone; used where no sampled loss is to be had."""

    @abstractmethod
    def build(self, size: int) -> Mapping[str, nn.Module]:
        """The layers' replacements by path."""


def obstacle(
    model: nn.Module, modules: Mapping[str, nn.Module], call: Batch, shared: dict[str, list[str]]
) -> str | None:
    """Why the model does not run with these modules in the places of its layers; None where it does.

    Sizes that a forward has written out, and what it reads of its layers beside calling them, show themselves here.
    """
    kept = {}
    try:
        for path, module in modules.items():
            kept[path] = model.get_submodule(path)
            replace(model, path, module, shared)
        with torch.no_grad():
            call.call(model)
    except Exception as error:
        return f"{type(error).__name__}: {first_line(error)}"
    finally:
        for path, module in kept.items():
            replace(model, path, module, shared)
    return None
