"""The modules of an optimized model: what is set on them acts or raises, and what was folded away says so."""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils.prune import BasePruningMethod

from ..tracing.model_state import is_scripted
from .derived import Derived, become, plain_behind, plain_class, set_class
from .weights import hooks

if TYPE_CHECKING:
    from .record import Record

PLACE = "_stone_place"
TABLES_OF_MODULES = (
    *("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks"),
    *("_backward_hooks", "_backward_pre_hooks"),
)
_TABLES = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
COMPUTED = object()


class _Missing:
    """The mark of an attribute that is not there; the same in all copies."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Missing:
        return self


_MISSING = _Missing()


@dataclass(eq=False)
class Place:
    """Where a module stands in an optimized model, and what the graph took from it.

    Args:
        record: of the model; None for a copy that was taken out of it.
        path: of the module in the model.
        attributes: the attributes that the graph holds for, as they were at capture.
        children: the submodules whose work the graph does.
        weights: shape and dtype of the weights that the graph or its folds read.
        released: names of the weights that are gone, with those that hold them now.
        shown: what the module says of itself when it is printed, where it can no longer find out.
        hooks: those that were there at capture, so that they are in the graph.
    """

    record: Record | None
    path: str
    attributes: dict[str, Any] = field(default_factory=dict)
    children: dict[str, nn.Module] = field(default_factory=dict)
    weights: dict[str, tuple[torch.Size, torch.dtype]] = field(default_factory=dict)
    released: dict[str, list[str]] = field(default_factory=dict)
    shown: str | None = None
    hooks: list[Any] = field(default_factory=list)

    def __deepcopy__(self, memo: dict[int, Any]) -> Place:
        record = memo.get(id(self.record))
        if record is None:
            return Place(None, self.path, released=self.released, shown=self.shown)
        # What stands in the class is the same for all copies; what is the module's own was copied before its place.
        attributes = {
            name: copy.deepcopy(value, memo) if isinstance(value, tuple) else memo.get(id(value), value)
            for name, value in self.attributes.items()
        }
        facts = (attributes, copy.deepcopy(self.children, memo))
        return Place(
            record,
            self.path,
            *facts,
            self.weights,
            self.released,
            self.shown,
            copy.deepcopy(self.hooks, memo),
        )

    def is_as_captured(self, module: nn.Module) -> bool:
        """Whether the graph holds for this module, its hooks left aside."""
        return (
            all(same(value, peek(module, name)) for name, value in self.attributes.items())
            and all(module._modules.get(name) is child for name, child in self.children.items())
            and all(_fits(facts, _stored(module, name)) for name, facts in self.weights.items())
        )

    def named(self, name: str) -> str:
        """An attribute's name with the module's path."""
        return f"{self.path}.{name}" if self.path else name

    def gone(self, name: str) -> AttributeError:
        """What to raise for a weight that was folded away."""
        return AttributeError(
            f"{self.named(name)!r} was folded into {', '.join(self.released[name]) or 'a constant'} and freed; "
            "stonefx.optimize(model, ..., release=False) keeps all weights beside the fast path"
        )


class Part(Derived):
    """A module whose work is done by the generated call of the model that it belongs to.

    The weights that are left act as ever. Whatever else the captured graph relies on cannot be changed under it:
    setting it raises, or lets the original forward run where the model kept all its weights.
    """

    @classmethod
    def namespace_over(cls, plain: type) -> dict[str, Any]:
        """The methods of a container that put children into its table themselves."""
        return super().namespace_over(plain) | _insertion(plain)

    def __getattr__(self, name: str) -> Any:
        place = self.__dict__.get(PLACE)
        if place is not None and name in place.released:
            raise place.gone(name)
        found = inspect.getattr_static(type(self), name, None)
        if isinstance(found, property) and found.fget is not None:
            # Its getter raised; Python asks here next and would hide the reason.
            return found.fget(self)
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        before = self.__dict__.get(PLACE) and _prepare(self, self.__dict__[PLACE], name, value)
        super().__setattr__(name, value)
        if before:
            before()

    def __delattr__(self, name: str) -> None:
        place = self.__dict__.get(PLACE)
        if place is not None:
            if name in place.released:
                raise place.gone(name)
            if place.record is not None:
                if name in place.weights:
                    # A parametrisation takes a weight away and puts a property in its place.
                    place.record.look_again()
                elif name in place.attributes or name in place.children:
                    place.record.change(place.named(name))
        super().__delattr__(name)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """As of `nn.Module`; a child that the graph would have called acts or raises."""
        before = self.__dict__.get(PLACE) and _prepare(self, self.__dict__[PLACE], name, module)
        super().add_module(name, module)
        if before:
            before()

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """As of `nn.Module`; a weight that was folded away cannot come back."""
        _check_weight(self, name, param)
        super().register_parameter(name, param)

    def register_buffer(self, name: str, tensor: torch.Tensor | None, persistent: bool = True) -> None:
        """As of `nn.Module`; a weight that was folded away cannot come back."""
        _check_weight(self, name, tensor)
        super().register_buffer(name, tensor, persistent)

    def get_parameter(self, target: str) -> nn.Parameter:
        """As of `nn.Module`; raises for a weight that was folded away."""
        _check_there(self, target)
        return super().get_parameter(target)

    def get_buffer(self, target: str) -> torch.Tensor:
        """As of `nn.Module`; raises for a weight that was folded away."""
        _check_there(self, target)
        return super().get_buffer(target)

    def extra_repr(self) -> str:
        """As the module's own, also where it asked weights that are gone."""
        place = self.__dict__.get(PLACE)
        return place.shown if place is not None and place.shown is not None else super().extra_repr()

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        announce_casts(self, fn)
        return super()._apply(fn, recurse)

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        place = self.__dict__[PLACE]
        # With its model it stays a part; a copy of its own is a plain module, where that could run.
        stays = place.released or id(place.record) in memo
        return copied_as(self, type(self) if stays else plain_class(type(self)), memo)

    def __copy__(self) -> nn.Module:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __reduce_ex__(self, protocol: Any) -> Any:
        place = self.__dict__[PLACE]
        if place.released:
            raise TypeError(
                f"cannot pickle {place.path or 'this module'}: {place.gone(next(iter(place.released)))}"
            )
        return pickled(self, protocol)


