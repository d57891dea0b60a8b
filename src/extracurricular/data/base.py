"""A data set: three splits of examples, and the maps from raw values to network inputs.

A :class:`Data` keeps raw values (bytes of images stay bytes) and the affine maps that turn them
into network inputs and standardised targets. The maps are fitted on the training split alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from extracurricular.data.fields import Fields
from extracurricular.data.scales import Affine as Affine
from extracurricular.data.scales import fitted, moments_of_bytes, wide
from extracurricular.data.several import alike, check_columns, meaning_of, summing_to_1, why
from extracurricular.data.transform import Transform
from extracurricular.distributions import Kind, Task
from extracurricular.errors import DataError
from extracurricular.inputs import (
    Deferred,
    Inputs,
    batch_size,
    hard_labels,
    is_leaf,
    leaves,
    tree_map,
)

# So many examples represent a split whose images are not in memory.
SAMPLE = 1024
# Real targets whose values lie within less or more than this have squares that no number has.
_SPREADS = (1e-140, 1e140)

Shapes: TypeAlias = tuple[int, ...] | dict[str, tuple[int, ...]] | tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Split:
    """Raw examples and their labels.

    Args:
        x: One tensor [N, ...], or a tuple or dict of such tensors.
        y: Class indices [N] int64, soft labels [N, C] or real targets [N, D] float32, or labels of
            0 and 1 [N, L] float32; None for unlabelled examples. Columns and targets in units that
            float32 cannot hold are float64 (:func:`~extracurricular.data.scales.wide`).
    """

    x: Inputs
    y: Tensor | None = None

    def __len__(self) -> int:
        return batch_size(self.x)

    def __getitem__(self, index: Tensor | slice) -> Split:
        return Split(
            tree_map(lambda v: v[index], self.x), None if self.y is None else self.y[index]
        )

    def to(self, device: torch.device) -> Split:
        """Return the split on a device."""
        return Split(
            tree_map(lambda v: v.to(device), self.x), None if self.y is None else self.y.to(device)
        )


@dataclass(frozen=True)
class Data:
    """A data set with its splits and scales.

    Args:
        name: Name for the person who reads the results.
        task: What is predicted.
        train, validation, test: The splits. Settings are chosen on ``validation``; ``test`` is for
            the final figures only. ``validation`` may be empty.
        x_scale: One :class:`Affine` per input tensor, by name (``""`` if there is just one).
        y_scale: The map from raw targets to standardised ones; None for classification.
        y_transform: The transforms of targets, before ``y_scale``; None for none.
        classes: Names of the classes, if known.
        angular: Whether targets are (pitch, yaw) in radians, so that angular errors have a meaning.
        columns, outputs: Names of a table's columns and of the targets, if known.
        notes: Sentences that tell a person how the data were read.
        drawn: Numbers of the training examples that samplers draw, int64; None for all. The others
            are kept out, to see what a student does on examples that it never meets.
        fields: The table's columns, from which a raw row becomes an input; None for other data.
        unlabelled: Raw examples whose target is not known, for the sampler ``pool``; None for none.
        reading: How a raw example becomes an input, as plain values: under ``image`` the size, crop
            and decoding of pictures, under ``columns`` the columns of a table; empty if unknown.
        ids: What identifies the examples of each split at their source, by the split's name: names
            of files, numbers of rows, or values of a column; a split that is not there has none.
    """

    name: str
    task: Task
    train: Split
    validation: Split
    test: Split
    x_scale: dict[str, Affine]
    y_scale: Affine | None = None
    classes: tuple[str, ...] = field(default=())
    angular: bool = False
    columns: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    drawn: Tensor | None = None
    fields: Fields | None = None
    unlabelled: Split | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)
    ids: Mapping[str, Sequence[str] | Sequence[int]] = field(default_factory=dict)
    y_transform: Transform | None = None

    @property
    def shapes(self) -> Shapes:
        """The shape of one example's input, in the structure of the input."""
        x = self.train.x
        if is_leaf(x):
            return tuple(x.shape[1:])
        if isinstance(x, dict):
            return {k: tuple(v.shape[1:]) for k, v in x.items()}
        return tuple(tuple(v.shape[1:]) for v in x)

    @property
    def pixels(self) -> tuple[Tensor, Tensor] | None:
        """The shift and scale of images of bytes; None if the input is anything else."""
        x, scale = self.train.x, self.x_scale.get("")
        # These two attributes are enough, and streamed images have no values to look at.
        images = getattr(x, "dtype", None) == torch.uint8 and getattr(x, "ndim", 0) == 4
        return (scale.shift, scale.scale) if images and scale is not None else None

    @property
    def device(self) -> torch.device:
        """The device of the tensors."""
        return next(iter(leaves(self.train.x).values())).device

    def inputs(self, x: Inputs) -> Inputs:
        """Turn raw values into network inputs, float32."""
        if is_leaf(x):
            return self.x_scale[""].apply(x)
        if isinstance(x, dict):
            return {k: self.x_scale[k].apply(v) for k, v in x.items()}
        return tuple(self.x_scale[str(i)].apply(v) for i, v in enumerate(x))

    def targets(self, y: Tensor) -> Tensor:
        """Turn raw labels into the student's targets: reals are transformed and standardised."""
        if self.y_transform is not None:
            y = self.y_transform.apply(y)
        return y if self.y_scale is None else self.y_scale.apply(y)

    def to(self, device: torch.device) -> Data:
        """Return the data set with all its tensors on a device.

        Raises:
            DataError: Its units need float64, which the device has not.
        """
        kinds = {getattr(v, "dtype", None) for v in (*leaves(self.train.x).values(), self.train.y)}
        if device.type == "mps" and torch.float64 in kinds:
            raise DataError(
                f"data {self.name!r}: its units need float64, which mps lacks; set "
                "device.accelerator to cpu, or give the data in other units"
            )
        return replace(
            self,
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
            x_scale={k: v.to(device) for k, v in self.x_scale.items()},
            y_scale=None if self.y_scale is None else self.y_scale.to(device),
            drawn=None if self.drawn is None else self.drawn.to(device),
            unlabelled=None if self.unlabelled is None else self.unlabelled.to(device),
        )


