"""Students that are released with the package, which have names.

They are saved students (:mod:`~extracurricular.predictors.saved`) with weights in float16. An
installed package has them in its folder ``released``, a checkout in ``benchmarks/evidence``, where
``benchmarks/evidence.py`` puts them.
"""

from __future__ import annotations

from pathlib import Path

from extracurricular.predictors.saved import FILE

_PACKAGE = Path(__file__).parents[1]
PLACES = (_PACKAGE / "released", _PACKAGE.parents[1] / "benchmarks" / "evidence" / "students")
"""The folders that hold released students, one folder each."""


def released() -> dict[str, Path]:
    """Return the folder of each released student, by name, sorted."""
    files = [file for place in reversed(PLACES) for file in place.glob(f"*/{FILE}")]
    return dict(sorted((file.parent.name, file.parent) for file in files))


def missing(name: str) -> str:
    """Return the end of a sentence on a name that is neither a file nor a released student."""
    known = ", ".join(released())
    there = f"there are {known}" if known else "there is none yet"
    return f", and no released student {name!r}; {there}"
