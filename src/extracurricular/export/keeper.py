"""A student that was trained here, with all that is needed to write it to files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from extracurricular.data.base import Data
from extracurricular.distributions import Calibration
from extracurricular.export.ship import Shipped, export_module
from extracurricular.predictors.saved import check_place, save_network
from extracurricular.samplers import Sampler

SETTINGS = "distill.json"
"""The file of the settings that a folder's student was made with."""


@dataclass(frozen=True)
class Keeper:
    """A student that was trained here, for writing it to files.

    Args:
        module: The network, or trees.
        data: Its data set.
        spec: Spec of the network; None for a module of the user's own, and for trees.
        name: What it is called.
        sampler: The source of its examples.
        calibration: Its calibration; None for none.
    """

    module: nn.Module
    data: Data
    spec: Any
    name: str
    sampler: Sampler
    calibration: Calibration | None = None

    def save(self, folder: str | Path, *, replace: bool = False) -> list[Path]:
        """Write weights and scales to a folder for nothing else."""
        folder = Path(folder)
        check_place(folder)
        if replace:
            # These settings may be those of another student, which this one must not pass for.
            (folder / SETTINGS).unlink(missing_ok=True)
        return self.write(folder, replace=replace)

    def write(self, folder: Path, *, replace: bool = False) -> list[Path]:
        """Write weights and scales; see :func:`~extracurricular.predictors.saved.save_network`."""
        return save_network(
            folder,
            self.module,
            self.data,
            model=self.spec,
            name=self.name,
            replace=replace,
            calibration=self.calibration,
        )

    def export(self, out: str | Path, **options: Any) -> Shipped:
        """Write a verified file; see :func:`extracurricular.export_module`."""
        given = {"sampler": self.sampler, "calibration": self.calibration, **options}
        return export_module(self.module, self.data, out, **given)
