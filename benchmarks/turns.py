"""Trainings that take turns, so that whatever else the machine does meets all of them alike.

A training runs in a thread of its own (:class:`Here`), or in another process (:class:`There`), and
stops at a line of its log until it is its turn again. So several can be timed in rounds, while each
is built, captured and compiled once. Needs no part of the project.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol, TypeVar

K = TypeVar("K")

Tick = Callable[[int], None]
"""A training calls it with the number of its steps done, at each line of its log."""

Work = Callable[[Tick], object]
"""A training, which calls the :data:`Tick` that it gets."""


class Ended(BaseException):
    """The training is not needed any more; no ``except Exception`` must stop it."""


class OutOfTimeError(TimeoutError):
    """There is no time left for the training."""


class Runner(Protocol):
    """A training that takes turns."""

    def start(self, timeout: float) -> float:
        """Run to the first line of the log; return the seconds that it took."""
        ...

    def turn(self, least: float, timeout: float) -> float:
        """Run for at least so many seconds, whole lines of the log; return the seconds a step."""
        ...

    def stop(self) -> None:
        """End the training."""
        ...


class Here:
    """A training in a thread of this process.

    Args:
        work: The training.
        synchronize: Waits for the device.
        clock: Its seconds, read in the thread of the training.
    """

    def __init__(
        self,
        work: Work,
        synchronize: Callable[[], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._work, self._synchronize, self._clock = work, synchronize, clock
        self._go = threading.Semaphore(0)
        self._reports: queue.Queue[float | BaseException] = queue.Queue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ended, self._least = False, 0.0
        self._since: tuple[int, float] | None = None

    def start(self, timeout: float) -> float:
        """Run to the first line of the log; return the seconds that it took."""
        self._begun = time.perf_counter()
        self._thread.start()
        return self._wait(timeout)

    def turn(self, least: float, timeout: float) -> float:
        """Run for at least so many seconds, whole lines of the log; return the seconds a step."""
        self._least = least
        self._go.release()
        return self._wait(timeout)

    def stop(self) -> None:
        """End the training."""
        self._ended = True
        self._go.release()
        if self._thread.is_alive():
            self._thread.join(10)

    def _wait(self, timeout: float) -> float:
        try:
            report = self._reports.get(timeout=max(timeout, 0.1))
        except queue.Empty:
            raise TimeoutError(f"no line of the log in {timeout:.0f} s") from None
        if isinstance(report, BaseException):
            raise report
        return report

    def _run(self) -> None:
        try:
            self._work(self._tick)
            self._reports.put(RuntimeError("the training came to its end"))
        except Ended:
            pass
        except BaseException as error:
            self._reports.put(error)

    def _tick(self, step: int) -> None:
        self._synchronize()
        now = self._clock()
        if self._since is None:
            self._reports.put(time.perf_counter() - self._begun)
        else:
            first, begun = self._since
            if step == first or (now - begun < self._least and not self._ended):
                return
            self._reports.put((now - begun) / (step - first))
        self._go.acquire()
        if self._ended:
            raise Ended
        self._since = (step, self._clock())


class Process:
    """Another process with trainings, which speaks by lines of JSON (:func:`serve`).

    Args:
        command, environment: As ``subprocess`` takes them.
        log: File for its other output.
    """

    def __init__(self, command: list[str], environment: Mapping[str, str], log: str) -> None:
        with open(log, "w") as file:  # noqa: PTH123 - the child inherits it
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True,
                env=dict(environment),
            )  # fmt: skip
        self._log = log
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def ask(self, timeout: float, **question: Any) -> float:
        """Ask for one number."""
        assert self._process.stdin is not None
        try:
            print(json.dumps(question), file=self._process.stdin, flush=True)
            line = self._lines.get(timeout=max(timeout, 0.1))
        except queue.Empty:
            self._process.kill()  # its answer would come when another one is awaited
            raise TimeoutError(f"no answer in {timeout:.0f} s") from None
        except OSError:
            line = ""
        if not line:
            with open(self._log, errors="replace") as file:  # noqa: PTH123
                last = ["", *file.read().strip().splitlines()][-1]
            raise RuntimeError(f"the process has ended: {last}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return float(answer["seconds"])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}
"""Clocks by name: the time that passes, or that the training's own thread spends computing."""


class There:
    """A training in another process.

    Args:
        process: The process.
        name: The training's name there.
        settings: The settings by which the process makes it.
    """

    def __init__(self, process: Process, name: str, settings: dict[str, Any]) -> None:
        self._process, self._name, self._settings = process, name, settings

    def start(self, timeout: float) -> float:
        """Run to the first line of the log; return the seconds that it took."""
        return self._process.ask(timeout, do="start", name=self._name, settings=self._settings)

    def turn(self, least: float, timeout: float) -> float:
        """Run for at least so many seconds, whole lines of the log; return the seconds a step."""
        return self._process.ask(timeout, do="turn", name=self._name, least=least)

    def stop(self) -> None:
        """End the training."""
        self._process.ask(20, do="stop", name=self._name)


def in_rounds(
    runners: Mapping[K, Callable[[], Runner]],
    count: int,
    least: float,
    patience: Callable[[K], float],
    failed: Callable[[K, Exception], None],
) -> tuple[dict[K, float], dict[K, list[float]]]:
    """Time trainings in turn.

    Args:
        runners: Makes each training.
        count: Number of rounds.
        least: Least seconds of a turn.
        patience: Returns the seconds to wait for a training, or raises :class:`OutOfTimeError`.
        failed: Gets the error of a training, which then has no more turns.

    Returns:
        The seconds up to the first line of the log, and in each round the seconds a step, of the
        trainings that did not fail.
    """
    running: dict[K, Runner] = {}
    starts: dict[K, float] = {}
    seconds: dict[K, list[float]] = {}
    try:
        for key, make in runners.items():
            try:
                waits = patience(key)
                running[key] = make()
                starts[key] = running[key].start(waits)
                running[key].turn(0.0, patience(key))
                seconds[key] = []
            except Exception as error:
                failed(key, error)
        for number in range(count):
            # Whoever is first after a pause may be slower, so all take turns at that too.
            live = list(seconds)
            first = number % max(1, len(live))
            for key in live[first:] + live[:first]:
                try:
                    seconds[key].append(running[key].turn(least, patience(key)))
                except OutOfTimeError:
                    return starts, seconds
                except Exception as error:
                    del seconds[key]
                    failed(key, error)
        return starts, seconds
    finally:
        for runner in running.values():
            with suppress(Exception):  # one that failed may be gone
                runner.stop()


def serve(make: Callable[[dict[str, Any]], Runner], questions: Any, answers: Any) -> None:
    """Answer the questions of a :class:`Process` until there are no more.

    Args:
        make: Makes a training from its settings.
        questions, answers: Text files.
    """
    runners: dict[str, Runner] = {}
    for line in questions:
        asked, forever = json.loads(line), 1e6
        try:
            if asked["do"] == "start":
                runners[asked["name"]] = make(asked["settings"])
                seconds = runners[asked["name"]].start(forever)
            elif asked["do"] == "turn":
                seconds = runners[asked["name"]].turn(asked["least"], forever)
            else:
                runners.pop(asked["name"]).stop()
                seconds = 0.0
            answer: dict[str, Any] = {"seconds": seconds}
        except BaseException as error:
            answer = {"error": sentence(error)}
        print(json.dumps(answer), file=answers, flush=True)


def sentence(error: BaseException) -> str:
    """Return an error as one short line."""
    if isinstance(error, OutOfTimeError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]