def make_data(
    name: str,
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    validation: tuple[Any, Any] | None = None,
    *,
    task: Task | None = None,
    classes: Sequence[str] = (),
    angular: bool = False,
    columns: Sequence[str] = (),
    outputs: Sequence[str] = (),
    notes: Sequence[str] = (),
    fields: Fields | None = None,
    unlabelled: Any = None,
    reading: Mapping[str, Any] | None = None,
    ids: Mapping[str, Sequence[str] | Sequence[int]] | None = None,
) -> Data:
    """Check arrays or tensors and make a :class:`Data` of them, with scales fitted on ``train``.

    Args:
        name: The data set's name.
        train, test, validation: Pairs (x, y). ``x`` is an array [N, ...], or a tuple or dict of
            arrays; images are [N, C, H, W] or [N, H, W], uint8 in 0..255 or float. ``y`` is integer
            class indices [N], soft labels [N, C], real targets [N] or [N, D], or labels [N, L].
        task: What is predicted; read from the labels if None.
        classes: Names of the classes.
        angular: Whether targets are (pitch, yaw) in radians.
        columns, outputs: Names of a table's columns and of the targets.
        notes: Sentences about how the data were read. Those about classes that a split lacks are
            added.
        fields: The columns of a table.
        unlabelled: Inputs whose target is not known.
        notes: Sentences about how the data were read.
        reading, ids: As for :class:`Data`.

    Raises:
        DataError: A split is empty, lengths differ, a value is not finite, a label is out of range,
            or all examples are of one class.
    """
    if validation is None:
        validation = (map_arrays(lambda v: v[:0], train[0]), np.asarray(train[1])[:0])
    splits = {
        part: _split(part, x, y, task)
        for part, (x, y) in (("train", train), ("validation", validation), ("test", test))
    }
    for part in ("train", "test"):
        if len(splits[part]) == 0:
            raise DataError(f"data {name!r}: the {part} split has no examples")
    task, told = (task, "") if task else _guess_task(splits["train"])
    splits = in_float32(splits, task)
    for part, split in splits.items():
        _check_labels(f"data {name!r}, {part} split", split, task, tuple(classes))
        splits[part] = replace(split, y=summing_to_1(split.y, task))
        _check_shapes(f"data {name!r}, {part} split", split, splits["train"])
    y = splits["train"].y
    assert y is not None
    if task.kind == "regression":
        _check_units(name, y, outputs)
    more = None if unlabelled is None else Split(map_arrays(_unlabelled, unlabelled))
    more = None if more is None else in_float32({"train": splits["train"], "": more}, task)[""]
    if more is not None:
        _check_shapes(f"data {name!r}, unlabelled", more, splits["train"])
    found = Data(
        name=name,
        task=task,
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        x_scale={k: fit_scale(v) for k, v in leaves(splits["train"].x).items()},
        y_scale=fit_scale(y) if task.kind == "regression" else None,
        classes=tuple(classes),
        angular=angular,
        columns=tuple(columns),
        outputs=tuple(outputs),
        notes=(*notes, *([told] if told else [])),
        fields=fields,
        unlabelled=more,
        reading=reading or {},
        ids=ids or {},
    )
    _check_classes(found)
    return replace(found, notes=(*found.notes, *lacking(found)))


