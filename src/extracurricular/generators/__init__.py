"""Models of the data distribution p(x), fitted here or elsewhere.

The registry looks a name up in every module of this package, so one file adds an entry.
"""

from extracurricular.generators.base import (
    GENERATORS,
    Fit,
    FitContext,
    Generator,
    condition_size,
    conditions,
)

__all__ = ["GENERATORS", "Fit", "FitContext", "Generator", "condition_size", "conditions"]
