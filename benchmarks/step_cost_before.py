"""Serve the trainings of another checkout to step_cost.py, one line of JSON a question.

step_cost.py starts it with the other checkout on PYTHONPATH.

    python benchmarks/step_cost_before.py CHECKOUT DEVICE BATCH THREADS CLOCK
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

import extracurricular
from trainings import Job, Pair, random_images
from turns import CLOCKS, Here, serve


def main() -> None:
    checkout, device, batch, threads, clock = sys.argv[1:]
    if Path(checkout).resolve() not in Path(extracurricular.__file__).resolve().parents:
        raise SystemExit(f"imported {extracurricular.__file__}, which is not in {checkout}")
    # Whatever prints to the standard output must not speak between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(int(threads))
    data = random_images(torch.device(device))
    pairs: dict[str, Pair] = {}

    def make(settings: dict[str, Any]) -> Here:
        names = settings.pop("pair")
        pair = pairs.setdefault(names, Pair(names, data, int(batch)))
        job = Job(**settings)
        wait = torch.cuda.synchronize if device == "cuda" else lambda: None
        return Here(lambda tick: job.run(pair, None, tick, print), wait, CLOCKS[clock])

    serve(make, sys.stdin, answers)
    answers.flush()
    os._exit(0)  # trainings wait in their threads


if __name__ == "__main__":
    main()
