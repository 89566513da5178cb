"""What `--fail-on` says: sites of a kind, such as `refused:linear_chain`."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from stonefx.passes.pipeline import TARGETS
from stonefx.passes.refusal import CODES
from stonefx.passes.site import Site

_STATUSES = ("rewritten", "refused", "near miss")


@dataclass(frozen=True)
class Rule:
    """Sites of a status, and of a target and a code where they are given.

    >>> parse_rule("refused:linear_chain").matches(
    ...     Site(pass_name="linear_chains", target="linear_chain", status="refused"))
    True
    """

    status: str
    target: str = ""
    code: str = ""

    def matches(self, site: Site) -> bool:
        """Whether a site is of this kind."""
        return (
            site.status == self.status and self.target in ("", site.target) and self.code in ("", site.code)
        )

    def __str__(self) -> str:
        return ":".join(part for part in (self.status.replace(" ", "-"), self.target, self.code) if part)


def parse_rule(text: str) -> Rule:
    """Read `STATUS`, `STATUS:TARGET` or `STATUS:TARGET:CODE`.

    Raises:
        ValueError: one of them is not known; the message names the nearest that is.

    >>> str(parse_rule("near-miss:expmap0"))
    'near-miss:expmap0'
    """
    status, _, rest = text.partition(":")
    target, _, code = rest.partition(":")
    status = status.replace("-", " ")
    _known("status", status, _STATUSES)
    if target:
        _known("target", target, TARGETS)
    if code:
        _known("code", code, CODES)
    return Rule(status, target, code)


def _known(what: str, name: str, names: Collection[str]) -> None:
    if name in names:
        return
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(names)}"
    raise ValueError(f"there is no {what} {name!r}; {hint}")


def become(sites: Iterable[Site], earlier: Iterable[Site], rule: Rule) -> list[Site]:
    """The sites of a rule that an earlier report does not have, told apart by target and module, as lines move.

    >>> site = Site(pass_name="p", target="linear_chain", status="refused", module_path="head")
    >>> len(become([site, site], [site], parse_rule("refused")))
    1
    """
    before = [site for site in earlier if rule.matches(site)]
    known = Counter((site.target, site.module_path, site.code or site.reason) for site in before)
    places = Counter((site.target, site.module_path) for site in before)
    fresh: list[Site] = []
    rest: list[Site] = []
    for site in sites:
        if not rule.matches(site):
            continue
        key = (site.target, site.module_path, site.code or site.reason)
        (rest if known[key] else fresh).append(site)
        known[key] -= 1 if known[key] else 0
    # Another reason at a place that has no more such sites than before is no new one.
    found = []
    for site in rest + fresh:
        place = (site.target, site.module_path)
        if places[place]:
            places[place] -= 1
        else:
            found.append(site)
    return found


def failures(
    rules: Iterable[Rule], sites: Iterable[Site], earlier: Iterable[Site] = ()
) -> dict[Rule, list[Site]]:
    """The sites that each rule matches, of the rules that match any; without those of an earlier report.

    >>> failures([parse_rule("refused")], [])
    {}
    """
    given, known = list(sites), list(earlier)
    found = {rule: become(given, known, rule) for rule in rules}
    return {rule: matched for rule, matched in found.items() if matched}


def failure_text(found: dict[Rule, list[Site]]) -> str:
    """One line: each rule, how many sites it matches, and where the first of them are.

    >>> failure_text({parse_rule("refused"): [
    ...     Site(pass_name="p", target="linear_chain", status="refused", source="model.py:3")]})
    'refused: 1 site, linear_chain at model.py:3'
    """
    return "; ".join(
        f"{rule}: {len(sites)} site{'s' if len(sites) > 1 else ''}, "
        + ", ".join(
            f"{site.target} at {site.source or site.module_path or 'the model'}" for site in sites[:3]
        )
        + (" ..." if len(sites) > 3 else "")
        for rule, sites in found.items()
    )
