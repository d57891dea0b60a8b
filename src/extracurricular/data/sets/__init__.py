"""The data sets that recipes name.

A name is looked up in every module of this package, so one file adds a data set.
"""

from extracurricular.data.base import Data
from extracurricular.registry import Registry

DATA: Registry[Data] = Registry("data set", __name__)
