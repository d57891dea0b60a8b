"""Captured steps against eager ones on a GPU: they must be equal to the last bit.

Each case trains a small student for 50 steps in float32, once without graphs, and once captured,
interrupted in the midst of a chunk of draws and resumed. Weights and losses are compared bit by
bit, under deterministic algorithms and a fixed cuBLAS workspace. The cases go through every
sampler, kind of input, teacher, loss and optimiser of the package that can be captured; then come
trainings at once on streams of their own, a cohort, and a step in bfloat16.

    python benchmarks/gpu_check.py [--minutes 2] [--only WORD] [--json FILE]

Exit status 1 if a case differs or fails, or if what should be captured was not.
"""

from __future__ import annotations

import os

# cuBLAS reads it when it starts.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from extracurricular.data.base import Data, Split, make_data
from extracurricular.generators.gan import Gan
from extracurricular.generators.tables import Mixture
from extracurricular.inputs import images
from extracurricular.knowledge import open_knowledge, record
from extracurricular.matching import Matching
from extracurricular.models import build_model
from extracurricular.run.environment import environment
from extracurricular.samplers import Context, Sampler, build_sampler
from extracurricular.teachers import Ensemble, Labels, MCDropout, Network, Teacher
from extracurricular.training import Execution, Shared, Training, together, train

STEPS, SIZE, STOP, KEEP = 50, 8, 23, 10

CHAINS: dict[str, list[Any]] = {
    "empirical": ["empirical"],
    "augment": ["empirical", {"augment": {"pad": 2, "flip": True}}],
    "noise": ["empirical", {"noise": {"std": 0.3, "relative": True}}],
    "mixup": ["empirical", {"mixup": {"alpha": 0.4}}],
    "cutmix": ["empirical", "cutmix"],
    "affine": ["empirical", {"affine": {"degrees": 30, "shear": 0.2}}],
    "cutout": ["empirical", "cutout"],
    "colour": ["empirical", "colour"],
    "trivial_augment": ["empirical", "trivial_augment"],
    "rand_augment": ["empirical", {"rand_augment": {"count": 2, "magnitude": 15}}],
    "weak": ["empirical", {"augment": {"pad": 1}}, "weak", {"noise": {"std": 0.2}}, "cutout"],
    "swap": ["empirical", {"swap": {"p": 0.4}}],
    "gibbs": ["empirical", {"gibbs": {"steps": 2}}],
    "neighbours": [{"neighbours": {"count": 2}}],
    "balanced": ["balanced"],
    "generated": [{"generated": {"generator": "model", "between": 0.5}}],
    "pool": [{"pool": {"generator": "more"}}],
    "resized_crop": [{"resized_crop": {"scale": [0.3, 0.9]}}],
    "uncertain": ["empirical", {"noise": {"std": 0.3}}, {"uncertain": {"candidates": 3}}],
    "blend": [
        {
            "blend": {
                "mixed": {"weight": 0.6, "sampler": ["empirical", "mixup", {"noise": {}}]},
                "plain": {"weight": 0.4, "sampler": ["empirical"]},
            }
        }
    ],
}
# The data that a chain takes, where it does not take all.
OF_IMAGES = (
    "augment", "cutmix", "affine", "cutout", "colour", "trivial_augment", "rand_augment", "weak",
)  # fmt: skip
TAKES = dict.fromkeys(OF_IMAGES, ("images", "eyes"))
TAKES |= dict.fromkeys(("swap", "gibbs", "neighbours"), ("table",))
TAKES |= {"balanced": ("images",)}
# It draws from folders that are streamed, which no graph can hold.
STREAMED = ("resized_crop",)


@dataclass(frozen=True)
class Case:
    """One comparison."""

    name: str
    chain: str
    data: str
    teacher: str = "ensemble"
    optimizer: str = "sgd"
    divergence: str = "forward_kl"
    dropout: float = 0.0
    precision: str = "32-true"


def cases() -> Iterator[Case]:
    """Yield the cases, the most telling first."""
    turn = 0
    for chain in CHAINS:
        if chain in STREAMED:
            continue
        for data in TAKES.get(chain, ("images", "table", "eyes")):
            optimizer = ("sgd", "adamw")[turn % 2]
            yield Case(f"{chain} of {data}, {optimizer}", chain, data, optimizer=optimizer)
            turn += 1
    for teacher in ("labels", "network", "dropout"):
        yield Case(f"teacher: {teacher}", "mixup", "images", teacher=teacher, optimizer="adamw")
    yield Case("teacher: a record", "blend", "images", teacher="record")
    for divergence in ("reverse_kl", "js"):
        yield Case(f"loss: {divergence}", "mixup", "images", divergence=divergence)
        yield Case(f"loss: {divergence} of a table", "noise", "table", divergence=divergence)
    yield Case("dropout in the student", "mixup", "images", dropout=0.4)
    yield Case("bf16-mixed", "blend", "images", precision="bf16-mixed")


