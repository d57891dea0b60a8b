"""Trainings that must be the same for any number of processes; run by ``torchrun``, they save what
came of each: ``torchrun --nproc-per-node N tests/training/rank_cases.py FOLDER``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from extracurricular import rng
from extracurricular.data.base import Data
from extracurricular.distributions import Categorical, Distribution
from extracurricular.errors import TrainingError
from extracurricular.inputs import Batch
from extracurricular.knowledge import Replay, open_knowledge, record, recorded_form
from extracurricular.matching import Matching
from extracurricular.matching.class_weight import ClassWeights
from extracurricular.models import build_model
from extracurricular.run.ranks import Place, Ranks
from extracurricular.samplers import Context, Sampler, build_sampler
from extracurricular.teachers import Ensemble, Network, Teacher
from extracurricular.training import Execution, Training, mastery_of, train
from extracurricular.training.draw import draws
from tests.conftest import image_data, small_teacher

if TYPE_CHECKING:
    from lightning_fabric import Fabric

DATA = image_data(count=120)
STEPS = 24
WEIGHTS = ClassWeights((0.5, 1.0, 1.0, 1.5), whole=False)
UNCERTAIN = [
    "empirical", {"mixup": {"alpha": 1.0}}, {"uncertain": {"candidates": 3, "tau": 0.5}},
]  # fmt: skip
BLEND = [
    {"blend": {
        "mixed": {"weight": 0.5, "sampler": ["empirical", "mixup"]},
        "noisy": {"weight": 0.5, "sampler": ["empirical", {"noise": {"std": 0.1}}]},
    }}
]  # fmt: skip


@contextmanager
def in_float64(wide: bool) -> Iterator[None]:
    """Let distributions of classes, which compute in float32, compute in float64."""
    narrow = Categorical.log_probs
    double = property(lambda self: torch.log_softmax(self.logits.double(), -1))
    try:
        Categorical.log_probs = double if wide else narrow  # type: ignore[assignment]
        yield
    finally:
        Categorical.log_probs = narrow  # type: ignore[method-assign]


class Wide(nn.Module):
    """A network that computes in float64 on inputs in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.double())


class Normed(nn.Module):
    """A network with batch norms, and a layer that no loss reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
            nn.Linear(144, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4),
        )  # fmt: skip
        self.unused = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found


@dataclass(frozen=True)
class Weighted:
    """Draws with weights."""

    child: Sampler

    def __call__(self, ids: Tensor) -> Batch:
        batch = self.child(ids)
        return replace(batch, weight=0.5 + rng.uniform(1, ids, "weight").double())


@dataclass
class Faulty:
    """A teacher that gives NaN for one draw, which is the last rank's."""

    teacher: Teacher
    at: int

    def __call__(self, batch: Batch) -> Distribution:
        said = self.teacher(batch)
        bad = (batch.ids == self.at)[:, None]
        return Categorical(torch.where(bad, torch.nan, said.parameters))


