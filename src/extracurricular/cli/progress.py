"""Progress bars in the terminal while a run is at work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich import progress as bars
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from extracurricular.data.progress import Watch, watched_by


class _Rate(bars.ProgressColumn):
    """A column with the rate of steps, or of whatever is counted, per second."""

    def __init__(self, unit: str = "steps") -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: bars.Task) -> Text:
        speed = task.finished_speed or task.speed
        unit = task.fields.get("unit", self.unit)
        return Text(f"{speed:,.0f} {unit}/s" if speed else "", style="cyan")


class _Count(bars.ProgressColumn):
    """A column with the number that is done, and the number of all if it is known."""

    def render(self, task: bars.Task) -> Text:
        whole = "" if task.total is None else f"/{task.total:,.0f}"
        return Text(f"{task.completed:>6,.0f}{whole}", style="progress.download")


@contextmanager
def counting(
    console: Console, title: str, total: int | None, unit: str
) -> Iterator[Callable[[int], None]]:
    """Show one bar, with rate and time left, while a block runs.

    Args:
        console: The console; without a terminal nothing is shown.
        title: A title for the bar.
        total: The number of things to do; None if it is not known.
        unit: A word for them.

    Yields:
        A function to call with the number that is done; its first call sets the start of the bar.
    """
    with bars.Progress(
        bars.TextColumn("{task.description:<16}", markup=False),
        bars.BarColumn(bar_width=None),
        _Count(),
        _Rate(unit),
        bars.TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as shown:
        bar = shown.add_task(title, total=total)
        yield lambda done: shown.update(bar, completed=done)


class Progress:
    """A bar for the run and one for each stage at work, with rate and time left.

    Without a terminal (a log file, CI) it prints a line for each finished stage instead.

    Args:
        console: The console to write to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.worked = False
        self._base = 0
        self._told: set[str] = set()
        self._bars = bars.Progress(
            bars.TextColumn("{task.description:<16}", markup=False),
            bars.BarColumn(bar_width=None),
            _Count(),
            _Rate(),
            bars.TimeRemainingColumn(elapsed_when_finished=True),
            bars.TextColumn("{task.fields[loss]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._whole: bars.TaskID | None = None
        self._stages: dict[str, bars.TaskID] = {}
        self._steps: dict[str, int] = {}
        self._before: Watch | None = None

    def __enter__(self) -> Progress:
        self._bars.start()
        # Two displays at once would write over each other, so reading gets a bar in this one.
        self._before = watched_by(self._reading if self.console.is_terminal else None)
        return self

    @contextmanager
    def _reading(self, title: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        bar = self._bars.add_task(title, total=total, loss="", unit=unit)
        try:
            yield lambda done: self._bars.update(bar, completed=done)
        finally:
            self._bars.remove_task(bar)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        watched_by(self._before)
        self._bars.stop()

    def plan(self, steps: int, done: int) -> None:
        """Set the number of steps of the whole run, and how many are done."""
        if self._whole is not None:
            self._bars.remove_task(self._whole)  # of runs before these
            self._whole = None
        if done < steps:
            self._whole = self._bars.add_task("all", total=steps, completed=done, loss="")
            self._base = done

    def begin(self, title: str, steps: int) -> None:
        """Show the bar of a new stage."""
        self.worked = True
        self._stages[title] = self._bars.add_task(title, total=steps, loss="")
        self._steps[title] = 0

    def advance(self, title: str, step: int, loss: float | None) -> None:
        """Move the bar of a stage, and that of the run."""
        if title in self._stages:
            shown = "" if loss is None else f"loss {loss:.4f}"
            self._bars.update(self._stages[title], completed=step, loss=shown)
            self._steps[title] = step
        if self._whole is not None:
            self._bars.update(self._whole, completed=self._base + sum(self._steps.values()))

    def end(self, title: str, steps: int, seconds: float, problem: str = "") -> None:
        """Remove the stage's bar and print a line, and a second one for a problem."""
        if title in self._stages:
            self._bars.remove_task(self._stages.pop(title))
            self._steps.pop(title)
        self._base += steps
        mark = "[red]✗[/red]" if problem else "[green]✓[/green]"
        line = f"  {mark} {escape(f'{title:<20}')} "
        if steps > 1:
            rate = steps / max(seconds, 1e-9)
            line += f"{steps:>6,} steps in {seconds:6.1f} s  [dim]{rate:,.0f} steps/s[/dim]"
        else:
            line += f"{'':>12} in {seconds:6.1f} s"
        self.console.print(line)
        if problem:
            self.console.print(f"    [red]{escape(problem)}[/red]")

    def tell(self, text: str) -> None:
        """Print a sentence for the user, once if several jobs say it."""
        if text in self._told:
            return
        self._told.add(text)
        self.console.print(f"  [yellow]·[/yellow] {escape(text)}")
