"""The workspace of a run: its folder and device, and everything that its stages build or load.

A workspace decides nothing. It makes what a stage asks for, keeps what several stages share, and
never trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from extracurricular import rng
from extracurricular.data.base import Data, Split
from extracurricular.distributions import Distribution, Filed
from extracurricular.errors import RecipeError, StorageError
from extracurricular.evaluation.predict import predict
from extracurricular.files import curing, load_weights, read_sealed
from extracurricular.models import build_model
from extracurricular.models.heads import check_head
from extracurricular.recipe.schema import Recipe
from extracurricular.run.data_sets import DataSets
from extracurricular.run.precision import (
    AUTO,
    Hardware,
    autocast,
    float32_products,
    hardware,
    kept_precision,
    resolve,
    sentence,
)
from extracurricular.run.ranks import Ranks
from extracurricular.run.watcher import Silent, Watcher
from extracurricular.samplers import Context, Sampler, build_sampler
from extracurricular.teachers import Teacher
from extracurricular.teachers.base import on_split
from extracurricular.training import Execution, Shared

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

RECORD = "stage.json"
"""The file that says how a stage was made, and what it left."""
WHOSE = "stage"
"""The key under which that file says whose it is."""
WEIGHTS = "weights.safetensors"
"""The tensors that a stage left."""

# A run remembers so many bytes of answers on the evaluation split, for its report.
_REMEMBERED_BYTES = 64 * 2**20


class Made(Protocol[T_co]):
    """Anything that can be read from the folder of a run once it is done."""

    @property
    def path(self) -> str:
        """Its folder, relative to the run."""
        ...

    def load(self, workspace: Workspace) -> T_co:
        """Read it."""
        ...


class Workspace(DataSets):
    """The folder, device, data and models that the stages of one run share.

    Args:
        recipe: The recipe, for its device, its evaluation and its loggers.
        folder: The folder of the run.
        watcher: Follows the run; may be None.
        looks, accepts, own: As for :class:`~extracurricular.run.data_sets.DataSets`.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        watcher: Watcher | None = None,
        *,
        looks: bool = False,
        accepts: bool = False,
        own: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder, looks=looks, accepts=accepts, own=own)
        self.recipe = recipe
        self.watcher: Watcher = watcher or Silent()
        self.loaded: dict[str, Any] = {}  # results of stages
        self.answered: dict[str, Distribution] = {}
        self.figured: dict[str, dict[str, Any]] = {}  # figures of these answers
        # How the networks of each teacher answer, by the path of the teacher: plain values.
        self.answering: dict[str, dict[str, Any]] = {}
        # Folders of networks that are no better than a constant, of which the person has been told.
        self.told: set[str] = set()
        # The processes that do the run together; None where it is one.
        self.ranks: Ranks | None = None
        # The draws of students that are trained at once and see the same, by their name.
        self.shared: dict[str, Shared] = {}

    @cached_property
    def hardware(self) -> Hardware:
        """The device, as far as precision depends on it; it need not be there."""
        return hardware(self.recipe.device.accelerator)

    @cached_property
    def precision(self) -> str:
        """The precision of the run: what the recipe says, or what ``auto`` became."""
        return resolve(self.recipe.device.precision, self.hardware, self._kept)

    @cached_property
    def _kept(self) -> str | None:
        return kept_precision(self.folder) if self.recipe.device.precision == AUTO else None

    @property
    def arithmetic(self) -> str:
        """A sentence on the precision and the device of the run."""
        return sentence(self.recipe.device.precision, self.hardware, self._kept)

    @property
    def chose(self) -> bool:
        """Whether ``auto`` became a precision that a person may not expect."""
        usual = self.hardware.kind == "cpu" and self.precision == "32-true"
        return self.recipe.device.precision == AUTO and not usual

    @property
    def execution(self) -> Execution:
        """How the steps of its trainings are carried out."""
        chosen = self.recipe.device
        return Execution(chosen.capture, chosen.compile, chosen.sync_batchnorm)

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Allow TF32 only where the recipe does, for the time of a block."""
        with float32_products(self.recipe.device.tf32):
            yield

    @cached_property
    def fabric(self) -> Fabric:
        """Device and precision.

        Raises:
            RecipeError: This machine has no such device.
        """
        # It takes as long to import as torch, and looking at a recipe needs none.
        from lightning_fabric import Fabric

        chosen = self.recipe.device
        precision: Any = self.precision
        try:
            if self.ranks is not None:
                return self.ranks.fabric(chosen.accelerator, precision)
            return Fabric(accelerator=chosen.accelerator, devices=1, precision=precision)
        except Exception as error:
            # Fabric reports a missing accelerator by exceptions of several kinds.
            problem = f"is {chosen.accelerator!r}: {error}"
            raise RecipeError("device.accelerator", problem) from error

    @cached_property
    def device(self) -> torch.device:
        """The device on which data and networks lie."""
        if self.hardware.kind == "cpu":
            return torch.device("cpu")
        if self.looks and self.hardware.kind == "cuda" and torch.cuda.is_available():
            return torch.device("cuda", 0)  # as Fabric has it, which takes seconds to import
        return self.fabric.device

    # -- data -------------------------------------------------------------------------------------

    def data_of(self, seed: int) -> Data:
        """Return the data set of one of the recipe's seeds."""
        return self.data(self.recipe.data_of(seed))

    def described_of(self, seed: int) -> Data:
        """Return the description of the data set of one of the recipe's seeds."""
        return self.described(self.recipe.data_of(seed))

    def evaluated(self, data: Data) -> Split:
        """Return the examples that results are measured on."""
        split = getattr(data, self.recipe.evaluation.split)
        assert isinstance(split, Split)
        return split

    # -- networks and samplers --------------------------------------------------------------------

    def network(self, spec: Any, data: Data, seed: int, key: str) -> nn.Module:
        """Return a network with its first weights, on the CPU; see :func:`first_network`."""
        with self.looking():
            return first_network(spec, data, seed, key)

    def sampler(
        self, chain: Any, data: Data, seed: int, key: str, context: Context | None = None
    ) -> Sampler:
        """Return the sampler that a chain describes.

        Args:
            chain: The chain, as a recipe writes it.
            data: Its data set.
            seed: Seed of the sampler itself.
            key: Where the chain stands in the recipe.
            context: Teacher, student and generators, where the chain needs them.
        """
        with self.looking():
            return build_sampler(chain, data, seed, key, context or Context())

    # -- results of stages ------------------------------------------------------------------------

    def record(self, path: str) -> dict[str, Any]:
        """Return the ``stage.json`` of a stage's folder.

        Raises:
            StorageError: It is missing or damaged.
        """
        return read_record(self.folder, path)

    def checksum(self, path: str, name: str) -> str | None:
        """Return the checksum of a file that a stage left; None if an earlier version kept none.

        Raises:
            StorageError: The record of the stage is damaged.
        """
        return recorded_files(self.folder, path).get(name)

    def weights(self, path: str) -> dict[str, Tensor]:
        """Return the tensors that a stage has left, checked against their checksum.

        Raises:
            StorageError: They are missing or damaged.
        """
        file, checksum = self.folder / path / WEIGHTS, self.record(path).get("sha256")
        with curing(f"restore it, or delete {str(file.parent)!r}, which `xcl run` then makes anew"):
            return load_weights(file, checksum)

    def made(self, thing: Made[T]) -> T:
        """Return the result of a stage; it is loaded once and kept."""
        if thing.path not in self.loaded:
            with self.looking():
                self.loaded[thing.path] = thing.load(self)
        found: T = self.loaded[thing.path]
        return found

    # -- answers ----------------------------------------------------------------------------------

    def predict(self, teacher: Teacher, data: Data, split: Split) -> Distribution:
        """Predict a split in the target's own units, on the CPU, at the run's precision."""
        with self.exact(), autocast(self.precision, self.device):
            return predict(teacher, data, split, self.recipe.evaluation.batch_size)

    def answers(self, path: str, data: Data, ask: Callable[[], Teacher]) -> Distribution:
        """Predict the split that results are measured on; remembered as long as there is room.

        Args:
            path: Path of the stage, or of the teacher, that is asked.
            data: Its data set.
            ask: Returns the network or teacher; called if its answers are not remembered.
        """
        if path in self.answered:
            return self.answered[path]
        asked = on_split(ask(), self.recipe.evaluation.split)
        found = self.predict(asked, data, self.evaluated(data))
        kept = sum(map(_bytes_of, self.answered.values()))
        if kept + _bytes_of(found) <= _REMEMBERED_BYTES:
            self.answered[path] = found
        return found