def _check_units(name: str, y: Tensor, outputs: Sequence[str]) -> None:
    """Refuse real targets in units in which their squares leave float64."""
    spread = y.double().amax(0) - y.double().amin(0)
    low, high = _SPREADS
    odd = ((spread > 0) & (spread < low)) | (spread > high)
    if odd.any():
        k = int(odd.nonzero()[0])
        which = repr(outputs[k]) if len(outputs) > k else f"{k}"
        raise DataError(
            f"data {name!r}: the values of the target {which} lie within {float(spread[k]):.3g}; "
            f"give it in another unit, in which that is between {low:g} and {high:g}"
        )


def _unlabelled(given: Any) -> Tensor:
    return _tensor("unlabelled", "x", given)


def lacking(data: Data) -> list[str]:
    """Return sentences about classes that occur, but not in every split, and about such labels."""
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    size = data.task.size
    if data.task.kind == "multilabel":
        names = data.outputs or tuple(map(str, range(size)))
        known = [(s.y.cpu().numpy(), part) for part, s in splits.items() if s.y is not None]
        return [sentence for y, part in known for sentence in alike(y, names, part)]
    if data.task.kind != "classification":
        return []
    counts = {
        part: y[(y >= 0) & (y < size)].bincount(minlength=size)
        for part, split in splits.items()
        if split.y is not None and len(split) and (y := hard_labels(split.y)) is not None
    }
    names = data.classes or tuple(map(str, range(size)))
    present = torch.stack(list(counts.values())).sum(0) > 0
    sentences = []
    for part, count in counts.items():
        # A split that is smaller than the number of classes cannot have them all.
        if part != "train" and int(count.sum()) < size:
            continue
        none = [names[int(k)] for k in ((count == 0) & present).nonzero()]
        if none:
            shown = ", ".join(none[:8]) + (f" and {len(none) - 8} more" if len(none) > 8 else "")
            word = "training" if part == "train" else part
            sentences.append(f"These classes have no {word} examples: {shown}.")
    return sentences


def _check_classes(data: Data) -> None:
    """Refuse data whose examples are all of one class, or all have the same labels."""
    if data.task.kind == "regression":
        return
    own = [s.y for s in (data.train, data.validation, data.test) if s.y is not None and len(s)]
    every = torch.cat(own)
    if every.is_floating_point():
        if bool((every == every[:1]).all()):
            raise DataError(f"data {data.name!r}: all examples have the same labels")
        return
    if int(every.min()) == int(every.max()):
        one = int(every[0])
        name = data.classes[one] if data.classes else str(one)
        raise DataError(
            f"data {data.name!r}: all examples are of the class {name!r}; there must be at least "
            "two classes"
        )


def map_arrays(function: Callable[[Any], Any], x: Any) -> Any:
    """Apply ``function`` to an array, or to each array of a tuple or dict."""
    if isinstance(x, dict):
        return {k: function(v) for k, v in x.items()}
    if isinstance(x, tuple):
        return tuple(function(v) for v in x)
    return function(x)


def _split(part: str, x: Any, y: Any, task: Task | None) -> Split:
    inputs: Inputs = map_arrays(lambda v: _tensor(part, "x", v), x)
    labels = _tensor(part, "y", y)
    if labels.is_floating_point() or (task is not None and task.binary):
        labels = labels if labels.dtype == torch.float64 else labels.float()
        labels = labels.unsqueeze(1) if labels.ndim == 1 else labels
    else:
        labels = labels.long()
    for key, leaf in leaves(inputs).items():
        if len(leaf) != len(labels):
            which = f"x[{key!r}]" if key else "x"
            raise DataError(
                f"{part} split: {which} has {len(leaf)} examples but y has {len(labels)} labels"
            )
    return Split(inputs, labels)


def in_float32(splits: dict[str, Split], task: Task) -> dict[str, Split]:
    """Return splits in float32, but for tensors whose training values it cannot hold."""
    train = splits["train"]
    held = {key: leaf for key, leaf in leaves(train.x).items() if not isinstance(leaf, Deferred)}
    odd = {key: wide(leaf) for key, leaf in held.items()}
    odd_target = task.kind == "regression" and train.y is not None and wide(train.y)

    def settled(values: Tensor, kept: bool) -> Tensor:
        if isinstance(values, Deferred) or not values.is_floating_point():
            return values
        return values.double() if kept else values.float()

    def split(part: Split) -> Split:
        parts = {key: settled(leaf, odd.get(key, False)) for key, leaf in leaves(part.x).items()}
        x: Inputs = parts if isinstance(part.x, dict) else tuple(parts.values())
        return Split(
            parts[""] if is_leaf(part.x) else x,
            None if part.y is None else settled(part.y, odd_target),
        )

    return {name: split(part) for name, part in splits.items()}