def _hooked(name: str) -> Callable[..., Any]:
    def register(self: Part, hook: Any, *args: Any, **kwargs: Any) -> Any:
        place = self.__dict__.get(PLACE)
        if place is not None and place.record is not None:
            place.record.hooked(place, hook)
        return getattr(super(Part, self), name)(hook, *args, **kwargs)

    register.__name__, register.__qualname__ = name, f"Part.{name}"
    register.__doc__ = "As of `nn.Module`, where the module is called; acts or raises where it no longer is."
    return register


for _name in (
    *("register_forward_hook", "register_forward_pre_hook", "register_backward_hook"),
    *("register_full_backward_hook", "register_full_backward_pre_hook"),
):
    setattr(Part, _name, _hooked(_name))


class ReleasedPart(Part):
    """A part with weights that are gone: it cannot run on its own."""

    def __format__(self, spec: str) -> str:
        # Messages of torch name a module so, where it lacks a weight.
        place = self.__dict__[PLACE]
        return format(f"{self!r}, where {'; '.join(str(place.gone(name)) for name in place.released)}", spec)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Say which weight is gone."""
        place = self.__dict__[PLACE]
        raise place.gone(next(iter(place.released)))


def _insertion(plain: type) -> dict[str, Any]:
    """What containers of modules need besides, which put children into their table themselves."""
    if not hasattr(plain, "insert"):
        return {}

    def insert(self: Part, *args: Any, **kwargs: Any) -> Any:
        place = self.__dict__.get(PLACE)
        if place is not None and place.record is not None and "_modules" in place.attributes:
            place.record.change(place.named("_modules"))
        return plain.insert(self, *args, **kwargs)

    return {"insert": insert}


def occupy(module: nn.Module, place: Place) -> None:
    """Give a module its place; modules of scripted code, or whose class has a layout of its own, stay as they are."""
    if isinstance(module, torch.jit.ScriptModule):
        return
    module.__dict__[PLACE] = place
    if not isinstance(module, Part) or isinstance(module, ReleasedPart):
        try:
            become(module, ReleasedPart if place.released else Part)
        except TypeError:
            del module.__dict__[PLACE]


def vacate(module: nn.Module) -> None:
    """Make a plain module of a part again."""
    for part in module.modules():
        if part.__dict__.pop(PLACE, None) is not None:
            set_class(part, plain_class(type(part)))


def plain_twin(module: nn.Module) -> nn.Module:
    """A module of the model's own class over the same attributes, without what stonefx keeps there."""
    if is_scripted(module):
        return ScriptedTwin(module)
    twin: nn.Module = object.__new__(plain_class(type(module)))
    twin.__dict__.update(own_state(module))
    return twin


