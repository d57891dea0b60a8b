"""Anything that gives q_T(y|x): labels, networks, ensembles, and what is no torch module at all.

``networks`` has the teachers of torch. ``raw`` is the adapter for those that know only raw values
in their own units: ``function`` for any Python function, ``estimators`` for scikit-learn, ``onnx``
for ONNX files. ``outside`` holds their names, by which a recipe asks for them.
"""

from extracurricular.teachers.networks import (
    Ensemble,
    EnsembleTeacher,
    Labels,
    MCDropout,
    Network,
    Teacher,
    epistemic_uncertainty,
)

__all__ = [
    "Ensemble",
    "EnsembleTeacher",
    "Labels",
    "MCDropout",
    "Network",
    "Teacher",
    "epistemic_uncertainty",
]
