"""Predictions for a whole split, in the target's own units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from extracurricular.data.base import Data, Split
from extracurricular.data.images.stream import announce_split
from extracurricular.data.transformed import Transformed
from extracurricular.distributions import (
    Categorical,
    Distribution,
    Filed,
    Gaussian,
    gathered,
    reader_of,
)
from extracurricular.errors import RecipeError, TrainingError, shorten
from extracurricular.inputs import Batch, leaves
from extracurricular.teachers.base import Teacher, check_teacher
from extracurricular.teachers.raw import NotFiniteError

# Examples at fault that an error names.
_SHOWN = 5

_SUCH = {"data": "xcl.from_arrays(x, y) makes", "split": "data.test"}

# What the layers of a small network make of more examples leaves the cache of a core.
_ON_CPU = 256


@torch.no_grad()
def predict(teacher: Teacher, data: Data, split: Split, batch_size: int = 1024) -> Distribution:
    """Predict a split, in the target's own units, on the CPU.

    Answers over many classes for many examples lie in a file
    (:class:`~extracurricular.distributions.Filed`), so that no more than a batch is in memory.

    Args:
        teacher: A network (as :class:`~extracurricular.teachers.NetworkTeacher`) or any teacher.
        data: The data set, for its scales.
        split: Raw examples, N of them.
        batch_size: Number of examples at once; on a CPU no more than 256.

    Raises:
        RecipeError: It is no teacher.
        TrainingError: A teacher that is no network gave NaN or infinity for some examples.
    """
    check_teacher(teacher)
    for name, given, kind in (("data", data, Data), ("split", split, Split)):
        if not isinstance(given, kind):
            raise RecipeError(
                name, f"is {shorten(given)}; it must be a {kind.__name__}, such as {_SUCH[name]}"
            )
    if _device_of(split).type == "cpu":
        batch_size = min(batch_size, _ON_CPU)

    def parts() -> Iterator[Distribution]:
        bad: list[int] = []
        for start in range(0, len(split), batch_size):
            announce_split(split, slice(start + batch_size, start + 2 * batch_size))
            raw = split[slice(start, start + batch_size)]
            ids = torch.arange(start, start + len(raw), device=_device_of(raw))
            try:
                yield teacher(Batch(ids, data.inputs(raw.x)))
            except NotFiniteError as error:
                bad += [start + row for row in error.rows]
        if bad:
            raise not_finite("the teacher", bad, data, split)

    return own_units(gathered(parts(), len(split)), data)


def check_finite(said: Distribution, who: str, data: Data, split: Split) -> None:
    """Refuse predictions of a split that hold NaN or infinity.

    Raises:
        TrainingError: Some do; the sentence has their number and names the first.
    """
    rows = rows_not_finite(said)
    if rows:
        raise not_finite(who, rows, data, split)


def rows_not_finite(said: Distribution) -> list[int]:
    """Return the places of predictions that hold NaN or infinity."""
    wrong = said.each(lambda part, _: _wrong(part)) if isinstance(said, Filed) else _wrong(said)
    found: list[int] = wrong.nonzero().flatten().tolist()
    return found


def _wrong(said: Distribution) -> Tensor:
    """Return whether each prediction holds NaN or infinity, [B]."""
    values = said.parameters
    wrong = ~values.isfinite()
    if isinstance(said, Categorical):
        # A logit of -inf masks a class, if another is left.
        masked = values.isneginf()
        wrong &= ~masked | masked.all(-1, keepdim=True)
    return wrong.any(-1)


def not_finite(
    who: str, rows: Sequence[int], data: Data, split: Split, asked: int | None = None
) -> TrainingError:
    """Return the error of predictions that hold NaN or infinity.

    Args:
        who: The teacher or model, for a person.
        rows: Places of the examples at fault in the split.
        data, split: The data set, for what identifies its examples at their source.
        asked: How many of the first examples were asked about; all where None.
    """
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    name = next((part for part, own in parts.items() if own is split), "")
    known = data.ids.get(name, ())
    first = [repr(known[k]) if k < len(known) else str(k) for k in rows[:_SHOWN]]
    shown = ", ".join(first) + (", …" if len(rows) > _SHOWN else "")
    noun = "row" if len(rows) == 1 else "rows"
    count = len(split) if asked is None else asked
    where = f"{'first ' if count < len(split) else ''}{count} {name}".rstrip()
    return TrainingError(
        f"{who} gave NaN or infinity for {len(rows)} of the {where} examples: {noun} {shown}"
    )


def own_units(standardised: Distribution, data: Data) -> Distribution:
    """Bring a standardised prediction to the target's own units, on the CPU; others have none."""
    if isinstance(standardised, Filed):
        return standardised
    found = reader_of(standardised)(standardised.parameters.float().cpu())
    if not isinstance(found, Gaussian) or data.y_scale is None:
        return found
    own = found.scaled(data.y_scale.scale.cpu(), data.y_scale.shift.cpu())
    return own if data.y_transform is None else Transformed.of(own, data.y_transform)


def _device_of(split: Split) -> torch.device:
    return next(iter(leaves(split.x).values())).device
