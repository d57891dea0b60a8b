"""A sweep of 300 tiny stages on a Ray cluster, of which five workers are killed.

It ends with the rows of a sweep that nobody disturbed, whose stages were done one after the other.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from drills.clusters import processes, works
from drills.common import Dice, Ended, Result, Tally, fresh, xcl

COUNT = 1
_STAGES, _SEEDS, _WORKERS, _KILLS = 300, 3, 2, 5
# Seconds after which a sweep is taken for hung.
_LIMIT = 1200.0
# Words of rows that tell a time.
_TIMES = ("seconds", "time")


def drill(dice: Dice, count: int, folder: Path) -> Result:
    """Make ``count`` trials."""
    tally = Tally()
    own = fresh(folder / "sweeps")
    (own / "r.yaml").write_text(yaml.safe_dump(_recipe(), sort_keys=False))
    whole = _sweep(own, "whole", "--jobs", "1")
    if whole.status != 0:
        raise RuntimeError(f"the sweep cannot be made: {whole.text[-2000:]}")
    for number, chance in dice.trials(count):
        tally.tried += 1
        killer = _Killer(chance)
        killer.start()
        ended = _sweep(own, f"trial-{number}", "--on", "ray", "--jobs", str(_WORKERS))
        killer.stop.set()
        killer.join()
        tally.outcome("workers killed", killer.kills)
        fault = ended.fault or (None if ended.status == 0 else ended.text[-800:])
        if fault is None and _rows(ended) != _rows(whole):
            fault = "its rows are not those of a sweep that nobody disturbed"
        if fault is not None:
            tally.fault(number, fault)
            continue
        tally.outcome("with the rows of an undisturbed one")
        shutil.rmtree(own / f"trial-{number}")
    return tally.result()


def _recipe() -> dict[str, Any]:
    training = {"steps": 10, "batch_size": 16, "lr": 0.1}
    mlp = {"mlp": {"hidden": [4]}}
    return {
        "name": "tiny",
        "data": {"digits": {"train": 100, "validation": 50}},
        "seeds": list(range(_SEEDS)),
        "teacher": {"model": {"mlp": {"hidden": [16]}}, "training": training},
        "defaults": {"model": mlp, "training": training},
        "students": {
            "erm": {"learns_from": "labels"},
            "kd": {},
            "xcl": {"sampler": ["empirical", "mixup"]},
        },
        "device": {"accelerator": "cpu"},
    }


def _sweep(folder: Path, out: str, *more: str) -> Ended:
    # The teacher, and two students of each seed, are done once.
    count = (_STAGES - 1 - 2 * _SEEDS) // _SEEDS
    over = ",".join(f"{1 + k / 100:.2f}" for k in range(count))
    words = ("sweep", "r.yaml", "--over", f"students.xcl.matching.temperature={over}", "--json")
    return xcl(*words, "--out", out, *more, cwd=folder, real=True, limit=_LIMIT)


def _rows(ended: Ended) -> Any:
    """Return what a sweep has found, without times and places."""
    return _timeless(json.loads(ended.out)["rows"])


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _timeless(one) for key, one in value.items()
            if key != "folder" and not any(word in key for word in _TIMES)
        }  # fmt: skip
    return [_timeless(one) for one in value] if isinstance(value, list) else value


class _Killer(threading.Thread):
    """Kills workers, at random moments, while a sweep is at work."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(daemon=True)
        self.dice, self.stop, self.kills = dice, threading.Event(), 0

    def run(self) -> None:
        """Kill, until enough are killed or the sweep has ended."""
        while self.kills < _KILLS and not self.stop.wait(self.dice.uniform(1.0, 4.0)):
            while not (found := [pid for pid, title, _ in processes() if works(title)]):
                if self.stop.wait(0.01):
                    return
                time.sleep(0.001)
            with suppress(ProcessLookupError):
                os.kill(self.dice.choice(found), signal.SIGKILL)
                self.kills += 1
