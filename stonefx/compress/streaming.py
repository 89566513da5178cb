"""Models larger than memory: weights are read from their files when a module asks for one, and freed after use.

The modules of the model stand as usual; only the dictionary of their parameters is another, which reads a parameter
from its safetensors file at each access. All that code asks of a parameter without its values (shape, dtype, device,
whether two are one) stand-ins without memory answer. A backward pass needs weights again: what autograd keeps of a
weight is kept as its name, and other large tensors that it keeps go to files.
"""

from __future__ import annotations

import copy
import importlib
import os
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from . import estimate, tensorfile
from .stored import parts_of, rebuilt

MADE = "made-"
"""What names of weights begin with that are of replacements, and in none of the user's files."""
SPILLED_FROM = 1 << 20
"""Bytes from which on a tensor kept for the backward pass goes to a file."""


class Weights:
    """Tensors in files, by name, read when asked for.

    Args:
        cache: bytes of weights that are held beyond their use, the newest ones.

    Attributes:
        bytes_read: in all.
        resident: bytes of weights that are in memory now.
        peak: the most of these so far.
    """

    def __init__(self, cache: int) -> None:
        self.cache = cache
        self.scratch = tempfile.TemporaryDirectory(prefix="stonefx-")
        self.places: dict[str, tuple[tensorfile.Reader, str]] = {}
        self.made_of: dict[str, nn.Parameter] = {}
        """Stand-ins of weights that are made of several tensors, such as integers and scales, by name."""
        self.bytes_read = self.resident = self.peak = 0
        self._alive: dict[tuple[str, torch.dtype], weakref.ref[Tensor]] = {}
        self._at: dict[int, tuple[str, torch.dtype]] = {}
        self._newest: OrderedDict[tuple[str, torch.dtype], Tensor] = OrderedDict()
        self._files = 0

    def add(self, reader: tensorfile.Reader, prefix: str = "") -> None:
        """Take over all tensors of a file."""
        for name in reader.names():
            self.places[prefix + name] = reader, name

    def parameter(self, name: str, dtype: torch.dtype) -> nn.Parameter:
        """A weight as it is in its file, the same object as long as anybody has it."""
        key = name, dtype
        found = self._alive[key]() if key in self._alive else None
        if found is None:
            value = self._read(name)
            found = nn.Parameter(value if name in self.made_of else value.to(dtype), requires_grad=False)
            self._watch(key, found)
        if self.cache:
            self._newest[key] = found
            self._newest.move_to_end(key)
            while sum(v.nbytes for v in self._newest.values()) > self.cache:
                self._newest.popitem(last=False)
        assert isinstance(found, nn.Parameter)
        return found

    def _read(self, name: str) -> Tensor:
        if name in self.made_of:
            return rebuilt(self.made_of[name].data, lambda part: self._read(f"{name}.{part}"))
        reader, own = self.places[name]
        value = reader.read(own)
        self.bytes_read += value.nbytes
        return value

    def _watch(self, key: tuple[str, torch.dtype], value: Tensor) -> None:
        whole = not hasattr(value, "__tensor_flatten__")
        at = value.untyped_storage().data_ptr() if whole else -1
        count = sum(part.nbytes for part in parts_of("", value).values())
        self.resident += count
        self.peak = max(self.peak, self.resident)
        self._alive[key] = weakref.ref(value)
        if whole:
            self._at[at] = key

        def gone() -> None:
            self.resident -= count
            if self._at.get(at) == key:
                del self._at[at]

        weakref.finalize(value, gone).atexit = False

    # What autograd keeps ---------------------------------------------------------------------------------------

    def saved(self) -> saved_tensors_hooks:
        """For the time of a block autograd keeps weights by name and large tensors in files."""
        return saved_tensors_hooks(self._pack, self._unpack)

    def _pack(self, value: Tensor) -> Any:
        if (
            value.layout != torch.strided
            or value.device.type != "cpu"
            or hasattr(value, "__tensor_flatten__")
        ):
            return value
        key = self._at.get(value.untyped_storage().data_ptr()) if value.numel() else None
        alive = self._alive[key]() if key is not None else None
        if key is not None and alive is not None:
            return _Named(key, value.size(), value.stride(), value.storage_offset(), value.dtype)
        if value.nbytes >= SPILLED_FROM and value.dtype in tensorfile.NAMES and not value.is_leaf:
            self._files += 1
            return _Spilled(Path(self.scratch.name) / f"kept-{self._files}", value.detach())
        return value

    def _unpack(self, kept: Any) -> Tensor:
        if isinstance(kept, _Named):
            whole = self.parameter(*kept.key).detach()
            # A weight seen as another dtype of equal size shares its memory too.
            return whole.view(kept.dtype).as_strided(kept.size, kept.stride, kept.offset)
        if isinstance(kept, _Spilled):
            return kept.read()
        assert isinstance(kept, Tensor)
        return kept

    # Modules that are put into the model -----------------------------------------------------------------------

    def offload(self, module: nn.Module) -> None:
        """Write the parameters of a new module to a file, from which they are read from now on."""
        # What is read from files already stays there.
        own = {
            f"{path}.{name}" if path else name: p
            for path, part in module.named_modules()
            for name, p in part._parameters.items()
            if p is not None and name not in names_of(part)
        }
        if not own:
            return
        self._files += 1
        prefix = f"{MADE}{self._files}/"
        path = Path(self.scratch.name) / f"{MADE}{self._files}.safetensors"
        heads = {name: part for whole, p in own.items() for name, part in parts_of(whole, p.detach()).items()}
        tensorfile.write(path, {name: value.cpu() for name, value in heads.items()}, {})
        reader = tensorfile.Reader(path)
        # The file stays readable through its handle, and goes with it.
        path.unlink()
        self.add(reader, prefix)
        for name, p in own.items():
            if name not in heads:
                self.made_of[prefix + name] = _without_memory(p)
        stand_in(module, self, {name: prefix + name for name in own})


