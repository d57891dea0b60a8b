"""Make the tables that the docs take from the package anew: ``python docs/tables.py``."""

from pathlib import Path

import extracurricular.evaluation.metrics  # noqa: F401 (figures may be registered there too)
from extracurricular.evaluation.words import renewed

PAGE = Path(__file__).parent / "evaluate.md"

if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
