"""The table and the JSON of step_cost.py."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch


class Key(NamedTuple):
    """What a cell holds.

    Args:
        pair: ``TEACHER:STUDENT``.
        precision: As Fabric names it.
        way: ``ERM``, ``KD``, ``XCL online`` or ``XCL recorded``.
        how: ``eager``, ``captured``, ``compiled``, ``at once``, ``before`` or ``peer``.
    """

    pair: str
    precision: str
    way: str
    how: str


class Cells:
    """What has been measured so far, kept in a file after each cell.

    Args:
        given: The command's arguments.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.found: dict[Key, dict[str, Any]] = {}
        self.until = time.time() + 60 * given.minutes
        self.file: Path | None = given.json
        self.head = {
            "command": shlex.join(["python", *sys.argv]),
            "date": time.strftime("%Y-%m-%d"),
            "commit": _commit(Path(__file__).resolve().parent.parent),
            "before": _commit(given.before) if given.before else None,
            "peer": _commit(given.peer) if given.peer else None,
            **_machine(given),
        }
        before = os.environ.get("STEP_COST_RESUME")
        if before:
            state = json.loads(Path(before).read_text())
            self.until = state["until"]
            for cell in state["cells"]:
                key = Key(*(cell[name] for name in Key._fields))
                self.found[key] = {k: v for k, v in cell.items() if k not in Key._fields}

    def __contains__(self, key: Key) -> bool:
        return key in self.found

    def base(self, key: Key) -> Key:
        """Return the cell that others are compared with: captured ERM on CUDA, else eager."""
        how = "captured" if self.given.device == "cuda" else "eager"
        other = key.how in ("before", "peer")
        precision = self.given.precision[0] if other else key.precision
        return Key(key.pair, precision, "ERM", how)

    def add(
        self,
        key: Key,
        times: Sequence[float] = (),
        *,
        start: float | None = None,
        ratio: float | None = None,
        note: str = "",
        error: str = "",
    ) -> None:
        """Add a cell, print it, and write all of them.

        Args:
            key: Its key.
            times: Seconds a step in each round; none if it failed.
            start: Seconds up to the first line of the log: building, capture, compilation.
            ratio: To the base, where both were timed in the same rounds.
            note, error: Words to print.
        """
        cell: dict[str, Any] = {"error": error} if error else {}
        if times:
            ms = [1000 * value for value in times]
            cell = {"ms": statistics.median(ms), "least": min(ms), "most": max(ms), "rounds": ms}
        if start is not None:
            cell["start_seconds"] = start
        if ratio is not None:
            cell["ratio"] = ratio
        if note:
            cell["note"] = note
        self.found[key] = cell
        print(f"{' '.join(key)}: {error or _time(cell)}", flush=True)
        self.save()

    def save(self) -> Path:
        """Write the JSON; return its file."""
        if self.file is None:
            handle, name = tempfile.mkstemp(suffix=".json")
            os.close(handle)
            self.file = Path(name)
        cells = [{**key._asdict(), **cell, **self.ratios(key)} for key, cell in self.found.items()]
        text = json.dumps({**self.head, "until": self.until, "cells": cells}, indent=1)
        part = self.file.with_name(self.file.name + ".part")
        part.write_text(text + "\n")
        part.replace(self.file)
        return self.file

    def ratios(self, key: Key) -> dict[str, float]:
        """Return a cell's ratio to the base, and how many times as fast it is as others."""
        cell, found = self.found[key], {}
        base = self.found.get(self.base(key), {})
        if "ms" not in cell:
            return {}
        if "ratio" in cell:
            found["ratio"] = cell["ratio"]
        elif "ms" in base:
            found["ratio"] = cell["ms"] / base["ms"]
        if key.how in ("before", "peer"):
            return found
        for other in ("before", "peer"):
            same = [
                c["ms"]
                for k, c in self.found.items()
                if (k.pair, k.way, k.how) == (key.pair, key.way, other) and "ms" in c
            ]
            if same:
                found[f"{other}_times"] = min(same) / cell["ms"]
        return found

    def show(self) -> None:
        """Print the table."""
        base = "captured ERM" if self.given.device == "cuda" else "ERM"
        print(f"\n{self.head['command']}")
        for name in list(self.head)[1:]:
            print(f"  {name}: {self.head[name]}")
        titles = ["pair", "precision", "way", "how", "ms a step (least – most)", f"÷ {base}"]
        titles += ["before ÷ this", "peer ÷ this", "start, s", "note"]
        print("\n| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))
        for key, cell in sorted(self.found.items(), key=lambda item: self._place(item[0])):
            more = self.ratios(key)
            numbers = [f"{more[n]:.2f}" if n in more else "" for n in _RATIOS]
            start = f"{cell['start_seconds']:.1f}" if "start_seconds" in cell else ""
            words = cell.get("error", "") or cell.get("note", "")
            print("| " + " | ".join([*key, _time(cell), *numbers, start, words]) + " |")

    def _place(self, key: Key) -> tuple[int, str, int, int]:
        pair, way = self.given.pairs.index(key.pair), _WAYS.index(key.way)
        return pair, key.precision, way, _HOWS.index(key.how)

    def status(self) -> int:
        """Return the exit status, and print what decides it."""
        if self.given.device != "cpu":
            return 0
        worst = 0.0
        for pair in self.given.pairs:
            key = Key(pair, self.given.precision[0], "XCL recorded", "eager")
            ratio = self.ratios(key).get("ratio") if key in self.found else None
            if ratio is None:
                print(f"\nXCL recorded ÷ ERM of {pair} is not known")
                return 1
            worst = max(worst, ratio)
        print(f"\nXCL recorded ÷ ERM is at most {worst:.3f}, limit {self.given.limit}")
        return int(worst > self.given.limit)


_WAYS = ("ERM", "KD", "XCL online", "XCL recorded")
_HOWS = ("eager", "captured", "compiled", "at once", "before", "peer")
_RATIOS = ("ratio", "before_times", "peer_times")


def ratio_in_rounds(times: Sequence[float], base: Sequence[float]) -> float | None:
    """Return the median of the ratios of rounds; None where there are none."""
    pairs = list(zip(times, base, strict=False))
    return statistics.median(a / b for a, b in pairs) if pairs else None


def _time(cell: dict[str, Any]) -> str:
    if "ms" not in cell:
        return "–"
    found, least, most = (
        f"{cell[name]:.{0 if cell[name] >= 100 else 1 if cell[name] >= 10 else 2}f}"
        for name in ("ms", "least", "most")
    )
    return f"{found} ({least} – {most})"


def _commit(folder: Path) -> str:
    """Return the commit of a checkout, with ``+`` where files differ; else the folder's name."""
    # Git would find a repository above a copy without one.
    if not (folder / ".git").exists():
        return folder.resolve().name
    try:
        told = [
            subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "-uno"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return folder.resolve().name
    return told[0] + ("+" if told[1] else "")


def _machine(given: argparse.Namespace) -> dict[str, Any]:
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("numpy", "lightning-fabric", "pytorch-lightning", "triton", "extracurricular"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    device = "cpu"
    if given.device == "cuda":
        device = torch.cuda.get_device_name()
        versions["cuda"], versions["cudnn"] = torch.version.cuda, torch.backends.cudnn.version()
    file = Path("/proc/cpuinfo")
    lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cpu = f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"
    return {
        "device": device,
        "cpu": cpu,
        "threads": given.threads,
        "clock": given.clock,
        "versions": versions,
    }
