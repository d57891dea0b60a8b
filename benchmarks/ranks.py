"""One training by 1, 2 and 4 processes: how far their draws and losses are apart.

    python benchmarks/ranks.py [--worlds 1 2 4] [--steps 100] [--only WORDS]

Each training is done by each number of processes (gloo, on this machine), in float64 and in
float32, and its draws and the loss of each step are compared with those of one process. The last
column is of a training in float64 that 1 process begins, 2 go on with and 4 end. Exit status 1 if
draws differ, or losses by more than 1e-9 in float64, 1e-6 at the first step in float32, or, without
batch norms, 1e-3 later.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from extracurricular.data.base import Data, make_data
from extracurricular.data.sets import DATA
from extracurricular.distributions import Categorical
from extracurricular.knowledge import Replay, open_knowledge, record, recorded_form
from extracurricular.models import build_model
from extracurricular.run.ranks import Place, Ranks
from extracurricular.samplers import Context, Sampler, build_sampler
from extracurricular.teachers import Ensemble, Network, Teacher
from extracurricular.training import Training, train
from extracurricular.training.draw import draws

# Rows that are of interest in one way.
ONE_WAY = ("batch norm", "real")
LIMITS = {"float64": (1e-9, 1e-9), "float32": (1e-6, 1e-3)}
SIZE, RECORDED, DRAWN = 16, 512, 20


def digits() -> Data:
    return DATA.build({"digits": {"train": 400, "validation": 100}}, key="data")


def table(classes: bool = True) -> Data:
    made = np.random.default_rng(0)
    x = made.normal(size=(500, 8)).astype(np.float32)
    score = x[:, 0] * x[:, 1] + x[:, 2]
    y: Any = np.digitize(score, [-0.5, 0.5]) if classes else score[:, None].astype(np.float32)
    return make_data("table", (x, y), (x[:50], y[:50]), (x[:50], y[:50]))


def images() -> Data:
    made = np.random.default_rng(1)
    x = made.integers(0, 256, (200, 3, 32, 32)).astype(np.uint8)
    y = np.arange(200) % 10
    return make_data("images", (x, y), (x[:20], y[:20]), (x[:20], y[:20]))


def convolutions(data: Data) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2),
        nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, data.task.outputs),
    )  # fmt: skip


def built(spec: Any) -> Callable[[Data], nn.Module]:
    return lambda data: build_model(
        spec, inputs=data.shapes, outputs=data.task.outputs, pixels=data.pixels
    )


MLP = built({"mlp": {"hidden": [32]}})
CHAINS = {
    "Uncertain": ["empirical", "mixup", {"uncertain": {"candidates": 3}}],
    "Blend": [{"blend": {
        "mixed": {"weight": 0.5, "sampler": ["empirical", "mixup"]},
        "noisy": {"weight": 0.5, "sampler": ["empirical", {"noise": {"std": 0.1}}]},
    }}],
}  # fmt: skip
SETS: dict[str, tuple[Callable[[], Data], Callable[[Data], nn.Module]]] = {
    "digits, MLP": (digits, MLP),
    "table of 3 classes, MLP": (table, MLP),
    "images 32 × 32 × 3, CNN": (images, convolutions),
    "images 32 × 32 × 3, ResNet-8 (batch norm)": (images, built("resnet8")),
    "table of a real target, MLP": (lambda: table(classes=False), MLP),
}


@dataclass(frozen=True)
class Case:
    """A training: its data and network, its draws, and whether its teacher is recorded."""

    data: str
    chain: str
    recorded: bool

    @property
    def name(self) -> str:
        """The first cells of its row."""
        return f"{self.data} | {self.chain} | {'recorded' if self.recorded else 'online'}"


def cases(only: str) -> list[Case]:
    every = [
        Case(data, chain, recorded)
        for data in SETS
        for chain in CHAINS
        for recorded in (False, True)
        if (chain, recorded) == ("Blend", False) or not any(word in data for word in ONE_WAY)
    ]
    return [case for case in every if only in case.name]


class Wide(nn.Module):
    """A network that computes in float64 on inputs in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.double()

    def forward(self, x: Tensor) -> Tensor:
        """Return raw outputs, float64."""
        found: Tensor = self.network(x.double())
        return found


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


def network(case: Case, data: Data, seed: int, wide: bool) -> nn.Module:
    torch.manual_seed(seed)
    made = SETS[case.data][1](data)
    return Wide(made) if wide else made


def lesson(case: Case, data: Data, wide: bool, folder: Path) -> tuple[Sampler, Teacher]:
    members = [Network(network(case, data, seed, wide).eval(), data.task) for seed in (1, 2)]
    teacher: Teacher = Ensemble(members)
    sampler = build_sampler(CHAINS[case.chain], data, 7, context=Context(teacher))
    if not case.recorded:
        return sampler, teacher
    if not (folder / "manifest.json").exists():  # one process alone is the first
        record(sampler, teacher, data, RECORDED, folder, codec="float32")
    known = open_knowledge(folder)
    choices = known.choices if known.manifest.origin.choice else None
    return Replay(recorded_form(sampler), RECORDED, 5, choices), known


