"""The data sets that recipes name.

The registry imports every module of this package, so one new file adds a data set.
"""

from extracurricular.data.base import Data
from extracurricular.registry import Registry

DATA: Registry[Data] = Registry("data set", __name__, lambda value: isinstance(value, Data))
