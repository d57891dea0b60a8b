"""Anything that gives q_T(y|x): labels, networks, ensembles, and what is no torch module at all.

``networks`` has the teachers of torch. ``raw`` is the adapter for those that know only raw values
in their own units: ``function`` for any Python function, ``estimators`` for scikit-learn, ``onnx``
for ONNX files. ``outside`` holds their names, by which a recipe asks for them.
"""

from extracurricular.teachers.networks import (
    DropoutTeacher,
    Ensemble,
    EnsembleTeacher,
    HasMembers,
    Labels,
    LabelTeacher,
    MCDropout,
    Network,
    NetworkTeacher,
    Teacher,
    epistemic_uncertainty,
)

__all__ = [
    "DropoutTeacher",
    "Ensemble",
    "EnsembleTeacher",
    "HasMembers",
    "LabelTeacher",
    "Labels",
    "MCDropout",
    "Network",
    "NetworkTeacher",
    "Teacher",
    "epistemic_uncertainty",
]
