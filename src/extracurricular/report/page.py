"""The page: templates filled with what :mod:`~extracurricular.report.collect` gathered.

Whatever comes from data or recipes is escaped by Jinja2, and a policy in the page's head forbids
scripts and the network altogether.
"""

from __future__ import annotations

import re
import statistics
from typing import TYPE_CHECKING, Any

import yaml

from extracurricular.errors import XclError
from extracurricular.evaluation.summary import cells, sentences, table_note
from extracurricular.report import sections
from extracurricular.report.collect import Report, Stretch
from extracurricular.report.confusions import confusions
from extracurricular.report.figures import clean

if TYPE_CHECKING:
    from jinja2 import Environment

# Draws of a gallery that are seen at once; the others are a click away.
_FIRST = 12

# Figures of the summary that the small print explains, in the order of the full table.
METRICS = {
    "accuracy": ("accuracy", "share of right classes; higher is better"),
    "angular_error": ("angular error, °", "mean angle between predicted and true gaze"),
    "rmse": ("RMSE", "root mean square error over all targets, in their own units"),
    "nll": ("NLL", "negative log-likelihood in nats, a proper score; lower is better"),
    "brier": ("Brier score", "a proper score between 0 and 2; lower is better"),
    "crps": ("CRPS", "a proper score in units of the target; lower is better"),
    "ece": ("ECE", "calibration error; no proper score"),
    "coverage90": ("coverage", "share of targets in the 90 % intervals; 0.9 would be right"),
    "kl_to_teacher": ("KL to teacher", "mean divergence from the teacher in nats"),
    "agreement": ("agreement", "with the teacher, as below"),
}


def environment() -> Environment:
    """Return Jinja2 with the package's templates; everything is escaped.

    Raises:
        XclError: Jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise XclError(
            f"a report needs jinja2, which cannot be imported ({error}); pip install jinja2"
        ) from error
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("extracurricular.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
    found.filters["duration"] = duration
    found.filters["signed"] = signed
    # A number and its sign of percent stay on one line.
    found.filters["bound"] = lambda text: text.replace(" %", "\N{NO-BREAK SPACE}%")
    found.filters["minus"] = lambda text: re.sub(r"(?<!\w)-(?=\d)", "−", text)
    return found


def render(report: Report, fingerprint: str) -> str:
    """Return the page as HTML.

    Args:
        report: What it shows.
        fingerprint: Kept in its head, to tell later whether it is up to date.
    """
    from markupsafe import Markup

    def figures(found: Any) -> list[dict[str, Any]]:
        # The pictures are made here, from texts that were escaped on the way.
        return [{**vars(figure), "svg": Markup(figure.svg)} for figure in found]

    recipe = report.summary["recipe"]
    headings, rows = cells(report.summary)
    template = environment().get_template("report.html.j2")
    return template.render(
        fingerprint=fingerprint,
        report=report,
        recipe=recipe,
        task=report.summary["task"],
        seeds=report.summary["seeds"],
        split=recipe["evaluation"]["split"],
        verdict=sentences(report.summary),
        headings=headings,
        rows=rows,
        note=table_note(report.summary),
        metrics=full_table(report.summary),
        overview=figures(sections.overview(report)),
        learning=figures(sections.learning(report)),
        calibration=figures(sections.calibration(report)),
        fidelity=figures(sections.fidelity(report)),
        confusions=confusions(report),
        open=open_galleries(report),
        first=_FIRST,
        stretches=bars(report.time),
        yaml=yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True),
        latencies=by_time(report.latency["students"]),
        install=_install(report),
    )


def open_galleries(report: Report) -> set[int]:
    """Return the places of the galleries that are open: of kd, and of what it is compared with."""
    wanted = {"kd", report.compared}
    found = {k for k, g in enumerate(report.galleries) if wanted & set(g.students)}
    return found or {0, 1}


def full_table(summary: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    """Return all figures of the summary: name, what it is, and a text for teacher and students."""
    entries = [summary["teacher"], *summary["students"].values()]
    names = [name for name in METRICS if any(name in e["metrics"] for e in entries)]
    return [(*METRICS[name], [_figure(e["metrics"].get(name)) for e in entries]) for name in names]


def _figure(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "–"
    values = [v for v in figure["per_seed"] if v is not None]
    if len(values) < len(figure["per_seed"]):
        return "not finite"
    text = f"{statistics.fmean(values):.4g}"
    return text if len(set(values)) == 1 else f"{text} ± {figure['std']:.2g}"


def bars(stretches: list[Stretch]) -> list[tuple[Stretch, float]]:
    """Return rows of where the time went with the length of their bars, in percent."""
    longest = max((s.seconds or 0.0 for s in stretches), default=0.0) or 1.0
    return [(s, 100 * (s.seconds or 0.0) / longest) for s in stretches]


def by_time(students: dict[str, dict[str, float]]) -> list[tuple[list[str], dict[str, float]]]:
    """Return times with the names of those that have them, as students of one network do."""
    groups: list[tuple[list[str], dict[str, float]]] = []
    for name, times in students.items():
        same = next((names for names, known in groups if known == times), None)
        if same is None:
            groups.append(([name], times))
        else:
            same.append(name)
    return groups


def duration(seconds: float) -> str:
    """Write a time as a person would: 12.3 s, 4 min 10 s, 2 h 5 min."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def signed(value: float) -> str:
    """Write a difference of counts: +3, −0.4, 0."""
    text = f"{value:+.1f}".rstrip("0").rstrip(".").replace("-", "−")
    return "" if text in ("+0", "−0", "+", "−") else text


def _install(report: Report) -> str | None:
    if not report.trained:
        return None
    last = report.trained[-1]
    # A build for one kind of device has a suffix that no registry knows.
    torch_version = str(last.get("torch", "")).partition("+")[0]
    return f"pip install extracurricular=={last.get('extracurricular')} torch=={torch_version}"
