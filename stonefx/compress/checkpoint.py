"""What a compression has found so far, in a folder: written whole or not at all, and read only for the same work.

A record is one safetensors file whose metadata holds its plain values as JSON: a file of data, which runs nothing when
it is read. It is written beside its name and then renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..files import replaced_atomically, write_atomically
from . import processes, tensorfile
from .data import Batch, Splits, tensors
from .metric import Score

SECONDS = 60.0
"""Running sums are written when so long has passed since they last were."""
FINGERPRINT = "fingerprint.json"


@dataclass(frozen=True)
class Record:
    """Tensors by name and plain values."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]


class Store:
    """A folder of records.

    Args:
        folder: where; made if it is not there. None: nothing is kept.
    """

    def __init__(self, folder: str | os.PathLike[str] | None) -> None:
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            if self.folder.exists() and not self.folder.is_dir():
                raise ValueError(f"checkpoint: expected a folder, {str(self.folder)!r} is a file")
            self.folder.mkdir(parents=True, exist_ok=True)

    def bind(self, fingerprint: Mapping[str, str]) -> None:
        """Say for which work the records are.

        Raises:
            ValueError: the folder holds records for another work.
        """
        if self.folder is None:
            return
        path = self.folder / FINGERPRINT
        if path.exists():
            known = json.loads(path.read_text(encoding="utf-8"))
            different = [
                name for name in {**known, **fingerprint} if known.get(name) != fingerprint.get(name)
            ]
            if different:
                details = "; ".join(
                    f"{name}: {_shown(known.get(name))} there, {_shown(fingerprint.get(name))} now"
                    for name in sorted(different)
                )
                raise ValueError(
                    f"checkpoint: {str(self.folder)!r} was made for another compression, which differs in "
                    f"{details}. Call compress as it was called then to go on with it, or give a new folder, or "
                    "delete this one to start again"
                )
        elif any(self.folder.glob("*.safetensors")):
            raise ValueError(
                f"checkpoint: {str(self.folder)!r} has files of something else and no {FINGERPRINT}; expected a new "
                "or empty folder"
            )
        else:
            write_atomically(path, json.dumps(dict(fingerprint), indent=1))

    def path(self, name: str) -> Path:
        """The file of a record."""
        assert self.folder is not None
        return self.folder / f"{name}.safetensors"

    def __contains__(self, name: str) -> bool:
        return self.folder is not None and self.path(name).exists()

    def put(self, name: str, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Write a record, or nothing without a folder."""
        if self.folder is not None:
            metadata = {"values": json.dumps(values)}
            with replaced_atomically(self.path(name)) as part:
                tensorfile.write(part, tensors, metadata)

    def get(self, name: str, wanted: Callable[[str], bool] = lambda key: True) -> Record | None:
        """Read a record, or of its tensors those that are wanted; None where there is none."""
        if name not in self:
            return None
        with tensorfile.Reader(self.path(name)) as reader:
            values = json.loads(reader.metadata["values"])
            return Record({key: reader.read(key) for key in reader.names() if wanted(key)}, values)

    def remove(self, name: str) -> None:
        """Forget a record."""
        if self.folder is not None:
            self.path(name).unlink(missing_ok=True)

    def forget_running(self, name: str) -> None:
        """Remove the running sums that led to a record, of all processes."""
        if self.folder is not None and processes.rank() == 0:
            for path in self.folder.glob(f"{name}-*-of-*.safetensors"):
                path.unlink(missing_ok=True)

    def score(self, name: str, what: Any, compute: Callable[[], Score]) -> Score:
        """The score of one evaluation, computed where it is not known."""
        name = f"score-{name}-{digest(json.dumps(what, default=repr))}"
        if all(processes.gathered(name in self)):
            found = self.get(name)
            assert found is not None
            return Score(found.values["value"], found.tensors.get("samples"))
        score = compute()
        if processes.rank() == 0:
            self.put(
                name, {} if score.samples is None else {"samples": score.samples}, {"value": score.value}
            )
        return score


class Running:
    """Running sums over batches, of one process; written now and then, so that a kill loses little.

    Args:
        store: where.
        name: of the sums.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = f"{name}-{processes.rank()}-of-{processes.size()}"
        self.written = time.monotonic()

    def resume(self) -> Record | None:
        """The newest sums, with the number of batches in them as `values["batches"]`."""
        return self.store.get(self.name)

    def after(self, batches: int, make: Callable[[], tuple[dict[str, Tensor], dict[str, Any]]]) -> None:
        """Write the sums after so many batches, if it is time."""
        if self.store.folder is not None and time.monotonic() - self.written >= SECONDS:
            tensors, values = make()
            self.store.put(self.name, tensors, {**values, "batches": batches})
            self.written = time.monotonic()


def fingerprint(model: nn.Module, splits: Splits | None, settings: Mapping[str, Any]) -> dict[str, str]:
    """What the records of a compression depend on, each part as one word."""
    shapes = [(name, tuple(t.shape), str(t.dtype)) for name, t in model.state_dict(keep_vars=True).items()]
    weights = hashlib.blake2b(digest_size=16)
    for path, module in model.named_modules():
        for name in (*module._parameters, *module._buffers):
            value = getattr(module, name)
            if isinstance(value, Tensor):
                weights.update(f"{path}.{name}".encode())
                _update(weights, value)
    found = {"names and shapes of weights": digest(repr(shapes)), "weights": weights.hexdigest()}
    for name in ("calibrate", "select", "confirm"):
        batches = [] if splits is None else getattr(splits, name)
        found[f"data to {name}"] = _of_batches(batches)
    return {**found, **{f"{name}=": _word(value) for name, value in settings.items()}}


def digest(text: str) -> str:
    """A short word for a text.

    >>> digest("a") == digest("a") != digest("b")
    True
    """
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _of_batches(batches: Sequence[Batch]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for batch in batches:
        for value in tensors((batch.args, batch.kwargs, batch.mask, batch.labels)):
            _update(found, value)
    return found.hexdigest()


def _update(found: Any, value: Tensor) -> None:
    found.update(f"{value.dtype}{tuple(value.shape)}".encode())
    flat = value.detach().reshape(-1)
    for part in flat.split(1 << 22):
        found.update(tensorfile.raw(part.cpu()))


def _word(value: Any) -> str:
    if callable(value):
        return (
            f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
        )
    return repr(value)


def _shown(value: str | None) -> str:
    return "nothing" if value is None else value if len(value) <= 40 else f"{value[:37]}..."


def flat(sums: Mapping[int, Tensor], name: str) -> dict[str, Tensor]:
    """Tensors by number as tensors by name."""
    return {f"{name}/{number}": value for number, value in sums.items()}


def numbered(tensors: Mapping[str, Tensor], name: str) -> dict[int, Tensor]:
    """The other way."""
    return {int(key.split("/")[1]): value for key, value in tensors.items() if key.startswith(f"{name}/")}


def ints(values: Mapping[str, Any]) -> dict[int, int]:
    """JSON's names as numbers again."""
    return {int(key): int(value) for key, value in values.items()}
