"""Families of distributions beside the usual ones: what they cost, and what they are better at.

``epistemic``: does one network keep the disagreement of an ensemble? Eight networks on
scikit-learn's digits are the teacher; students of one member's size learn from them on plain,
mixed, noisy and altered draws. For each student: Spearman's ρ between its disagreement and the
ensemble's own, on the test examples, on the same rotated by 90 degrees, inverted, and on images of
noise, and on all four
together. Beside it the entropy of a student that knows no disagreement, which is what a user would
take instead.

``tables``: students of each family from the same ensembles, and from labels, on published splits of
two tables: RMSE, NLL in nats of the target's own units, CRPS, and coverage of the 90 % interval on
the test rows, means over splits. ``correlated``: Gaussians with a full covariance on two targets.

    OMP_NUM_THREADS=1 python benchmarks/families.py UCI_FOLDER [--parts epistemic tables correlated]
        [--seeds 3] [--steps 2000]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from extracurricular.data.base import Data, make_data
from extracurricular.data.sets import DATA
from extracurricular.distributions import Distribution
from extracurricular.evaluation import metrics
from extracurricular.evaluation.predict import predict
from extracurricular.inputs import Batch
from extracurricular.matching import Matching
from extracurricular.models import build_model, parameter_count
from extracurricular.models.cost import multiply_adds
from extracurricular.models.families import read_family, with_family
from extracurricular.samplers import build_sampler
from extracurricular.teachers import Ensemble, Labels, Network, Teacher
from extracurricular.teachers.apart import Apart
from extracurricular.training import Training, train

MEMBERS, HIDDEN = 8, 128
NOISY, ALTERED = ({"noise": {"std": std, "relative": True}} for std in (1.5, 0.5))
CHAINS = {
    "plain": ["empirical"],
    "mixed": ["empirical", "mixup", {"noise": {"std": 1.0, "relative": True}}],
    "altered": ["empirical", "trivial_augment", ALTERED],
    "noisy": ["empirical", "mixup", "mixup", NOISY],
}
WIDE: list[Any] = [{"blend": {k: {"weight": 1, "sampler": v} for k, v in CHAINS.items()}}]
BEYOND: list[Any] = [{"share": {"of": 0.5, "extended": ["empirical", {"noise": {"std": 0.1}}]}}]


def trained(
    data: Data, chain: Any, teacher: Teacher, hidden: list[int], seed: int, steps: int,
    family: Any = None, matching: dict[str, Any] | None = None,
) -> Network:  # fmt: skip
    """Train a network with a family, from a teacher whose members it sees apart if it can."""
    own, described = with_family(data, family), read_family(family)
    torch.manual_seed(seed)
    module: nn.Module = build_model(
        {"mlp": {"hidden": hidden}}, inputs=data.shapes, outputs=own.task.outputs
    )
    if described is not None and isinstance(teacher, Ensemble):
        teacher = Apart(teacher)
    usual = {} if described is None else described.matching
    settings = Training(
        steps=steps, batch_size=64, optimizer="adamw", lr=3e-3, weight_decay=1e-2, warmup=50
    )
    train(
        module, build_sampler(chain, data, seed=seed), teacher, own.task,
        matching=Matching(**{**usual, **(matching or {})}), settings=settings, seed=seed,
    )  # fmt: skip
    return Network(module, own.task)


def ensemble(data: Data, hidden: list[int], members: int, seed: int, steps: int) -> Ensemble:
    """Train the networks of a teacher from labels, each from a seed of its own."""
    return Ensemble(
        [
            trained(data, ["empirical"], Labels(), hidden, 100 * seed + k, steps)
            for k in range(members)
        ]
    )


# -- the disagreement of an ensemble ---------------------------------------------------------------


def foreign(data: Data) -> dict[str, Tensor]:
    """Return network inputs: the test examples, and examples that are foreign to the data."""
    x = data.test.x
    g = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, tuple(x.shape), generator=g, dtype=torch.uint8)
    raw = {"test": x, "rotated": x.transpose(-1, -2).flip(-1), "inverted": 255 - x, "noise": noise}
    return {name: data.inputs(one) for name, one in raw.items()}  # type: ignore[misc]


def asked(teacher: Any, x: Tensor) -> Batch:
    return Batch(torch.arange(len(x)), x)


def score(said: Distribution) -> Tensor:
    """Return the disagreement that a student knows; its entropy where it knows none."""
    return said.entropy() if said.disagreement is None else said.disagreement


ANNEALED = {"temperature": {"linear": [10, 1]}}
STUDENTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "categorical (its entropy)": (None, {}),
    "dirichlet": ("dirichlet", {}),
    "dirichlet, members": ({"dirichlet": {"match": "members"}}, ANNEALED),
}


def epistemic(seeds: int, steps: int) -> None:
    data = DATA.build("digits")
    examples = foreign(data)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in STUDENTS}
    for seed in range(seeds):
        teacher = ensemble(data, [HIDDEN], MEMBERS, seed, 600)
        own = {name: Apart(teacher)(asked(teacher, x)).disagreement for name, x in examples.items()}
        for name, (family, matching) in STUDENTS.items():
            student = trained(data, WIDE, teacher, [HIDDEN], seed, steps, family, matching)
            found = {part: score(student(asked(student, x))) for part, x in examples.items()}
            row = {part: rho(found[part], own[part]) for part in examples}
            row["together"] = rho(torch.cat(list(found.values())), torch.cat(list(own.values())))
            said = predict(student, data, data.test)
            row |= metrics.figures(said, data.test.y, teacher=predict(teacher, data, data.test))
            rows[name].append(row)
    one = student.module
    cost = f"{parameter_count(one):,} parameters, {multiply_adds(one, data.shapes):,} multiply-adds"
    print(f"\ndigits: {MEMBERS} members of the student's size; a student has {cost}")
    table(
        rows,
        ["test", "rotated", "inverted", "noise", "together", "accuracy", "nll", "kl_to_teacher"],
    )


def rho(a: Any, b: Any) -> float:
    return float(spearmanr(a.detach().numpy(), b.detach().numpy()).statistic)


# -- tables ----------------------------------------------------------------------------------------

FAMILIES: dict[str, Any] = {
    "gaussian": None,
    "student_t": "student_t",
    "mixture of 3": "mixture",
    "quantiles, 9": "quantiles",
    "normal_inverse_gamma": "normal_inverse_gamma",
    "the same, members": {"normal_inverse_gamma": {"match": "members"}},
}


def tables(folder: Path, seeds: int, steps: int) -> None:
    for name in ("concrete", "energy"):
        rows: dict[str, list[dict[str, float]]] = {}
        for split in range(seeds):
            data = DATA.build({"uci": {"path": str(folder / name), "split": split}})
            teacher = ensemble(data, [50], 5, split, steps)
            said = predict(teacher, data, data.test)
            rows.setdefault("teacher, 5 members", []).append(metrics.figures(said, data.test.y))
            own = [epistemic_of(teacher, data)]
            for title, family in FAMILIES.items():
                student = trained(data, BEYOND, teacher, [50], split, steps, family)
                answers = predict(student, data, data.test)
                row = metrics.figures(answers, data.test.y, teacher=said)
                if answers.disagreement is not None:
                    row["rho"] = rho(answers.disagreement[:, 0], own[0])
                rows.setdefault(title, []).append(row)
            for title in ("gaussian", "student_t", "mixture of 3", "quantiles, 9"):
                student = trained(data, BEYOND, Labels(), [50], split, steps, FAMILIES[title])
                answers = predict(student, data, data.test)
                rows.setdefault(f"{title}, labels", []).append(
                    metrics.figures(answers, data.test.y)
                )
        print(f"\n{name}, splits 0 to {seeds - 1}, one hidden layer of 50")
        table(rows, ["rmse", "nll", "crps", "coverage90", "kl_to_teacher", "rho"])


def epistemic_of(teacher: Ensemble, data: Data) -> Tensor:
    batch = Batch(torch.arange(len(data.test)), data.inputs(data.test.x))
    means = torch.stack([m.mean for m in teacher.members(batch)])
    return means.var(0)[:, 0]


def correlated(folder: Path, seeds: int, steps: int) -> None:
    """Two targets of concrete, strength and water, from its other columns."""
    rows: dict[str, list[dict[str, float]]] = {}
    whole = np.loadtxt(folder / "concrete" / "data.txt")
    x, y = np.delete(whole, [3, 8], axis=1), whole[:, [8, 3]]
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(x))
        parts = [order[200:], order[:100], order[100:200]]
        fit, test, held = ((x[p].astype(np.float32), y[p].astype(np.float32)) for p in parts)
        data = make_data("concrete", fit, test, held)
        teacher = ensemble(data, [50], 5, seed, steps)
        for title, family in {"gaussian": None, "full": "full"}.items():
            for how, asked_of in {"ensemble": teacher, "labels": Labels()}.items():
                student = trained(data, BEYOND, asked_of, [50], seed, steps, family)
                said = predict(student, data, data.test)
                rows.setdefault(f"{title}, {how}", []).append(metrics.figures(said, data.test.y))
    print("\nconcrete, two targets, strength and water")
    table(rows, ["rmse", "nll", "crps", "coverage90"])


def table(rows: dict[str, list[dict[str, float]]], names: Sequence[str]) -> None:
    print(f"{'':28s}" + "".join(f"{name:>15s}" for name in names))
    for title, found in rows.items():
        cells = []
        for name in names:
            values = [row[name] for row in found if name in row]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):8.3f} ±{spread:5.3f}" if values else "–")
        print(f"{title:28s}" + "".join(f"{cell:>15s}" for cell in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the folder of the UCI sets")
    parser.add_argument("--parts", nargs="+", default=["epistemic", "tables", "correlated"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000)
    given = parser.parse_args()
    started = time.perf_counter()
    for part in given.parts:
        if part == "epistemic":
            epistemic(given.seeds, given.steps)
        elif part == "tables":
            tables(given.folder, given.seeds, given.steps)
        else:
            correlated(given.folder, given.seeds, given.steps)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
