"""The pages of the documentation that are made from tables of the code: `python docs/generate.py` writes them."""

from __future__ import annotations

from pathlib import Path

from tabulate import tabulate

from stonefx.passes.hyperbolic.formulas import FORMULAS
from stonefx.passes.hyperbolic.rules import RULES
from stonefx.report import codes

HERE = Path(__file__).resolve().parent

_HEAD = """# What is recognised

What the pass [`hyperbolic`](../passes/hyperbolic.md) finds in a graph, however it is spelled: `n = ||x||`, `s = sqrt(c)`. A guard
of your formula becomes a slot of the operator; one that has no slot is named in the refusal. The bound is that of the error
against float64, in units of rounding (`eps`), on probes that stop short of the boundary. `docs/generate.py` makes this page from
`passes/hyperbolic/formulas.py` and `rules.py`.
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
    """A table of Markdown, in whose cells a bar is no border."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return tabulate(cells, headers=headers, tablefmt="pipe", disable_numparse=True)


PAGES = {HERE / "operators" / "recognised.md": recognised, HERE / "refusals.md": codes.page}

if __name__ == "__main__":
    for file, make in PAGES.items():
        file.write_text(make(), encoding="utf-8")
