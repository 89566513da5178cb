"""An optimized part of a model that was not captured whole: of its own class, for a forward that asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..tracing.model_state import is_scripted
from .module import OptimizedModule, PartlyOptimizedModule


class OptimizedPart(nn.Module):
    """What stands in the place of a submodule: its class and its attributes, and the optimized module's call.

    Its class derives from the submodule's own, and it has the very `__dict__` of the submodule, so that `isinstance`,
    attributes and methods answer as they did.
    """

    _stone_owns_weights = True
    _fast: OptimizedModule | PartlyOptimizedModule

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the optimized module."""
        return self._fast.forward(*args, **kwargs)

    def train(self, mode: bool = True) -> OptimizedPart:
        """Accept the mode that the part was captured in, as `OptimizedModule.train`."""
        self._fast.train(mode)
        return self

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> OptimizedPart:
        self._fast._apply(fn, recurse)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        twin = as_part(self._fast.__deepcopy__(memo))
        memo[id(self)] = twin
        return twin

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._fast.__reduce_ex__(protocol)


def as_part(fast: OptimizedModule | PartlyOptimizedModule) -> OptimizedPart:
    """The module to put in the place of the one that `fast` was made of.

    >>> import stonefx
    >>> fast = stonefx.optimize(nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 8)).eval(), torch.ones(2, 8))
    >>> part = as_part(fast)
    >>> isinstance(part, nn.Sequential), len(part), part(torch.ones(3, 8)).shape
    (True, 2, torch.Size([3, 8]))
    """
    source = fast.__dict__["_source"]
    kind = type(source)
    # The optimized module is kept by the class: in the shared `__dict__` the submodule would come to hold it, too.
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    own = type(kind.__name__, (OptimizedPart, kind), names | {"_fast": fast})
    part: OptimizedPart = object.__new__(own)
    object.__setattr__(part, "__dict__", source.__dict__)
    return part


def optimized_module(module: nn.Module) -> OptimizedModule | None:
    """The optimized module that a module is or runs; None for any other module.

    >>> optimized_module(nn.Linear(2, 2)) is None
    True
    """
    module = module._fast if isinstance(module, OptimizedPart) else module
    return module if isinstance(module, OptimizedModule) else None


def kept_tables(model: nn.Module) -> Callable[[], None]:
    """A function that gives a model back the weights and submodules that it has now.

    >>> model = nn.Sequential(nn.Linear(2, 2))
    >>> restore = kept_tables(model)
    >>> model[0] = nn.ReLU()
    >>> restore(), model[0]
    (None, Linear(in_features=2, out_features=2, bias=True))
    """
    tables = [
        (table, dict(table))
        for module in model.modules()
        if not is_scripted(module)
        for table in (module._parameters, module._buffers, module._modules)
    ]

    def restore() -> None:
        for table, contents in tables:
            table.clear()
            table.update(contents)  # type: ignore[arg-type]

    return restore
