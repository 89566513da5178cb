"""The page of the documentation that is made from the tables of formulas: `python docs/generate.py` writes it."""

from __future__ import annotations

from pathlib import Path

from tabulate import tabulate

from stonefx.passes.hyperbolic.formulas import FORMULAS
from stonefx.passes.hyperbolic.rules import RULES

HERE = Path(__file__).resolve().parent

_HEAD = """# What is recognised

What the pass [`hyperbolic`](../passes/hyperbolic.md) finds in a graph, however it is spelled: `n = ‖x‖`, `s =
sqrt(c)`. A guard of your formula becomes a slot of the operator; one that has no slot is named in the refusal.
The bound is that of the error against float64, in units of rounding (`eps`), on probes that stop short of the
boundary. `docs/generate.py` makes this page from `passes/hyperbolic/formulas.py` and `rules.py`.
"""


def recognised() -> str:
    """The page of the formulas and the identities."""
    formulas = [
        (
            f"`{one.target}`",
            f"`{one.text}`",
            one.gives,
            ", ".join(f"`{slot}`" for slot in one.slots),
            f"{one.bound:g}",
        )
        for one in FORMULAS.values()
    ]
    rules = [(f"`{rule.name}`", rule.needs) for rule in RULES]
    return "\n".join(
        [
            _HEAD,
            table(formulas, ["operator", "formula", "gives", "guards", "bound"]),
            "\n## Identities\n\nApplied to what was recognised, where the condition can be proved from the graph:\n",
            table(rules, ["identity", "needs"]),
            "",
        ]
    )


def table(rows: list[tuple[str, ...]], headers: list[str]) -> str:
    """A table of Markdown, where a bar would end a cell, and norms have a character of their own."""
    cells = [[cell.replace("||", "‖") for cell in row] for row in rows]
    return tabulate(cells, headers=headers, tablefmt="pipe", disable_numparse=True)


PAGES = {HERE / "operators" / "recognised.md": recognised}

if __name__ == "__main__":
    for file, make in PAGES.items():
        file.write_text(make(), encoding="utf-8")