def losses(
    case: Case,
    data: Data,
    wide: bool,
    lessons: tuple[Sampler, Teacher],
    settings: Training,
    fabric: Any,
    to: Path | None = None,
    stop: int | None = None,
) -> list[float]:
    """Train, and return the loss of each step."""
    lines: list[dict[str, Any]] = []
    with in_float64(wide):
        train(
            network(case, data, 3, wide), *lessons, data.task, folder=to,
            settings=settings, fabric=fabric, on_log=lines.append, stop=stop,
        )  # fmt: skip
    return [line["loss"] for line in lines]


def part(folder: Path, steps: int, only: str, begin_to: int) -> None:
    """Do all trainings in this process, one of several."""
    place = Place.here(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    ranks = Ranks(place, place.world, None)
    found: dict[str, Any] = {}
    settings = Training(
        steps=steps, batch_size=SIZE, optimizer="adamw", lr=0.01, evaluate_every=1, ema=0.9,
        checkpoint_every=10,
    )  # fmt: skip
    for number, case in enumerate(cases(only)):
        data = SETS[case.data][0]()
        for name in LIMITS:
            wide = name == "float64"
            if wide and "real" in case.data:
                continue  # Gaussians compute in float32
            fabric = ranks.fabric("cpu", "64-true" if wide else "32-true")
            own = folder / f"{number}-{name}"
            lessons = lesson(case, data, wide, own / "record")

            some = [batch for batch, _ in draws(*lessons, settings, 0, fabric=fabric, end=DRAWN)]
            found[f"{case.name} {name}"] = {
                "losses": losses(case, data, wide, lessons, settings, fabric),
                "ids": torch.stack([batch.ids for batch in some]),
                "x": torch.stack([batch.x for batch in some]),  # type: ignore[misc]
                "resumed": losses(
                    case, data, wide, lessons, settings, fabric, own / "resumed", begin_to
                )
                if wide
                else [],
            }
    torch.save(found, folder / f"{place.world}-{place.rank}.pt")
    ranks.leave()


def apart(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    """Return the relative difference of the first losses, and the largest of all."""
    both = [abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True)]
    return both[0], max(both)


def compare(folder: Path, worlds: list[int], only: str) -> bool:
    """Print the table, and return whether everything is within the limits."""
    load = torch.load
    found = {w: [load(folder / f"{w}-{r}.pt", weights_only=True) for r in range(w)] for w in worlds}
    others = [w for w in worlds if w > 1]
    heads = [f"{w}: {what}" for w in others for what in ("draws", "float64", "float32")]
    print("| data, network | draws | teacher | " + " | ".join([*heads, "resumed"]) + " |")
    print("|---|---|---|" + "---:|" * (len(heads) + 1))
    fine = True
    for case in cases(only):
        cells = []
        for world in others:
            figures, equal = [], True
            for name, (first_limit, limit) in LIMITS.items():
                key = f"{case.name} {name}"
                if key not in found[1][0]:
                    figures.append("–")
                    continue
                alone = found[1][0][key]
                for what in ("ids", "x"):
                    joined = torch.cat([one[key][what] for one in found[world]], dim=1)
                    equal &= torch.equal(joined, alone[what])
                first, most = apart(found[world][0][key]["losses"], alone["losses"])
                # The statistics of batch norms let rounding in float32 grow from step to step.
                grows = "batch norm" in case.data and name == "float32"
                fine &= first <= first_limit and (grows or most <= limit)
                figures.append(f"{first:.0e}, {most:.0e}" if name == "float32" else f"{most:.0e}")
            fine &= equal
            cells += ["equal" if equal else "OTHER", *figures]
        key, resumed = f"{case.name} float64", "–"
        if key in found[1][0]:
            parts = [loss for world in worlds for loss in found[world][0][key]["resumed"]]
            _, most = apart(parts, found[1][0][key]["losses"])
            fine &= most <= LIMITS["float64"][1]
            resumed = f"{most:.0e}"
        print(f"| {case.name} | " + " | ".join([*cells, resumed]) + " |")
    return fine


def main() -> int:
    """Do it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--worlds", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--only", default="", help="part of the row's name")
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--begin-to", type=int, default=0, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.part is not None:
        part(chosen.part, chosen.steps, chosen.only, chosen.begin_to)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        for place, world in enumerate(chosen.worlds):
            to = chosen.steps * (place + 1) // len(chosen.worlds)
            command = [
                sys.executable, "-m", "torch.distributed.run", "--standalone",
                "--nproc-per-node", str(world), __file__, "--part", folder,
                "--steps", str(chosen.steps), "--only", chosen.only, "--begin-to", str(to),
            ]  # fmt: skip
            subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return 0 if compare(Path(folder), chosen.worlds, chosen.only) else 1


if __name__ == "__main__":
    sys.exit(main())