# -- what is trained ------------------------------------------------------------------------------


def data_of(kind: str, device: torch.device) -> Data:
    """Return a small data set of random numbers, on the device."""
    rng = np.random.default_rng(0)
    if kind == "images":
        x: Any = rng.integers(0, 256, (200, 3, 16, 16)).astype(np.uint8)
        y: Any = np.arange(200) % 10
        return make_data("images", (x, y), (x[:20], y[:20])).to(device)
    if kind == "table":
        x = rng.normal(3, 2, (150, 6)).astype(np.float32)
        y = (x[:, :2] * 10).astype(np.float32)
        return make_data("table", (x, y), (x[:20], y[:20])).to(device)
    x = {
        "eye": rng.integers(0, 256, (130, 1, 12, 20)).astype(np.uint8),
        "pose": rng.normal(0, 0.2, (130, 2)).astype(np.float32),
    }
    y = rng.normal(0, 0.3, (130, 2)).astype(np.float32)
    small = {name: value[:20] for name, value in x.items()}
    return make_data("eyes", (x, y), (small, y[:20]), angular=True).to(device)


def network(data: Data, seed: int, dropout: float = 0.0) -> nn.Module:
    """Return a small network, with convolutions and batch norms where inputs are images."""
    torch.manual_seed(seed)
    spec: Any = {"mlp": {"hidden": [16], "dropout": dropout}}
    if data.name == "images":
        spec = {"digits_cnn": {"width": 8, "depth": 1, "dropout": dropout}}
    return build_model(spec, inputs=data.shapes, outputs=data.task.outputs)


def teacher_of(kind: str, data: Data, device: torch.device) -> Teacher:
    """Return an untrained teacher: its answers differ, which is all that is needed."""
    if kind == "labels":
        return Labels()
    if kind == "dropout":
        return MCDropout(network(data, 5, 0.3).to(device).eval(), data.task, passes=2)
    members = [Network(network(data, s).to(device).eval(), data.task) for s in (5, 6)]
    return members[0] if kind == "network" else Ensemble(members)


def sampler_of(chain: str, data: Data, teacher: Teacher, device: torch.device) -> Sampler:
    """Return a sampler, with the generator ``model`` and the pool ``more`` if it needs them."""
    generators: dict[str, Any] = {}
    if "generator" in json.dumps(CHAINS[chain]):
        torch.manual_seed(3)
        if images(data.train.x):
            generators["model"] = Gan(latent=4, channels=4).preview(data)
        else:
            fit = Mixture(components=2)
            generators["model"] = fit.load(fit.fit(data, seed=0, folder=None, device=device), data)
        generators["more"] = Split(data.test.x)
    asked = None if isinstance(teacher, Labels) else teacher
    return build_sampler(CHAINS[chain], data, 7, context=Context(asked, None, generators))


def recorded(sampler: Sampler, data: Data) -> tuple[Sampler, Teacher]:
    """Return the draws and answers of a record that is made on the device and kept there."""
    with tempfile.TemporaryDirectory() as folder:
        record(sampler, teacher_of("ensemble", data, data.device), data, STEPS * SIZE, folder)
        known = open_knowledge(folder, data=data)
        known.hold(data.device)
    return known.replay(sampler), known


