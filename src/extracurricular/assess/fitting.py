"""Whether data go with a model, and how they are brought to go with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from extracurricular.data.base import Data, Split
from extracurricular.data.images.decode import image_bytes
from extracurricular.distributions import Categorical, Distribution, Task
from extracurricular.errors import DataError
from extracurricular.evaluation.predict import check_finite, not_finite
from extracurricular.predictors.given import counted
from extracurricular.predictors.predictor import Form, Predictor, input_forms, named_inputs
from extracurricular.teachers.raw import NotFiniteError

# Number of images to resize at once.
_BLOCK = 1024


def split_of(data: Data, name: str) -> Split:
    """Return a split of a data set.

    Raises:
        DataError: It has no examples.
    """
    split = getattr(data, name)
    assert isinstance(split, Split)
    if not len(split):
        raise DataError(f"the {name} split of {data.name!r} has no examples")
    return split


def asked(predictor: Predictor, x: dict[str, Tensor], data: Data, split: Split) -> Distribution:
    """Return a model's predictions of a split.

    Args:
        predictor: The model.
        x: The raw inputs of the split, by name.
        data, split: The data set and its split, for the names of examples.

    Raises:
        TrainingError: Some hold NaN or infinity; the sentence has their number and names the first.
    """
    try:
        found = predictor.filed(x)
    except NotFiniteError:
        raise not_finite(predictor.name, _at_fault(predictor, x), data, split) from None
    except ValueError as error:  # such as answers that are no probabilities
        raise DataError(f"{predictor.name}: {error}") from error
    check_finite(found, predictor.name, data, split)
    return found


def _at_fault(predictor: Predictor, x: dict[str, Tensor]) -> list[int]:
    """Return the places of the examples for which a model that is no network gives NaN."""
    rows, size = list[int](), predictor.batch_size
    for start in range(0, len(next(iter(x.values()))), size):
        try:
            predictor.distribution({name: leaf[start : start + size] for name, leaf in x.items()})
        except NotFiniteError as error:
            rows += [start + row for row in error.rows]
    return rows


def aligned(data: Data, classes: Sequence[str]) -> Data:
    """Return data with the labels of classes in a given order, found by the names of the classes.

    Raises:
        DataError: A class of the data has no name among them.
    """
    if not classes or tuple(data.classes) == tuple(classes) or not data.classes:
        return data
    foreign = [name for name in data.classes if name not in classes]
    if foreign:
        raise DataError(
            f"the data {data.name!r} have the class {foreign[0]!r}, which the model does not know; "
            f"it knows {', '.join(classes)}"
        )
    places = torch.tensor([list(classes).index(name) for name in data.classes])

    def moved(split: Split) -> Split:
        y = split.y
        if y is None:
            return split
        if y.is_floating_point():  # probabilities of the classes
            return Split(split.x, y.new_zeros(len(y), len(classes)).index_copy_(1, places, y))
        return Split(split.x, places.to(y.device)[y])

    return replace(
        data,
        task=Task("classification", len(classes)),
        classes=tuple(classes),
        train=moved(data.train),
        validation=moved(data.validation),
        test=moved(data.test),
    )


def fitting(predictor: Predictor, data: Data) -> list[str]:
    """Refuse data that a model was not made for.

    Returns:
        Differences that are no mistake, a sentence each.

    Raises:
        DataError: The inputs, or the number or kind of the targets, are not the model's.
    """
    mine, theirs = predictor.task, data.task
    noun = {"classification": "classes", "regression": "real targets", "multilabel": "labels"}
    if mine != theirs:
        raise DataError(
            f"{predictor.name} predicts {mine.size} {noun[mine.kind]}, but the data {data.name!r} "
            f"have {theirs.size} {noun[theirs.kind]}"
        )
    forms = input_forms(data)
    if forms != dict(predictor.inputs):
        raise DataError(
            f"{predictor.name} takes {_described(predictor.inputs)}, but the data {data.name!r} "
            f"have {_described(forms)}"
        )
    _check_columns(predictor, data)
    _check_classes(predictor, data)
    notes = []
    for plural, own, given in (
        ("classes", predictor.classes, data.classes),
        ("targets", predictor.outputs, data.outputs),
    ):
        if own and given and own != given:
            k = next(k for k, pair in enumerate(zip(own, given, strict=True)) if len(set(pair)) > 1)
            notes.append(
                f"The {plural} have other names than the model's: number {k} is {given[k]!r}, and "
                f"{own[k]!r} in the model; they are compared by position."
            )
    return notes


def _check_classes(predictor: Predictor, data: Data) -> None:
    """Refuse data whose classes are others than the model's, by their names.

    Names that only count from 0 are no names, so that such classes are compared by position.
    """
    own, given = predictor.classes, data.classes
    if not own or not given or own == given or counted(own) or counted(given):
        return
    difference = _difference(given, own)
    if difference:
        raise DataError(
            f"the data {data.name!r} have other classes than {predictor.name}: {difference}"
        )


def _difference(given: Sequence[str], own: Sequence[str], most: int = 5) -> str:
    """Return which names the data lack, and which they have instead."""
    parts = []
    for verb, names in (
        ("they lack", [name for name in own if name not in given]),
        ("they have", [name for name in given if name not in own]),
    ):
        more = f" and {len(names) - most} more" if len(names) > most else ""
        if names:
            parts.append(f"{verb} {', '.join(map(repr, names[:most]))}{more}")
    return ", and ".join(parts)


def in_order(predictor: Predictor, classes: Sequence[str]) -> Predictor:
    """Return a model that answers with its classes in a given order, where the names are its own.

    Others are returned as they are; :func:`fitting` refuses them.
    """
    own, ask, members = predictor.classes, predictor.ask, predictor.members
    if tuple(own) == tuple(classes) or len(own) != len(classes) or set(own) != set(classes):
        return predictor
    places = [own.index(name) for name in classes]

    def moved(said: Distribution) -> Distribution:
        assert isinstance(said, Categorical)
        return Categorical(said.logits[:, places])

    return replace(
        predictor,
        ask=lambda parts: moved(ask(parts)),
        classes=tuple(classes),
        members=None if members is None else lambda parts: [moved(one) for one in members(parts)],
        keeper=None,
    )


def _check_columns(predictor: Predictor, data: Data) -> None:
    """Refuse a table with the model's columns in another order."""
    own, given = predictor.input_columns, data.columns
    if own != given and sorted(own) == sorted(given):
        k = next(k for k, pair in enumerate(zip(own, given, strict=True)) if len(set(pair)) > 1)
        raise DataError(
            f"the data {data.name!r} have the columns in another order than {predictor.name}: "
            f"number {k} is {given[k]!r}, and {own[k]!r} in the model"
        )


