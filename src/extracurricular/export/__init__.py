"""The student, ready to ship: one file from raw values to a distribution, verified.

``graph`` puts normalisation, network and distribution into one module, ``formats`` writes it,
``verify`` compares what was written with the student on real examples, ``quantise`` makes it
smaller, ``card`` describes it, ``push`` uploads it, and ``ship`` does all of that in turn.
"""

from extracurricular.export.graph import Exported
from extracurricular.export.push import check_push, push
from extracurricular.export.rows import Row
from extracurricular.export.ship import LIMIT, Shipped, export_module, export_run

__all__ = [
    "LIMIT",
    "Exported",
    "Row",
    "Shipped",
    "check_push",
    "export_module",
    "export_run",
    "push",
]
