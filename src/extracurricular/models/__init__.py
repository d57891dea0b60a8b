"""Networks by name: teachers and students to build from a recipe.

A model is a function ``(inputs, outputs, *, settings)`` that returns a module; ``inputs`` is the
shape of one example, or a dict of shapes (see :data:`Shapes`). The registry imports every module of
this package, so one new file adds a model.
"""

from extracurricular.models.base import MODELS, Shapes, build_model, parameter_count

__all__ = ["MODELS", "Shapes", "build_model", "parameter_count"]
