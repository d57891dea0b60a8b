"""Checks of the settings of divergences."""

from __future__ import annotations

import math


def check_least(least: float, **settings: float) -> None:
    """Refuse, with ``ValueError``, any of the named numbers that is below ``least`` or infinite."""
    for name, value in settings.items():
        if not least <= value < math.inf:
            raise ValueError(f"{name} is {value}; it must be finite and at least {least:g}")
