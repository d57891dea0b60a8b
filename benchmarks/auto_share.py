"""`share: auto` against KD that draws every example, on ten data sets at three budgets each.

A cell is a data set and a number of steps of 64. Teacher, students, draws and budgets are the same
in all cells of a kind; seeds have training rows (or splits) of their own. ``kd`` draws all stored
examples, ``all`` extended ones alone, ``auto`` what the student's mastery asks for. For each cell
the table shows kd's figure, and of ``auto`` less ``kd``: 100 · ln of the ratio of the KL from the
teacher on test rows, the error (rate, or RMSE in standard deviations) and the NLL, each with its
standard error over seeds. Negative is better. Below it stand the cells in which ``auto`` is worse,
after Holm's correction over all cells and both figures.

    python benchmarks/auto_share.py --uci FOLDER [--cifar FOLDER] [--sets digits300 concrete …]
                                    [--seeds 10] [--out FILE] [--minutes N]

It goes on with the cells that FILE does not hold yet. The folders are those of the recipes ``uci``
(with ``concrete``, ``energy``, …) and ``cifar100``.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from extracurricular.data.base import Data, make_data
from extracurricular.data.sets import DATA
from extracurricular.evaluation import metrics
from extracurricular.evaluation.predict import predict
from extracurricular.matching import Matching, forward_kl
from extracurricular.models import build_model
from extracurricular.samplers import build_sampler
from extracurricular.teachers import Ensemble, Labels, Network, Teacher
from extracurricular.training import Training, cpu_fabric, mastery_of, train

# Rows of the training split (all where None), and steps.
CELLS: dict[str, tuple[int | None, tuple[int, ...]]] = {
    "digits300": (300, (150, 600, 2400)),
    "digits1000": (1000, (150, 600, 2400)),
    "concrete@200": (200, (250, 1000, 4000)),
    "concrete": (None, (250, 1000, 4000)),
    "energy": (None, (250, 1000, 4000)),
    "kin8nm@300": (300, (250, 1000, 4000)),
    "kin8nm": (None, (250, 1000, 4000)),
    "cifar5000": (5000, (300, 1200, 2400)),
    "cifar20000": (20000, (200, 600, 1800)),
    # Looked at only once the rule was fixed.
    "gaze": (250, (300, 1200, 2400)),
    "power-plant@300": (300, (250, 1000, 4000)),
}
IMAGES_OF_A_CAMERA = ("cifar5000", "cifar20000", "gaze")
FEW_SEEDS = 3


def data_of(name: str, seed: int, options: Any) -> Data:
    """Return the data set of a cell with the training rows of a seed."""
    rows = CELLS[name][0]
    rng = np.random.default_rng(seed)
    if name.startswith("digits"):
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        order = rng.permutation(len(x))
        x = x.astype(np.float32)
        train, test = order[:rows], order[rows:]
        return make_data(name, (x[train], y[train]), (x[test], y[test]))
    if name.startswith("cifar"):
        return coarse(name, rows or 0, rng, options.cifar)
    if name == "gaze":
        spec = {"train_persons": 50, "train_images": 5, "test_persons": 40, "seed": seed}
        return DATA.build({"gaze": spec}, key="data")
    table = name.partition("@")[0]
    spec = {"path": str(options.uci / table), "split": seed, "validation": 0.0}
    whole = DATA.build({"uci": spec}, key="data")
    if rows is None:
        return whole
    few = whole.train[torch.from_numpy(rng.permutation(len(whole.train))[:rows])]
    assert few.y is not None
    assert whole.test.y is not None
    return make_data(
        name,
        (few.x.numpy(), few.y.numpy()),  # type: ignore[union-attr]
        (whole.test.x.numpy(), whole.test.y.numpy()),  # type: ignore[union-attr]
    )


def coarse(name: str, rows: int, rng: np.random.Generator, folder: Path) -> Data:
    """Return CIFAR-100's 20 coarse classes at 16 × 16."""
    import torch.nn.functional as F

    found = DATA.build({"cifar100": {"path": str(folder), "coarse": True}}, key="data")

    def small(split: Any, rows: Any) -> tuple[Any, Any]:
        part = split[torch.from_numpy(rows)]
        return F.avg_pool2d(part.x.float(), 2).round().byte().numpy(), part.y.numpy()

    train = rng.permutation(len(found.train))[:rows]
    return make_data(name, small(found.train, train), small(found.test, np.arange(5000)))


