"""The table of contents: which pass runs, in which order, and why there."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from torch import fx

from .fold_weights import WEIGHT_EXPRESSIONS
from .graph.nodes import source_line
from .hyperbolic import HYPERBOLIC
from .linear import ATTENTION, LINEAR_CHAINS, LINEAR_CONTRACTIONS, LINEAR_FAN_OUT
from .lower import LOWER
from .normalize import NORMALIZE
from .site import Context, Pass, RewriteError, Site
from .verify import Verifier

PIPELINE: dict[str, Pass] = {
    item.name: item
    for item in (
        NORMALIZE,  # first: every later pass reads one spelling instead of many
        ATTENTION,  # before linear_chains: a key map that moved next to its query map is merged into it
        LINEAR_CHAINS,  # before hyperbolic: merged maps leave fewer nodes between the maps of a layer
        LINEAR_CONTRACTIONS,  # behind it: what one matrix can do is done by one matrix
        LINEAR_FAN_OUT,  # behind it: maps that were merged through a shared value have become maps of one value
        HYPERBOLIC,
        WEIGHT_EXPRESSIONS,  # behind all that may make a weight expression part of something larger
        LOWER,  # last: turns what was recognised into the operators that will run
    )
}
# These fold weights away, so that a model whose sizes are fixed has no original left to run at other sizes.
FOLDING = tuple(
    item.name
    for item in (
        ATTENTION,
        LINEAR_CHAINS,
        LINEAR_CONTRACTIONS,
        LINEAR_FAN_OUT,
        WEIGHT_EXPRESSIONS,
    )
)
TARGETS: tuple[str, ...] = tuple(
    dict.fromkeys(target for item in PIPELINE.values() for target in item.targets)
)


@dataclass
class Rewrite:
    """What the passes did to one graph: every site, and the seconds that each pass took."""

    sites: list[Site] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def rewrite(
    module: fx.GraphModule, names: Iterable[str], context: Context, verifier: Verifier | None = None
) -> Rewrite:
    """Run the named passes on a graph in place, in the order of `PIPELINE`.

    A site that `verifier` finds outside its bound is undone: the pass runs again on the graph as it was, told
    to leave that site alone, and the report keeps it as refused.

    Raises:
        RewriteError: a pass failed inside; the message names the pass, the node and the user's line.
    """
    chosen = set(names)
    done = Rewrite()
    for name, item in PIPELINE.items():
        if name in chosen:
            start = time.perf_counter()
            done.sites += run_verified(item, module, context, verifier)
            done.seconds[name] = time.perf_counter() - start
    module.recompile()
    return done


def run_verified(
    item: Pass, module: fx.GraphModule, context: Context, verifier: Verifier | None
) -> list[Site]:
    """Run one pass, again and again without the sites that fail verification, until none fails."""
    # Copying a graph and generating its code cost as much as a pass: only where something may have to be undone.
    if verifier is None or not item.targets:
        return run_named(item, module, context)
    denied: dict[str, str] = dict(context.denied)
    while True:
        before = copy_graph(module.graph)
        sites = run_named(item, module, replace(context, denied=denied))
        if not any(site.status == "rewritten" for site in sites):
            return sites
        failed = verifier.failures(fx.GraphModule(module, before), module, sites)
        if not failed:
            return sites
        if not failed.keys() - denied.keys():
            raise RewriteError(f"pass {item.name!r} rewrote a site again that verification undid: {failed}")
        denied |= failed
        module.graph = before


def copy_graph(graph: fx.Graph) -> fx.Graph:
    """Copy a graph with its nodes' names and metadata; node values are shared, not copied."""
    copy = fx.Graph(graph.owning_module)
    copied: dict[fx.Node, fx.Node] = {}
    output = copy.graph_copy(graph, copied)
    copy.output(output)
    source, target = graph.output_node(), copy.output_node()
    target.meta = dict(source.meta)
    for old, new in copied.items():
        if hasattr(old, "_dynamo_source"):
            new._dynamo_source = old._dynamo_source
    return copy


def run_named(item: Pass, module: fx.GraphModule, context: Context) -> list[Site]:
    """Run one pass; whatever fails inside is raised with the pass, the node and the user's line."""
    try:
        sites = item.run(module, context)
        module.graph.lint()
    except RewriteError:
        raise
    except Exception as error:
        node = _node_in_hand(error)
        where = f" at node {node.format_node()} ({source_line(node) or 'source unknown'})" if node else ""
        raise RewriteError(f"pass {item.name!r} failed{where}: {type(error).__name__}: {error}") from error
    return sites


def _node_in_hand(error: Exception) -> fx.Node | None:
    """The graph node that the innermost frame of a traceback was working on."""
    found, trace = None, error.__traceback__
    while trace is not None:
        for name in ("node", "root", "user"):
            value = trace.tb_frame.f_locals.get(name)
            if isinstance(value, fx.Node):
                found = value
                break
        trace = trace.tb_next
    return found
