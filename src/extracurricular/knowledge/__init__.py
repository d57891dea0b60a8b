"""Record a teacher once, replay it for ever.

:func:`record` asks a teacher about draws 0 … N - 1 and stores what it said; :func:`open_knowledge`
gives that back as a teacher. Every codec is imported here, so that its name is known to recipes.
"""

from extracurricular.knowledge import quantised as quantised
from extracurricular.knowledge.codecs import CODECS, Codec, build_codec, default_codec
from extracurricular.knowledge.fingerprint import data_fingerprint, describe, teacher_fingerprint
from extracurricular.knowledge.recorded import (
    Chooser,
    Recorded,
    RecordedEnsemble,
    Replay,
    cycled_ids,
    open_knowledge,
)
from extracurricular.knowledge.recorder import Report, price_lines, record

__all__ = [
    "CODECS",
    "Chooser",
    "Codec",
    "Recorded",
    "RecordedEnsemble",
    "Replay",
    "Report",
    "build_codec",
    "cycled_ids",
    "data_fingerprint",
    "default_codec",
    "describe",
    "open_knowledge",
    "price_lines",
    "record",
    "teacher_fingerprint",
]
