"""What a compression did: totals, a row a layer, and the curve of what else could have been had."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..files import write_atomically


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One layer of the report.

    Attributes:
        path: of the layer.
        shape: of its matrix, as text.
        form: what became of it: "dense", "merged" into another layer without a loss, "pair", "pifa", "width", with
            "+int8" where quantised.
        rank: of its factors, or units kept; None where dense.
        bytes_before, bytes_after: of all that it stores.
        seconds_before, seconds_after: a call at the user's shapes; None where not measured.
        predicted: the loss that its choice rested on.
        measured: the loss of the change that was made, on the selection split; None where it cannot be attributed.
        reason: why the layer stays as it is; empty for layers that changed.
    """

    path: str
    shape: str
    form: str = "dense"
    rank: int | None = None
    bytes_before: int = 0
    bytes_after: int = 0
    seconds_before: float | None = None
    seconds_after: float | None = None
    predicted: float | None = None
    measured: float | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One evaluated plan: what it costs and what it keeps.

    Attributes:
        ratio: bytes after over before, of the layers chosen.
        seconds: of the layers a call, or None where not measured.
        accuracy: on the selection split, as a share of the original's.
        lower: what the accuracy is at least, with the confidence asked for.
    """

    ratio: float
    seconds: float | None
    accuracy: float
    lower: float


@dataclass(kw_only=True)
class CompressionStats:
    """What `compress` did.

    Attributes:
        reached: whether what was asked for holds: the floor on data that chose nothing, or the ratio, or the seconds;
            None where nothing could be checked.
        compression_ratio: bytes stored after over before, of the layers chosen.
        model_ratio: the same of the whole model.
        lossless_ratio: parameters after exact merging alone over parameters before.
        accuracy_preserved: the metric on the confirmation split, as a share of the original's; None without data.
        accuracy_lower: what that is at least, with the confidence asked for.
        reloaded_accuracy: the same of the artefact as it was read back from where it was saved; None where it was not.
        energy_preserved: share of the spectra kept, in the metric in which they were truncated.
        ranks: by module path.
        layers: a row a layer.
        curve: every plan that was evaluated, by ratio.
        samples: how many samples calibrated, selected and confirmed.
        seconds: what each stage took.
        call_seconds_before, call_seconds_after: of a call of the whole model on a batch of the user's; None where
            nothing was timed.
        notes: what a reader should know.
        settings: what was asked for.
    """

    reached: bool | None = None
    compression_ratio: float = 1.0
    model_ratio: float = 1.0
    lossless_ratio: float = 1.0
    accuracy_preserved: float | None = None
    accuracy_lower: float | None = None
    reloaded_accuracy: float | None = None
    energy_preserved: float = 1.0
    ranks: dict[str, int] = field(default_factory=dict)
    layers: list[LayerRow] = field(default_factory=list)
    curve: list[Point] = field(default_factory=list)
    samples: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    call_seconds_before: float | None = None
    call_seconds_after: float | None = None
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def report(self) -> str:
        """A table with a row a layer, the reasons of those that stay, and the totals."""
        from .table import report_text

        return report_text(self)

    def __str__(self) -> str:
        return self.report

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Everything here as JSON; written to `path` as well, where one is given.

        Raises:
            FileNotFoundError: the folder of `path` does not exist.

        >>> json.loads(CompressionStats(reached=True).to_json())["reached"]
        True
        """
        text = json.dumps(_finite(asdict(self)), indent=2, allow_nan=False) + "\n"
        if path is not None:
            write_atomically(Path(path), text)
        return text

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """One page for a browser, with the totals, the layers and, where matplotlib is installed, the curve.

        Raises:
            FileNotFoundError: the folder of `path` does not exist.
        """
        from .page import page

        write_atomically(Path(path), page(self))

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """The curve of accuracy over bytes: what was tried, what came out, and the floor; a matplotlib figure.

        Args:
            path: where to write it as well; the ending names the format.

        Raises:
            ImportError: matplotlib is not installed (`pip install "stonefx[plot]"`).
            ValueError: nothing was evaluated, since there was no data.
        """
        from .curve import picture

        return picture(self, path)


def _finite(value: Any) -> Any:
    """JSON has no notation for what is not a number."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value