def _described(forms: Any) -> str:
    return ", ".join(f"{name} {form.shape} {form.dtype}" for name, form in forms.items())


def foreign_inputs(
    predictor: Predictor, data: Data, split: str
) -> tuple[dict[str, Tensor], str | None]:
    """Return inputs of other data in the form that a model takes.

    An image of bytes that is the only input is converted to the model's size and channels by
    :func:`~extracurricular.data.images.decode.image_bytes`.

    Returns:
        The inputs by name, and a sentence if images were changed.

    Raises:
        DataError: They cannot be converted to that form.
    """
    forms = input_forms(data)
    given = named_inputs(split_of(data, split).x)
    if forms == dict(predictor.inputs):
        return given, None
    [*wanted] = predictor.inputs.items()
    [*found] = forms.items()
    if len(wanted) == len(found) == 1 and _picture(wanted[0][1]) and _picture(found[0][1]):
        name, form = wanted[0]
        changed = _reshaped(given[found[0][0]], form)
        before, after = ("×".join(map(str, f.shape)) for f in (found[0][1], form))
        return {name: changed}, f"Images of {data.name!r} were brought from {before} to {after}."
    raise DataError(
        f"{predictor.name} takes {_described(predictor.inputs)}, but the data {data.name!r} have "
        f"{_described(forms)}; only one image of bytes can be brought to the form of another"
    )


def _picture(form: Form) -> bool:
    return form.is_image and form.dtype == "uint8" and form.shape[0] in (1, 3)


def _reshaped(images: Tensor, form: Form) -> Tensor:
    out = np.empty((len(images), *form.shape), np.uint8)
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK].cpu().numpy()
        for row, image in zip(out[start:], block, strict=False):
            last = image[0] if len(image) == 1 else np.ascontiguousarray(np.moveaxis(image, 0, -1))
            row[...] = image_bytes(Image.fromarray(last), form.shape, resize=True)
    return torch.from_numpy(out)
