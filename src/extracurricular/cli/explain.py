"""The commands that explain what a recipe can say: keys, samplers and matchings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from extracurricular.cli import base

if TYPE_CHECKING:
    from extracurricular.recipe.reference import Explained, Key

_Name = Annotated[str | None, typer.Argument(help="One of them, to show its settings.")]


@base.app.command(rich_help_panel=base.LOOK)
def explain(
    words: Annotated[
        str | None,
        typer.Argument(
            metavar="[KEY]", help="A key (students.xcl.matching.temperature, lr) or a name (mixup)."
        ),
    ] = None,
) -> None:
    """Explain a key of a recipe, or a name in it: type, default, meaning and an example."""
    from extracurricular.recipe import reference

    if words is None:
        top = reference.keys()
        _show_keys([key for key in top if "." not in key.path])
        base.console().print("\nxcl explain KEY says more of one.")
        return
    for number, found in enumerate(reference.explain(words)):
        if number:
            base.console().print()
        _show(found)


@base.app.command(rich_help_panel=base.LOOK)
def samplers(name: _Name = None) -> None:
    """List the samplers, which draw the examples, or show the settings of one."""
    _list_or_show("sampler", name)


@base.app.command(rich_help_panel=base.LOOK)
def matchings(name: _Name = None) -> None:
    """List the divergences that a student can be matched by, or explain one."""
    _list_or_show("divergence", name)
    if name is None:
        base.console().print()
        from extracurricular.recipe import reference

        [found] = reference.explain("students.NAME.matching")
        _show_keys(found.inside)


def list_entries(kind: str) -> None:
    """Print the entries of a kind, each with the first line of its docstring."""
    from rich.table import Table

    from extracurricular.recipe.reference import described

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for entry in described(kind).values():
        table.add_row(f"[bold]{base.escaped(entry.name)}[/bold]", _text(entry.summary))
    base.console().print(table)


def _list_or_show(kind: str, name: str | None) -> None:
    from extracurricular.errors import RecipeError, known_names
    from extracurricular.recipe import reference

    if name is None:
        list_entries(kind)
        return
    known = reference.described(kind)
    if name not in known:
        raise RecipeError("", f"there is no {kind} {name!r}; {known_names(name, known)}")
    _show(next(found for found in reference.explain(name) if found.kind == kind))


def _show(found: Explained) -> None:
    console = base.console()
    title = f"[bold]{base.escaped(found.path)}[/bold]"
    if found.entry is not None:
        console.print(f"{title}  [dim]{found.kind}[/dim]")
        console.print(_text(found.entry.summary))
        if found.entry.text:
            console.print(f"\n{_text(found.entry.text)}")
        if found.inside:
            console.print()
        _show_keys(found.inside)
        return
    assert found.key is not None
    setting = found.key.setting
    default = "must be given" if setting.default is None else f"default {setting.default}"
    about = setting.type if setting.section else f"{setting.type}; {default}"
    console.print(f"{title}  [dim]{_text(about)}[/dim]")
    console.print(_text(setting.meaning))
    if found.key.example:
        console.print(f"[dim]example:[/dim] {base.escaped(found.key.example)}")
    if found.kind:
        from extracurricular.recipe.reference import described

        console.print(f"[dim]known:[/dim] {_text(', '.join(described(found.kind)))}")
    if found.inside:
        console.print()
    _show_keys(found.inside)


def _show_keys(keys: tuple[Key, ...] | list[Key]) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="dim")
    table.add_column()
    for key in keys:
        setting = key.setting
        default = "" if setting.section or setting.default is None else setting.default
        table.add_row(
            f"[bold]{base.escaped(setting.name)}[/bold]", _text(default), _text(setting.meaning)
        )
    if keys:
        base.console().print(table)


def _text(text: str) -> str:
    """Return text of a docstring as the terminal shows it, without the marks of code."""
    return base.escaped(text.replace("`", ""))