def read_record(run: Path, path: str) -> dict[str, Any]:
    """Return the ``stage.json`` of a stage.

    Args:
        run: The folder of the run.
        path: The folder of the stage in it; empty for the run's own.

    Raises:
        StorageError: It is missing or damaged, or that of another stage.
    """
    file = run / path / RECORD
    with curing("without it, `xcl run` makes that stage anew"):
        found = read_sealed(file)
        # Records of earlier versions do not say whose they are.
        whose = found.get(WHOSE, path)
        if whose != path:
            whose = repr(whose) if whose else "the run itself"
            raise StorageError(f"{str(file)!r} is not its own, but that of {whose}")
    return found


def records(run: Path, paths: Iterable[str]) -> list[dict[str, Any] | None]:
    """Return the ``stage.json`` of each stage; None for one that has none.

    Raises:
        StorageError: One is damaged, or that of another stage.
    """
    return [read_record(run, path) if (run / path / RECORD).is_file() else None for path in paths]


def recorded_files(run: Path, path: str) -> dict[str, str]:
    """Return the checksums of the files that a stage left, by their paths from its folder.

    Raises:
        StorageError: The record of the stage is damaged.
    """
    found = read_record(run, path).get("files") if (run / path / RECORD).exists() else None
    return found if isinstance(found, dict) else {}


def _bytes_of(answers: Distribution) -> int:
    """Return the memory that answers take; those in a file take none."""
    return 0 if isinstance(answers, Filed) else answers.parameters.nbytes


def first_network(spec: Any, data: Data, seed: int, key: str) -> nn.Module:
    """Return a network with its first weights, on the CPU.

    Args:
        spec: The network, as a recipe writes it.
        data: The data set, for shapes of inputs and number of outputs.
        seed: Seed of the training; all students of a seed start from the same weights.
        key: Where the spec stands in the recipe.

    Raises:
        RecipeError: The spec is wrong, or the network does not go with the data.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold(seed, "init") >> 1)
        module = build_model(
            spec, inputs=data.shapes, outputs=data.task.outputs, key=key, pixels=data.pixels
        )
    check_head(module, data.task, key)
    return module


def sampler_seed(seed: int) -> int:
    """Return the seed of the sampler of a training with this seed."""
    return rng.fold(seed, "sampler")
