"""Pictures of a generator's draws: contact sheets of images, histograms of tables."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.data.images.contact_sheet import Block, contact_sheet, to_bytes
from extracurricular.files import write_atomic
from extracurricular.generators.base import conditions
from extracurricular.inputs import Inputs, hard_labels, leaves

# Maps ids of latents [B] and conditions [B, K] to raw examples.
Render = Callable[[Tensor, Tensor], Inputs]

_ACROSS = 10
_DOWN = 10


def image_sheets(
    data: Data, render: Render, folder: Path, title: str, note: str, conditional: bool
) -> None:
    """Write ``contact.png`` and, for a conditional generator, ``between.png``.

    ``contact.png`` has a row for each class (or for targets from low to high): real examples
    first, then draws with one latent a column. ``between.png`` has one latent a row, from a class
    to the next, or from the lowest target to the highest.
    """
    name, stored = next((k, v) for k, v in leaves(data.train.x).items() if v.ndim == 4)
    low, high = (0.0, 255.0) if stored.dtype == torch.uint8 else map(float, stored.aminmax())
    rows, chosen, real = _rows(data)
    shape = stored.shape[1:]

    def drawn(ids: Tensor, condition: Tensor, columns: int) -> Tensor:
        images = leaves(render(ids, condition))[name]
        return to_bytes(images, low, high).view(-1, columns, *shape)

    latents = torch.arange(_ACROSS, device=data.device)
    made = drawn(latents.repeat(len(rows)), chosen.repeat_interleave(_ACROSS, 0), _ACROSS)
    sheet = contact_sheet(
        title,
        [
            Block("real", to_bytes(stored[real], low, high)),
            Block("generated, one latent a column", made),
        ],
        rows,
        note,
    )
    _save(folder / "contact.png", sheet)
    if not conditional:
        return
    if data.task.kind == "classification" and len(rows) > 1:
        start, end = chosen[:-1], chosen[1:]
        names = [f"{a} → {b}" for a, b in pairwise(rows)]
    else:
        # Each row goes from the lowest target to the highest, with a latent of its own.
        start, end = (c.expand(_DOWN // 2, -1) for c in (chosen[0], chosen[-1]))
        names = [f"{rows[0]} → {rows[-1]}"] * len(start)
    share = torch.linspace(0, 1, _ACROSS, device=data.device).view(1, -1, 1)
    path = torch.lerp(start[:, None], end[:, None], share).flatten(0, 1)
    row_ids = torch.arange(len(start), device=data.device).repeat_interleave(_ACROSS)
    between = drawn(row_ids, path, _ACROSS)
    sheet = contact_sheet(
        f"{title}, between conditions", [Block("one latent a row", between)], names
    )
    _save(folder / "between.png", sheet)


def _rows(data: Data) -> tuple[list[str], Tensor, Tensor]:
    """Return the rows' names, conditions [R, K] and indices of real examples [R, S]."""
    known = conditions(data, data.train)
    y = data.train.y
    assert y is not None
    if data.task.kind == "classification":
        y = hard_labels(y)
        present = y.bincount().nonzero().squeeze(1)[:_DOWN]
        shown = 3
        names = [data.classes[k] if data.classes else str(k) for k in present.tolist()]
        places = []
        for label in present:
            own = (y == label).nonzero().squeeze(1)
            places.append(own[torch.arange(shown, device=own.device) % len(own)])
        return names, known[[int(p[0]) for p in places]], torch.stack(places)
    # Rows are sorted by the last target; for gaze it is the yaw, which is easiest to see.
    order = y[:, -1].argsort()
    count = min(_DOWN, len(order))
    pick = order[torch.linspace(0, len(order) - 1, count, device=order.device).long()]
    targets = (y[pick].rad2deg() if data.angular else y[pick]).tolist()
    form = (lambda v: f"{round(v)}°") if data.angular else (lambda v: f"{v:.3g}")
    names = [", ".join(map(form, row)) for row in targets]
    return names, known[pick], pick[:, None]


def histograms(data: Data, drawn: Inputs, folder: Path, title: str, note: str) -> None:
    """Write ``contact.png``: histograms of real and drawn values for each column of a table.

    It is left out where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    pairs = [
        (f"{name} {column}".strip(), real[:, column].cpu(), made[:, column].cpu())
        for (name, real), made in zip(
            leaves(data.train.x).items(), leaves(drawn).values(), strict=True
        )
        for column in range(min(real.shape[1], 24))
    ][:24]
    across = min(4, len(pairs))
    down = -(-len(pairs) // across)
    figure = Figure(figsize=(3 * across, 2.1 * down + 1), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).flatten()
    for axis, (name, real, made) in zip(axes, pairs, strict=False):
        low, high = float(min(real.min(), made.min())), float(max(real.max(), made.max()))
        high = high if high > low else low + 1
        for values, colour, label in ((real, "#b8b8bd", "real"), (made, "#2f6fb3", "drawn")):
            axis.hist(
                values.numpy(),
                bins=40,
                range=(low, high),
                density=True,
                color=colour,
                label=label,
                histtype="stepfilled" if label == "real" else "step",
                linewidth=1.3,
            )
        axis.set_title(f"column {name}", fontsize=9)
        axis.tick_params(labelsize=7)
        axis.set_yticks([])
        axis.spines[["top", "right", "left"]].set_visible(False)
    for axis in axes[len(pairs) :]:
        axis.set_visible(False)
    axes[0].legend(fontsize=7, frameon=False)
    figure.suptitle(title, fontsize=12)
    figure.supxlabel(note, fontsize=8, color="#66666c")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomic(folder / "contact.png", buffer.getvalue())


def _save(path: Path, sheet: Any) -> None:
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    write_atomic(path, buffer.getvalue())
