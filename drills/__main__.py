"""The command: ``python -m drills [NAME …] [--seed S] [--count N] [--only K] [--out FOLDER]``."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import drills
from drills.common import Dice, Result, table


@dataclass(frozen=True)
class Drill:
    """A drill: the module of its name.

    Args:
        name: Its name.
        about: How it goes, in one line.
        count: Trials by default.
        make: Makes trials of it.
    """

    name: str
    about: str
    count: int
    make: Callable[[Dice, int, Path], Result]


def known() -> dict[str, Drill]:
    """Return the drills: the modules of this package that have ``drill``."""
    found = {}
    for name in sorted(module.name for module in iter_modules(drills.__path__)):
        if name.startswith("_"):
            continue
        module = import_module(f"drills.{name}")
        if hasattr(module, "drill"):
            about = (module.__doc__ or "").partition("\n")[0]
            found[name] = Drill(name, about, module.COUNT, module.drill)
    return found


def main(words: list[str] | None = None) -> int:
    """Make drills, print their table, and return the exit status: 1 where there is a fault."""
    every = known()
    parser = argparse.ArgumentParser(
        prog="python -m drills",
        description="\n".join(f"{one.name:12}{one.about}" for one in every.values()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="drills to make; all by default")
    parser.add_argument("--seed", type=int, default=0, help="0 by default")
    parser.add_argument("--count", type=int, help="trials of each drill; each has its own default")
    parser.add_argument("--only", type=int, metavar="TRIAL", help="do this one trial alone")
    parser.add_argument("--minutes", type=float, help="begin no trial after so long in a drill")
    parser.add_argument("--out", type=Path, help="folder to work in, which is kept")
    chosen = parser.parse_args(words)
    unknown = [name for name in chosen.names if name not in every]
    if unknown:
        parser.error(f"there is no drill {unknown[0]!r}; there are {', '.join(every)}")
    results: dict[str, tuple[Result, float, str]] = {}
    with _folder(chosen.out) as folder:
        for name in chosen.names or every:
            count = chosen.count or every[name].count
            command = f"python -m drills {name} --seed {chosen.seed} --count {count}"
            print(f"{name}: {every[name].about}", file=sys.stderr, flush=True)
            own = folder / name
            own.mkdir(parents=True, exist_ok=True)
            started = time.monotonic()
            until = None if chosen.minutes is None else started + 60 * chosen.minutes
            dice = Dice(f"{name} {chosen.seed}", chosen.only, until)
            found = every[name].make(dice, count, own)
            results[name] = found, time.monotonic() - started, command
            for fault in found.faults:
                print(f"FAULT: {command} --only {fault.trial}: {fault.text}")
    print(table(results))
    return 1 if any(result.faults for result, _, _ in results.values()) else 0


@contextlib.contextmanager
def _folder(wanted: Path | None) -> Iterator[Path]:
    if wanted is not None:
        wanted.mkdir(parents=True, exist_ok=True)
        yield wanted.resolve()
        return
    # In memory where that can be: no drill cuts the power, and flushing takes most of the time.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="drills-", dir=memory if os.access(memory, os.W_OK) else None
    ) as made:
        yield Path(made).resolve()


if __name__ == "__main__":
    sys.exit(main())
