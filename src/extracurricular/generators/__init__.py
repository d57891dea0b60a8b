"""Models of the data distribution p(x): fitted here, or brought along.

A name is looked up in every module of this package, so one file adds an entry.
"""

from extracurricular.generators.base import GENERATORS, Fit, Generator, condition_size, conditions

__all__ = ["GENERATORS", "Fit", "Generator", "condition_size", "conditions"]
