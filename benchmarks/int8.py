"""8 bits after training against 8 bits in training, on small students of one teacher.

For each data set, student and seed, two students are trained on the same draws with the same number
of steps: one in floating point, one with simulated 8 bits (``quantise: int8``). Both are exported
to 8 bits by ONNX Runtime, the first with ranges found on 512 training examples, as ``xcl export
--int8`` does. The table has means over seeds of figures on the test split: of the student in
floating point, of the same in 8 bits (``after``), and of the other in 8 bits (``aware``). Beside
them stands the part of the loss that is won back, (after - aware) / (after - float), where 8 bits
lose anything. Nothing is chosen on test rows. In the set ``cifar100`` both students begin as the
released one, and learn on from a given teacher (``--weights``, of resnet32x4).

    python benchmarks/int8.py --uci FOLDER [--cifar FOLDER] [--sets digits energy …] [--seeds 3]
                              [--weights FILE] [--out FILE]
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

import extracurricular as xcl
from extracurricular.data.base import Data
from extracurricular.data.sets import DATA
from extracurricular.evaluation import metrics
from extracurricular.evaluation.predict import predict
from extracurricular.export.formats import to_onnx, trace
from extracurricular.export.graph import Exported, input_names
from extracurricular.export.quantise import quantise, raw_draws
from extracurricular.export.verify import onnx_runner, read_outputs
from extracurricular.inputs import leaves
from extracurricular.matching import Matching
from extracurricular.models import build_model
from extracurricular.predictors.of_data import Scaled
from extracurricular.samplers import Empirical, build_sampler
from extracurricular.teachers import Labels, Network
from extracurricular.training import Training, train
from extracurricular.training.additions import Additions

# Teacher with its training, students with theirs, and their draws.
# The training of tables is that of the recipe uci-ablation.
TABLE = {
    "teacher": (
        {"mlp": {"hidden": [64, 64]}}, {"optimizer": "adamw", "lr": 1e-2, "weight_decay": 0.1},
    ),
    "students": [{"mlp": {"hidden": [32]}}, {"mlp": {"hidden": [16, 16]}}],
    "training": {"optimizer": "adamw", "lr": 3e-2, "weight_decay": 1e-2},
    "steps": 3000, "chain": ["empirical", {"noise": {"std": 0.05}}],
}  # fmt: skip
# A student that is trained already.
RELEASED = "cifar100-resnet8x4"
SETS: dict[str, dict[str, Any]] = {
    "digits": {
        "teacher": ({"mlp": {"hidden": [256, 256]}}, {}),
        "students": [
            {"mlp": {"hidden": [8]}}, {"mlp": {"hidden": [16]}}, {"mlp": {"hidden": [16, 16, 16]}},
            {"digits_cnn": {"width": 4}},
        ],
        "training": {}, "steps": 1500, "chain": ["empirical", "mixup"],
    },
    "energy": TABLE, "concrete": TABLE,
    "cifar": {
        "teacher": ({"digits_cnn": {"width": 16}}, {"batch_size": 32}),
        "students": [{"digits_cnn": {"width": 6}}, "resnet8", "mobilenetv2"],
        "training": {"batch_size": 32}, "steps": 800,
        "chain": ["empirical", {"augment": {"pad": 4, "flip": True}}],
    },
    "cifar100": {
        "teacher": ("resnet32x4", {}),
        "students": [RELEASED],
        "training": {"batch_size": 64, "optimizer": "sgd", "lr": 2e-3, "weight_decay": 5e-4},
        "steps": 200, "chain": ["empirical", {"augment": {"pad": 4, "flip": True}}],
    },
}  # fmt: skip
TEACHER_STEPS = {"digits": 2000, "energy": 2000, "concrete": 2000, "cifar": 800}


def read(name: str, seed: int, uci: str, cifar: str) -> Data:
    """Return a data set; tables have a split for each seed."""
    if name == "cifar100":
        return DATA.build({"cifar100": {"path": cifar, "validation": 0}}, key="data")
    if name == "digits":
        return DATA.build("digits", key="data")
    if name == "cifar":
        return DATA.build({"cifar100": {"path": cifar, "train": 10000, "coarse": True}}, key="data")
    return DATA.build({"uci": {"path": f"{uci}/{name}", "split": seed}}, key="data")


def taught(name: str, data: Data, seed: int, weights: str) -> Network:
    """Return the teacher of a seed."""
    spec, given = SETS[name]["teacher"]
    network = made(spec, data, 100 + seed)
    if name == "cifar100":
        state = safetensors.torch.load_file(weights)
        network.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        )
        return Network(network.eval(), data.task)
    settings = Training(steps=TEACHER_STEPS[name], **given)
    train(network, Empirical(data, seed=1), Labels(), data.task, settings=settings)
    return Network(network.eval(), data.task)


def cell(
    name: str, student: Any, seed: int, data: Data, teacher: Network
) -> dict[str, dict[str, float]]:
    """Return the figures of the three students."""
    sampler = build_sampler(SETS[name]["chain"], data, seed)
    wanted = None if student == RELEASED else predict(teacher, data, data.test)
    found: dict[str, dict[str, float]] = {}
    for bits in (None, "int8"):
        network = made(student, data, seed)
        settings = Training(steps=SETS[name]["steps"], **SETS[name]["training"])
        result = train(
            network, sampler, teacher, data.task, matching=Matching(), seed=seed,
            settings=settings, additions=Additions(quantise=bits),
        )  # fmt: skip
        if bits is None:
            said = predict(Network(network, data.task), data, data.test)
            found["float"] = metrics.figures(said, data.test.y, teacher=wanted)
        model = Exported(network, data)
        small = quantise(
            to_onnx(model, trace(model)), raw_draws(Empirical(data), data), result.ranges
        )
        names = input_names(data)
        raw = {names[key]: leaf for key, leaf in leaves(data.test.x).items()}
        said = read_outputs(onnx_runner(small.SerializeToString())(raw), data.task)
        found["aware" if bits else "after"] = metrics.figures(said, data.test.y, teacher=wanted)
    return found


def made(spec: Any, data: Data, seed: int) -> torch.nn.Module:
    """Return a network with its first weights."""
    if spec == RELEASED:
        ask = xcl.load(RELEASED).ask
        assert isinstance(ask, Scaled)
        assert ask.goes_with(data)
        return copy.deepcopy(ask.teacher.module)  # type: ignore[attr-defined]
    torch.manual_seed(seed)
    return build_model(spec, inputs=data.shapes, outputs=data.task.outputs, pixels=data.pixels)


def main() -> None:
    """Measure the cells that the file lacks, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--uci", default="")
    parser.add_argument("--cifar", default="")
    parser.add_argument("--sets", nargs="+", default=["digits", "energy", "concrete"])
    parser.add_argument("--weights", default="", help="weights of resnet32x4, for cifar100")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("int8.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(given.out.read_text()) if given.out.exists() else {}
    for name in given.sets:
        for seed in range(given.seeds):
            keys = {json.dumps(one): one for one in SETS[name]["students"]}
            waiting = {k: v for k, v in keys.items() if f"{name} {k} {seed}" not in known}
            if not waiting:
                continue
            data = read(name, seed, given.uci, given.cifar)
            teacher = taught(name, data, seed, given.weights)
            for key, student in waiting.items():
                started = time.perf_counter()
                known[f"{name} {key} {seed}"] = cell(name, student, seed, data, teacher)
                given.out.write_text(json.dumps(known))
                print(name, key, seed, f"{time.perf_counter() - started:.0f} s", flush=True)
        for student in SETS[name]["students"]:
            show(name, student, known)


def show(name: str, student: Any, known: dict[str, Any]) -> None:
    """Print a row for each figure."""
    prefix = f"{name} {json.dumps(student)} "
    cells = [value for key, value in known.items() if key.startswith(prefix)]
    for figure in ("accuracy", "rmse", "nll", "kl_to_teacher"):
        if figure not in cells[0]["float"]:
            continue
        ways = ("float", "after", "aware")
        means = {way: sum(one[way][figure] for one in cells) / len(cells) for way in ways}
        lost = means["after"] - means["float"]
        loses = lost < 0 if figure == "accuracy" else lost > 0
        won = f"{100 * (means['after'] - means['aware']) / lost:.0f} %" if loses else "nothing lost"
        values = "  ".join(f"{way} {value:.5f}" for way, value in means.items())
        print(f"{prefix}{figure:13}  {values}  {won}", flush=True)


if __name__ == "__main__":
    main()
