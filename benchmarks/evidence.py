"""Train the CIFAR-100 pairs of the shipped recipes, a few minutes at a time, and keep the figures.

    python benchmarks/evidence.py --minutes 9 --out FOLDER --data cifar-100-python.tar.gz

A list of trainings, most telling first: of each pair the teacher, if it is not given, then ``kd``
and ``xcl``, as the recipe has them in one of its budgets. The script stops in time, between any two
steps, and goes on next time from the checkpoints in FOLDER, on any device, in the precision in
which a training was begun. FOLDER keeps trained teachers (float16) and unfinished trainings, each
file below 16 MB, 40 MB in all; larger checkpoints are rounded to 16 bits, which the figures say, or
dropped, which the script says. So the teachers ``vgg13`` and ``resnet32x4`` have to be given, or to
finish in one go.

``benchmarks/evidence/`` receives the figures of each finished training (NAME.json, last epoch), and
the best student of each pair by the mean KL from its teacher on shifted training images, among
those of the largest budget: test images choose nothing. ``xcl.load("cifar100-resnet8x4")`` reads
it. ``python benchmarks/evidence_table.py`` makes the tables of docs/recipes.md from the figures.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from evidence_figures import SIZES
from evidence_folder import trim
from evidence_pair import Pair, TimeIsUp, Up, tell
from extracurricular.errors import XclError
from extracurricular.run.executors import threads

PAIRS = (
    "resnet32x4-resnet8x4",
    "wrn-40-2-wrn-16-2",
    "resnet32x4-shufflenetv2",
    "resnet56-resnet20",
    "resnet110-resnet32",
    "vgg13-vgg8",
)
STUDENTS = ("kd", "xcl")
EVIDENCE = Path(__file__).parent / "evidence"

# Part of the minutes that is left for what is no step: reading data, evaluation, writing.
_RESERVE = 0.05


def clock(minutes: float, since: float) -> Up:
    """Return a function that says whether the time for steps is up.

    Args:
        minutes: Minutes from ``since`` on, of which a part is left for other things than steps.
        since: The beginning, as ``time.monotonic`` gives it.
    """
    end = since + 60 * minutes * (1 - _RESERVE)
    return lambda: time.monotonic() >= end


def work(options: argparse.Namespace, up: Up) -> None:
    """Go on with the list until it is done or the time is up."""
    out = Path(options.out)
    trim(out, tell)
    pairs = [Pair(name, options, up) for name in PAIRS if name in (options.pairs or PAIRS)]
    try:
        for seed in range(options.seeds):
            for pair in pairs:
                with threads(pair.recipe.device.threads):
                    asked = pair.asked()
                    for which in STUDENTS:
                        pair.student(which, seed, asked)
                        if up():
                            raise TimeIsUp
                del pair.workspace  # its data, on the device
        tell("the list is done")
    except TimeIsUp:
        tell("the time is up; the same command goes on")
    finally:
        trim(out, tell)


def main(arguments: Sequence[str] | None = None, up: Up | None = None) -> int:
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=9.0, help="time to stop in")
    parser.add_argument("--out", required=True, help="folder of what is unfinished")
    parser.add_argument("--evidence", default=str(EVIDENCE), help="folder of finished figures")
    parser.add_argument("--data", help="path of CIFAR-100; that of the recipe where left out")
    parser.add_argument("--teacher", action="append", default=[], help="file of trained weights")
    parser.add_argument("--size", choices=SIZES, default="short", help="budget of the recipes")
    parser.add_argument("--device", default="auto", help="cpu, cuda, …")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of each student")
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, help="these pairs alone")
    parser.add_argument("--set", action="append", default=[], help="an override of the recipes")
    options = parser.parse_args(arguments)
    try:
        work(options, up or clock(options.minutes, started))
    except XclError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
