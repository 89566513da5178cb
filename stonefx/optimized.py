"""The module that `stonefx.optimize` returns."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules import module as hooks

from .rewriting import StonefxWarning

if TYPE_CHECKING:
    from .program import Program
    from .report import Report

FOLDED = "folded"


class OptimizedModule(nn.Module):
    """A model over its own copy of the weights, whose call is one generated function.

    Its modules, parameters, buffers and attributes are those of the copied model, less the weights that were
    folded away; the folded ones stand under `folded`. It saves, loads, moves and trains as any module does.
    The mode, training or evaluation, is the one that it was captured in.
    """

    report: Report
    _stone_owns_weights = True

    def __init__(self, source: nn.Module, program: Program, report: Report) -> None:
        super().__init__()
        for table in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            object.__setattr__(self, table, getattr(source, table))
        self.__dict__["training"] = source.training
        self.__dict__["_source"] = source
        self.__dict__["_program"] = program
        self.__dict__["report"] = report
        self._bind()

    def _bind(self) -> None:
        """Give this instance a class of its own, whose call is the generated function over its own weights."""
        forward, call = self._program.functions(self)
        name = f"Optimized{type(self._source).__name__}"
        self.__class__ = type(name, (OptimizedModule,), {"forward": forward, "__call__": call})

    def _refuse(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a call comes to whose arguments the captured graph does not cover."""
        reason = self._program.mismatch(args, kwargs)
        if self._program.folded:
            raise ValueError(
                f"{reason}. The model was captured for other arguments and its original weights are folded away; "
                "call stonefx.optimize again with example inputs like these"
            )
        warnings.warn(
            f"stonefx: {reason}, which the captured graph does not cover; the original forward runs instead",
            StonefxWarning,
            3,
        )
        return self._source.forward(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            source = self.__dict__.get("_source")
            if source is None or name.startswith("__"):
                raise
            return getattr(source, name)

    def train(self, mode: bool = True) -> OptimizedModule:
        """Accept the mode that the model was captured in; the graph of the other one is not here.

        Raises:
            RuntimeError: the other mode.
        """
        if mode != self.training:
            had, wants = ("training", "evaluation") if self.training else ("evaluation", "training")
            raise RuntimeError(
                f"this model was captured in {had} mode and cannot change to {wants} mode; set the mode of the "
                f"original with .{'train' if mode else 'eval'}() and call stonefx.optimize on it again"
            )
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> OptimizedModule:
        source = copy.deepcopy(self._source, memo)
        twin = OptimizedModule.__new__(OptimizedModule)
        memo[id(self)] = twin
        OptimizedModule.__init__(twin, source, self._program, copy.copy(self.report))
        return twin

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "an optimized model cannot be pickled: its call is generated code. Save its state_dict() and call "
            "stonefx.optimize on the original again before loading it"
        )


def hooked() -> tuple[str, ...]:
    """The names of the hook tables that a call of an `nn.Module` looks at, of the module and of all modules."""
    return ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def hook_tables(module: nn.Module) -> list[dict[int, Any]]:
    """The tables that must all be empty for a call to go straight to the generated function."""
    own = [getattr(module, name) for name in hooked()]
    return own + [getattr(hooks, f"_global{name}") for name in hooked()]


def owner(module: nn.Module, name: str) -> tuple[dict[str, Any], str]:
    """The dictionary in which a module keeps a weight, and the weight's name in it.

    Raises:
        AttributeError: there is no such parameter, buffer or tensor.

    >>> owner(nn.Sequential(nn.Linear(2, 2)), "0.bias")[1]
    'bias'
    """
    path, _, leaf = name.rpartition(".")
    holder = module.get_submodule(path) if path else module
    for table in (holder._parameters, holder._buffers, holder.__dict__):
        if isinstance(table.get(leaf), torch.Tensor):
            return table, leaf
    raise AttributeError(f"{type(module).__name__} has no parameter, buffer or tensor {name!r}")


Functions = tuple[Callable[..., Any], Callable[..., Any]]