class ScriptedTwin(nn.Module):
    """A module over the state of a scripted one, whose class cannot be derived from."""

    def __init__(self, scripted: nn.Module) -> None:
        self.__dict__["_scripted"] = scripted
        super().__init__()
        self.__dict__["training"] = scripted.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the scripted forward."""
        return self.__dict__["_scripted"].forward(*args, **kwargs)

    def train(self, mode: bool = True) -> ScriptedTwin:
        """Set the mode of the scripted module, too."""
        self.__dict__["_scripted"].train(mode)
        self.__dict__["training"] = mode
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_scripted"], name)


for _name in ("_parameters", "_buffers", "_modules"):
    _of_scripted = operator.attrgetter(f"_scripted.{_name}")
    setattr(ScriptedTwin, _name, property(_of_scripted, lambda self, value: None))


def pickled(module: nn.Module, protocol: Any) -> Any:
    """What `__reduce_ex__` returns for a module that is to be read as one of the model's own class."""
    plain, twin = plain_class(type(module)), plain_twin(module)
    if plain.__reduce_ex__ is object.__reduce_ex__ and plain.__reduce__ is object.__reduce__:
        # Pickle insists that an object is made of its own class, unless another function makes it.
        return object.__new__, (plain,), twin.__getstate__()
    return twin.__reduce_ex__(protocol)


def own_state(module: nn.Module) -> dict[str, Any]:
    """What the model itself keeps in a module's `__dict__`."""
    state = {name: value for name, value in module.__dict__.items() if not name.startswith("_stone_")}
    for name in ("_stone_record", "_stone_pending", "_stone_parts"):
        patched = getattr(module.__dict__.get(name), "patched", None)
        if patched is not None:
            state["forward"] = patched
    return state


def copied_as(module: nn.Module, kind: type, memo: dict[int, Any]) -> nn.Module:
    """A deep copy of a module's own attributes, of the given class; a class that copies in its own way does so."""
    plain = plain_class(kind)
    # A class that was derived from a part's, as a parametrised one is, has no plain class behind it.
    if kind is plain and not issubclass(plain, Part) and hasattr(plain, "__deepcopy__"):
        made: nn.Module = copy.deepcopy(plain_twin(module), memo)
        memo[id(module)] = made
        return made
    made = object.__new__(kind)
    memo[id(module)] = made
    state = own_state(module)
    if PLACE in module.__dict__ and issubclass(kind, Part):
        state[PLACE] = module.__dict__[PLACE]
    made.__dict__.update(copy.deepcopy(state, memo))
    return made


def _prepare(module: Part, place: Place, name: str, value: Any) -> Callable[[], None] | None:
    """Refuse or note what setting an attribute does to the graph; returns what is to be done once it is set."""
    if name in place.released:
        raise place.gone(name)
    record = place.record
    if record is None or name == "__class__":
        return None
    if name in place.children:
        return record.replaced(place, name, value)
    if name in place.weights:
        if not _fits(place.weights[name], value):
            record.change(place.named(name))
        elif name in module._parameters or name in module._buffers:
            return None
        return record.look_again
    if name in place.attributes:
        if not same(place.attributes[name], value):
            record.change(place.named(name))
        return record.look_again if not same(peek(module, name), value) else None
    if "_modules" in place.attributes and isinstance(value, nn.Module):
        # A forward that goes through its children would meet a new one, too.
        record.change(place.named(name))
    return record.look_again if name in TABLES_OF_MODULES else None


def _check_weight(module: Part, name: str, value: torch.Tensor | None) -> None:
    place = module.__dict__.get(PLACE)
    if place is None:
        return
    if name in place.released:
        raise place.gone(name)
    if place.record is not None and name in place.weights:
        if not _fits(place.weights[name], value):
            place.record.change(place.named(name))
        place.record.look_again()


def _check_there(module: Part, target: str) -> None:
    path, _, name = target.rpartition(".")
    place = module.get_submodule(path).__dict__.get(PLACE)
    if place is not None and name in place.released:
        raise place.gone(name)


def _fits(facts: tuple[torch.Size, torch.dtype], value: Any) -> bool:
    """Whether a weight may stand in for one of the given shape and dtype, for which the graph was captured."""
    return value is COMPUTED or (isinstance(value, torch.Tensor) and (value.shape, value.dtype) == facts)


