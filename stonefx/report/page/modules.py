"""The tree of the modules that sites stand in, with counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from stonefx.passes.site import Site
from stonefx.report.kinds import STATUSES

_DEEPEST = 40  # levels; the tree is walked by recursion


@dataclass
class Module:
    """A module of the model.

    Args:
        name: its name within the module above; several names where nothing else stands between.
        path: its path.
        counts: sites in it and below, by status.
        children: the modules in it that hold sites.
    """

    name: str
    path: str
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATUSES, 0))
    children: dict[str, Module] = field(default_factory=dict)


def module_tree(sites: Sequence[Site]) -> Module:
    """The tree of the modules that sites stand in; modules with one child and no site of their own are one with it.

    >>> site = Site(pass_name="p", target="t", status="refused", module_path="encoder.layer.0.output")
    >>> [child.name for child in module_tree([site]).children.values()]
    ['encoder.layer.0.output']
    """
    root = Module("whole model", "")
    for site in sites:
        root.counts[site.status] += 1
        # Several layers, `0, 1`, stand in the module above them.
        module = root
        names = [] if ", " in site.module_path else [*filter(None, site.module_path.split("."))]
        if len(names) > _DEEPEST:
            names[_DEEPEST - 1 :] = [".".join(names[_DEEPEST - 1 :])]
        for name in names:
            path = f"{module.path}.{name}" if module.path else name
            module = module.children.setdefault(name, Module(name, path))
            module.counts[site.status] += 1
    root.children = {name: _joined(child) for name, child in root.children.items()}
    return root


def _joined(module: Module) -> Module:
    children = {name: _joined(child) for name, child in module.children.items()}
    if len(children) == 1:
        (only,) = children.values()
        if only.counts == module.counts:
            return Module(f"{module.name}.{only.name}", only.path, only.counts, only.children)
    return Module(module.name, module.path, module.counts, children)
