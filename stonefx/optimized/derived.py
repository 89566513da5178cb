"""Classes that stand on top of a model's own class, so that what comes out is still one of its kind."""

from __future__ import annotations

import inspect
import threading
import types
from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakValueDictionary

from torch import nn

# By the class in front and the class behind it, told apart by what else the caller says.
_CLASSES: WeakValueDictionary[Hashable, type] = WeakValueDictionary()
_LOCK = threading.Lock()


class Derived(nn.Module):
    """A kind of module that a model becomes: `Kind(model, ...)` changes the class of `model` itself and returns it.

    The class it gets is the kind in front of the model's own, so that `isinstance`, methods, properties and special
    methods such as `__len__` are those of the model. Calling that class makes a plain model, as its own class does.
    """

    def __init_subclass__(cls, **_: Any) -> None:
        # What a model's class does when it is derived from, such as registering a name, is not wanted here.
        pass

    @classmethod
    def namespace_over(cls, plain: type) -> dict[str, Any]:
        """What the class in front of `plain` holds besides, by what `plain` has."""
        return {}

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """The model, of its new class; of a class that was derived already a new plain model."""
        if (plain := plain_class(cls)) is not cls:
            return plain(*args, **kwargs)
        if not args:
            # A class that a library derived from a derived one, and copies.
            return object.__new__(cls)
        model = args[0]
        become(model, cls)
        return model


def become(model: nn.Module, kind: type) -> None:
    """Put a kind in front of a model's own class.

    Raises:
        TypeError: the objects of the model's class have a layout that its subclasses do not share.
    """
    set_class(model, derived(kind, plain_class(type(model))))


def set_class(model: nn.Module, cls: type) -> None:
    """Change a model's class, whatever the model makes of attributes that are set.

    Where a library has derived from a derived class, as FSDP2 does, its class is made again over the new one.
    """
    current = type(model)
    if cls is not current and issubclass(current, Derived) and "_stone_plain" not in current.__dict__:
        bases = tuple(cls if "_stone_plain" in base.__dict__ else base for base in current.__bases__)
        own = {
            name: value for name, value in current.__dict__.items() if name not in ("__dict__", "__weakref__")
        }
        cls = types.new_class(current.__name__, bases, {}, lambda body: body.update(own))
    object.__setattr__(model, "__class__", cls)


def derived(
    kind: type, plain: type, namespace: Callable[[], dict[str, Any]] = dict, key: Hashable = None
) -> type:
    """The class with `kind` in front of `plain`, the same for the same arguments as long as it is in use.

    Args:
        kind: a subclass of `nn.Module` that calls `super()`.
        plain: a model's own class.
        namespace: makes what the class holds besides.
        key: equal for equal namespaces.
    """
    with _LOCK:
        known = _CLASSES.get((kind, plain, key))
        if known is None:
            facts = {
                "__module__": plain.__module__,
                "__qualname__": plain.__qualname__,
                "__doc__": plain.__doc__,
                "_stone_plain": plain,
            }
            bases = (kind,) if plain is nn.Module else (kind, plain)
            whole = facts | kind.namespace_over(plain) | namespace()  # type: ignore[attr-defined]
            known = types.new_class(plain.__name__, bases, {}, lambda body: body.update(whole))
            _CLASSES[kind, plain, key] = known
        return known


def plain_behind(cls: type) -> type:
    """As `plain_class`, also where a library has derived from the derived class."""
    return next((plain_class(base) for base in cls.__mro__ if "_stone_plain" in base.__dict__), cls)


def plain_class(cls: type) -> type:
    """The model's own class behind a derived one; any other class itself."""
    found: type = cls.__dict__.get("_stone_plain", cls)
    return found


def own_forward(module: nn.Module) -> Callable[..., Any]:
    """The forward that a module's own class defines, bound to the module.

    >>> own_forward(nn.ReLU()).__name__
    'forward'
    """
    plain = plain_behind(type(module))
    forward = inspect.getattr_static(plain, "forward")
    bound: Callable[..., Any] = forward.__get__(module, plain) if hasattr(forward, "__get__") else forward
    return bound