def _stored(module: nn.Module, name: str) -> Any:
    """A weight as a module has it now; `COMPUTED` where it is parametrised."""
    for table in (module._parameters, module._buffers, module.__dict__):
        if name in table:
            return table[name]
    return COMPUTED if isinstance(inspect.getattr_static(type(module), name, None), property) else None


def peek(module: nn.Module, name: str) -> Any:
    """An attribute as it is now; a mark where there is none."""
    if name == "_modules":
        return tuple(module._modules.items())
    for table in (module.__dict__, module._parameters, module._buffers, module._modules):
        if name in table:
            return table[name]
    return inspect.getattr_static(plain_behind(type(module)), name, _MISSING)


def same(old: Any, new: Any) -> bool:
    """Whether a graph that holds for one value holds for the other."""
    if old is new:
        return True
    if type(old) is not type(new):
        return False
    if isinstance(old, tuple):
        return len(old) == len(new) and all(same(*pair) for pair in zip(old, new, strict=True))
    return isinstance(old, bool | int | float | str | bytes) and repr(old) == repr(new)


def difference(old: nn.Module, new: Any) -> str:
    """What keeps a module from standing in for another under a captured graph; empty where nothing does."""
    if not isinstance(new, nn.Module):
        return f"a {type(new).__name__} is no module"
    if plain_class(type(old)) is not plain_class(type(new)):
        return f"it was a {type(old).__name__} and is a {type(new).__name__}"
    if hooks(new):
        return "it has hooks"
    place = old.__dict__.get(PLACE)
    for name, value in place.attributes.items() if place is not None else ():
        if not name.startswith("_") and not same(value, peek(new, name)):
            return f"{name!r} was {value!r} and is {peek(new, name)!r}"
    for table in ("_parameters", "_buffers"):
        facts = [
            {
                name: None if value is None else (value.shape, value.dtype)
                for name, value in getattr(one, table).items()
            }
            for one in (old, new)
        ]
        if facts[0] != facts[1]:
            return f"its weights were {facts[0]} and are {facts[1]}"
    if old._modules.keys() != new._modules.keys():
        return f"its children were {[*old._modules]} and are {[*new._modules]}"
    for name, child in old._modules.items():
        if child is not None and (found := difference(child, new._modules[name])):
            return f"in {name}, {found}"
    return ""


def announce_casts(module: nn.Module, fn: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Tell the optimized models in a module which dtypes a function is about to change.

    Raises:
        RuntimeError: one of them cannot follow; nothing was changed yet.
    """
    casts: dict[Record, tuple[torch.dtype, torch.dtype]] = {}
    for part, place in parts(module):
        for tensor in (*part._parameters.values(), *part._buffers.values()):
            if place.record is not None and tensor is not None and place.record not in casts:
                changed = fn(torch.empty(0, dtype=tensor.dtype)).dtype
                if changed != tensor.dtype:
                    casts[place.record] = tensor.dtype, changed
    for record in sorted(casts, key=lambda record: not record.program.original_missing):
        record.cast(*casts[record])


def is_pruning(place: Place, hook: Any) -> bool:
    """Whether a hook only computes a weight that is still there, which the generated call lets it do."""
    return isinstance(hook, BasePruningMethod) and hook._tensor_name in place.weights


def parts(module: nn.Module) -> Iterator[tuple[nn.Module, Place]]:
    """The parts of a model with their places, the model itself first."""
    for part in module.modules():
        if (place := part.__dict__.get(PLACE)) is not None:
            yield part, place


def kept_state(model: nn.Module) -> Callable[[], None]:
    """A function that makes the modules of a model again what they are now.

    >>> model = nn.Sequential(nn.Linear(2, 2))
    >>> restore = kept_state(model)
    >>> model[0] = nn.ReLU()
    >>> restore(), model[0]
    (None, Linear(in_features=2, out_features=2, bias=True))
    """
    kept = []
    for module in model.modules():
        if not is_scripted(module):
            tables: list[Any] = [getattr(module, name) for name in _TABLES]
            kept.append(
                (module, type(module), dict(module.__dict__), [(table, table.copy()) for table in tables])
            )

    def restore() -> None:
        for module, cls, attributes, tables in kept:
            for table, contents in tables:
                table.clear()
                table.update(contents)
            module.__dict__.clear()
            module.__dict__.update(attributes)
            set_class(module, cls)

    return restore
