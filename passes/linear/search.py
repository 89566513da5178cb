"""Finds maximal chains of linear maps, and the places where a chain breaks off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import fx

from ..rewrite import Context
from . import sizes
from .classify import Classifier
from .steps import Step
from .weights import Matrix


@dataclass
class Chain:
    """Neighbouring steps, from the first map to the last map or the shift behind it.

    Args:
        steps: the steps in order, the first of kind "map".
    """

    steps: list[Step] = field(default_factory=list)

    @property
    def maps(self) -> list[Step]:
        """The steps that hold a matrix."""
        return [step for step in self.steps if step.kind == "map"]

    @property
    def operand(self) -> fx.Node:
        """The value that the first map reads."""
        return self.steps[0].operand

    @property
    def output(self) -> fx.Node:
        """The node that holds the chain's result."""
        return self.steps[-1].node

    @property
    def matrices(self) -> list[Matrix]:
        """The matrices, in order of application."""
        return [step.matrix for step in self.maps]

    @property
    def widths(self) -> list[int]:
        """Input width of the first map, then the output width of each."""
        matrices = self.matrices
        return [matrices[0].inputs, *(matrix.outputs for matrix in matrices)]

    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes of the steps."""
        return tuple(step.node.name for step in self.steps)


@dataclass
class Break:
    """A place between two linear maps that no merge crosses.

    Args:
        before: the steps up to the place.
        after: the first map behind it.
        reason: why.
    """

    before: Chain
    after: fx.Node
    reason: str


def search(graph: fx.Graph, classifier: Classifier, context: Context) -> Iterator[Chain | Break]:
    """Yield every chain of two or more maps, and every break between two maps, in graph order."""
    finder = _Finder(classifier, context)
    taken: set[fx.Node] = set()
    for node in graph.nodes:
        step = classifier.step(node)
        if step is None or step.kind != "map" or node in taken:
            continue
        chain, broken = finder.follow(step)
        taken.update(step.node for step in chain.steps)
        if len(chain.maps) > 1:
            yield chain
        if broken is not None:
            yield broken


class _Finder:
    def __init__(self, classifier: Classifier, context: Context) -> None:
        self.classifier = classifier
        self.context = context
        self.told: set[fx.Node] = set()  # maps whose own problem was reported

    def follow(self, first: Step) -> tuple[Chain, Break | None]:
        """Extend a chain from its first map as far as it goes."""
        steps = [first]
        reason, after = self._stop(steps)
        while not reason and after is not None:
            steps.append(after)
            reason, after = self._stop(steps)
        broken = None
        if reason:
            target = self._next_map(steps[-1].node) if after is None else after.node
            if target is not None:
                broken = Break(Chain(list(steps)), target, reason)
        while steps[-1].kind in ("view", "same"):
            steps.pop()
        return Chain(steps), broken

    def _stop(self, steps: list[Step]) -> tuple[str, Step | None]:
        """The next step, or the reason why there is none."""
        current = steps[-1]
        if current.problem:
            return "" if current.node in self.told else current.problem, None
        users = [user for user in current.node.users if not sizes.reads(user, of=steps[0].operand)]
        if not users:
            return "", None
        if len(users) > 1:
            return self._shared(current.node, users), None
        step = self.classifier.step(users[0])
        if step is None or step.operand is not current.node:
            return "", None
        if step.kind == "barrier":
            return step.problem, None
        if step.problem:
            if step.kind == "map":
                reason = "" if step.node in self.told else step.problem
                self.told.add(step.node)
                return reason, step if reason else None
            return step.problem, None
        facts = self.classifier.facts
        if self.context.grad and (current.node in facts.no_grad) != (step.node in facts.no_grad):
            return "a no_grad region begins or ends between the maps, and gradients are wanted", None
        return "", step

    def _shared(self, node: fx.Node, users: list[fx.Node]) -> str:
        others = [user for user in users if user.op != "output"]
        returned = "is returned" if len(others) < len(users) else ""
        used = f"is used in {len(others)} places ({', '.join(user.name for user in others[:4])}"
        used += ", ...)" if len(others) > 4 else ")"
        if len(others) == 1:
            used = f"is also used by {others[0].name!r}"
        if returned:
            return f"the intermediate {node.name!r} {returned}, so it has to be computed"
        return f"the intermediate {node.name!r} {used}, so it has to be computed"

    def _next_map(self, node: fx.Node) -> fx.Node | None:
        """The first map that a value reaches through steps of any kind."""
        stack, seen = list(node.users)[::-1], {node}
        origin = dict.fromkeys(stack, node)
        while stack:
            user = stack.pop()
            step = self.classifier.step(user)
            if user in seen or step is None or step.operand is not origin[user]:
                continue
            seen.add(user)
            if step.kind == "map":
                return user
            for following in user.users:
                origin[following] = user
                stack.append(following)
        return None
