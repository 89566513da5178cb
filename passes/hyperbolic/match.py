"""Unifies a form with the rows of the table: curvature, guards and factors are what is solved for."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from .addition import match_addition
from .at_a_point import match_at_point
from .distances import match_distance
from .hyperboloid import match_whole
from .numbers import match_number
from .planes import match_planes
from .profiles import Profiles
from .rays import Rays
from .rows.algebra import Algebra
from .rows.forms import Form
from .rows.matching import Match, NearMiss
from .stretches import match_matvec


def match(
    algebra: Algebra,
    form: Form,
    vectors: Sequence[int],
    whole: bool = False,
    rows: Sequence[Form] = (),
    curvatures: Sequence[Form | None] = (),
) -> Match | NearMiss | None:
    """Compare a form in one or two row vectors with the table; None where it looks like no row of it.

    Args:
        algebra: the table of atoms.
        form: the form.
        vectors: the indices of the row vectors' atoms.
        whole: the form is that of rows that begin with their time.
        rows: the row vectors, with the times of those that begin with one.
        curvatures: of those that are points of the hyperboloid, `c`.
    """
    if not len(form):  # zero, whatever the rows are
        return None
    degrees = {algebra.degree(monomial) for monomial, _ in form}
    if degrees == {Fraction(1)}:
        if whole:
            if len(vectors) == 1:
                return match_whole(algebra, form, vectors[0])
            return match_at_point(algebra, form, vectors, rows, curvatures)
        if len(vectors) == 1:
            ray = Rays(algebra, vectors[0]).match(form) if len(form) == 1 else None
            return ray or Profiles(algebra, vectors[0]).match(form)
        return match_addition(algebra, form, *vectors) or match_matvec(algebra, form, vectors)
    if degrees == {Fraction(0)}:
        if len(vectors) == 1:
            return match_number(algebra, form, vectors[0])
        return match_planes(algebra, form, *vectors) or match_distance(algebra, form, *vectors)
    return None