@dataclass(frozen=True)
class Case:
    """A training."""

    chain: Any = "empirical"
    settings: dict[str, Any] = field(default_factory=dict)
    matching: Matching = field(default_factory=Matching)
    network: Callable[[], nn.Module] | None = None
    wide: bool = True
    recorded: bool = False
    faulty: int | None = None
    sync: bool = True
    weighted: bool = False

    def student(self) -> nn.Module:
        torch.manual_seed(3)
        if self.network is not None:
            built = self.network()
        else:
            built = build_model({"mlp": {"hidden": [8]}}, inputs=DATA.shapes, outputs=4)
        return Wide(built) if self.wide else built

    def lesson(self, folder: Path) -> tuple[Data, Sampler, Teacher]:
        teacher: Teacher = small_teacher(DATA)
        if self.wide:
            members = [Wide(one.module) for one in teacher.teachers]  # type: ignore[attr-defined]
            teacher = Ensemble([Network(one, DATA.task) for one in members])
        sampler = build_sampler(self.chain, DATA, 7, context=Context(teacher))
        if self.recorded:
            if not (folder / "manifest.json").exists():
                record(sampler, teacher, DATA, 96, folder, codec="float32")
            known = open_knowledge(folder)
            sampler, teacher = Replay(recorded_form(sampler), 96, 5, known.choices), known
        if self.weighted:
            sampler = Weighted(sampler)
        if self.faulty is not None:
            teacher = Faulty(teacher, self.faulty)
        return DATA, sampler, teacher

    def training(self) -> Training:
        return Training(**{
            "steps": STEPS, "batch_size": 16, "optimizer": "adamw", "lr": 0.01,
            "checkpoint_every": 7, **self.settings,
        })  # fmt: skip

    def losses(
        self, folder: Path, ranks: Ranks | None = None, stop: int | None = None
    ) -> list[float]:
        """Losses of all steps, by one process or by several."""
        fabric = self.fabric(ranks)
        data, sampler, teacher = self.lesson(folder / "record")
        lines: list[dict[str, Any]] = []
        settings = self.training()
        mastery = None
        if "share" in str(self.chain):
            mastery = mastery_of(self.chain, data, teacher, settings, fabric, seed=7)
        with in_float64(self.wide):
            train(
                self.student(), sampler, teacher, data.task, matching=self.matching,
                settings=settings, fabric=fabric, folder=folder / "training", stop=stop,
                on_log=lines.append, mastery=mastery,
                execution=Execution(sync_batchnorm=self.sync),
            )  # fmt: skip
        return [line["loss"] for line in lines]

    def fabric(self, ranks: Ranks | None) -> Fabric:
        """The processes: these, or one alone."""
        from lightning_fabric import Fabric

        precision: Any = "64-true" if self.wide else "32-true"
        if ranks is not None:
            return ranks.fabric("cpu", precision)
        return Fabric(accelerator="cpu", devices=1, precision=precision)

    def drawn(self, folder: Path, ranks: Ranks | None = None) -> dict[str, Tensor]:
        """Draws and answers of the first steps, [steps, B / world, …]."""
        fabric = self.fabric(ranks)
        _, sampler, teacher = self.lesson(folder / "record")
        parts = list(draws(sampler, teacher, self.training(), 0, fabric=fabric, end=5))
        return {
            "ids": torch.stack([batch.ids for batch, _ in parts]),
            "x": torch.stack([batch.x for batch, _ in parts]),  # type: ignore[misc]
            "target": torch.stack([target.parameters for _, target in parts]),
        }


CASES = {
    "plain": Case(),
    "float32": Case(wide=False),
    "uncertain": Case(UNCERTAIN),
    "blend": Case(BLEND, {"ema": 0.9, "clip_norm": 0.5}),
    "recorded": Case(UNCERTAIN, recorded=True),
    "weighted": Case(
        ["balanced"],
        matching=Matching(label_weight=0.5, class_weight=WEIGHTS, label_smoothing=0.1),
        weighted=True,
    ),
    "normed": Case(["empirical", "mixup"], {"accumulate": 2}, network=Normed),
    "auto": Case(
        [{"share": {"extended": ["empirical", "mixup"]}}], {"steps": 96, "optimizer": "sgd"}
    ),
}
DRAWN = ("uncertain", "blend", "recorded", "weighted")
# The draw of the fault lies in the slice of the last of two.
FAULTY = Case(faulty=16 * 3 + 13)
UNEVEN = Case(network=Normed, sync=False)


def refusal(case: Case, folder: Path, ranks: Ranks | None = None) -> str:
    try:
        case.losses(folder, ranks)
    except TrainingError as error:
        return str(error)
    raise AssertionError("it was not refused")


def sharded(ranks: Ranks) -> dict[str, Any]:
    """Answers of a network that is sharded, beside its own, and the part that each rank holds."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    network = nn.Sequential(
        nn.Linear(8, 32), nn.TransformerEncoder(layer, 3), nn.Flatten(), nn.Linear(256, 5)
    ).eval()
    x = torch.randn(3 + ranks.place.rank, 8, 8)
    whole = sum(weight.numel() for weight in network.parameters())
    with torch.no_grad():
        wanted = network(x)
        found = ranks.shard("it", network, torch.device("cpu"))
        differences = [float((found(x) - wanted).abs().max()) for _ in range(2)]
    return {"difference": max(differences), "held": found.held / whole}


def main(folder: Path) -> None:
    """Do all cases in this process, one of several."""
    place = Place.here(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    ranks = Ranks(place, place.world, None)
    found: dict[str, Any] = {"losses": {}, "drawn": {}}
    for name, case in CASES.items():
        found["losses"][name] = case.losses(folder / name, ranks)
    for name in DRAWN:
        found["drawn"][name] = CASES[name].drawn(folder / name, ranks)
    found["faulty"] = refusal(FAULTY, folder / "faulty", ranks)
    found["uneven"] = UNEVEN.losses(folder / "uneven", ranks)
    # One began alone, and goes on here; another begins here.
    found["resumed"] = CASES["blend"].losses(folder / "begun alone", ranks)
    CASES["uncertain"].losses(folder / "begun by two", ranks, stop=10)
    with ranks.together():
        found["sharded"] = sharded(ranks)
    torch.save(found, folder / f"rank-{place.rank}.pt")
    ranks.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
