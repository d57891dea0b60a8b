"""Matchings side by side: the same teacher, draws, steps and rate; only the loss differs.

Each matching has a small grid of settings, or one. The one with the best NLL on the validation
rows of one seed is trained with five others and measured on the test split: accuracy, NLL, and KL
from the teacher, as means with the standard error of the difference to ``forward_kl`` over seeds.
Students start from the same weights and see the same draws, seed by seed.

``plant`` is the UCI power-plant table with its target in ten classes of equal size. ``hints``
matches features, and ``views`` shows the teacher a weaker draw than the student, on digits.

    python benchmarks/matchings.py --uci FOLDER [--sets digits plant hints views] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

from extracurricular.data.base import Data, Split, make_data
from extracurricular.data.sets import DATA
from extracurricular.evaluation import metrics
from extracurricular.evaluation.predict import predict
from extracurricular.matching import Matching
from extracurricular.models import build_model
from extracurricular.samplers import build_sampler
from extracurricular.teachers import Ensemble, Labels, Network
from extracurricular.training import Training, train
from extracurricular.training.additions import Additions
from extracurricular.training.features import Features

CHOICE_SEEDS, SEEDS = (100,), (0, 1, 2, 3, 4)
STEPS = {"digits": 600, "plant": 600, "hints": 300, "views": 300}
# Members of the teacher.
MEMBERS = {"digits": 3, "plant": 3, "hints": 1, "views": 1}

LABELS = 0.1
T = (1.0, 4.0)
LOSSES: dict[str, list[dict[str, Any]]] = {
    "forward_kl": [{"temperature": t} for t in T],
    "js": [{"divergence": "js", "temperature": t} for t in T],
    "dkd": [
        {"divergence": {"dkd": {"beta": beta}}, "temperature": t}
        for beta in (1.0, 8.0)
        for t in (1.0, 4.0)
    ],
    "dist": [
        {"divergence": "dist", "temperature": t, "label_weight": w}
        for t in (1.0,)
        for w in (LABELS, 0.5)
    ],
    "standardised": [
        {"divergence": "standardised", "temperature": t, "label_weight": w}
        for t in (1.0, 4.0)
        for w in (LABELS, 0.5)
    ],
    "temperatures": [
        {"divergence": {"temperatures": {"values": values}}}
        for values in ([1.0, 2.0, 4.0], [2.0, 3.0, 4.0, 5.0, 6.0])
    ],
}
MLP = {"mlp": {"hidden": [16]}}
CNN = {"digits_cnn": {"width": 4, "depth": 1}}
WIDE = {"digits_cnn": {"width": 16, "depth": 1}}
SHIFTED: list[Any] = ["empirical", {"augment": {"pad": 1}}]
STRONG = ("cutout", "trivial_augment")


def hints(loss: str, *weights: float) -> list[dict[str, Any]]:
    """Return ways to match the features of the first stage."""
    layers = {"student": "3", "teacher": "3", "loss": loss}
    return [{"features": {**layers, "weight": weight}} for weight in weights]


# Teacher, student, chain, and what is compared.
SETS: dict[str, dict[str, Any]] = {
    "digits": {
        "teacher": {"mlp": {"hidden": [256, 256]}}, "student": MLP,
        "chain": ["empirical", {"noise": {"std": 0.3}}], "ways": LOSSES,
    },
    "plant": {
        "teacher": {"mlp": {"hidden": [256, 256]}}, "student": MLP,
        "chain": ["empirical", {"noise": {"std": 0.05}}], "ways": LOSSES,
    },
    "hints": {
        "teacher": WIDE, "student": CNN, "chain": SHIFTED,
        "ways": {
            "forward_kl": [{}],
            "mse": hints("mse", 0.1),
            "attention": hints("attention", 100.0),
            "similarity": hints("similarity", 100.0),
        },
    },
    "views": {
        "teacher": WIDE, "student": CNN, "chain": SHIFTED,
        "ways": {
            "forward_kl": [{}],
            "strong": [{"chain": [*SHIFTED, one]} for one in STRONG],
            "weak and strong": [{"chain": [*SHIFTED, "weak", one]} for one in STRONG],
        },
    },
}  # fmt: skip


def plant(folder: Path) -> Data:
    """Return the power-plant table with its target in ten classes of equal size."""
    read = DATA.build({"uci": {"path": str(folder), "split": 0, "validation": 0.2}}, key="data")

    def raw(split: Split) -> tuple[np.ndarray, np.ndarray]:
        assert isinstance(split.x, torch.Tensor)
        assert split.y is not None
        return split.x.numpy(), split.y.numpy()[:, 0]

    parts = [raw(part) for part in (read.train, read.validation, read.test)]
    edges = np.quantile(parts[0][1], np.linspace(0, 1, 11)[1:-1])
    return make_data("plant", *[(x, np.digitize(y, edges)) for x, y in parts])


def made(spec: Any, data: Data, seed: int) -> torch.nn.Module:
    """Return a network with its first weights."""
    torch.manual_seed(seed)
    return build_model(spec, inputs=data.shapes, outputs=data.task.outputs, pixels=data.pixels)


def taught(name: str, data: Data) -> Ensemble:
    """Return the teacher of a set."""
    members = []
    for seed in range(MEMBERS[name]):
        network = made(SETS[name]["teacher"], data, 1000 + seed)
        chain = build_sampler(SETS[name]["chain"], data, 1000 + seed)
        train(network, chain, Labels(), data.task, settings=Training(steps=STEPS[name]), seed=seed)
        members.append(Network(network.eval(), data.task))
    return Ensemble(members)


def student(
    name: str, way: dict[str, Any], seed: int, data: Data, teacher: Any, split: Split
) -> dict[str, float]:
    """Train a student; return its figures on a split."""
    loss = {k: v for k, v in way.items() if k not in ("features", "chain")}
    features = Features(**way["features"]) if "features" in way else None
    network = made(SETS[name]["student"], data, seed)
    sampler = build_sampler(way.get("chain", SETS[name]["chain"]), data, seed)
    train(
        network, sampler, teacher, data.task, matching=Matching(**loss), seed=seed,
        settings=Training(steps=STEPS[name]), additions=Additions(features),
    )  # fmt: skip
    said = predict(Network(network, data.task), data, split)
    found = metrics.figures(said, split.y, teacher=predict(teacher, data, split))
    return {key: found[key] for key in ("accuracy", "nll", "kl_to_teacher")}


def main() -> None:
    """Measure what the file lacks, and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--uci", type=Path, default=Path())
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--out", type=Path, default=Path("matchings.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(given.out.read_text()) if given.out.exists() else {}
    for name in given.sets:
        data = (
            plant(given.uci / "power-plant")
            if name == "plant"
            else DATA.build("digits", key="data")
        )
        teacher: Any = None
        chosen: dict[str, dict[str, Any]] = {}

        def measure(
            way: dict[str, Any], seed: int, part: str, name: str = name, data: Data = data
        ) -> dict[str, float]:
            nonlocal teacher
            key = f"{name} {json.dumps(way)} {seed} {part}"
            if key not in known:
                teacher = teacher or taught(name, data)
                known[key] = student(name, way, seed, data, teacher, getattr(data, part))
                given.out.write_text(json.dumps(known))
            found: dict[str, float] = known[key]
            return found

        for title, ways in SETS[name]["ways"].items():
            scores = [
                0.0 if len(ways) == 1
                else sum(measure(way, seed, "validation")["nll"] for seed in CHOICE_SEEDS)
                for way in ways
            ]  # fmt: skip
            chosen[title] = ways[scores.index(min(scores))]
        usual = [measure(chosen["forward_kl"], seed, "test") for seed in SEEDS]
        for title, way in chosen.items():
            cells = [measure(way, seed, "test") for seed in SEEDS]
            print(
                f"{name:7} {title:16}",
                *(row(cells, usual, key) for key in cells[0]),
                json.dumps(way),
                flush=True,
            )


def row(cells: list[dict[str, float]], usual: list[dict[str, float]], key: str) -> str:
    """Return the mean of a figure, and its difference to the usual loss with a standard error."""
    apart = [one[key] - other[key] for one, other in zip(cells, usual, strict=True)]
    error = statistics.stdev(apart) / math.sqrt(len(apart))
    mean = statistics.mean(one[key] for one in cells)
    return f"{key} {mean:.4f} ({statistics.mean(apart):+.4f} ± {error:.4f}) "


if __name__ == "__main__":
    main()
