"""The data sets of a run: read once, described by what the run keeps, and compared with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from extracurricular.data.base import Data
from extracurricular.data.formats.contents import contents
from extracurricular.data.sets import DATA
from extracurricular.errors import DataError, RecipeError, StorageError
from extracurricular.files import read_sealed
from extracurricular.knowledge.fingerprint import canonical, data_fingerprint
from extracurricular.recipe.named_code import refusal as refusal_of_code
from extracurricular.recipe.schema import Recipe
from extracurricular.registry import looking, split_spec
from extracurricular.run.kept import Kept, read_kept, refusal
from extracurricular.run.settings import data_settings


class DataSets:
    """The data sets of a run.

    Args:
        folder: The folder of the run.
        looks: Whether the run is only looked at. Data are then refused where they are not those of
            the run.
        accepts: Whether changed data are taken all the same, to evaluate on.
        own: The code of somebody's own that the run names, by key, if it must not be imported; None
            if it may.
    """

    def __init__(
        self,
        folder: Path,
        *,
        looks: bool = False,
        accepts: bool = False,
        own: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.looks, self.accepts, self.own = looks, accepts, own
        self._data: dict[bytes, Data] = {}
        self._content: dict[bytes, str] = {}
        self._contents: dict[bytes, dict[str, Any]] = {}
        self._frames: dict[bytes, Data] = {}

    @property
    def device(self) -> torch.device:
        """The device on which data lie."""
        raise NotImplementedError

    def data(self, spec: Any) -> Data:
        """Return a data set, on the device; it is read once.

        Raises:
            RecipeError: It cannot be read.
            StorageError: The run is looked at, and these are not its data.
        """
        known = canonical(spec)
        if known not in self._data:
            data = self._read(spec).to(self.device)
            self._data[known] = data
            try:
                if self.looks and not self.accepts:
                    check_same(self, spec, "evaluate")
            except StorageError:
                del self._data[known]
                raise
        return self._data[known]

    def _read(self, spec: Any) -> Data:
        name, _ = split_spec(spec, "data set", "data")
        try:
            with self.looking():
                return DATA.build(spec, key="data")
        except DataError as error:
            raise RecipeError(f"data.{name}", str(error)) from error

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Import nothing that the run names while a block runs, unless that may be imported."""
        if self.own is None:
            yield
            return
        where = f"the run {str(self.folder)!r}"
        with looking(partial(refusal_of_code, where, self.own)):
            yield

    @property
    def kept(self) -> Kept | None:
        """All that the run keeps of its data; None where it keeps nothing yet."""
        return read_kept(self.folder)

    def described(self, spec: Any) -> Data:
        """Return the task, shapes, scales and names of a data set; the splits may be empty.

        They are those that the run keeps, where it is looked at; otherwise those of the data set,
        where that is read already. A run that keeps none has its data read.
        """
        known = canonical(spec)
        if known in self._data and not self.looks:
            return self._data[known]
        if known not in self._frames:
            kept = self.kept
            found = None if kept is None else kept.frame(spec)
            if found is None:
                return self.data(spec)
            self._frames[known] = found.to(self.device)
        return self._frames[known]

    def examples(self, spec: Any) -> Data:
        """Return the same with the examples that the run keeps, or the data set itself."""
        kept = self.kept if self.looks or canonical(spec) not in self._data else None
        found = None if kept is None else kept.examples(spec)
        return self.data(spec) if found is None else found.to(self.device)

    def contents(self, spec: Any) -> dict[str, Any]:
        """Return count and checksum of each split of a data set."""
        known = canonical(spec)
        if known not in self._contents:
            self._contents[known] = contents(self.data(spec))
        return self._contents[known]

    def give(self, spec: Any, data: Data, content: str) -> None:
        """Take a data set that another process has read, with its fingerprint."""
        known = canonical(spec)
        self._data[known], self._content[known] = data.to(self.device), content

    def share_data(self, other: DataSets) -> None:
        """Have the data sets in common with another run on the same device."""
        self._data, self._content = other._data, other._content
        self._contents = other._contents

    @property
    def every_data(self) -> list[Data]:
        """The data sets that were read so far."""
        return list(self._data.values())

    def content(self, spec: Any) -> str:
        """Return the fingerprint of a data set's training examples."""
        known = canonical(spec)
        if known not in self._content:
            self._content[known] = data_fingerprint(self.data(spec))
        return self._content[known]


def data_specs(recipe: Recipe) -> list[Any]:
    """Return the spec of each data set of a recipe once, in the order of the seeds."""
    specs = [recipe.data_of(seed) for seed in recipe.seeds]
    return list({canonical(spec): spec for spec in specs}.values())


def check_same(sets: DataSets, spec: Any, doing: Literal["run", "evaluate"]) -> None:
    """Refuse data that are not those that a run was made with.

    A run of a version that kept nothing of its data is compared by its training examples alone.

    Raises:
        StorageError: They differ; the sentence says in what, and names the way out.
    """
    kept, data = sets.kept, sets.data(spec)
    if kept is not None and kept.place(spec) is not None:
        clauses = kept.changes(spec, data, sets.contents(spec))
    else:
        known = _contents_of_stages(sets.folder, spec)
        same = not known or sets.content(spec) in known
        clauses = [] if same else ["the training examples are not those that it learned from"]
    if not clauses:
        return
    way_out = "restore them, or " + (
        "choose another --out: a run never goes on with other data"
        if doing == "run"
        else "give --data-changed accept to evaluate on them all the same"
    )
    raise refusal(
        f"the data {data.name!r} are not those of the run {str(sets.folder)!r}",
        clauses,
        way_out,
    )


def _contents_of_stages(folder: Path, spec: Any) -> set[str]:
    """Return the fingerprints of the training examples that stages of these data were made from."""
    wanted, found = canonical(data_settings(spec)), set()
    for file in (*folder.glob("*/*/stage.json"), *folder.glob("*/*/*/stage.json")):
        record = read_sealed(file)
        settings = record.get("settings")
        if not isinstance(settings, dict) or not isinstance(record.get("content"), str):
            continue
        if canonical(data_settings(settings.get("data"))) == wanted:
            found.add(record["content"])
    return found
