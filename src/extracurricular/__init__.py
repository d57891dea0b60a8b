"""Knowledge distillation with extracurricular learning.

A student matches a teacher's predictive distribution on draws from an approximation of the data
distribution::

    import extracurricular as xcl

    student = xcl.distill(teacher, {"mlp": {"hidden": [32]}}, (x, y), steps=2000)
    print(student.score(x_test, y_test), student.predict(x_test).entropy)

A name is imported when it is first used, so that ``import extracurricular`` costs nothing.
``__init__.pyi`` lists the names.
"""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

# The stub is the one list of public names: type checkers read it, and so does this module.
_STUB = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_HOMES = {name: home for home, name in re.findall(r"(?m)^from (\S+) import (\w+) as", _STUB)}

__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
