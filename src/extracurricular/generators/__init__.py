"""Models of the data distribution p(x): fitted here, or brought along.

Every module in this package is imported here, so that what it registers is known to recipes.
"""

import importlib
import pkgutil

from extracurricular.generators.base import GENERATORS, Fit, Generator, condition_size, conditions

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["GENERATORS", "Fit", "Generator", "condition_size", "conditions"]
