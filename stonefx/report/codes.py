"""The page of all refusal codes: `python -m stonefx.report.codes > docs/refusals.md`."""

from __future__ import annotations

from string import Formatter

from tabulate import tabulate

from stonefx.passes.refusal import CODES

_HEAD = """# Why a site was left as it is

A refused site of a report has a code, `site.code`, and the figures of its sentence by name, `site.figures`; both are
in the JSON of `report.to_json()`. `site.reason` is the sentence made from them, and `site.reason.cure` says what
can be done about it, as this page does. This page is made by `python -m stonefx.report.codes`.
"""


def page() -> str:
    """The page: each code with its sentence, in which the names of figures stand in braces, and the cure.

    >>> "| `kept` " in page()
    True
    """
    rows = [
        (f"`{code}`", _plain(entry.text), entry.cure or "Nothing.") for code, entry in sorted(CODES.items())
    ]
    headers = ("code", "what is said", "what can be done")
    return f"{_HEAD}\n{tabulate(rows, headers=headers, tablefmt='github', disable_numparse=True)}\n"


def _plain(text: str) -> str:
    """A sentence without the formats of its figures, whose names are code."""
    parts = [
        literal + (f"`{{{name}}}`" if name is not None else "")
        for literal, name, _, _ in Formatter().parse(text)
    ]
    return "".join(parts).replace("``", "` `").replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
