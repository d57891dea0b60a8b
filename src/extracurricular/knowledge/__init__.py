"""Record a teacher once, replay it for ever.

:func:`record` asks a teacher about draws 0 … N - 1 and stores its answers; :func:`open_knowledge`
gives them back as a teacher. This module imports every codec, and the entry of answers in a
file, so that recipes know their names.
"""

from extracurricular.knowledge import named as named
from extracurricular.knowledge import quantised as quantised
from extracurricular.knowledge.answers import Answers, StoredTeacher
from extracurricular.knowledge.codecs import CODECS, Codec, build_codec, default_codec
from extracurricular.knowledge.fingerprint import data_fingerprint, describe, teacher_fingerprint
from extracurricular.knowledge.recorded import (
    Chooser,
    Recorded,
    RecordedEnsemble,
    Replay,
    cycled_ids,
    open_knowledge,
    recorded_form,
)
from extracurricular.knowledge.recorder import RecordOptions, Report, price_lines, record

__all__ = [
    "CODECS",
    "Answers",
    "Chooser",
    "Codec",
    "RecordOptions",
    "Recorded",
    "RecordedEnsemble",
    "Replay",
    "Report",
    "StoredTeacher",
    "build_codec",
    "cycled_ids",
    "data_fingerprint",
    "default_codec",
    "describe",
    "open_knowledge",
    "price_lines",
    "record",
    "recorded_form",
    "teacher_fingerprint",
]
