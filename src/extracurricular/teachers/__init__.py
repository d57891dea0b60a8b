"""Teachers give q_T(y|x): labels, networks, ensembles, estimators, ONNX files, Python functions.

``networks`` holds the teachers of torch. ``raw`` adapts teachers that know only raw values in their
own units: there is one for any Python function, ``estimators`` has those of scikit-learn, and
``onnx`` those of ONNX files. ``named`` holds the entries that a recipe can name.
"""

from extracurricular.teachers.base import HasMembers, Teacher, check_answer, epistemic_uncertainty
from extracurricular.teachers.networks import (
    DropoutTeacher,
    Ensemble,
    EnsembleTeacher,
    Labels,
    LabelTeacher,
    MCDropout,
    Network,
    NetworkTeacher,
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
    "check_answer",
    "epistemic_uncertainty",
]
