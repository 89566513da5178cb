"""Emits the nodes of a plan, one choice after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from ...graph.arguments import aliases
from ...graph.emit import Emitter, Unrealizable
from ...graph.nodes import val
from ...graph.shapes import entries, same_sizes
from ...graph.weights import Matrix, merged_name
from ...refusal import Refusal
from ..algebra.compose import compose, compose_source, follow
from ..algebra.composition import Composition
from ..algebra.elements import Apply, Element, Pick, Shift, weights_of
from ..algebra.labelled import LabelledComposition
from ..algebra.paths import elements_between, path_between, stands_above
from ..algebra.readings import Carried
from ..algebra.tree import Tree
from ..algebra.values import Value
from ..plan.plan import Choice
from ..read.norms import emit_bare
from .maps import Held, added, carried_constant, elementwise_map, feature_map, labelled_map, ones, pair_map

aten = torch.ops.aten


class Realizer:
    """Emits the nodes of a plan.

    Args:
        emit: where they go.
    """

    def __init__(self, emit: Emitter) -> None:
        self.emit = emit
        self.read: list[fx.Node] = []  # the weights that the emitted maps read
        self._within: dict[Value, Held] = {}  # what the values in parts have become
        self._below: dict[fx.Node, Held] = {}  # what carries were emitted on
        self._ones: dict[tuple[fx.Node, ...], fx.Node] = {}

    def emit_choice(
        self, choice: Choice, limit: Tree, sink: list[fx.Node] | None = None, extra: Sequence[fx.Node] = ()
    ) -> Held:
        """Emit what a choice describes, with the shifts of its levels up to `limit`.

        Args:
            choice: what to emit.
            limit: the highest level whose shifts count.
            sink: where given, gets the constants that maps would have added, and they do not add them.
            extra: constants in float64 that a map adds besides its own.
        """
        # Maps follow each other: from the last down to what the first is applied to, and up again.
        run = [(choice, limit, sink, extra)]
        while run[-1][0].kind in ("map", "part"):
            base = run[-1][0].terms[0]
            run.append((base, base.top, None, ()))
        held = self._emit_base(*run.pop())
        while run:
            choice, limit, sink, extra = run.pop()
            if choice.kind == "map" and choice.level.fixed:
                held = self._table(held, choice, limit, sink, extra)
            elif choice.kind == "map":
                held = self._map(held, choice, limit, sink, extra)
            else:
                held = self._plus(self._part(held, choice), extra, choice.level.weights())
        return held

    def _emit_base(
        self, choice: Choice, limit: Tree, sink: list[fx.Node] | None, extra: Sequence[fx.Node]
    ) -> Held:
        if choice.kind == "given":
            value = choice.level.value
            if value in self._within:
                return self._within[value]
            self.read += [value.node] if choice.level.fixed and choice.parameters else []
            return emit_bare(self.emit, value) if value.bare else value.node, value.axis
        if choice.kind == "source":
            return self._from_source(choice, limit, sink, extra)
        if choice.kind == "move":
            return self._move(choice, limit, sink, extra)
        if choice.kind == "sum":
            return self._sum(choice, limit, sink, extra)
        return self._join(choice)

    def _part(self, held: Held, choice: Choice) -> Held:
        """A part as the graph has it, on what it comes from."""
        part = choice.level.part
        assert part is not None
        self._within[part.source] = held
        for tree, inner in zip(part.trees, choice.terms[1:], strict=True):
            self._within[tree.value] = self.emit_choice(inner, tree)
        for value in (part.source, *(tree.value for tree in part.trees[:-1])):
            del self._within[value]
        return self._within.pop(part.trees[-1].value)

    def _table(
        self, held: Held, choice: Choice, limit: Tree, sink: list[fx.Node] | None, extra: Sequence[fx.Node]
    ) -> Held:
        """A value that depends on weights alone, mapped once: rounded as the map at run time would have rounded it."""
        node, axis = held
        above = choice.level.parent
        if above is not None and above.move is not None and above.move.detached is not None:
            row = (0, above.move.detached)
            stopped = self.emit(aten.detach.default, self.emit(aten.select.int, node, *row))
            node = self.emit(aten.select_scatter.default, node, stopped, *row)
        before = len(self.read)
        made, axis = self._map((node, axis), choice, limit, sink, extra)
        del self.read[before:]
        path = elements_between(choice.level, choice.top)
        weights = [choice.level.value.node, *(each for element in path for each in weights_of(element))]
        made = self.emit.fold(made, merged_name(weights, "weight"))
        self.read.append(made)
        return made, axis

    def _map(
        self, held: Held, choice: Choice, limit: Tree, sink: list[fx.Node] | None, extra: Sequence[fx.Node]
    ) -> Held:
        level, top = choice.level, choice.top
        path = elements_between(level, top)
        weights = [weight for element in path for weight in weights_of(element)]
        if choice.reads is None:
            return self._plus(self._fixed(held, level, top, path), extra, weights)
        plain = sink is None and not extra
        again = _as_it_was(held, level, top, limit) if plain else None
        if again is not None:
            self.read += weights
            return self.emit.call_as(*again), held[1]
        if choice.is_cut:
            held = self._picked(held, choice.reads)
        if choice.cut is not None:
            first = compose(self.emit, level, choice.cut, limit)
            second = compose(self.emit, choice.cut, top, limit, first)
            self._exchange(second, sink, extra)
            own = _own_bias(choice.cut, top, limit) if plain and first.bias is None else None
            return self._carried(self._pair(held, choice, first, second, own), second, weights)
        composition = compose(self.emit, level, top, limit)
        self._exchange(composition, sink, extra)
        if isinstance(composition, LabelledComposition):
            return labelled_map(self.emit, held, composition, weights, self.read)
        if composition.weight is None:
            held = elementwise_map(self.emit, held, composition, weights, self.read)
            return self._carried(held, composition, weights)
        own = _own_bias(level, top, limit) if plain else None
        matrix = _own_matrix(level, top)
        held = feature_map(self.emit, held, composition, weights, self.read, matrix, own, choice.reads)
        return self._carried(held, composition, weights)

    def _carried(self, held: Held, composition: Composition, weights: Sequence[fx.Node]) -> Held:
        """The constants that vary by position, added to what a map made."""
        for along, vector in composition.carried.items():
            ones = self._ones_of(along)
            held = carried_constant(self.emit, held, vector, ones, weights, self.read)
        return held

    def _ones_of(self, along: Carried) -> fx.Node:
        """What carries make of a constant 1, with one feature."""
        move, _ = along[-1]
        places = tuple(each.node for each, _ in along)
        if places not in self._ones:
            first = ones(self.emit, self._below[move.node]) if len(along) == 1 else self._ones_of(along[:-1])
            self._ones[places] = move.replay(self.emit, first, 1)
        return self._ones[places]

    def _fixed(self, held: Held, level: Tree, top: Tree, path: Sequence[Element]) -> Held:
        """A selection, or another fixed map of the features, as the graph has it."""
        if all(isinstance(element, Pick) for element in path):
            for element in path:
                assert isinstance(element, Pick)
                held = self._picked(held, range(element.start, element.stop, element.step))
            return held
        again = _as_it_was(held, level, top, top)
        if again is None:
            raise Unrealizable(Refusal("fixed_shape", value=top.value.node.name))
        target, args, kwargs = again
        made = val(top.value.node)
        if aliases(target):
            return self.emit.call_as(*again), held[1]
        # Its value is known, and working it out could fix sizes that may vary.
        return self.emit.insert(
            target, args, kwargs, made.new_empty_strided(made.shape, made.stride())
        ), held[1]

    def _picked(self, held: Held, places: range) -> Held:
        node, axis = held
        place = {"dim": axis, "start": places.start, "end": places.stop, "step": places.step}
        return self.emit.call(aten.slice.Tensor, {"self": node, **place}), axis

    def _plus(self, held: Held, extra: Sequence[fx.Node], weights: Sequence[fx.Node]) -> Held:
        """Constants of other terms, added by an operation of their own."""
        if not extra:
            return held
        above = Composition(self.emit, 0)
        self._exchange(above, None, extra)
        return elementwise_map(self.emit, held, above, weights, self.read)

    def _exchange(
        self, composition: Composition, sink: list[fx.Node] | None, extra: Sequence[fx.Node]
    ) -> None:
        """Hand a map's constant over, or take the constants of others on."""
        for constant in extra:
            bias = composition.bias
            composition.bias = constant if bias is None else self.emit(aten.add.Tensor, bias, constant)
        if sink is not None and composition.bias is not None:
            sink.append(composition.bias)
            composition.bias = None

    def _pair(
        self,
        held: Held,
        choice: Choice,
        first: Composition,
        second: Composition,
        own_bias: fx.Node | None,
    ) -> Held:
        level, cut, top = choice.level, choice.cut, choice.top
        assert cut is not None
        names = [
            [weight for element in elements_between(*ends) for weight in weights_of(element)]
            for ends in ((level, cut), (cut, top))
        ]
        matrices = [_own_matrix(level, cut), _own_matrix(cut, top)]
        return pair_map(self.emit, held, (first, second), names, self.read, matrices, own_bias, choice.reads)

    def _from_source(
        self, choice: Choice, limit: Tree, sink: list[fx.Node] | None, extra: Sequence[fx.Node]
    ) -> Held:
        level, top, source = choice.level, choice.top, choice.terms[0].level
        composition = follow(compose_source(self.emit, level), level, top, limit)
        weights = level.weights()
        weights += [w for e in elements_between(level, top) for w in weights_of(e)]
        self._exchange(composition, sink, extra)
        held = self.emit_choice(choice.terms[0], source)
        if isinstance(composition, LabelledComposition):
            return labelled_map(self.emit, held, composition, weights, self.read)
        if choice.is_cut:
            assert choice.reads is not None
            held = self._picked(held, choice.reads)
        held = feature_map(self.emit, held, composition, weights, self.read, None, None, choice.reads)
        held = self._carried(held, composition, weights)
        for move in choice.moves:
            held = self._replay(move, held, top.width)
        return held

    def _move(
        self, choice: Choice, limit: Tree, sink: list[fx.Node] | None, extra: Sequence[fx.Node]
    ) -> Held:
        level, top = choice.level, choice.top
        assert level.move is not None
        if level.move.preserves and not choice.way.along:
            return self._replay(level, self.emit_choice(choice.terms[0], limit, sink, extra), top.width)
        held = self._replay(level, self.emit_choice(choice.terms[0], level), top.width)
        above, whole = Composition(self.emit, top.width), compose(self.emit, level, top, limit)
        above.bias, above.carried = whole.bias, whole.carried
        self._exchange(above, sink, extra)
        weights = [w for e in elements_between(level, top) for w in weights_of(e)]
        return self._carried(elementwise_map(self.emit, held, above, weights, self.read), above, weights)

    def _replay(self, level: Tree, held: Held, width: int) -> Held:
        assert level.move is not None
        self._below[level.move.node] = held
        return level.move.replay(self.emit, held[0], width), level.value.axis

    def _sum(self, choice: Choice, limit: Tree, sink: list[fx.Node] | None, extra: Sequence[fx.Node]) -> Held:
        """One of the terms, a map where there is one, adds the constants of all."""
        level, terms = choice.level, choice.terms
        host = next((place for place, term in enumerate(terms) if _hosts(term)), 0)
        constants: list[fx.Node] = [] if sink is None else sink
        held: dict[int, Held] = {}
        for place, term in enumerate(terms):
            if place != host:
                held[place] = self.emit_choice(term, level, constants)
        if sink is None:
            held[host] = self.emit_choice(terms[host], limit, None, [*constants, *extra])
        else:
            held[host] = self.emit_choice(terms[host], limit, sink, extra)
        # Tables may have fewer rows, which each stand for several.
        first = max(sorted(held), key=lambda place: (val(held[place][0]).dim(), entries(val(held[place][0]))))
        total, axis = held.pop(first)
        for place in sorted(held):
            total = added(self.emit, total, held[place][0])
        return total, axis

    def _join(self, choice: Choice) -> Held:
        held = [self.emit_choice(term, term.top) for term in choice.terms]
        axis = held[0][1]
        joined = self.emit.call(aten.cat.default, {"tensors": [node for node, _ in held], "dim": axis})
        return joined, axis


