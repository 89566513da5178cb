"""What a compression says of itself: the table, JSON, the picture."""

import json

import pytest

from stonefx.compress import CompressionStats, LayerRow, Point

LONG = "not faster than dense: pair 1.31 of its time at 8, pifa 2.40 of its time at 8"


def stats(**changes):
    values = {
        "reached": True,
        "compression_ratio": 0.25,
        "model_ratio": 0.5,
        "lossless_ratio": 0.9,
        "accuracy_preserved": 0.97,
        "accuracy_lower": 0.96,
        "samples": {"calibrate": 60, "select": 20, "confirm": 20},
        "layers": [
            LayerRow(
                path="a", shape="64x64", form="pair", rank=8, bytes_before=16640, bytes_after=4352,
                seconds_before=2e-5, seconds_after=1e-5, predicted=0.0123,
            ),
            LayerRow(path="b", shape="32x64", bytes_before=8192, bytes_after=8192, reason=LONG),
            LayerRow(path="c", shape="32x64", bytes_before=8192, bytes_after=8192, reason=LONG),
            LayerRow(path="d", shape="9x9", bytes_before=324, bytes_after=324, reason="not among layers="),
        ],
        "curve": [
            Point(ratio=0.2, seconds=None, accuracy=0.9, lower=0.88),
            Point(ratio=0.25, seconds=None, accuracy=0.975, lower=0.965),
        ],
        "call_seconds_before": 0.004,
        "call_seconds_after": 0.002,
        "settings": {"min_accuracy": 0.95, "confidence": 0.95, "max_ratio": None, "max_seconds": None},
        "notes": ["something to know"],
    }  # fmt: skip
    return CompressionStats(**(values | changes))


def test_a_row_a_layer_with_its_reason():
    text = str(stats())
    assert text == stats().report
    lines = text.splitlines()
    assert lines[0].split()[:4] == ["layer", "shape", "form", "rank"]
    row = next(line for line in lines if line.startswith("a "))
    for part in ("64x64", "pair", "8", "16.6 kB -> 4.35 kB", "20 -> 10", "0.012"):
        assert part in row
    assert "b (+1 more)" in text and text.count(LONG) == 1 and f"[1] {LONG}" in text
    assert "not among layers=" in text


@pytest.mark.parametrize(
    "part",
    [
        "25.00% of the bytes of the layers chosen, 50.00% of the model's; exact merging alone leaves 90.00%",
        "a call of the model: 4 -> 2 milliseconds (2.00 times as fast)",
        "accuracy kept: 0.9700, at least 0.9600 with 95% confidence, on 20 samples that chose nothing",
        "at least 0.95 of the accuracy: reached",
        "note: something to know",
    ],
)
def test_the_totals(part):
    assert part in str(stats())


@pytest.mark.parametrize(
    ("settings", "reached", "line"),
    [
        ({"max_ratio": 0.3}, True, "at most 30.00% of the bytes: reached"),
        ({"max_seconds": 0.003}, False, "at most 3 milliseconds a call: not reached"),
        ({"min_accuracy": 0.9}, None, "at least 0.9 of the accuracy: not checked, since there was no data"),
    ],
)
def test_what_was_asked_for(settings, reached, line):
    assert line in str(stats(settings=settings, reached=reached))


def test_nothing_at_all():
    text = str(CompressionStats())
    assert "100.00% of the bytes" in text and "layer " not in text


def test_the_saved_model():
    assert "accuracy of the saved model, read back: 0.9650" in str(stats(reloaded_accuracy=0.965))


def test_json(tmp_path):
    path = tmp_path / "stats.json"
    text = stats(accuracy_lower=float("nan")).to_json(path)
    document = json.loads(text)
    assert path.read_text() == text
    assert document["accuracy_lower"] is None and document["layers"][0]["rank"] == 8
    assert document["curve"][1]["accuracy"] == 0.975
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        stats().to_json(tmp_path / "no" / "stats.json")


def test_the_curve(tmp_path):
    pytest.importorskip("matplotlib")
    figure = stats().plot(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000
    (axes,) = figure.axes
    drawn = [list(line.get_xdata()) for line in axes.lines]
    assert [20.0, 25.0] in drawn and [25.0] in drawn
    assert "%" in axes.get_xlabel() and "floor of 0.95" in axes.get_legend_handles_labels()[1]
    without = stats(settings={"max_ratio": 0.3}).plot().axes[0].get_legend_handles_labels()[1]
    assert not any("floor" in label for label in without)


def test_no_curve_without_data():
    with pytest.raises(ValueError, match="compress was given no data"):
        CompressionStats().plot()
