"""Show a survey of a data set: tables for the terminal, and a sheet of images."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise

import torch
from rich import box
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from torch import Tensor

from extracurricular.assess.survey import PARTS, Survey, Values
from extracurricular.data.base import Data, Split
from extracurricular.data.images.contact_sheet import Block, contact_sheet, to_bytes
from extracurricular.errors import DataError
from extracurricular.inputs import hard_labels, leaves

_FEW = 10
_ROWS = 20
_DOWN = 16
_BAR = 24


def lines(data: Data, found: Survey) -> Iterator[RenderableType]:
    """Yield the pieces to print, in order."""
    yield f"[bold]{escape(data.name)}[/bold]  {_task(data)}"
    yield ""
    yield _sizes(found)
    yield ""
    yield _inputs(found)
    if found.targets:
        yield ""
        yield _targets(data, found)
    if found.counts:
        yield ""
        equal = len(found.counts["train"]) > _FEW and all(
            min(counts) == max(counts) for counts in found.counts.values()
        )
        yield _equal(data, found) if equal else _classes(data, found)
    yield ""
    for note in data.notes:
        # A class that a split lacks is told below, with what mends it.
        if not any(sentence.startswith(note[:-1]) for sentence in found.suspicious):
            yield escape(note)
    if found.looked_at:
        looked = found.looked_at.items()
        parts = ", ".join(f"{count:,} of {found.sizes[part]:,} in {part}" for part, count in looked)
        yield f"Values and repeated examples come from {parts}, spread evenly."
    if found.suspicious:
        yield "[bold yellow]Suspicious[/bold yellow]"
        for sentence in found.suspicious:
            yield Text(f"  • {sentence}")
    else:
        yield "[green]Nothing suspicious.[/green]"


def _task(data: Data) -> str:
    if data.task.kind == "classification":
        y = data.train.y
        soft = ", given by probabilities" if y is not None and y.ndim > 1 else ""
        return f"classification, {data.task.size} classes{soft}"
    names = ", ".join(data.outputs)
    size = data.task.size
    if data.task.kind == "multilabel":
        return f"multilabel, {size} labels of 0 and 1" + (f": {escape(names)}" if names else "")
    count = f"{size} targets" if size > 1 else "1 target"
    return f"regression, {count}" + (f": {escape(names)}" if names else "")


def _table(*columns: str, words: int = 1) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    for k, column in enumerate(columns):
        table.add_column(column, justify="left" if k < words else "right")
    return table


def _sizes(found: Survey) -> Table:
    table = _table("split", "examples", "share")
    whole = sum(found.sizes.values())
    for part, size in found.sizes.items():
        table.add_row(part, f"{size:,}", f"{100 * size / whole:.1f} %")
    return table


def _inputs(found: Survey) -> Table:
    table = _table("input", "shape", "kind", "lowest", "mean", "highest", "deviation", words=3)
    for name, shape, dtype, values in found.inputs:
        form = " × ".join(map(str, shape))
        if len(shape) < 2:
            form = f"{len(values)} column" + ("s" if len(values) > 1 else "")
        kind = "bytes" if dtype == torch.uint8 else "reals"
        shown = values if len(values) <= _ROWS else [*values[: _ROWS - 4], *values[-3:]]
        for k, value in enumerate(shown):
            if len(values) > _ROWS and k == _ROWS - 4:
                table.add_row(f"… {len(values) - len(shown)} more")
            table.add_row(
                escape(value.name),
                form if k == 0 else "",
                kind if k == 0 else "",
                *_numbers(value),
            )
        if not values:
            table.add_row(escape(name or "x"), form, kind)
    return table


def _targets(data: Data, found: Survey) -> Table:
    table = _table("target", "split", "lowest", "mean", "highest", "deviation", words=2)
    degrees = 180 / torch.pi if data.angular else 1.0
    unit = " °" if data.angular else ""
    for k in range(data.task.size):
        for place, (part, values) in enumerate(found.targets.items()):
            value = values[k]
            name = escape(value.name) + unit if place == 0 else ""
            table.add_row(name, part, *_numbers(value, degrees))
    return table


def _numbers(value: Values, factor: float = 1.0) -> list[str]:
    numbers = (value.low, value.mean, value.high, value.deviation)
    return [number(v * factor) for v in numbers]


def number(value: float) -> str:
    """Return a number as a short text: four digits, or all digits before the point."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def _equal(data: Data, found: Survey) -> str:
    each = ", ".join(f"{counts[0]:,} in {part}" for part, counts in found.counts.items())
    return f"Each {'label' if data.task.binary else 'class'} has {each}."


