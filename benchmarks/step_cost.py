"""What a step of training costs: ERM, KD, XCL online and XCL from a record, by the project's loop.

    python benchmarks/step_cost.py [--pairs resnet32x4:resnet8x4 ...] [--ways ERM KD ...]
        [--batch 64] [--device cuda] [--precision auto 32-true] [--threads 1] [--clock cpu]
        [--seconds S] [--rounds N] [--compile] [--together 3] [--before CHECKOUT]
        [--peer CHECKOUT] [--minutes M] [--limit 1.03] [--json FILE]

``train`` itself is timed, between lines of its log (trainings.py has the set-up). Trainings stop at
such lines and take turns, so that all of them meet the same machine; the first two lines, with
capture and compilation, are left out and told apart as the start. A step's time is the median over
rounds, beside the least and the most; a ratio is the median of the ratios in each round, where both
were timed in the same rounds, else the ratio of the medians.

``--clock cpu`` counts the time that the training's thread computes, for a busy machine with CPUs.

On CUDA a step is eager, captured (``Execution(capture="auto")``) and compiled as well, and
``--together`` such trainings run at once. CPUs capture nothing; there ``--compile`` asks for
compiled steps. ``--before`` times the steps of another checkout of this project in a process of
its own, in both precisions on CUDA, of which the faster one counts. ``--peer`` times the loops of a
checkout of RepDistiller. A part that fails, or for which ``--minutes`` leave no time, says so in
its cell. The JSON is written after each cell.

Exit status 1 if on a CPU a step from a record costs more than ``--limit`` times one of ERM.
"""

from __future__ import annotations

import argparse
import functools
import gc
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

import step_cost_peer
from at_once import at_once
from extracurricular.data.base import Data
from extracurricular.knowledge import Recorded
from extracurricular.run.precision import hardware, resolve
from step_cost_table import Cells, Key, ratio_in_rounds
from trainings import WAYS, Job, Pair, random_images, recorded
from turns import CLOCKS, Here, OutOfTimeError, Process, Runner, There, Tick, in_rounds, sentence

PAIRS = ["resnet32x4:resnet8x4", "resnet56:resnet20", "wrn-40-2:wrn-16-2", "vgg13:vgg8"]
_HERE = Path(__file__).resolve().parent
# No part starts with less time than this, in seconds.
_LEAST = 5.0
# On a GPU, seconds without a line of the log after which a training is given up.
_HANGS = {"compiled": 120.0}


