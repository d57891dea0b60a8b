"""A small recipe that the tests of this folder share."""

from __future__ import annotations

import copy
from typing import Any

SMALL: dict[str, Any] = {
    "name": "small",
    "data": "digits",
    "teacher": {"model": "mlp", "training": {"steps": 5}},
    "defaults": {
        "model": "mlp",
        "training": {"steps": 7, "lr": 0.05},
        "matching": {"label_weight": 0.1},
    },
    "students": {
        "erm": {"learns_from": "labels"},
        "kd": {"training": {"lr": 0.2}, "matching": {"temperature": 4.0}},
    },
}


def small(**changes: Any) -> dict[str, Any]:
    """Return a copy of it with some keys replaced."""
    return copy.deepcopy(SMALL) | changes
