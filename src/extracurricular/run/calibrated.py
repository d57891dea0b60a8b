"""Calibrate a finished teacher or student on the validation examples.

The stage of a calibration stands behind that of the model, so that another choice of methods trains
nothing again. ``stage.json`` of its folder keeps the fitted numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from extracurricular.data.base import Data, Split
from extracurricular.distributions import Calibration, Distribution
from extracurricular.errors import RecipeError, StorageError, XclError
from extracurricular.evaluation.calibrate import calibrate, fewest
from extracurricular.evaluation.predict import predict
from extracurricular.recipe.students import CalibrateSection
from extracurricular.run.precision import float32_products
from extracurricular.run.settings import data_settings
from extracurricular.run.stages import Checks, Price, Stage, begun
from extracurricular.run.workspace import Workspace
from extracurricular.teachers import Teacher
from extracurricular.teachers.base import on_split
from extracurricular.teachers.calibrated import calibrated

_KINDS = {
    "temperature": ("classification", "multilabel"),
    "variance": ("regression",),
    "conformal": ("classification", "regression"),
}
_NOUNS = {
    "classification": "classes",
    "regression": "real targets",
    "multilabel": "several labels of 0 and 1",
}


@dataclass(frozen=True)
class CalibrationStage(Stage):
    """A calibration to fit.

    Args:
        methods: The methods.
        made: The settings of the model.
        parts: The stages that the model is made of.
        ask: Returns the model, trained, as it is without calibration.
    """

    methods: CalibrateSection
    made: tuple[dict[str, Any], ...] = ()
    parts: tuple[Stage, ...] = ()
    ask: Callable[[Workspace], Teacher] | None = field(default=None, compare=False, repr=False)

    @property
    def needs(self) -> tuple[Stage, ...]:
        """The stages that the model is made of."""
        return self.parts

    @property
    def steps(self) -> int:
        """The number of steps, 0: the progress of a run counts trainings."""
        return 0

    @property
    def settings(self) -> dict[str, Any]:
        """All that the result depends on but the content of the data, as plain values."""
        return {
            "data": data_settings(self.data),
            "calibrate": self.methods.model_dump(mode="json"),
            "upstream": list(self.made),
        }

    def is_done(self, workspace: Workspace) -> bool:
        """Return whether there is such a calibration of the model as it is now."""
        if not super().is_done(workspace) or not all(p.is_done(workspace) for p in self.parts):
            return False
        record, content = workspace.record(self.path), workspace.content(self.data)
        found = [record.get(name) for name in ("settings", "content", "of")]
        return found == [self.settings_in(workspace), content, self._models(workspace)]

    def check_folder(self, workspace: Workspace) -> None:
        """Refuse nothing: a calibration with other settings is fitted anew, which takes seconds."""

    def do(self, workspace: Workspace) -> None:
        """Ask the model about the validation examples, and fit the calibration."""
        if self.is_done(workspace):
            return
        with begun(workspace, self) as outcome:
            assert self.ask is not None
            found = self.fit(self.ask(workspace), workspace)
            outcome |= {"calibration": found.dump(), "of": self._models(workspace)}

    def fit(self, model: Teacher, workspace: Workspace) -> Calibration:
        """Return the calibration of a model.

        Raises:
            RecipeError: Its answers cannot be calibrated so.
        """
        data = workspace.data(self.data)
        try:
            asked = on_split(model, "validation")
        except XclError as error:
            raise RecipeError(
                f"{self.key}.calibrate",
                f"asks the teacher about all validation examples, but {error}",
            ) from error
        split = data.validation
        assert split.y is not None
        said = workspace.predict(asked, data, split)
        return fitted(self.methods, said, split.y, f"{self.key}.calibrate")

    def load(self, workspace: Workspace) -> Calibration:
        """Return the fitted calibration.

        Raises:
            StorageError: It is missing or damaged.
        """
        try:
            return Calibration.load(workspace.record(self.path).get("calibration"))
        except (ValueError, TypeError, KeyError) as error:
            place = str(workspace.folder / self.path)
            raise StorageError(
                f"{place!r} has no calibration that could be read ({error}); delete it, and "
                "`xcl run` fits it again"
            ) from None

    def check(self, workspace: Workspace, checks: Checks) -> None:
        """Refuse methods for other tasks, and data without enough validation examples."""
        check_methods(self.methods, workspace.data(self.data), f"{self.key}.calibrate")

    def price(self, workspace: Workspace, checks: Checks) -> Price:
        """Return the examples that the model predicts, where it is the teacher."""
        count = len(workspace.data(self.data).validation) if self.key == "teacher" else 0
        return Price(0, questions=count)

    def _models(self, workspace: Workspace) -> dict[str, Any]:
        """Return the checksums of the weights, or the identities, that were calibrated."""
        records = {part.path: workspace.record(part.path) for part in self.parts}
        return {path: one.get("sha256") or one.get("identity") for path, one in records.items()}


def fitted(methods: CalibrateSection, said: Distribution, y: Tensor, key: str) -> Calibration:
    """Return the calibration of answers on the validation examples, whose labels are ``y``.

    Raises:
        RecipeError: The answers cannot be calibrated so.
    """
    conformal = methods.conformal
    try:
        return calibrate(
            said,
            y.cpu(),
            temperature=methods.temperature,
            variance=methods.variance,
            coverage=None if conformal is None else conformal.coverage,
        )
    except ValueError as error:
        raise RecipeError(key, str(error)) from error


def fitted_to(model: Teacher, methods: CalibrateSection | None, data: Data) -> Calibration | None:
    """Return the calibration of a student outside of a run, as a run would fit it.

    Args:
        model: The student, on the device of the data, as it is without calibration.
        methods: The methods; None for none.
        data: The data set.

    Raises:
        RecipeError: The answers cannot be calibrated so.
    """
    if methods is None:
        return None
    with float32_products(False):
        said = predict(model, data, data.validation)
    assert data.validation.y is not None
    return fitted(methods, said, data.validation.y, "calibrate")


def check_methods(methods: CalibrateSection, data: Data, key: str) -> None:
    """Refuse methods that do not go with the data.

    Raises:
        RecipeError: A method is for another task, or there are too few validation examples.
    """
    kind = data.task.kind
    if methods.variance and data.task.family is not None:
        raise RecipeError(key, "is variance, which is for Gaussians; other distributions take "
                          "conformal")  # fmt: skip
    for name, kinds in _KINDS.items():
        if getattr(methods, name) and kind not in kinds:
            better = next(
                (f"; take {other}" for other in ("temperature", "variance")
                 if name != "conformal" and kind in _KINDS[other]), "",
            )  # fmt: skip
            whose = " and ".join(_NOUNS[one] for one in kinds)
            raise RecipeError(key, f"is {name}, which is for {whose}; these are {_NOUNS[kind]}"
                              f"{better}")  # fmt: skip
    split: Split = data.validation
    if not len(split) or split.y is None:
        raise RecipeError(
            key,
            "is set, and is fitted on validation examples, but the data have none; give "
            "them a validation split, or leave the calibration out",
        )
    if methods.conformal is not None:
        stated, count = methods.conformal.coverage, len(split)
        if count < fewest(stated):
            raise RecipeError(
                f"{key}.conformal.coverage",
                f"is {stated:g}, which needs at least {fewest(stated):,} validation examples, and "
                f"the data have {count:,}; set a coverage of at most {count / (count + 1):.3g}",
            )


def calibrated_by(
    model: Teacher, stage: CalibrationStage | None, workspace: Workspace
) -> tuple[Teacher, Calibration | None]:
    """Return a model with calibrated answers, and its calibration; itself and None without one.

    Raises:
        StorageError: The calibration is missing or damaged.
    """
    if stage is None:
        return model, None
    found = stage.load(workspace)
    return calibrated(model, found), found