class Bench:
    """The whole measurement: one part after another, each of which may fail."""

    def __init__(self, given: argparse.Namespace, cells: Cells) -> None:
        self.given, self.cells = given, cells
        self.cuda = given.device == "cuda"
        self.device = torch.device(given.device)
        self.until = cells.until
        self.folder = tempfile.TemporaryDirectory()
        self.process: Process | None = None
        self.pairs: dict[str, Pair] = {}
        self.told: dict[Key, list[str]] = {}

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return float(self.until - time.time())

    def wait(self) -> None:
        """Wait for the device."""
        if self.cuda:
            torch.cuda.synchronize()

    @functools.cached_property
    def data(self) -> Data:
        """The images."""
        return random_images(self.device)

    @functools.cached_property
    def known(self) -> Recorded:
        """The record."""
        return recorded(self.data, self.given.batch, Path(self.folder.name) / "knowledge")

    def pair(self, names: str) -> Pair:
        """Return a pair, made once."""
        return self.pairs.setdefault(names, Pair(names, self.data, self.given.batch))

    def asked(self, ways: Iterable[str]) -> list[str]:
        """Return those of some ways of training that are to be timed."""
        return [way for way in ways if way in self.given.ways]

    def run(self) -> None:
        """Measure everything, what matters most first."""
        given = self.given
        each = [(names, precision) for names in given.pairs for precision in given.precision]
        hows = ["eager"] + ["captured"] * self.cuda + ["compiled"] * (given.compile > self.cuda)
        for names, precision in each:
            keys = [Key(names, precision, way, how) for how in hows for way in given.ways]
            if given.before and precision == given.precision[0]:
                both = ["bf16-mixed", "32-true"] if self.cuda else ["32-true"]
                keys += [
                    Key(names, one, way, "before") for one in both for way in self.asked(WAYS[:3])
                ]
            self.part(keys, self.rounds)
        self.close()
        if given.peer:
            for names in given.pairs:
                for way in self.asked(step_cost_peer.WAYS):
                    self.part([Key(names, "32-true", way, "peer")], self.peer)
        for names, precision in each if self.cuda else []:
            if given.together > 1:
                for way in self.asked(WAYS[:3]):
                    self.part([Key(names, precision, way, "at once")], self.at_once)
            if given.compile:
                ways = self.asked(["ERM", "XCL online", "KD", "XCL recorded"])
                self.part([Key(names, precision, way, "compiled") for way in ways], self.rounds)

    def close(self) -> None:
        """End the process of the other checkout."""
        if self.process is not None:
            self.process.close()
            self.process = None

    def part(self, keys: Sequence[Key], measure: Callable[[list[Key]], None]) -> None:
        """Do one part, unless an earlier process did, and clear up."""
        keys = [key for key in keys if key not in self.cells]
        if not keys:
            return
        try:
            self.patience(keys[0])
            measure(keys)
        except Exception as error:
            self.fail(keys, error)
        if any(key.how == "before" and "error" in self.cells.found[key] for key in keys):
            self.close()  # an error may have left its GPU unusable
        gc.collect()
        self.recover()
        if self.cuda:
            torch.cuda.empty_cache()
        if self.given.compile:
            torch._dynamo.reset()

    def fail(self, keys: Sequence[Key], error: BaseException) -> None:
        """Put an error into cells that hold nothing yet."""
        for key in keys:
            if key not in self.cells:
                self.cells.add(key, error=sentence(error))

    def recover(self) -> None:
        """Go on in a new process where an error has left the GPU unusable to this one."""
        try:
            torch.ones(8, device=self.device).sum().item()
        except RuntimeError as error:
            print(f"starting again, as the GPU is unusable: {sentence(error)}", flush=True)
            self.close()
            self.folder.cleanup()
            os.environ["STEP_COST_RESUME"] = str(self.cells.save())
            os.execv(sys.executable, [sys.executable, *sys.argv])

    def job(self, key: Key) -> Callable[[Tick], None]:
        """Return the training of a cell."""
        pair, known = self.pair(key.pair), self.known if key.way == "XCL recorded" else None
        # Short turns for slow steps; on a GPU, long lines, as each waits for the device.
        line = (16 if key.how == "eager" else 160 if key.how == "at once" else 64) * self.cuda
        how = "captured" if key.how == "at once" else key.how
        job = Job(key.way, how, key.precision, self.given.threads, max(1, line))
        told = self.told.setdefault(key, [])

        def tell(sentence: str) -> None:
            if sentence not in told:
                told.append(sentence)

        return lambda tick: job.run(pair, known, tick, tell)

    def runner(self, key: Key) -> Runner:
        """Return the training of a cell as one that takes turns."""
        if key.how == "before":
            return self.before(key)
        return Here(self.job(key), self.wait, CLOCKS[self.given.clock])

    def before(self, key: Key) -> Runner:
        """Return the training of a cell in the other checkout."""
        given = self.given
        if self.process is None:
            command = [sys.executable, str(_HERE / "step_cost_before.py"), str(given.before)]
            command += [given.device, str(given.batch), str(given.threads), given.clock]
            # The other checkout comes first; what else lies on the path may be what it needs.
            paths = [str(given.before.resolve() / "src"), os.environ.get("PYTHONPATH", "")]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
            self.process = Process(command, environment, f"{self.folder.name}/before.log")
        settings: dict[str, Any] = {"pair": key.pair, "way": key.way, "precision": key.precision}
        settings |= {"threads": given.threads, "line": 16 if self.cuda else 1}
        return There(self.process, " ".join(key), settings)

    def patience(self, key: Key) -> float:
        """Return the seconds to wait for a line of the log; what hangs on a GPU is given up.

        Raises:
            OutOfTimeError: There is no time left.
        """
        if self.left < _LEAST:
            raise OutOfTimeError("no time left")
        return min(self.left, _HANGS.get(key.how, 40.0)) if self.cuda else self.left

    def rounds(self, keys: list[Key]) -> None:
        """Time trainings in turn."""

        def failed(key: Key, error: Exception) -> None:
            self.fail([key], error)
            self.recover()

        given = self.given
        runners = {key: functools.partial(self.runner, key) for key in keys}
        least = given.seconds / given.rounds
        starts, seconds = in_rounds(runners, given.rounds, least, self.patience, failed)
        for key, times in seconds.items():
            if not times:
                self.fail([key], OutOfTimeError("no time left"))
                continue
            ratio = ratio_in_rounds(times, seconds.get(self.cells.base(key), []))
            start = starts[key] if key.how != "before" else None
            note = "; ".join(self.told.get(key, []))
            self.cells.add(key, times, start=start, ratio=ratio, note=note)

    def peer(self, keys: list[Key]) -> None:
        """Time a loop of RepDistiller, without pauses, in which its workers would get ahead."""
        [key] = keys
        if self.cuda != torch.cuda.is_available():
            raise RuntimeError("its loops always run on the GPU where there is one")
        given, peer = self.given, step_cost_peer.load(self.given.peer)
        every, benchmark = (16 if self.cuda else 2), torch.backends.cudnn.benchmark

        def work(tick: Tick) -> None:
            torch.set_num_threads(given.threads)
            step_cost_peer.run(peer, key.pair, key.way, given.batch, every, tick)

        runner = Here(work, self.wait)
        try:
            start = runner.start(self.patience(key))
            # Its workers have filled their queues meanwhile.
            runner.turn(0.3 * given.seconds, self.patience(key))
            least = given.seconds / given.rounds
            times = [runner.turn(least, self.patience(key)) for _ in range(given.rounds)]
        finally:
            runner.stop()
            torch.backends.cudnn.benchmark = benchmark
        self.cells.add(key, times, start=start, note=step_cost_peer.transform()[1])

    def at_once(self, keys: list[Key]) -> None:
        """Time several captured trainings at once, each on a stream of its own."""
        [key] = keys
        if not self.cuda:
            raise NotImplementedError("several trainings at once are timed on CUDA alone")
        try:
            from extracurricular.training import together
        except ImportError:
            raise NotImplementedError("not available: there is no training.together") from None
        given = self.given
        times, start = at_once(
            self.job(key),
            given.together,
            together,
            self.device,
            given.seconds,
            min(self.left - _LEAST, 60.0),
        )
        note = "; ".join([f"{given.together} trainings", *self.told.get(key, [])])
        self.cells.add(key, times, start=start, note=note)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", nargs="+", default=PAIRS, metavar="TEACHER:STUDENT")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", choices=["cpu", "cuda"])
    parser.add_argument("--precision", nargs="+", default=["auto"])
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: of one CPU thread")
    parser.add_argument("--seconds", type=float, help="time of each cell (0.8 on CUDA, 15 on CPUs)")
    parser.add_argument("--rounds", type=int, help="turns of each cell (5 on CUDA, 10 on CPUs)")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="default: CUDA")
    parser.add_argument("--together", type=int, default=3, help="trainings at once; 1 for none")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT")
    parser.add_argument("--peer", type=Path, metavar="CHECKOUT")
    parser.add_argument("--minutes", type=float, help="most time in all (4.5 on CUDA, 60 on CPUs)")
    parser.add_argument("--limit", type=float, default=1.03)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    given.device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    cuda = given.device == "cuda"
    for name, there, here in (
        ("seconds", 0.8, 15.0), ("rounds", 5, 10), ("minutes", 4.5, 60.0), ("compile", True, False),
    ):  # fmt: skip
        if getattr(given, name) is None:
            setattr(given, name, there if cuda else here)
    words = [resolve(name, hardware(given.device)) for name in given.precision]
    given.precision = list(dict.fromkeys(words))
    for names in given.pairs:
        if names.count(":") != 1:
            parser.error(f"--pairs has {names!r}; it must be TEACHER:STUDENT")
    return given


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    cells = Cells(given)

    def end(late: bool = False) -> None:
        if late:
            print("--minutes are over in the midst of a part", flush=True)
        cells.show()
        # Trainings may still wait in their threads, or for a device that never answers.
        sys.stdout.flush()
        os._exit(cells.status())

    watch = threading.Timer(max(cells.until - time.time(), 0) + 10, end, [True])
    watch.daemon = True
    watch.start()
    if given.together > 1 and given.device == "cpu":
        print("several trainings at once: CUDA only, skipped")
        given.together = 1
    # Each way and pair is compiled anew, and so is what a limit would leave uncompiled.
    for name in ("recompile_limit", "accumulated_recompile_limit") if given.compile else ():
        if hasattr(torch._dynamo.config, name):
            setattr(torch._dynamo.config, name, 512)
    bench = Bench(given, cells)
    bench.run()
    bench.close()
    bench.folder.cleanup()
    end()


if __name__ == "__main__":
    main()