def training(steps: int, wide: bool) -> Training:
    """Return the training of all networks: AdamW, cosine, a twentieth of warm-up."""
    return Training(
        steps=steps, batch_size=64, optimizer="adamw", lr=3e-3, weight_decay=0.05 if wide else 0.01,
        warmup=max(1, steps // 20), checkpoint_every=10**9,
    )  # fmt: skip


def student_spec(data: Data) -> Any:
    """Return the student: 32 units, or a small convolutional network."""
    if data.angular:
        return {"gaze_preact_resnet": {"width": 4, "stem_stride": 2, "pool": [3, 5]}}
    if data.pixels is None:
        return {"mlp": {"hidden": [32]}}
    return {"digits_cnn": {"width": 16, "depth": 2}}


def teacher_spec(data: Data) -> Any:
    """Return a network of the teacher."""
    if data.angular:
        return {"gaze_preact_resnet": {"width": 8, "stem_stride": 2, "pool": [5, 8]}}
    if data.pixels is None:
        return {"mlp": {"hidden": [128, 128]}}
    return {"digits_cnn": {"width": 48, "depth": 2}}


def noise(data: Data, std: float) -> Any:
    """Return the spec of noise on the main input."""
    return {"noise": {"std": {"eye": std} if data.angular else std}}


def plain(data: Data) -> list[Any]:
    """Return the chain of plain draws: those of a camera are shifted."""
    return ["empirical", {"augment": {"pad": 2}}] if data.pixels or data.angular else ["empirical"]


def extended(data: Data) -> list[Any]:
    """Return the chain of extended draws: half with noise, half mixed."""
    parts = {"noisy": noise(data, 0.25), "mixed": "mixup"}
    return [
        {
            "blend": {
                name: {"weight": 0.5, "sampler": [*plain(data), part]}
                for name, part in parts.items()
            }
        }
    ]


def network(spec: Any, data: Data, seed: int) -> torch.nn.Module:
    """Return a network with first weights of a seed."""
    torch.manual_seed(seed)
    return build_model(spec, inputs=data.shapes, outputs=data.task.outputs, pixels=data.pixels)


def teacher_of(name: str, data: Data, seed: int) -> Teacher:
    """Train the teacher: three networks, on labels and slightly noisy examples."""
    photos = name in IMAGES_OF_A_CAMERA
    steps = {"cifar5000": 1500, "cifar20000": 2500, "gaze": 1000}.get(name, 2000)
    steps = 600 if name.startswith("digits") else steps
    chain = [*plain(data), noise(data, 0.25 if data.task.kind == "classification" else 0.05)]
    members = []
    for k in range(1 if photos else 3):
        module = network(teacher_spec(data), data, 100 * seed + k)
        sampler = build_sampler(chain, data, 100 * seed + k)
        train(module, sampler, Labels(), data.task, settings=training(steps, photos), seed=k)
        members.append(Network(module.eval(), data.task))
    return Ensemble(members)


def distilled(way: str, data: Data, teacher: Teacher, steps: int, seed: int) -> dict[str, float]:
    """Train a student in one way, and return its figures on the test rows."""
    shared = {"extended": extended(data), "plain": plain(data)}
    of = {"kd": 0.0, "all": 1.0, "auto": "auto"}[way]
    chain = plain(data) if way == "kd" else [{"share": {"of": of, **shared}}]
    student = network(student_spec(data), data, 7 + seed)
    temperature = 4.0 if data.task.kind == "classification" else 1.0
    settings, lines = training(steps, False), list[dict[str, Any]]()
    train(
        student,
        build_sampler(chain, data, seed),
        teacher,
        data.task,
        matching=Matching(temperature=temperature),
        settings=settings,
        seed=seed,
        on_log=lines.append,
        mastery=mastery_of(
            chain, data, teacher, settings, cpu_fabric(), seed=seed, temperature=temperature
        ),
    )
    said = predict(Network(student.eval(), data.task), data, data.test)
    wanted = predict(teacher, data, data.test)
    assert data.test.y is not None
    found = metrics.figures(said, data.test.y, teacher=wanted, angular=data.angular)
    if data.task.kind == "classification":
        error = 1 - found["accuracy"]
    else:
        assert data.y_scale is not None
        error = found["rmse"] / float(data.y_scale.scale.mean())
    figures = {"error": error, "nll": found["nll"], "kl": float(forward_kl(wanted, said).mean())}
    last = [line["mastery"] for line in lines if "mastery" in line]
    if last:
        figures |= {key: last[-1].get(key, 0.0) for key in ("mastery", "se", "share")}
    return figures


# -- figures --------------------------------------------------------------------------------------


def difference(cell: dict[str, Any], way: str, figure: str) -> tuple[float, float, float]:
    """Return mean and standard error of a way less kd over seeds, and the one-sided p of worse."""
    seeds = [seed for seed in cell if way in cell[seed] and "kd" in cell[seed]]
    a, b = (np.array([cell[s][w][figure] for s in seeds]) for w in (way, "kd"))
    values = 100 * np.log(a / b) if figure == "kl" else a - b
    spread = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    p = float(stats.t.sf(values.mean() / spread, len(values) - 1)) if spread > 0 else 1.0
    return float(values.mean()), float(spread), p


def holm(found: dict[str, float]) -> dict[str, float]:
    """Return p values after Holm's correction (1979)."""
    kept, most = {}, 0.0
    for rank, name in enumerate(sorted(found, key=found.__getitem__)):
        most = max(most, min(1.0, found[name] * (len(found) - rank)))
        kept[name] = most
    return kept


def show(results: dict[str, Any]) -> None:
    """Print the table, and in which cells ``auto`` is worse than ``kd``."""
    worse: dict[str, float] = {}
    print(
        f"{'cell':22} {'kd: error, NLL':>18}   "
        "auto - kd: 100 ln KL, error, NLL (se)   all: 100 ln KL"
    )
    for name, cell in results.items():
        seeds = [seed for seed in cell if {"kd", "auto"} <= set(cell[seed])]
        if not seeds:
            continue
        mean = {f: np.mean([cell[s]["kd"][f] for s in seeds]) for f in ("error", "nll")}
        line = f"{name:22} {mean['error']:9.4f} {mean['nll']:8.3f}   "
        for figure, places in (("kl", 0), ("error", 4), ("nll", 3)):
            d, se, p = difference(cell, "auto", figure)
            line += f"{d:+9.{places}f} ({se:.{places}f})"
            if figure != "kl" and len(seeds) > 1:
                worse[f"{name}, {figure}"] = p
        masteries = np.mean([cell[s]["auto"].get("mastery", 0.0) for s in seeds])
        share = np.mean([cell[s]["auto"].get("share", 0.0) for s in seeds])
        if any("all" in cell[s] for s in seeds):
            d, se, _ = difference(cell, "all", "kl")
            line += f"   {d:+5.0f} ({se:.0f})"
        print(f"{line}   m {masteries:.2f}, share {share:.2f}, n {len(seeds)}")
    corrected = holm(worse)
    bad = [name for name, p in corrected.items() if p < 0.05]
    raw = [name for name, p in worse.items() if p < 0.025]
    print(f"worse than kd after Holm's correction: {', '.join(bad) or 'none'}")
    print(f"worse by more than about two standard errors: {', '.join(raw) or 'none'}")


def main() -> int:
    """Run the cells that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--uci", type=Path, default=Path("UCI_Datasets"))
    parser.add_argument("--cifar", type=Path, default=Path("cifar100"))
    parser.add_argument("--sets", nargs="*", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--ways", nargs="*", default=["kd", "auto", "all"])
    parser.add_argument("--out", type=Path, default=Path("auto_share.json"))
    parser.add_argument("--minutes", type=float, default=math.inf)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    began = time.monotonic()
    for name in options.sets:
        seeds = min(FEW_SEEDS, options.seeds) if name in IMAGES_OF_A_CAMERA else options.seeds
        for seed in range(seeds):
            wanted = [
                (steps, way)
                for steps in CELLS[name][1]
                for way in options.ways
                if way not in results.get(f"{name}, {steps}", {}).get(str(seed), {})
            ]
            if not wanted:
                continue
            data = data_of(name, seed, options)
            teacher = teacher_of(name, data, seed)
            for steps, way in wanted:
                if time.monotonic() - began > 60 * options.minutes:
                    show(results)
                    return 0
                cell = results.setdefault(f"{name}, {steps}", {}).setdefault(str(seed), {})
                cell[way] = distilled(way, data, teacher, steps, seed)
            options.out.write_text(json.dumps(results))
    show(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