def _hosts(choice: Choice) -> bool:
    """Whether a choice ends in a map, which adds a constant for nothing."""
    while choice.kind == "move":
        assert choice.level.move is not None
        if not choice.level.move.preserves:
            return False
        choice = choice.terms[0]
    return choice.kind in ("map", "source") and choice.has_matrix


def _as_it_was(held: Held, level: Tree, top: Tree, limit: Tree) -> tuple[Any, Any, Any] | None:
    """The original call of a way that is one map, on the tensor at hand; None where that is something else."""
    path = path_between(level, top)
    node, axis = held
    if len(path) != 1 or path[0][0].call is None or top is not limit or not top.is_map:
        return None
    target, args, kwargs, operand = path[0][0].call
    if axis != operand.axis or not same_sizes(val(node).shape, operand.tensor.shape):
        return None

    def put(argument: fx.Node) -> fx.Node:
        return node if argument is operand.node else argument

    return target, fx.node.map_arg(args, put), fx.node.map_arg(kwargs, put)


def _own_matrix(level: Tree, top: Tree) -> Matrix | None:
    """The only matrix on a way, where nothing scales, picks or embeds its features: it need not be computed anew."""
    elements = elements_between(level, top)
    while elements and isinstance(elements[0], Pick):  # what is picked before it is all that it reads
        del elements[0]
    matrices = [element.matrix for element in elements if isinstance(element, Apply)]
    others = [element for element in elements if not isinstance(element, Apply | Shift)]
    embedded = any(parent.joins for parent, _ in path_between(level, top))
    return matrices[0] if len(matrices) == 1 and not others and not embedded else None


def _own_bias(level: Tree, top: Tree, limit: Tree) -> fx.Node | None:
    """The only shift behind the only matrix of a way, where its value is a bias vector already."""
    if _own_matrix(level, top) is None or not stands_above(limit, level):
        return None
    elements: list[Element] = []
    for parent, child in path_between(level, top):
        elements += parent.elements
        if parent.along or (parent.is_sum and parent.factors[child.place] != 1):
            return None
        if parent is limit and limit is not top:
            break
    if not elements or not isinstance(elements[0], Apply) or len(elements) != 2:
        return None
    shift = elements[1]
    if not isinstance(shift, Shift) or shift.factor != 1 or not isinstance(shift.value, fx.Node):
        return None
    value = shift.value
    fits = val(value).dtype == top.value.tensor.dtype and tuple(val(value).shape) == (top.width,)
    return value if fits else None
