"""A look at Dynamo's stack before it traces an instruction."""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch._dynamo.symbolic_convert import InstructionTranslatorBase


@contextmanager
def before_instructions(names: Iterable[str], look: Callable[[Any], None]) -> Iterator[None]:
    """Call `look` with the translator before each instruction of these names.

    Args:
        names: names of instructions; those that this Python does not have are left out.
        look: may read and change the translator's stack.
    """
    opcodes = [dis.opmap[name] for name in names if name in dis.opmap]
    replaced: list[tuple[list[Any], int, Any]] = []

    def looking(original: Callable[..., Any]) -> Callable[..., Any]:
        def instruction(tx: Any, inst: Any) -> Any:
            look(tx)
            return original(tx, inst)

        return instruction

    try:
        for table in _dispatch_tables():
            for opcode in opcodes:
                replaced.append((table, opcode, table[opcode]))
                table[opcode] = looking(table[opcode])
        yield
    finally:
        for table, opcode, original in reversed(replaced):
            table[opcode] = original


def _dispatch_tables() -> list[list[Any]]:
    """The table of each translator class, one entry for each instruction."""
    classes: list[Any] = [InstructionTranslatorBase]
    for cls in classes:
        classes += cls.__subclasses__()
    return list({id(cls.dispatch_table): cls.dispatch_table for cls in classes}.values())