def _classes(data: Data, found: Survey) -> Table:
    """Return the counts by class; of many classes, only the most and least frequent in training."""
    parts = [part for part in PARTS if part in found.counts]
    table = _table("label" if data.task.binary else "class", *parts)
    table.add_column("", justify="left")
    train = found.counts["train"]
    names = data.outputs if data.task.binary else data.classes
    names = names or tuple(map(str, range(data.task.size)))
    order = list(range(len(train)))
    if len(order) > _ROWS:
        ranked = sorted(order, key=lambda k: -train[k])
        order = [*ranked[:6], -1, *ranked[-6:]]
    most = max(train)
    for k in order:
        if k < 0:
            table.add_row(f"… {len(train) - 12} more", *([""] * len(parts)))
            continue
        bar = "━" * round(_BAR * train[k] / most) if most else ""
        counts = [f"{found.counts[part][k]:,}" for part in parts]
        table.add_row(escape(names[k]), *counts, f"[blue]{bar}[/blue]")
    return table


def sheet(data: Data, across: int = 8) -> bytes:
    """Draw training and test images, a row for each class or for each range of the last target.

    Returns:
        A PNG.

    Raises:
        DataError: The data have no images.
    """
    pictured = [(name, leaf) for name, leaf in leaves(data.train.x).items() if leaf.ndim == 4]
    if not pictured:
        raise DataError(f"data {data.name!r} has no images, so there is no contact sheet to draw")
    name, train = pictured[0]
    low, high = (0.0, 255.0) if train.dtype == torch.uint8 else map(float, train.aminmax())
    rows, note = _rows(data)
    blocks = []
    for part, wide in (("train", across), ("test", max(1, across // 2))):
        split: Split = getattr(data, part)
        images = leaves(split.x)[name]
        places = [_some(data, split, low_, high_, wide) for _, low_, high_ in rows]
        blank = to_bytes(torch.full_like(images[:1].float(), high), low, high)
        picked = [
            torch.cat(
                [to_bytes(images[p], low, high), blank.expand(wide - len(p), *blank.shape[1:])]
            )
            for p in places
        ]
        blocks.append(Block(part, torch.stack(picked)))
    drawn = contact_sheet(data.name, blocks, [label for label, *_ in rows], note)
    buffer = BytesIO()
    drawn.save(buffer, "PNG")
    return buffer.getvalue()


def _rows(data: Data) -> tuple[list[tuple[str, float, float]], str]:
    """Return the name and the range [from, to) of the labels of each row, and a note."""
    y = data.train.y
    assert y is not None
    if data.task.kind == "classification":
        y = hard_labels(y)
        names = data.classes or tuple(map(str, range(data.task.size)))
        present = y.bincount().nonzero().squeeze(1).tolist()
        count = min(_DOWN, len(present))
        shown = [present[k * len(present) // count] for k in range(count)]
        note = f"{count} of {len(present)} classes" if count < len(present) else ""
        return [(names[k], float(k), float(k + 1)) for k in shown], note
    if data.task.kind == "multilabel":
        target = data.outputs[-1] if data.outputs else "the last label"
        return [(f"{target} {k}", float(k), float(k + 1)) for k in (0, 1)], f"rows by {target}"
    factor, unit = (180 / torch.pi, "°") if data.angular else (1.0, "")
    values = y[:, -1].double()
    steps = torch.linspace(0, 1, 9, dtype=torch.float64, device=values.device)
    edges = [float(v) for v in values.quantile(steps)]
    edges[-1] = float("inf")
    ranges = [(a, b) for a, b in pairwise(edges) if b > a]
    target = data.outputs[-1] if data.outputs else "the last target"
    return (
        [(f"from {a * factor:.3g}{unit}", a, b) for a, b in ranges],
        f"rows by {target}, an eighth of the training examples each",
    )


def _some(data: Data, split: Split, low: float, high: float, count: int) -> Tensor:
    """Return indices of up to ``count`` examples with labels in [low, high), spread evenly."""
    y = split.y
    assert y is not None
    if data.task.kind == "classification":
        y = hard_labels(y)
    label = y if y.ndim == 1 else y[:, -1]
    own = ((label >= low) & (label < high)).nonzero().squeeze(1)
    if len(own) <= count:
        return own
    return own[torch.arange(count, device=own.device) * len(own) // count]
