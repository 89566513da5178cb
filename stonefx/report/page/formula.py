"""What a site computes, as algebra: from the lines of the graph, or from the table of formulas."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stonefx.passes.hyperbolic.formulas import FORMULAS
from stonefx.passes.site import Site
from stonefx.report.page.listed import Line

_LONGEST, _MOST_STEPS = 400, 60
_NUMBER = re.compile(r"-?[\d.]+(?:e[+-]?\d+)?|inf|nan")
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
# How tightly what an operator gives holds together: a sum must stand in brackets inside of a product.
_SUM, _PRODUCT, _ATOM = 0, 1, 2


@dataclass(frozen=True)
class Formula:
    """A formula and what its letters stand for.

    Args:
        text: such as `y = W₂ (W₁ x + b₁)`.
        letters: letter -> the weight, fold or value that it stands for.
    """

    text: str
    letters: tuple[tuple[str, str], ...] = ()


def before_formula(site: Site, values: Mapping[str, Line], inside: frozenset[str]) -> Formula | None:
    """What a site computes as the model spells it; None where the graph does not have it, or it would be too long.

    Args:
        site: the site.
        values: the lines of the graph before the passes, by name.
        inside: the values that belong to the site.

    A formula of hyperbolic geometry is that of the table, since the spelling may take twenty nodes.
    """
    if site.target in FORMULAS:
        return Formula(f"y = {FORMULAS[site.target].text}, n = ‖x‖, s = √c")
    return _formula(_last(site.output, site.nodes), set(inside), values)


def after_formula(site: Site, values: Mapping[str, Line], inside: frozenset[str]) -> Formula | None:
    """What a rewritten site computes now.

    Args:
        site: the site.
        values: the lines of the graph after the passes, by name.
        inside: the values that belong to the site.
    """
    if site.status != "rewritten" or site.target in FORMULAS:
        return None
    return _formula(_last(site.replacement or site.output, site.nodes), set(inside), values)


def _last(name: str, nodes: tuple[str, ...]) -> str:
    return f"%{name or (nodes[-1] if nodes else '')}"


def _formula(output: str, inside: set[str], values: Mapping[str, Line]) -> Formula | None:
    if output not in values or output not in inside:
        return None
    writer = _Writer(inside, values)
    text, _ = writer.value(output)
    if len(text) > _LONGEST or writer.steps > _MOST_STEPS:
        return None
    return Formula(f"y = {text}", tuple(writer.letters.items()))


class _Writer:
    def __init__(self, inside: set[str], values: Mapping[str, Line]) -> None:
        self.inside, self.values = inside, values
        self.letters: dict[str, str] = {}
        self._known: dict[str, str] = {}
        self.steps = 0

    def value(self, name: str) -> tuple[str, int]:
        """A value and how tightly it holds together."""
        self.steps += 1
        line = self.values.get(name)
        if (
            line is None
            or name not in self.inside
            or not line.name.startswith("%")
            or self.steps > _MOST_STEPS
        ):
            return self.letter("x", name), _ATOM
        operator = line.operator.split(".")[1] if "." in line.operator else line.operator
        write = _WRITERS.get(operator)
        if write is not None and not any(argument.startswith("alpha=") for argument in line.arguments):
            return write(self, line)
        if operator in _SILENT and line.arguments:
            first = line.arguments[0]
            return self.value(first) if first.startswith("%") else (self.operand(first, "W", _SUM), _ATOM)
        read = [self.operand(each, "w", _SUM) for each in line.arguments if each in line.reads]
        return f"{operator}({', '.join(read)})", _ATOM

    def letter(self, letter: str, name: str) -> str:
        """The letter of a weight or value, numbered by when it was met first."""
        if name not in self._known:
            count = sum(each.startswith(letter) for each in self.letters)
            numbered = letter + str(count + 1).translate(_SUBSCRIPTS)
            self._known[name], self.letters[numbered] = numbered, name
        return self._known[name]

    def within(self, name: str, tightness: int) -> str:
        """A value, in brackets where it holds together less tightly than its place asks."""
        text, own = self.value(name)
        return text if own >= tightness else f"({text})"

    def operand(self, name: str, letter: str, tightness: int) -> str:
        """A number as it is, a weight by its letter, or a value."""
        if _NUMBER.fullmatch(name):
            return name
        return self.within(name, tightness) if name.startswith("%") else self.letter(letter, name)


def _linear(writer: _Writer, line: Line) -> tuple[str, int]:
    return _map(writer, *_padded(line, 3))


def _map(writer: _Writer, x: str, weight: str, bias: str) -> tuple[str, int]:
    # What is computed first is numbered first.
    inner = writer.within(x, _PRODUCT)
    text = f"{writer.operand(weight, 'W', _ATOM)} {inner}"
    if bias == "None":
        return text, _PRODUCT
    return f"{text} + {writer.operand(bias, 'b', _PRODUCT)}", _SUM


def _addmm(writer: _Writer, line: Line) -> tuple[str, int]:
    bias, x, weight = _padded(line, 3)
    inner = writer.within(x, _PRODUCT)
    text = f"{inner} {writer.operand(weight, 'W', _ATOM)}"
    return f"{text} + {writer.operand(bias, 'b', _PRODUCT)}", _SUM


def _product(writer: _Writer, line: Line) -> tuple[str, int]:
    first, second = _padded(line, 2)
    inner = writer.operand(first, "W", _PRODUCT)
    return f"{inner} {writer.operand(second, 'W', _ATOM)}", _PRODUCT


def _convolution(writer: _Writer, line: Line) -> tuple[str, int]:
    x, weight, bias = _padded(line, 3)
    inner = writer.within(x, _PRODUCT)
    text = f"{writer.operand(weight, 'W', _ATOM)} ∗ {inner}"
    return (text, _PRODUCT) if bias == "None" else (f"{text} + {writer.operand(bias, 'b', _PRODUCT)}", _SUM)


def _pair(writer: _Writer, line: Line) -> tuple[str, int]:
    x, inner, outer, bias = _padded(line, 4)
    text = writer.within(x, _PRODUCT)
    text = f"{writer.operand(inner, 'W', _ATOM)} {text}"
    text = f"{writer.operand(outer, 'W', _ATOM)} ({text})"
    return (text, _PRODUCT) if bias == "None" else (f"{text} + {writer.operand(bias, 'b', _PRODUCT)}", _SUM)


def _sum(sign: str) -> Callable[[_Writer, Line], tuple[str, int]]:
    def write(writer: _Writer, line: Line) -> tuple[str, int]:
        first, second = _padded(line, 2)
        left = writer.operand(first, "b", _SUM)
        right = writer.operand(second, "b", _PRODUCT if sign == "−" else _SUM)
        return f"{left} {sign} {right}", _SUM

    return write


def _scaled(writer: _Writer, line: Line) -> tuple[str, int]:
    first, second = _padded(line, 2)
    return f"{writer.operand(first, 's', _PRODUCT)} ⊙ {writer.operand(second, 's', _PRODUCT)}", _PRODUCT


def _transposed(writer: _Writer, line: Line) -> tuple[str, int]:
    return f"{writer.operand(line.arguments[0], 'W', _ATOM)}ᵀ", _ATOM


def _norm(writer: _Writer, line: Line) -> tuple[str, int]:
    return f"norm({writer.value(line.arguments[0])[0]})", _ATOM


def _padded(line: Line, count: int) -> list[str]:
    given = [argument for argument in line.arguments if "=" not in argument]
    named = dict(argument.split("=", 1) for argument in line.arguments if "=" in argument)
    return [*given[:count], *([named.get("bias", "None")] * max(0, count - len(given)))]


_WRITERS = {
    "linear": _linear,
    "addmm": _addmm,
    **dict.fromkeys(("mm", "bmm", "matmul"), _product),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), _convolution),
    **dict.fromkeys(("low_rank_linear", "low_rank_linear_forward"), _pair),
    "add": _sum("+"),
    "sub": _sum("−"),
    "mul": _scaled,
    **dict.fromkeys(("t", "mT", "numpy_T"), _transposed),
    "batch_norm": _norm,
}
# These only rearrange.
_SILENT = frozenset(
    "view reshape _unsafe_view contiguous clone alias dropout to _to_copy detach expand unsqueeze squeeze".split()
)
