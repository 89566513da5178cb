"""The module that `stonefx.optimize` returns."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..rewriting import StonefxWarning
from .weights import hook_tables

if TYPE_CHECKING:
    from ..report import Report
    from .program import Program


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
        share_state(self, source)
        self.__dict__["_program"] = program
        self.__dict__["report"] = report
        self._bind()

    def _bind(self) -> None:
        """Give this instance a class of its own, whose call is the generated function over its own weights."""
        forward, call = self._program.functions(self)
        name = f"Optimized{type(self._source).__name__}"
        forward.__qualname__ = call.__qualname__ = f"{name}.forward"
        self.__class__ = type(name, (OptimizedModule,), {"forward": forward, "__call__": call})

    def _refuse(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a call comes to whose arguments the captured graph does not cover."""
        reason = self._program.mismatch(self, args, kwargs)
        missing = self._program.original_missing
        if missing:
            raise ValueError(f"{reason}. {missing}")
        warnings.warn(
            f"stonefx: {reason}, which the captured graph does not cover; the original forward runs instead",
            StonefxWarning,
            3,
        )
        return self._source.forward(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return _attribute(self, name, super().__getattr__)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> OptimizedModule:
        for dtype in {tensor.dtype for tensor in [*self.parameters(), *self.buffers()]}:
            changed = fn(torch.empty(0, dtype=dtype)).dtype
            if changed != dtype:
                raise RuntimeError(
                    f"this model was captured with {dtype} weights and cannot change to {changed}: its graph may "
                    "depend on the dtype. Cast the original and call stonefx.optimize on it again"
                )
        return super()._apply(fn, recurse)

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
            "an optimized model cannot be pickled: its call is generated code. Write it with stonefx.save(model, path) "
            "and read it with stonefx.load(path); copy.deepcopy copies it"
        )


class PartlyOptimizedModule(nn.Module):
    """A model that could not be captured whole: its own forward, over submodules or graphs that were optimized.

    Args:
        source: the model.
        report: about its submodules or graphs.
        make_run: makes of a model what to call in the place of its forward; a copy of this module makes its own.
    """

    report: Report
    _stone_owns_weights = True

    def __init__(
        self,
        source: nn.Module,
        report: Report,
        make_run: Callable[[nn.Module], Callable[..., Any]] | None = None,
    ) -> None:
        super().__init__()
        share_state(self, source)
        self.__dict__["report"] = report
        self.__dict__["_make_run"] = make_run
        self.__dict__["_run"] = source.forward if make_run is None else make_run(source)
        # Dynamo does not look for hooks that come after it compiled a call.
        watched = source.modules() if make_run is not None else ()
        tables = {id(table): table for module in watched for table in hook_tables(module)}.values()
        self.__dict__["_hooked"] = list(tables), sum(map(len, tables))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model's own forward."""
        tables, hooks = self.__dict__["_hooked"]
        # Another compiler or exporter wants to see the forward itself.
        plain = torch.compiler.is_compiling() or sum(map(len, tables)) != hooks
        return (self._source.forward if plain else self.__dict__["_run"])(*args, **kwargs)

    def train(self, mode: bool = True) -> PartlyOptimizedModule:
        """Set the mode of the model, whose forward may ask for it, and of its submodules."""
        self._source.train(mode)
        self.__dict__["training"] = mode
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> PartlyOptimizedModule:
        source = copy.deepcopy(self._source, memo)
        twin = PartlyOptimizedModule(source, copy.copy(self.report), self.__dict__["_make_run"])
        memo[id(self)] = twin
        return twin

    def __getstate__(self) -> dict[str, Any]:
        # What runs is bound to the weights of this module; what is read back runs the model's own forward.
        return super().__getstate__() | {"_run": self._source.forward, "_make_run": None, "_hooked": ([], 0)}

    def __getattr__(self, name: str) -> Any:
        return _attribute(self, name, super().__getattr__)


class LazyModule(nn.Module):
    """A model that is optimized at its first call, on the arguments of that call."""

    _stone_owns_weights = True

    def __init__(self, source: nn.Module, make: Callable[..., nn.Module]) -> None:
        super().__init__()
        share_state(self, source)
        self.__dict__["_make"] = make
        self.__dict__["_lock"] = threading.Lock()

    @property
    def report(self) -> Report:
        """The report, from the first call on."""
        raise RuntimeError(
            "this model is optimized at its first call and has not been called yet; call it once, or give "
            "stonefx.optimize example inputs"
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Optimize, become the optimized module, and run."""
        with self._lock:
            if type(self) is LazyModule:
                made = self._make(args, kwargs)
                hooks = {name: self.__dict__[name] for name in self.__dict__ if name.endswith("_hooks")}
                self.__dict__.update(made.__dict__ | hooks)
                self.__class__ = type(made)
                if isinstance(self, OptimizedModule):
                    self._bind()
        return self.forward(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return _attribute(self, name, super().__getattr__)


def program_of(module: OptimizedModule) -> Program:
    """The graph that an optimized module runs; no attribute, whose name a model could have for something else."""
    program: Program = module.__dict__["_program"]
    return program


def share_state(module: nn.Module, source: nn.Module) -> None:
    """Give a wrapper the very tables of the model it stands for, so that both always agree."""
    for table in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
        object.__setattr__(module, table, getattr(source, table))
    module.__dict__["training"] = source.training
    module.__dict__["_source"] = source


def _attribute(module: nn.Module, name: str, plain: Callable[[str], Any]) -> Any:
    try:
        return plain(name)
    except AttributeError:
        source = module.__dict__.get("_source")
        if source is None or name.startswith("__"):
            raise
        return getattr(source, name)
