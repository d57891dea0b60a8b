"""A student that torch.compile has compiled."""

from __future__ import annotations

import time
from collections.abc import Callable

from torch import nn

from extracurricular.errors import first_line


def compile_student(
    student: nn.Module, run: Callable[[], object], tell: Callable[[str], None]
) -> None:
    """Compile a student in place, or leave it as it is where that cannot be done.

    Args:
        student: The network; its parameters keep their names.
        run: Runs it forth and back once, which compiles it.
        tell: Gets one sentence: how long it took, or why it was not compiled.
    """
    began = time.perf_counter()
    student.compile()
    try:
        run()
    except Exception as error:
        # Whatever a compiler throws: a missing C++ compiler, an operation that it does not know.
        as_written(student)
        tell(f"the student is trained without compiling, which failed: {first_line(error)}")
    else:
        tell(f"compiling the student took {time.perf_counter() - began:.0f} s")


def as_written(student: nn.Module) -> None:
    """Undo the compiling of a student."""
    student._compiled_call_impl = None
