"""A failing random program made smaller while it still fails."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from dataclasses import replace

from differential import NoVerdict, mismatch
from random_program import Program, Statement


def outcome(program: Program, door: str, inner: str = "eager") -> str | NoVerdict | None:
    """What is wrong, None, or why nothing can be said; an exception that stonefx raises is something wrong."""
    try:
        return mismatch(program, door, inner)
    except NoVerdict as reason:
        return reason
    except Exception as error:
        frames = "".join(traceback.format_exception(error, limit=-3))
        return f"{type(error).__name__}: {str(error)[:600]}\n{frames[-1500:]}"


def shrunk(program: Program, door: str, inner: str = "eager") -> tuple[Program, str]:
    """The smallest program found by dropping outputs and statements one at a time, and what is wrong with it.

    Raises:
        ValueError: the program does not fail.
    """
    problem = outcome(program, door, inner)
    if not isinstance(problem, str):
        raise ValueError(f"the program of seed {program.seed} does not fail through {door!r}: {problem}")
    smaller: Program | None = program
    while smaller is not None:
        smaller = None
        for candidate in candidates(program):
            its = outcome(candidate, door, inner)
            if (
                isinstance(its, str)
                and its.split(":")[0].split(" ")[0] == problem.split(":")[0].split(" ")[0]
            ):
                smaller, program, problem = candidate, candidate, its
                break
    return program, problem


def candidates(program: Program) -> Iterator[Program]:
    """Programs one step smaller."""
    everything = [name for statement in program.statements for name in statement.targets]
    if len(program.outputs) > 1:
        for name in program.outputs:
            yield program.pruned([name])
            yield program.pruned([other for other in program.outputs if other != name])
    elif len(program.pruned().statements) < len(program.statements):
        yield program.pruned()
    for name in reversed(everything):
        if name not in program.outputs:
            yield replace(program.pruned([name]), outputs=[name])
    for index, statement in enumerate(program.statements):
        rest = [*program.statements[:index], *program.statements[index + 1 :]]
        if not statement.targets:
            yield replace(program, statements=rest).pruned()
        elif len(statement.targets) == 1 and statement.targets[0] not in program.outputs:
            for name in sorted(statement.reads()):
                renamed = re.compile(rf"\b{statement.targets[0]}\b")
                kept = [Statement(one.targets, renamed.sub(name, one.source)) for one in rest]
                yield replace(program, statements=kept).pruned()
    if program.train:
        yield replace(program, train=False)
