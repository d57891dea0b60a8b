"""Wrong recipes: values and YAML changed at random; each is checked or refused by a sentence."""

from __future__ import annotations

import os
import re
import resource
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from drills.common import Dice, Result, Tally, fresh, preload, real, xcl
from drills.mutations import ODD, mutated, mutated_text, places, written

COUNT = 2000
# Seconds of a CPU, seconds of a clock, and bytes of addresses that a recipe may take to be checked.
SECONDS, LIMIT, MEMORY = 60, 600.0, 16 * 2**30
LONGEST = 2500

# Networks that stand for slow ones.
SMALLER = {
    **{"resnet110": "resnet8", "resnet56": "resnet8", "resnet32": "resnet8", "vgg13": "vgg8"},
    **{"resnet32x4": "resnet8x4", "wrn-40-2": "wrn-10-1", "torchvision:resnet50": "resnet8"},
}
SMALL = {"steps": 20, "batch_size": 8, "warmup": 0}


def bases(folder: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return each shipped recipe by name: its text, and a small form of it whose data are there.

    One more recipe, ``everything``, has what the shipped ones leave out.
    """
    from extracurricular.recipe.read import parse_recipe, read_recipe
    from extracurricular.recipe.ships import shipped_recipes

    stand_ins = _data(folder)
    found = {}
    for name, text in shipped_recipes().items():
        values = read_recipe(name, quiet=True).dump()
        kind = next(iter(values["data"])) if isinstance(values["data"], dict) else values["data"]
        values |= {"data": stand_ins[kind], "seeds": [0], "device": {"accelerator": "cpu"}}
        values["teacher"] |= {"weights": None, "members": min(values["teacher"]["members"], 2)}
        for section in (values["teacher"], *values["students"].values()):
            section["training"] |= SMALL
            section["model"] = _smaller(section["model"])
        # Rendering thousands of eyes takes a minute, and so does checking many seeds.
        short = re.sub(r"(_persons|_images): \d+", r"\1: 4", text)
        short = short.replace("members: 8", "members: 2")
        found[name] = (re.sub(r"^seeds: .*$", "seeds: [0]", short, flags=re.MULTILINE), values)
    values = parse_recipe(EVERYTHING).dump()
    return found | {"everything": (written(EVERYTHING), values)}


def _smaller(model: Any) -> Any:
    name = next(iter(model)) if isinstance(model, dict) else model
    return SMALLER.get(name, "resnet8" if name.startswith("torchvision:") else model)


EVERYTHING: dict[str, Any] = {
    "schema": 1,
    "name": "everything",
    "about": "All that the shipped recipes leave out.",
    "data": {"digits": {"train": 60, "validation": 40}},
    "seeds": [0, 1],
    "chains": {"near": ["empirical", {"augment": {"pad": 1}}]},
    "teacher": {
        "model": [{"mlp": {"hidden": [4]}}, {"mlp": {"hidden": [3], "dropout": 0.1}}],
        "training": SMALL,
        "record": {"draws": 160, "codec": {"topk": {"k": 3}}},
    },
    "generators": {"made": {"model": {"gan": {"steps": 2}}, "least_variety": 0}},
    "defaults": {"model": {"mlp": {"hidden": [2]}}, "training": SMALL},
    "students": {
        "erm": {"learns_from": "labels", "matching": {}},
        "kd": {"matching": {"temperature": {"linear": [4, 1]}, "label_weight": 0.1}},
        "xcl": {
            "sampler": [{"share": {"of": {"linear": [0.2, 0.8]}, "extended": ["near", "mixup"]}}],
            "mastery": {"held_out": 0.2},
        },
        "blended": {
            "sampler": [
                {
                    "blend": {
                        "a": {"weight": 0.5, "sampler": ["near", "cutmix"]},
                        "b": {"weight": 0.5, "sampler": [{"generated": {"generator": "made"}}]},
                    }
                },
                {"noise": {"std": 0.1}},
            ]
        },
    },
    "evaluation": {"split": "validation", "batch_size": 64},
    "device": {"accelerator": "cpu", "precision": "32-true"},
    "log": "tensorboard",
    "budgets": {"tiny": {"seeds": [0], "defaults.training.steps": 5}},
}


def _data(folder: Path) -> dict[str, Any]:
    """Make small data, and return their specs by the data set that they stand for."""
    chance = np.random.default_rng(0)
    x = chance.integers(0, 256, (80, 3, 32, 32), dtype=np.uint8)
    np.savez(folder / "images.npz", x=x, y=np.arange(80) % 5)
    rows = chance.normal(size=(80, 5)).round(3)
    lines = ["a,b,c,d,target", *(",".join(map(str, row)) for row in rows)]
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    for part in ("train", "val"):
        for number, image in enumerate(x[:24]):
            place = folder / "classes" / part / f"class-{number % 3}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(place / f"{number}.jpg")
    persons = {"train_persons": 4, "validation_persons": 3, "test_persons": 3}
    gaze = {"gaze": {**persons, "train_images": 4, "test_images": 4}}
    return {
        "digits": {"digits": {"train": 60, "validation": 40}},
        "cifar100": {"arrays": {"path": str(folder / "images.npz")}},
        "uci": {"table": {"path": str(folder / "table.csv"), "target": "target"}},
        "imagefolder": {
            "imagefolder": {"path": str(folder / "classes"), "size": 32, "stream": True}
        },
        "gaze": gaze,
        "mpiigaze": gaze,
    }


def drill(dice: Dice, count: int, folder: Path) -> Result:
    """Check changed recipes."""
    preload()
    tally, known = Tally(), bases(fresh(folder / "data"))
    for number, chance in dice.trials(count):
        tally.tried += 1
        name = chance.choice(sorted(known))
        text, small = known[name]
        words, recipe = changed(text, small, chance)
        place = fresh(folder / "trial" / "in" / "here")
        (place / "r.yaml").write_text(recipe, encoding="utf-8")
        ended = xcl(
            *("run", "r.yaml", *words, "--plan", "--out", "out"),
            cwd=place,
            real=real(number),
            limit=LIMIT,
            first=bound,
        )
        problem = ended.fault or told_badly(ended.refusal if ended.status == 2 else "r")
        problem = problem or strange_files(folder, place)
        if problem is not None:
            kept = folder / "faults" / str(number)
            fresh(kept)
            shutil.copy(place / "r.yaml", kept)
            tally.fault(number, f"{name} {words}: {problem}")
        tally.outcome("checked" if ended.status == 0 else "refused by a sentence")
    return tally.result()


def changed(text: str, small: dict[str, Any], chance: Dice) -> tuple[list[str], str]:
    """Return overrides and the text of a recipe that is changed at random."""
    whole = chance.random() < 0.3
    values = yaml.safe_load(text) if whole else small
    found = values
    for _ in range(chance.choice([0, 1, 1, 1, 1, 2, 3])):
        found = mutated(found, chance)
    result = text if whole and found is values else written(found)
    if chance.random() < 0.1 or found is values:
        result = mutated_text(result, chance)
    words: list[str] = []
    if chance.random() < 0.1:
        words = [override(values, chance)]
    return words, result


def override(values: dict[str, Any], chance: Dice) -> str:
    """Return a change of a recipe as a word of the command line."""
    wanted = chance.choice(places(values))
    path: list[str] = []

    def find(part: Any) -> bool:
        for key in part if isinstance(part, dict) else range(len(part)):
            path.append(str(key))
            if (part is wanted[0] and key == wanted[1]) or (
                isinstance(part[key], dict | list) and find(part[key])
            ):
                return True
            path.pop()
        return False

    find(values)
    value = written([chance.choice(ODD)]).removeprefix("- ").strip()
    return f"{'.'.join(path)}={value}".replace("\0", "")


def bound(most: int = MEMORY, seconds: int = SECONDS) -> None:
    """Refuse this process more addresses, and more seconds of a CPU, than it can need."""
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    used = sum(os.times()[:2])
    resource.setrlimit(resource.RLIMIT_CPU, (round(used) + seconds,) * 2)


def told_badly(sentence: str) -> str | None:
    """Return what is wrong with the sentence of a refusal; None for nothing."""
    if not sentence:
        return "refused without a sentence"
    if len(sentence) > LONGEST:
        return f"a sentence of {len(sentence):,} signs: {sentence[:200]}"
    odd = [sign for sign in sentence if not sign.isprintable()]
    return f"the sentence has {odd[0]!r}: {sentence[:300]!r}" if odd else None


def strange_files(folder: Path, place: Path) -> str | None:
    """Return a file that lies where nothing was to be written; None where there is none."""
    allowed = {place / "r.yaml"}
    expected = {"data", "faults", "trial"}
    found = [f for f in folder.iterdir() if f.name not in expected]
    found += [f for f in (folder / "trial").rglob("*") if f.is_file() and f not in allowed]
    found = [f for f in found if "__pycache__" not in f.parts]
    return f"it wrote {str(found[0].relative_to(folder))!r}" if found else None
