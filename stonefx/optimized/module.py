"""The module that `stonefx.optimize` returns."""

from __future__ import annotations

import copy
import functools
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..rewriting import StonefxWarning
from .derived import Derived, derived, own_forward, plain_behind, plain_class, set_class
from .parts import PLACE, Part, announce_casts, copied_as, pickled
from .program import TABLES
from .record import Record
from .weights import has_hooks, hook_tables

if TYPE_CHECKING:
    from ..report import Report
    from .program import Program

# What libraries call the methods that write a model so that its own class can read it.
_CHECKPOINTS = ("save_pretrained", "_save_pretrained", "push_to_hub", "save_checkpoint")


class OptimizedModule(Part):
    """A model over its own copy of the weights, whose call is one generated function.

    It is the copied model, of a class in front of the model's own: modules, parameters, buffers, attributes and
    methods are the model's. Weights that were folded away are gone where they are released, and the folded ones
    stand among the model's own parameters; reading or setting one that is gone raises. It saves, loads, moves and
    trains as any module does. The mode, training or evaluation, is the one that it was captured in.
    """

    _stone_owns_weights = True

    def __init__(self, source: nn.Module, program: Program, report: Report) -> None:
        constants = {} if program.release else program.constants
        record = Record(program, report, patched=self.__dict__.pop("forward", None), constants=constants)
        self.__dict__["_stone_record"] = record
        record.settle(self)
        self._bind()

    @classmethod
    def namespace_over(cls, plain: type) -> dict[str, Any]:
        """A forward of the signature of the model's own, and methods that write only checkpoints that are ones."""
        return super().namespace_over(plain) | _like_a_model(plain, cls._stone_forward)

    @property
    def report(self) -> Report:
        """What `optimize` did, and what it left."""
        return self.__dict__["_stone_record"].report

    @property
    def _stone_follows_weights(self) -> bool:
        """Whether the folds are made again when the model's own weights change."""
        return not self.__dict__["_stone_record"].program.release

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """A call while hooks are to run or something differs from what was captured; else it is the generated one."""
        record = self.__dict__["_stone_record"]
        if record.stale or record.original:
            record.original = not record.is_as_captured(self)
            if not record.original:
                self._bind()
        if record.original:
            return super().__call__(*args, **kwargs)
        if has_hooks(self):
            return nn.Module.__call__(self, *args, **kwargs)
        set_class(self, record.fast)
        return self(*args, **kwargs)

    def _stone_forward(self, *args: Any, **kwargs: Any) -> Any:
        """The forward inside of such a call."""
        record = self.__dict__["_stone_record"]
        if record.original or record.fast is None:
            return self._run_original(args, kwargs)
        return record.fast.forward(self, *args, **kwargs)

    def _stone_look_again(self) -> None:
        """Let the next call find out what it is to run."""
        set_class(self, derived(OptimizedModule, plain_behind(type(self))))

    def _bind(self) -> None:
        """Give this model the class whose call is the generated function, unless hooks are to run around it."""
        record = self.__dict__["_stone_record"]
        code = record.program.code(self)
        self.__dict__[TABLES] = tuple(code.own.values())
        record.fast = derived(
            OptimizedModule, plain_behind(type(self)), lambda: _methods(code, self), code.key
        )
        record.stale = False
        set_class(self, record.fast)
        if has_hooks(self):
            self._stone_look_again()

    def _run_original(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        record = self.__dict__["_stone_record"]
        if record.patched is not None:
            return record.patched(*args, **kwargs)
        return own_forward(self)(*args, **kwargs)

    def _refuse(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a call comes to whose arguments the captured graph does not cover."""
        record = self.__dict__["_stone_record"]
        if record.program.original_missing:
            reason = record.program.mismatch(self, args, kwargs)
            raise ValueError(f"{reason}. {record.program.original_missing}")
        if not record.warned:
            record.warned = True
            reason = record.program.mismatch(self, args, kwargs)
            warnings.warn(
                f"stonefx: {reason}, which the captured graph does not cover; the original forward runs instead",
                StonefxWarning,
                3,
            )
        return self._run_original(args, kwargs)

    def train(self, mode: bool = True) -> OptimizedModule:
        """Accept the mode that the model was captured in; the other one only where the original forward is there.

        Raises:
            RuntimeError: the other mode, and weights were folded away.
        """
        record = self.__dict__["_stone_record"]
        fixed = bool(record.program.original_missing)
        if mode != record.program.capture.training and fixed:
            had, wants = ("training", "evaluation") if self.training else ("evaluation", "training")
            raise RuntimeError(
                f"this model was captured in {had} mode and cannot change to {wants} mode; set the mode of the "
                f"original with .{'train' if mode else 'eval'}() and call stonefx.optimize on it again, or with "
                "release=False, which keeps the original forward"
            )
        return self if fixed else super().train(mode)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As of `nn.Module`, for what this model's own `state_dict` gives.

        Raises:
            RuntimeError: the state has weights that were folded away.
        """
        released = self.__dict__["_stone_record"].program.released
        gone = [name for name in state_dict if name in released]
        if gone:
            raise RuntimeError(
                f"the state has {gone[0]!r}{f' and {len(gone) - 1} more' if len(gone) > 1 else ''}, which this model "
                "folded away: load it into the original and call stonefx.optimize on that again, or "
                "stonefx.optimize(model, ..., release=False), which keeps all weights"
            )
        return super().load_state_dict(state_dict, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> OptimizedModule:
        record = self.__dict__["_stone_record"]
        own = Record(record.program, copy.copy(record.report), warned=record.warned, stale=True)
        memo[id(record)] = own
        twin: Any = copied_as(self, derived(OptimizedModule, plain_class(type(self))), memo)
        # Tensors of closures and globals are no part of the model, and are not copied with it.
        own.constants = {name: memo.get(id(tensor), tensor) for name, tensor in record.constants.items()}
        own.patched = twin.__dict__.pop("forward", None) if record.patched is not None else None
        twin.__dict__["_stone_record"] = own
        own.roots.add(twin)
        if own.is_as_captured(twin):
            twin._bind()
        return twin

    def __copy__(self) -> OptimizedModule:
        twin: Any = super().__copy__()
        self.__dict__["_stone_record"].roots.add(twin)
        return twin

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.__dict__["_stone_record"].program.original_missing:
            raise TypeError(
                "an optimized model cannot be pickled: its call is generated code. Write it with "
                "stonefx.save(model, path) and read it with stonefx.load(path); copy.deepcopy copies it; with "
                "stonefx.optimize(model, ..., release=False) it pickles as the original model"
            )
        return super().__reduce_ex__(protocol)


@dataclass(eq=False)
class _Parts:
    """What a model knows of itself that was optimized in parts.

    Args:
        report: about them.
        make_run: as of `PartlyOptimizedModule`.
        run: what it made.
        own: the model's forward.
        patched: the same, where the model had it as an attribute of its own.
        tables: those for hooks, where `run` was compiled without hooks that come later.
        hooks: how many these held.
    """

    report: Report
    make_run: Callable[..., Any] | None
    run: Callable[..., Any] | None
    own: Callable[..., Any]
    patched: Any
    tables: list[dict[int, Any]]
    hooks: int


class PartlyOptimizedModule(Derived):
    """A model that could not be captured whole: its own forward, over submodules or graphs that were optimized.

    Args:
        source: the model.
        report: about its submodules or graphs.
        make_run: makes of the model's forward what to call in its place; a copy of this module makes its own.
    """

    _stone_owns_weights = True

    def __init__(
        self,
        source: nn.Module,
        report: Report,
        make_run: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
    ) -> None:
        patched = self.__dict__.pop("forward", None)
        own = patched or own_forward(self)
        run = None if make_run is None else make_run(own)
        # Dynamo does not look for hooks that come after it compiled a call.
        watched = source.modules() if make_run is not None else ()
        tables = {id(table): table for module in watched for table in hook_tables(module)}.values()
        self.__dict__["_stone_parts"] = _Parts(
            report, make_run, run, own, patched, list(tables), sum(map(len, tables))
        )

    @classmethod
    def namespace_over(cls, plain: type) -> dict[str, Any]:
        """A forward of the signature of the model's own, and methods that write only checkpoints that are ones."""
        return super().namespace_over(plain) | _like_a_model(plain, cls._stone_forward)

    @property
    def report(self) -> Report:
        """What `optimize` did in the submodules, and what it left."""
        return self.__dict__["_stone_parts"].report

    @property
    def is_compiled(self) -> bool:
        """Whether something else is called in the place of the model's forward."""
        return self.__dict__["_stone_parts"].make_run is not None

    @property
    def _stone_follows_weights(self) -> bool:
        """Whether the folds in the submodules or graphs are made again when the model's own weights change."""
        parts = [module for module in self.modules() if isinstance(module, OptimizedModule)]
        return self.is_compiled or any(part._stone_follows_weights for part in parts)

    def _stone_forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model's own forward."""
        parts = self.__dict__["_stone_parts"]
        # Another compiler or exporter wants to see the forward itself.
        if parts.run is None or torch.compiler.is_compiling() or sum(map(len, parts.tables)) != parts.hooks:
            return parts.own(*args, **kwargs)
        return parts.run(*args, **kwargs)

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> Any:
        announce_casts(self, fn)
        return super()._apply(fn, recurse)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # As the original model; the parts raise where they lost weights.
        return pickled(self, protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> PartlyOptimizedModule:
        twin: Any = copied_as(self, derived(PartlyOptimizedModule, plain_class(type(self))), memo)
        PartlyOptimizedModule.__init__(
            twin, twin, copy.copy(self.report), self.__dict__["_stone_parts"].make_run
        )
        return twin


@dataclass(eq=False)
class _Pending:
    """What a model that is optimized at its first call waits for.

    Args:
        make: as of `LazyModule`.
        patched: the forward that the model had as an attribute of its own.
    """

    make: Callable[..., nn.Module]
    patched: Any = None
    lock: Any = field(default_factory=threading.Lock)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Pending:
        return self


class LazyModule(Derived):
    """A model that is optimized at its first call, on the arguments of that call.

    Args:
        source: the model.
        make: optimizes a model for the arguments of a call.
    """

    _stone_owns_weights = True

    def __init__(self, source: nn.Module, make: Callable[..., nn.Module]) -> None:
        self.__dict__["_stone_pending"] = _Pending(make, self.__dict__.pop("forward", None))

    @classmethod
    def namespace_over(cls, plain: type) -> dict[str, Any]:
        """The forward with the signature of the model's own."""
        return super().namespace_over(plain) | {"forward": _like(plain, cls._stone_forward)}

    @property
    def report(self) -> Report:
        """The report, from the first call on."""
        raise RuntimeError(
            "this model is optimized at its first call and has not been called yet; call it once, or give "
            "stonefx.optimize example inputs"
        )

    def _stone_forward(self, *args: Any, **kwargs: Any) -> Any:
        """Optimize, become the optimized module, and run."""
        pending = self.__dict__["_stone_pending"]
        with pending.lock:
            if isinstance(self, LazyModule):
                # A plain model over the same attributes is what is optimized, while other threads wait here.
                plain: nn.Module = object.__new__(plain_class(type(self)))
                plain.__dict__ = self.__dict__
                if pending.patched is not None:
                    self.__dict__["forward"] = pending.patched
                try:
                    made = pending.make(plain, args, kwargs)
                except BaseException:
                    self.__dict__.pop("forward", None)
                    raise
                if made.__dict__ is not self.__dict__:
                    for name in [name for name in self.__dict__ if name.endswith("_hooks")]:
                        made.__dict__[name] = self.__dict__[name]
                    made.__dict__["_stone_pending"] = pending
                self.__dict__ = made.__dict__
                set_class(self, type(made))
                record = self.__dict__.get("_stone_record")
                if record is not None:
                    record.settle(self)
                    OptimizedModule._bind(self)  # type: ignore[arg-type]
        return self.forward(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> LazyModule:
        twin: Any = copied_as(self, derived(LazyModule, plain_class(type(self))), memo)
        LazyModule.__init__(twin, twin, self.__dict__["_stone_pending"].make)
        return twin


def program_of(module: OptimizedModule) -> Program:
    """The graph that an optimized module runs; no attribute, whose name a model could have for something else."""
    program: Program = module.__dict__["_stone_record"].program
    return program


def optimized_module(module: nn.Module) -> OptimizedModule | None:
    """The module itself if it is an optimized one; None for any other module.

    >>> optimized_module(nn.Linear(2, 2)) is None
    True
    """
    return module if isinstance(module, OptimizedModule) else None


def _methods(code: Any, module: nn.Module) -> dict[str, Any]:
    made = code.build()
    for function in made.values():
        function.__qualname__ = f"Optimized{plain_class(type(module)).__name__}.forward"
    return made


def _like_a_model(plain: type, run: Callable[..., Any]) -> dict[str, Any]:
    return {"forward": _like(plain, run)} | _checked_checkpoints(plain)


def _like(plain: type, run: Callable[..., Any]) -> Callable[..., Any]:
    """A forward of the signature that the model's own has."""

    @functools.wraps(plain.forward)  # type: ignore[attr-defined]
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return run(self, *args, **kwargs)

    return forward


def _checked_checkpoints(plain: type) -> dict[str, Any]:
    """The methods of a class that write checkpoints, which are none where weights are gone."""

    def checked(name: str) -> Callable[..., Any]:
        method = getattr(plain, name)

        @functools.wraps(method)
        def write(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            for module in self.modules():
                place = module.__dict__.get(PLACE)
                if place is not None and place.released:
                    raise TypeError(
                        f"{name} would write a checkpoint that {plain.__name__} reads as another function: "
                        f"{place.gone(next(iter(place.released)))}; stonefx.save(model, path) writes the optimized "
                        "model itself"
                    )
            return method(self, *args, **kwargs)

        return write

    return {name: checked(name) for name in _CHECKPOINTS if callable(getattr(plain, name, None))}
