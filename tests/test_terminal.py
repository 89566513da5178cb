"""Tables and texts that fit a terminal of any width, in letters and colours that it shows."""

import io
import itertools
from collections import Counter

import pytest

from stonefx.terminal import asked_width, fit, printable, table

WORDS = ("", "dense", "encoder.layer.0.attention.output.dense", "größe.schräg", "a b c d e f", "x" * 70)


def words(count, seed):
    return [WORDS[(seed * 7 + i * i + i) % len(WORDS)] for i in range(count)]


@pytest.mark.parametrize("columns", [1, 2, 4, 9])
@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_no_line_of_a_table_is_wider_than_asked(width, columns):
    for seed, with_headers in itertools.product(range(12), (True, False)):
        rows = [words(columns, seed + row) for row in range(3)]
        headers = [f"head {i}" for i in range(columns)] if with_headers else ()
        text = table(rows, headers, right=[columns - 1] if columns > 2 else (), width=width)
        assert max(map(len, text.split("\n"))) <= width, text
        # Nothing is lost: every letter of every cell stands there.
        assert not Counter("".join(itertools.chain(*rows)).replace(" ", "")) - Counter(text)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_lists_keep_every_letter(width):
    rows = [words(9, 5)]
    text = table(rows, [f"head {i}" for i in range(9)], width=20)
    assert "".join(text.split()) == "".join(
        f"head{i}:{''.join(cell.split())}" for i, cell in enumerate(rows[0]) if cell
    )


def test_a_table_is_as_wide_as_it_is_where_nobody_asks(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert asked_width() is None
    assert max(map(len, table([["x" * 300]], ["head"]).split("\n"))) == 300
    assert fit("word " * 100) == "word " * 100


@pytest.mark.parametrize(("said", "width"), [("40", 40), ("3", 20), ("0", None), ("wide", None), ("", None)])
def test_the_width_that_is_asked_for(monkeypatch, said, width):
    monkeypatch.setenv("COLUMNS", said)
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert asked_width() == width


@pytest.mark.parametrize("width", [20, 40, 80])
def test_long_lines_are_broken_between_words(width):
    text = fit("  accuracy kept: 0.9912, at least 0.9800 with 95 % confidence, on 64 samples\nshort", width)
    first, *rest, last = text.split("\n")
    assert all(len(line) <= width for line in text.split("\n")) and last == "short"
    assert first.startswith("  accuracy kept") and all(line.startswith("    ") for line in rest)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252", "no such thing"])
def test_every_letter_is_printable(encoding):
    class Stream(io.StringIO):
        pass

    Stream.encoding = encoding
    text = printable("größe → 世界 \udce9", Stream())
    if encoding != "no such thing":
        text.encode(encoding)
        assert text.isascii() == (encoding == "ascii")
    assert "gr" in text
