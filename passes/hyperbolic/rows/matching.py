"""What recognition found: a form that is one of our operators, or one that only looks like it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .forms import ONE, Form


@dataclass(frozen=True)
class Operand:
    """A row vector of the algebra times a factor: a number, or a form in row scalars.

    Args:
        vector: index of the row vector's atom.
        factor: what the operator's operand is a multiple by.
    """

    vector: int
    factor: Form = ONE


@dataclass(frozen=True)
class Match:
    """A form that is a multiple of one of our operators.

    Args:
        target: the operator's name.
        operands: the row vectors that it takes, in its order.
        curvature: the form of `c`.
        guards: the operator's attributes that differ from its defaults.
        numbers: the forms of its further row scalars, such as the factor of `mobius_scalar_mul`.
        multiple: what the operator's result is multiplied by.
        rule: what reports call the site where a rule made it; else they call it by the operator.
    """

    target: str
    operands: tuple[Operand, ...]
    curvature: Form
    guards: Mapping[str, float | bool] = field(default_factory=dict)
    numbers: tuple[Form, ...] = ()
    multiple: Form = ONE
    rule: str = ""

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.rule or self.target


@dataclass(frozen=True)
class NearMiss:
    """A form that looks like one of our operators, and the first difference.

    Args:
        target: the operator.
        reason: the difference, in words.
        code: its kind, a key of `refusal.CODES`.
        rule: what reports call the site; else they call it by the operator.
    """

    target: str
    reason: str
    code: str = "other_formula"
    rule: str = ""

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.rule or self.target