def check_finite(values: Tensor, which: str) -> None:
    """Refuse values with a NaN or an infinity, and name the place of the first.

    Raises:
        DataError: A value is not finite.
    """
    # The extremes of values with a NaN are NaN; they need no mask as large as the values.
    extremes = torch.stack(values.aminmax()) if values.numel() else values
    if not bool(torch.isfinite(extremes).all()):
        finite = torch.isfinite(values)
        where = tuple(int(i) for i in (~finite).nonzero()[0])
        value = float(values[where])
        raise DataError(f"{which}{list(where)} is {value}; every value must be finite")


def _tensor(part: str, which: str, given: Any) -> Tensor:
    if isinstance(given, Deferred):
        return cast(Tensor, given)
    if isinstance(given, Tensor):
        values = given
    else:
        array = np.asarray(given)
        if array.dtype.kind not in "fiub":
            raise DataError(
                f"{part} split: {which} has values of type {array.dtype}; they must be numbers"
            )
        values = torch.from_numpy(np.ascontiguousarray(array))
    if values.is_floating_point():
        check_finite(values, f"{part} split: {which}")
    if values.dtype != torch.uint8 and (which == "x" or values.is_floating_point()):
        # Wide types are kept until it is known whether they are needed.
        kept = values.ndim <= 2 and values.dtype in (torch.float64, torch.int64)
        values = values.double() if kept else values.float()
    if which == "x" and values.ndim == 3:
        values = values.unsqueeze(1)
    return values


def _guess_task(train: Split) -> tuple[Task, str]:
    """Return the task, and a sentence where several columns are no real targets."""
    y = train.y
    assert y is not None
    if y.is_floating_point():
        meaning = meaning_of(y.cpu().numpy())
        kind: Kind = "regression"
        if meaning != "numbers":
            kind = "multilabel" if meaning == "labels" else "classification"
        told = "" if kind == "regression" else why(meaning, y.shape[1])
        return Task(kind, y.shape[1]), told
    return Task("classification", int(y.max()) + 1), ""


def _check_labels(where: str, split: Split, task: Task, classes: tuple[str, ...]) -> None:
    y = split.y
    assert y is not None
    if task.kind == "regression":
        if not y.is_floating_point() or y.ndim != 2 or y.shape[1] != task.size:
            raise DataError(
                f"{where}: y has shape {tuple(y.shape)}; it must be [N, {task.size}] reals"
            )
        return
    soft = y.is_floating_point() and y.ndim == 2 and 1 < y.shape[1] == task.size
    if task.kind == "multilabel" or soft:
        check_columns(where, y, task)
        return
    if y.is_floating_point() or y.ndim != 1:
        raise DataError(f"{where}: y must be integer class indices [N]")
    if classes and len(classes) != task.size:
        raise DataError(f"{where}: {len(classes)} class names for {task.size} classes")
    if len(y) and (int(y.min()) < 0 or int(y.max()) >= task.size):
        bad = int(y.min()) if int(y.min()) < 0 else int(y.max())
        raise DataError(f"{where}: label {bad} is outside of 0..{task.size - 1}")


def _check_shapes(where: str, split: Split, train: Split) -> None:
    expected = {k: tuple(v.shape[1:]) for k, v in leaves(train.x).items()}
    found = {k: tuple(v.shape[1:]) for k, v in leaves(split.x).items()}
    if found != expected:
        raise DataError(
            f"{where}: examples have shape {found}, but those of the train split have {expected}"
        )


def fit_scale(values: Tensor) -> Affine:
    """Fit mean and deviation per channel of images [N, C, H, W], per column of anything flatter.

    Streamed images are represented by :data:`SAMPLE` of them, spread evenly.
    """
    if isinstance(values, Deferred):
        values = values[spaced(len(values), SAMPLE)]
    image = values.ndim == 4
    if image and values.dtype == torch.uint8:
        mean, std = moments_of_bytes(values)
    else:
        dims = (0, 2, 3) if image else (0,)
        reals = values.double()
        mean = reals.mean(dims)
        std = reals.std(dims, correction=0)
    found = fitted(mean, std, values.dtype == torch.float64)
    shape = (-1, 1, 1) if image else mean.shape
    return Affine(found.shift.view(shape), found.scale.view(shape))


def spaced(count: int, most: int) -> Tensor:
    """Return at most ``most`` places, spread evenly over ``range(count)``, int64."""
    chosen = min(count, most)
    return torch.arange(chosen) * count // max(1, chosen)