@dataclass
class Trained:
    """The result of a training."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def difference(self, other: Trained) -> str:
        """Return where two trainings differ; empty if they are equal to the last bit."""
        for name, value in self.weights.items():
            if not torch.equal(value, other.weights[name]):
                most = float((value.double() - other.weights[name].double()).abs().max())
                return f"{name} differs by {most:.2g}"
        at = [k for k, (a, b) in enumerate(zip(self.losses, other.losses, strict=False)) if a != b]
        return f"the loss of line {at[0]} differs" if at else ""


def trained(
    case: Case,
    fabric: Fabric,
    capture: Any,
    folder: Path | None = None,
    stop: int | None = None,
    shared: Shared | None = None,
    temperature: float = 1.0,
) -> Trained:
    """Train the student of a case, up to step ``stop`` if there is one."""
    device = fabric.device
    data = data_of(case.data, device)
    if case.teacher == "record":
        asked = teacher_of("ensemble", data, device)
        sampler, teacher = recorded(sampler_of(case.chain, data, asked, device), data)
    else:
        teacher = teacher_of(case.teacher, data, device)
        sampler = sampler_of(case.chain, data, teacher, device)
    student = network(data, 1, case.dropout)
    settings = Training(
        steps=STEPS, batch_size=SIZE, optimizer=case.optimizer, lr=0.01, warmup=4, clip_norm=1.0,
        ema=0.9, checkpoint_every=KEEP,
    )  # fmt: skip
    found = Trained()

    def progress(step: int, _: float) -> None:
        if stop is not None and step >= stop:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        train(
            student, sampler, teacher, data.task,
            matching=Matching(case.divergence, temperature), settings=settings, seed=3,
            fabric=fabric, folder=folder, on_progress=progress, tell=found.told.append,
            on_log=lambda line: found.losses.append(line["loss"]),
            execution=Execution(capture=capture), shared=shared,
        )  # fmt: skip
    found.weights = {k: v.detach().cpu().clone() for k, v in student.state_dict().items()}
    return found


# -- comparisons ----------------------------------------------------------------------------------


def compare(case: Case, fabric: Fabric) -> str:
    """Return where the captured training of a case differs from the eager one; empty if nowhere."""
    eager = trained(case, fabric, "off")
    with tempfile.TemporaryDirectory() as folder:
        part = trained(case, fabric, "auto", Path(folder), STOP)
        rest = trained(case, fabric, "auto", Path(folder))
    if rest.told:
        return f"it was not captured: {rest.told[0]}"
    rest.losses = part.losses[: 2 * KEEP] + rest.losses
    difference = eager.difference(rest)
    if difference and eager.difference(trained(case, fabric, "off")):
        return f"{difference}; and eager trainings differ from each other"
    if difference and not eager.difference(trained(case, fabric, "auto")):
        return f"{difference}, only after resuming"
    return difference


def compare_at_once(fabric: Fabric, sharing: bool) -> str:
    """Return where trainings at once differ from those alone; ``sharing`` makes them a cohort."""
    case = Case("", "mixup", "images")
    alone = [trained(case, fabric, "auto", temperature=t) for t in (1.0, 4.0)]
    shared = Shared() if sharing else None

    def one(temperature: float) -> Callable[[], Trained]:
        return lambda: trained(case, fabric, "auto", shared=shared, temperature=temperature)

    # A cohort reads the same buffers, so it keeps to one stream.
    device = None if sharing else fabric.device
    found = together([one(1.0), one(4.0)], device)
    differences = [a.difference(b) for a, b in zip(alone, found, strict=True)]
    return next(filter(None, differences), "")


def main(arguments: list[str] | None = None) -> int:
    """Run the comparisons, print a line for each, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2.0, help="begin no case after that")
    parser.add_argument("--only", default="", help="only cases with this word in their name")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA device here: nothing is compared")
        return 0
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    began, results = time.monotonic(), dict[str, str]()

    def fabric(precision: str = "32-true") -> Fabric:
        return Fabric(accelerator=options.device, devices=1, precision=precision)  # type: ignore[arg-type]

    work: dict[str, Callable[[], str]] = {
        case.name: lambda case=case: compare(case, fabric(case.precision)) for case in cases()
    }
    work["two at once"] = lambda: compare_at_once(fabric(), sharing=False)
    work["a cohort"] = lambda: compare_at_once(fabric(), sharing=True)
    for name, comparison in work.items():
        if options.only not in name:
            continue
        if time.monotonic() - began > 60 * options.minutes:
            results[name] = "not compared: the time is over"
            print(f"{name}: {results[name]}", flush=True)
            continue
        started = time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results[name] = comparison()
        except Exception as error:
            results[name] = f"{type(error).__name__}: {error}".splitlines()[0]
        took = time.monotonic() - started
        print(f"{name}: {results[name] or 'equal to the last bit'} ({took:.1f} s)", flush=True)
        if options.json:
            found = {"environment": environment(torch.device(options.device)), "results": results}
            options.json.write_text(json.dumps(found, indent=2) + "\n")
    wrong = {name: said for name, said in results.items() if said}
    print(f"{len(results) - len(wrong)} of {len(results)} cases are equal to the last bit")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
