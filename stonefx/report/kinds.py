"""Sites of one kind: a block that repeats 48 times is one line with a count, not 48."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stonefx.passes.site import Site
from stonefx.report.listing import short_source

STATUSES = ("rewritten", "refused", "near miss")


@dataclass(frozen=True)
class Kind:
    """Sites that differ only in which of several equal blocks they stand in.

    Args:
        numbers: their places in the report, counted from 1.
        sites: the sites, in the same order.
    """

    numbers: tuple[int, ...]
    sites: tuple[Site, ...]

    @property
    def first(self) -> Site:
        """The site that stands for all of them."""
        return self.sites[0]

    @property
    def saving(self) -> float:
        """Predicted seconds a call that rewriting all of them saves, or would save."""
        return sum(map(saving, self.sites))

    @property
    def where(self) -> str:
        """The module paths as one pattern, such as `encoder.layer.*.output`."""
        return common_pattern([site.module_path for site in self.sites])


def kinds(sites: Iterable[Site]) -> list[Kind]:
    """Group sites by target, status, line of the user's code and reason; in the order of their first ones.

    >>> one = Site(pass_name="p", target="t", status="refused", module_path="layer.0.head")
    >>> other = Site(pass_name="p", target="t", status="refused", module_path="layer.1.head")
    >>> [(kind.where, kind.numbers) for kind in kinds([one, other])]
    [('layer.*.head', (1, 2))]
    """
    groups: dict[tuple[str, ...], list[tuple[int, Site]]] = {}
    for number, site in enumerate(sites, 1):
        key = (site.target, site.status, short_source(site.source), _unnumbered(site.reason), _shape(site))
        groups.setdefault(key, []).append((number, site))
    return [Kind(tuple(n for n, _ in group), tuple(s for _, s in group)) for group in groups.values()]


def saving(site: Site) -> float:
    """Predicted seconds a call that a rewrite saves, or would save; 0 where nothing was predicted or won."""
    if site.seconds_before is None or site.seconds_after is None:
        return 0.0
    won = site.seconds_before - site.seconds_after
    return max(0.0, won) if math.isfinite(won) else 0.0


def common_pattern(paths: Sequence[str]) -> str:
    """One pattern for several module paths; what differs is `*`.

    >>> common_pattern(["layer.0.ffn", "layer.1.ffn"]), common_pattern(["head", "tail.0"])
    ('layer.*.ffn', 'head and 1 more')
    """
    different = list(dict.fromkeys(paths))
    parts = [path.split(".") for path in different]
    if len({len(each) for each in parts}) == 1:
        levels = [list(dict.fromkeys(level)) for level in zip(*parts, strict=True)]
        if all(len(level) == 1 or all(part.isdigit() for part in level) for level in levels):
            return ".".join(level[0] if len(level) == 1 else "*" for level in levels)
    return f"{different[0]} and {len(different) - 1} more"


_TIME = re.compile(r"[\d.]+(?:e[+-]?\d+)? us\b")
_NAME = re.compile(r"\w*[A-Za-z_]\w*(?:\.\w+)*")


def _unnumbered(reason: str) -> str:
    """A reason without its times, and without the numbers in names of nodes, modules and weights; widths stay."""
    return _NAME.sub(lambda name: re.sub(r"\d+", "*", name.group()), _TIME.sub("* us", reason))


def _shape(site: Site) -> str:
    changes = (site.params_before, site.params_after, site.flops_before, site.flops_after)
    return f"{changes} {sorted(site.guards.items(), key=str)}"