class _Named:
    def __init__(self, key: tuple[str, torch.dtype], size: Any, stride: Any, offset: Any, dtype: Any) -> None:
        self.key, self.size, self.stride, self.offset, self.dtype = key, size, stride, offset, dtype


class _Spilled:
    def __init__(self, path: Path, value: Tensor) -> None:
        self.path = path
        tensorfile.write(path, {"value": value}, {})

    def read(self) -> Tensor:
        with tensorfile.Reader(self.path) as reader:
            return reader.read("value")

    def __del__(self) -> None:
        self.path.unlink(missing_ok=True)


class Parameters(dict[str, Any]):
    """The parameters of a module: stand-ins to look at, and weights read from files to compute with.

    Args:
        weights: where they are read.
        stand_ins: by the module's names.
        names: of the tensors, by the module's names.
    """

    def __init__(self, weights: Weights, stand_ins: Mapping[str, Any], names: Mapping[str, str]) -> None:
        super().__init__(stand_ins)
        self.weights = weights
        self.names = dict(names)

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        name = self.names.get(key)
        return value if name is None else self.weights.parameter(name, value.dtype)

    def __setitem__(self, key: str, value: Any) -> None:
        self.names.pop(key, None)
        super().__setitem__(key, value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameters:
        return Parameters(self.weights, dict(self.items()), self.names)

    def __reduce__(self) -> tuple[Any, ...]:
        """In a file of another kind the weights themselves are stored."""
        return dict, ({key: self[key] for key in self},)


def weights_of(model: nn.Module) -> Weights | None:
    """Where a model's weights are read, or None: it has them in memory."""
    return next(
        (m._parameters.weights for m in model.modules() if isinstance(m._parameters, Parameters)), None
    )


def names_of(module: nn.Module) -> dict[str, str]:
    """Names in files of a module's own parameters."""
    found = module._parameters
    return found.names if isinstance(found, Parameters) else {}


# Making them -------------------------------------------------------------------------------------------------------


@contextmanager
def skeleton() -> Iterator[None]:
    """Modules that are made in the block have parameters without memory, on the meta device, and real buffers."""
    register = nn.Module.register_parameter

    def registered(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and param.device.type != "meta":
            param = nn.Parameter(param.detach().to("meta"), requires_grad=param.requires_grad)
        register(self, name, param)

    nn.Module.register_parameter = registered  # type: ignore[method-assign]
    try:
        with _Factories():
            yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


class _Factories(TorchFunctionMode):
    """What parameters are usually made by makes nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.empty, torch.rand, torch.randn):
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def attach(model: nn.Module, path: str | os.PathLike[str], cache: int) -> nn.Module:
    """A copy of a model whose parameters on the meta device are read from a safetensors file or a folder of them.

    Raises:
        ValueError: the files lack a parameter, have one of another shape, or lack a buffer that is on the meta device.
    """
    weights = Weights(cache)
    for reader in _readers(Path(path)):
        weights.add(reader)
    model = copy.deepcopy(model)
    same: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        same.setdefault(id(parameter), []).append(name)
    prefix = getattr(model, "base_model_prefix", "")
    names: dict[str, str] = {}
    missing, other = [], []
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.device.type != "meta":
            continue
        found = _found(same[id(parameter)], weights.places, prefix)
        if found is None:
            missing.append(name)
            continue
        reader, own = weights.places[found]
        if reader.shape(own)[0] != parameter.shape:
            other.append(
                f"{name}: {tuple(parameter.shape)} in the model, {tuple(reader.shape(own)[0])} in the file"
            )
        names[name] = found
    for module_path, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            whole = f"{module_path}.{name}" if module_path else name
            found = _found([whole], weights.places, prefix)
            if found is not None:
                reader, own = weights.places[found]
                module._buffers[name] = reader.read(own).to(buffer.dtype)
            elif buffer.device.type == "meta":
                missing.append(whole)
    if missing or other:
        raise ValueError(
            f"weights: {str(path)!r} does not fit the model"
            + (f"; it has no {', '.join(missing[:5])}{_more(missing)}" if missing else "")
            + (f"; shapes differ: {'; '.join(other[:5])}{_more(other)}" if other else "")
            + (
                ". Buffers that files do not hold are real where the model is made in a "
                "`with skeleton():`, which is in stonefx.compress.streaming"
                if missing
                else ""
            )
        )
    stand_in(model, weights, names)
    return model


def from_folder(path: str | os.PathLike[str], cache: int) -> nn.Module:
    """The model of a transformers folder, with its weights in their files.

    Raises:
        ValueError: it is no such folder.
    """
    config = Path(path) / "config.json"
    if not config.is_file():
        raise ValueError(
            f"model: expected a transformers folder with a config.json, or a module; {str(path)!r} has none. For a "
            "file of weights pass the model on the meta device as well: compress(model, ..., weights=file)"
        )
    try:
        transformers = importlib.import_module("transformers")
    except ImportError:
        raise ValueError(
            "model: a folder is read with transformers, which is not installed; pip install transformers, or pass "
            "the model on the meta device and weights=folder"
        ) from None
    settings = transformers.AutoConfig.from_pretrained(path)
    architecture = next((a for a in settings.architectures or () if hasattr(transformers, a)), None)
    if architecture is None:
        raise ValueError(
            f"model: transformers {transformers.__version__} has none of the architectures "
            f"{settings.architectures} that {str(config)!r} names"
        )
    dtypes = {r.shape(name)[1] for r in _readers(Path(path)) for name in r.names()}
    floats = [d for d in dtypes if d.is_floating_point]
    before = torch.get_default_dtype()
    try:
        if len(floats) == 1:
            torch.set_default_dtype(floats[0])
        with skeleton():
            model: nn.Module = getattr(transformers, architecture)(settings)
    finally:
        torch.set_default_dtype(before)
    return attach(model.eval(), path, cache)


def _readers(path: Path) -> list[tensorfile.Reader]:
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files or not all(f.is_file() for f in files):
        raise ValueError(
            f"weights: expected a safetensors file or a folder of them, found none at {str(path)!r}"
        )
    return [tensorfile.Reader(file) for file in files]


def _found(names: Sequence[str], places: Mapping[str, Any], prefix: str) -> str | None:
    """The first name in the files: as it is, or with or without the name of the base model before it."""
    for name in names:
        for tried in (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}.")):
            if tried in places:
                return tried
    return None


def stand_in(model: nn.Module, weights: Weights, names: Mapping[str, str]) -> None:
    """Parameters of `names`, by their whole names, are read from `weights` from now on, and those read before too."""
    made: dict[int, nn.Parameter] = {}
    for path, module in model.named_modules():
        own, stand_ins, found = dict(names_of(module)), dict[str, Any](), False
        for name, parameter in module._parameters.items():
            whole = f"{path}.{name}" if path else name
            stand_ins[name] = parameter
            if parameter is not None and whole in names:
                own[name], found = names[whole], True
                if id(parameter) not in made:
                    made[id(parameter)] = _without_memory(parameter)
                stand_ins[name] = made[id(parameter)]
        if found:
            module.__dict__["_parameters"] = Parameters(weights, stand_ins, own)
            module.register_state_dict_post_hook(_read_state)
            if isinstance(module, nn.RNNBase):
                # It holds a list of its own.
                module.register_forward_pre_hook(_flat_weights)
                module.register_forward_hook(_no_flat_weights)
                module._flat_weights = []


def _without_memory(parameter: nn.Parameter) -> nn.Parameter:
    """One of its shape that has one number; not a number, so that nothing can be computed with it unseen."""

    def hollow(value: Tensor) -> Tensor:
        if hasattr(value, "__tensor_flatten__"):
            return rebuilt(value, lambda part: hollow(getattr(value, part)))
        fill = float("nan") if value.is_floating_point() or value.is_complex() else 0
        return torch.full((), fill, dtype=value.dtype).expand(value.shape)

    return nn.Parameter(hollow(parameter.data), requires_grad=False)


def _read_state(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in names_of(module):
        key = prefix + name
        # Those asked for as variables are looked at, not saved.
        if key in state and not isinstance(state[key], nn.Parameter):
            state[key] = getattr(module, name).detach()


def _flat_weights(module: Any, arguments: Any) -> None:
    module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]
    # By these it sees that no weight was put in place of another.
    module._flat_weight_refs = [weakref.ref(weight) for weight in module._flat_weights]


def _no_flat_weights(module: Any, arguments: Any, result: Any) -> None:
    module._flat_weights = []


OWN_HOOKS = (_flat_weights, _no_flat_weights)
"""Hooks that are no part of the user's model: a layer that has them may be replaced."""


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 5} more" if len(names) > 5 else ""


def cache_for(memory: int | None) -> int:
    """Bytes of weights that are held beyond their use: a quarter of what may be taken."""
    return (int(estimate.SHARE * estimate.available()) if memory is None else memory) // 4
