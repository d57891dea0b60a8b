"""Data sets: raw examples in three splits, with the scales that turn them into network inputs.

Every module in this package is imported here, so that what it registers is known to recipes.
"""

import importlib
import pkgutil

from extracurricular.data.arrays import from_arrays, from_dataset
from extracurricular.data.base import DATA, Affine, Data, Shapes, Split, make_data

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "DATA",
    "Affine",
    "Data",
    "Shapes",
    "Split",
    "from_arrays",
    "from_dataset",
    "make_data",
]
