"""`stats.to_html`: the totals, the curve and the layers, as one page that needs nothing else."""

from __future__ import annotations

import html
import io
from typing import TYPE_CHECKING

from tabulate import tabulate

from .curve import picture
from .table import cells, totals

if TYPE_CHECKING:
    from .stats import CompressionStats

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem; text-align: left; vertical-align: top; border-bottom: 1px solid #8886; }
figure { margin: 1rem 0; background: #fff; display: inline-block; max-width: 100%; }
svg { max-width: 100%; height: auto; }
"""


def page(stats: CompressionStats) -> str:
    """The text of the page.

    >>> from .stats import CompressionStats
    >>> "<h1>Compression</h1>" in page(CompressionStats(reached=True))
    True
    """
    headers, rows = cells(stats)
    table = tabulate(rows, headers=headers, tablefmt="html", disable_numparse=True) if rows else ""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><title>Compression, by stonefx</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body><main>",
        "<h1>Compression</h1>",
        _list(totals(stats)),
        _curve(stats),
        f'<h2>Layers</h2><div class="wide" tabindex="0">{table}</div>' if table else "",
        f"<h2>Notes</h2>{_list(stats.notes)}" if stats.notes else "",
        "</main></body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _list(lines: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"


def _curve(stats: CompressionStats) -> str:
    """The curve, where something was evaluated and matplotlib is installed."""
    if not stats.curve:
        return ""
    try:
        figure = picture(stats)
    except ImportError:
        return ""
    text = io.StringIO()
    figure.savefig(text, format="svg")
    drawn = text.getvalue()
    label = 'role="img" aria-label="accuracy kept over the share of bytes"'
    return f"<h2>What was tried</h2><figure>{drawn[drawn.index('<svg') :].replace('<svg', f'<svg {label}', 1)}</figure>"
