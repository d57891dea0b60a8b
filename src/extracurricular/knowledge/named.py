"""The entry of a teacher whose answers are kept in a file, by the name that recipes use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from extracurricular.data.base import Data
from extracurricular.knowledge.answers import Missing, StoredTeacher
from extracurricular.teachers.named import ENTRIES


@ENTRIES.register("answers")
@dataclass(frozen=True)
class AnswersFile:
    """A file of answers: a table, or arrays in an .npz file.

    Args:
        path: The file: .csv, .parquet and others that the data set ``table`` reads; or .npz.
        id: The column, or array, of ids. Where None, an array ``ids`` of an .npz file, or else the
            row n of the file is that of row n of the source.
        probabilities: The columns of the classes' probabilities, or ``{class: column}``; or the
            name of an array [N, C].
        logits: The same for logits.
        mean, deviation: Columns of a real target, or several; or the names of arrays.
            ``deviation`` may be a number.
        missing: What training examples without an answer do: ``error`` refuses them, ``drop``
            leaves them out.
    """

    path: str
    id: str | None = None
    probabilities: str | list[str] | dict[str, str] | None = None
    logits: str | list[str] | dict[str, str] | None = None
    mean: str | list[str] | dict[str, str] | None = None
    deviation: float | str | list[str] | dict[str, str] | None = None
    missing: Missing = "error"

    @property
    def files(self) -> list[Path]:
        """The file, whose content is the teacher's.

        Raises:
            ValueError: It does not exist.
        """
        if not Path(self.path).is_file():
            raise ValueError(f"path is {self.path!r}, which does not exist")
        return [Path(self.path)]

    def fit(self, data: Data, seed: int) -> StoredTeacher:
        """Read the answers, and find those on the examples of a data set."""
        # polars takes its time to import.
        from extracurricular.knowledge.answers_file import read_answers_file

        return StoredTeacher(read_answers_file(self, data), data)
