"""The page: templates, filled with the content that :mod:`~extracurricular.report.collect` gathers.

Jinja2 escapes every text from data or recipes, and a policy in the page's head forbids scripts and
the network altogether.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from extracurricular.errors import XclError
from extracurricular.evaluation.calibrated import calibration_rows
from extracurricular.evaluation.labels import label_rows
from extracurricular.evaluation.summary import Parts, sentences
from extracurricular.evaluation.words import Words, figure_text, known
from extracurricular.report import cells, front, sections
from extracurricular.report.classes import class_tables, recall_table
from extracurricular.report.collect import Report, Stretch
from extracurricular.report.confusions import confusions, own_confusions
from extracurricular.report.figures import clean
from extracurricular.report.learning import learning, mastery

if TYPE_CHECKING:
    from jinja2 import Environment

# Draws of a gallery that the page shows at once; the others are a click away.
_FIRST = 12


def environment() -> Environment:
    """Return Jinja2 with the package's templates, which escapes everything.

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
    found.filters["share"] = share
    # A number and its percent sign stay on one line.
    found.filters["bound"] = lambda text: text.replace(" %", "\N{NO-BREAK SPACE}%")
    found.filters["minus"] = lambda text: re.sub(r"(?<!\w)-(?=\d)", "−", text)
    return found


def render(report: Report, fingerprint: str) -> str:
    """Return the page as HTML.

    Args:
        report: Its content.
        fingerprint: The page keeps it in its head, to tell later whether it is up to date.
    """
    from markupsafe import Markup

    def figures(found: Any) -> list[dict[str, Any]]:
        # The pictures come from this package, which escaped their texts.
        return [{**vars(figure), "svg": Markup(figure.svg)} for figure in found]

    recipe, parts = report.summary["recipe"], Parts.of(report.summary)
    headings, rows = cells.table(report.summary)
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
        note=cells.table_note(report.summary),
        all_figures=full_table(report.summary),
        targets=cells.targets_table(report.summary),
        labels=label_tables(report.summary),
        kept=parts.named,
        overview=figures(sections.overview(report)),
        front_figures=figures(front.figures(report)),
        front_table=front.table(report),
        learning=figures(learning(report)),
        mastery=figures(mastery(report)),
        calibration=figures(sections.calibration(report)),
        calibrated=calibrated_table(report.summary),
        fidelity=figures(sections.fidelity(report)),
        confusions=confusions(report),
        own_confusions=own_confusions(report),
        recalls=recall_table(report.summary),
        class_tables=class_tables(report.summary),
        open=open_galleries(report),
        first=_FIRST,
        stretches=bars(report.time),
        yaml=yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True),
        latencies=by_time(report.latency["students"]),
        install=_install(report),
    )


def open_galleries(report: Report) -> set[int]:
    """Return the places of the open galleries: those of the reference and the compared student."""
    wanted = {Parts.of(report.summary).reference, report.compared} - {None}
    found = {k for k, g in enumerate(report.galleries) if wanted & set(g.students)}
    return found or {0, 1}


def full_table(summary: Mapping[str, Any]) -> list[tuple[Words, list[str]]]:
    """Return all figures of the summary: their words, and a text for teacher and students."""
    entries = [entry["metrics"] for entry in (summary["teacher"], *summary["students"].values())]
    names = {name for figures in entries for name in figures}
    return [
        (words, [figure_text(words, figures.get(words.name)) for figures in entries])
        for words in known(names)
    ]


def calibrated_table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of the calibrated models; no rows where none is."""
    return calibration_rows({"teacher": summary["teacher"], **summary["students"]})


def label_tables(summary: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return a title, headings and rows of the figures of each label, for teacher and students."""
    entries = {"teacher": summary["teacher"], **summary["students"]}
    return [
        (name, *label_rows(entry["labels"])) for name, entry in entries.items() if "labels" in entry
    ]


def bars(stretches: list[Stretch]) -> list[tuple[Stretch, float]]:
    """Return the rows of where the time went, with the lengths of their bars in percent."""
    longest = max((s.seconds or 0.0 for s in stretches), default=0.0) or 1.0
    return [(s, 100 * (s.seconds or 0.0) / longest) for s in stretches]


def by_time(students: dict[str, dict[str, float]]) -> list[tuple[list[str], dict[str, float]]]:
    """Return times with the names of their students; students of one network share theirs.

    Those of which none are known are left out.
    """
    groups: list[tuple[list[str], dict[str, float]]] = []
    for name, times in students.items():
        if not times:
            continue
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
    # A cell has room for two digits, and tenths of ten examples tell nobody anything.
    digits = 0 if abs(value) >= 9.95 else 1
    text = f"{value:+.{digits}f}".replace("-", "−")
    text = text.removesuffix(".0")
    return "" if text in ("+0", "−0") else text


def share(value: float) -> str:
    """Write a share in percent for a small cell: 87, 0.4; nothing for 0."""
    if value == 0:
        return ""
    return f"{value:.0f}" if value >= 0.95 else "<1"


def _install(report: Report) -> str | None:
    """Return a command that installs the versions of the run, in a clone of this package."""
    if not report.trained:
        return None
    last = report.trained[-1]
    # A build for one kind of device has a suffix that no registry knows.
    torch_version = str(last.get("torch", "")).partition("+")[0]
    version = last.get("extracurricular")
    return f"pip install torch=={torch_version} -e .  # in a clone of extracurricular {version}"
