"""Make a data set of parquet files that exceed the memory: inputs stay on the disk.

Columns are understood one after the other, then rows are encoded some at once and written to files
in the order of the splits (:mod:`.on_disk`). In memory are, at any time, the targets, the columns
that make the splits, and one further column. Splits, inputs and targets are those of
:func:`.tabular.make_table`, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from extracurricular.data.base import Data, Split
from extracurricular.data.encode import encode
from extracurricular.data.fields import Fields
from extracurricular.data.formats.cache import cache_folder
from extracurricular.data.formats.columns import Reading, Table, column_named, shorten_names
from extracurricular.data.formats.columns import understood as understood_columns
from extracurricular.data.formats.delimited import Raw
from extracurricular.data.formats.image_tables import rows_of, with_rows
from extracurricular.data.formats.on_disk import entry_folder, on_disk, stamps
from extracurricular.data.formats.parquet import opened
from extracurricular.data.formats.table_notes import column_notes
from extracurricular.data.formats.tables import kind_of_file, table_files, without_index
from extracurricular.data.formats.tabular import (
    Choices,
    fit_input,
    holes_in,
    ids_of_rows,
    make_table,
)
from extracurricular.data.progress import reading as watched
from extracurricular.errors import DataError, first_line

Array: TypeAlias = np.ndarray[Any, Any]

_ROW = " row of the table"
_ROWS = 2**13
_PARTS = ("train", "validation", "test", "unlabelled")


def gigabytes_of(path: Path) -> float:
    """Return the memory of all numbers of parquet files, in GB; 0 for files of other kinds.

    Raises:
        DataError: There are no files, or one is damaged.
    """
    files = table_files(path)
    if any(kind_of_file(file) != ".parquet" for file in files):
        return 0.0
    total = 0
    for file in files:
        with opened(file) as content:
            total += content.metadata.num_rows * content.metadata.num_columns
    return 8 * total / 1e9


@dataclass(frozen=True)
class _Source:
    """The files of a table.

    Args:
        path: As given.
        files: The files, in order.
        names: Names of their columns.
        reading: How they are read.
    """

    path: Path
    files: list[Path]
    names: list[str]
    reading: Reading

    @property
    def where(self) -> str:
        """The files, for errors."""
        word = "files" if len(self.files) > 1 else "file"
        return f"the {word} {str(self.path if len(self.files) > 1 else self.files[0])!r}"

    def raw(self, names: list[str]) -> Raw:
        """Read some columns."""
        try:
            frames = [
                pl.read_parquet(file, columns=names, glob=False, hive_partitioning=False)
                for file in self.files
            ]
            frame = pl.concat(frames, how="vertical_relaxed") if len(frames) > 1 else frames[0]
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(
                f"{self.where} cannot be read as parquet: {first_line(error)}"
            ) from error
        return Raw(self.where, frame, lambda row: f"row {row}")

    def table(self, names: list[str]) -> Table | None:
        """Read and understand some columns; None if they are empty or count the rows."""
        raw = without_index(self.raw(names), self.reading)
        if not raw.frame.width or all(c.null_count() == len(c) for c in raw.frame.get_columns()):
            return None
        given = self.reading.date_format
        return understood_columns(
            raw,
            replace(
                self.reading,
                drop=(),
                categorical=[name for name in self.categorical if name in names],
                date_format={k: v for k, v in given.items() if k in names}
                if isinstance(given, Mapping)
                else given,
            ),
        )

    @property
    def categorical(self) -> list[str]:
        """Names of the columns whose values are names."""
        given = self.reading.categorical
        return [column_named(self.where, self.names, one, "categorical") for one in given]

    def blocks(self, names: list[str]) -> Iterator[pl.DataFrame]:
        """Yield rows, some at once, by the row groups of the files."""
        for file in self.files:
            with opened(file) as content:
                # pyarrow would read ahead all groups that it is asked for.
                for group in range(content.num_row_groups):
                    for batch in content.iter_batches(_ROWS, [group], names):
                        frame = pl.from_arrow(batch)
                        assert isinstance(frame, pl.DataFrame)
                        yield frame


def make_large_table(name: str, path: Path, reading: Reading, choices: Choices) -> Data:
    """Make a data set of parquet files, with the inputs in files in the user's cache folder.

    Raises:
        DataError: The files are no parquet, a setting needs all rows at once or does not fit, or a
            value cannot be used.
    """
    source = _source(path, reading)
    if choices.duplicates == "drop":
        raise DataError(
            f"{source.where}: duplicates is 'drop', which compares all rows; it cannot be used "
            "while the inputs stay on the disk (`on_disk`)"
        )
    dropped = {column_named(source.where, source.names, one, "drop") for one in reading.drop}
    kept = [n for n in source.names if n not in dropped and not _counts(source, n)]
    if not kept:
        raise DataError(f"{source.where} has no columns")
    special = {
        key: column_named(source.where, kept, which, key)
        for key in ("split", "group", "time", "id")
        if (which := getattr(choices, key)) is not None
    }
    given: Any = choices.target
    wanted = list(given) if isinstance(given, list | tuple) else [given]
    targets = [column_named(source.where, kept, one, "target") for one in wanted]
    thin = source.table(list(dict.fromkeys([*targets, *special.values()])))
    if thin is None:
        raise DataError(f"{source.where}: no row has a value of the target {targets}")
    inputs = [one for one in kept if one not in thin.columns and one not in targets]
    if not inputs:
        raise DataError(f"{source.where} has no columns left to predict {targets} from")
    rows, left_out = _whole(source, inputs, len(thin), choices)
    made, places = _split_up(name, thin, targets, special, rows, choices)
    state = [stamps(source.files), _plain(reading), _plain(choices)]
    folder = entry_folder(cache_folder(), [str(path.absolute()), *state[1:]])

    def make() -> tuple[dict[str, Any], Iterator[tuple[str, Array]]]:
        fields, notes = _fields(source, inputs, places, choices)
        noted = {"fields": fields.dump(), "notes": notes, "columns": len(fields.columns)}
        return noted, _encoded(source, fields, places, len(thin))

    x, scale, noted = on_disk(folder, state, make)
    fields = replace(
        Fields.load(noted["fields"]), targets=made.fields.targets if made.fields else ()
    )
    ids = {part: places[part].tolist() for part in made.ids}
    if "id" in special:
        every = ids_of_rows(thin, special["id"])
        ids = {part: every[own].tolist() for part, own in ids.items()}
    told = [note for note in made.notes if _ROW not in note]
    if "id" in special:
        told.append(f"The column {special['id']!r} makes the id and is no input.")
    if len(source.files) > 1:
        first, last = source.files[0].name, source.files[-1].name
        told.append(f"{len(source.files)} files are read, {first!r} to {last!r}.")
    return replace(
        made,
        train=Split(x["train"], made.train.y),
        validation=Split(x["validation"], made.validation.y),
        test=Split(x["test"], made.test.y),
        x_scale={"": scale},
        columns=fields.columns,
        fields=fields,
        unlabelled=Split(x["unlabelled"]) if len(x["unlabelled"]) else None,
        notes=(*told, *left_out, *noted["notes"], _how(x, folder)),
        reading={**made.reading, "columns": fields.dump()},
        ids=ids,
    )


def _source(path: Path, reading: Reading) -> _Source:
    files = table_files(path)
    for file in files:
        if kind_of_file(file) != ".parquet":
            raise DataError(
                f"the file {str(file)!r} cannot stay on the disk (`on_disk`), as its rows cannot "
                "be read alone; make a parquet of it, which takes little memory: "
                "polars.scan_csv('in.csv').sink_parquet('out.parquet')"
            )
    names: list[str] = []
    for file in files:
        with opened(file) as content:
            own = list(content.schema_arrow.names)
        if names and set(own) != set(names):
            odd = shorten_names(sorted(set(own) ^ set(names)))
            raise DataError(
                f"the file {str(file)!r} has other columns than {str(files[0])!r}: {odd} in one of "
                "them alone"
            )
        names = names or own
    return _Source(path, files, names, reading)


def _counts(source: _Source, name: str) -> bool:
    """Return whether a column counts the rows and has the name that pandas or R gives it."""
    if not name.startswith(("Unnamed", "__index_level_")) and name:
        return False
    return not without_index(source.raw([name]), source.reading).frame.width


def _plain(settings: Reading | Choices) -> Any:
    return {key: repr(value) for key, value in sorted(asdict(settings).items())}


def _whole(
    source: _Source, inputs: list[str], count: int, choices: Choices
) -> tuple[Array, list[str]]:
    """Return the rows that are used, and sentences about the others."""
    rows = np.arange(count)
    if choices.missing != "drop":
        return rows, []
    absent, names = np.zeros(count, dtype=bool), []
    for name in inputs:
        table = source.table([name])
        if table is not None and table.columns[name].values.null_count():
            absent |= table.columns[name].values.is_null().to_numpy()
            names.append(name)
    if absent.all():
        raise DataError(f"{source.where}: every row lacks a value; set `missing: impute`")
    if not names:
        return rows, []
    told = (
        f"{absent.sum():,} of {count:,} rows are left out, as they lack a value of "
        f"{shorten_names(names)}."
    )
    return rows[~absent], [told]


def _split_up(
    name: str,
    thin: Table,
    targets: list[str],
    given: Mapping[str, str],
    rows: Array,
    choices: Choices,
) -> tuple[Data, dict[str, Array]]:
    """Return a data set whose one input is the number of a row, and the rows of each split."""
    own = [one for one in thin.columns if one != given.get("id")]
    columns = {one: thin.columns[one] for one in own}
    if len(rows) < len(thin):
        columns = {
            one: replace(column, values=column.values.gather(rows))
            for one, column in columns.items()
        }
    short = replace(thin, columns=columns, place=lambda row: thin.place(int(rows[row])), empty={})
    counted = with_rows(short, _ROW)
    special = {key: given.get(key) for key in ("split", "group", "time")}
    settings: Any = {**special, "target": targets, "id": None, "missing": "error"}
    made = make_table(name, counted, replace(choices, **settings))
    found = rows_of(replace(made, unlabelled=None))
    places = {part: rows[own] for part, own in found.items() if part in _PARTS}
    # float32 does not count rows far enough, so that these are found by their missing targets.
    unknown = np.zeros(len(thin), dtype=bool)
    for target in targets:
        unknown |= thin.columns[target].values.is_null().to_numpy()
    places["unlabelled"] = rows[unknown[rows]]
    return made, places


def _fields(
    source: _Source, inputs: list[str], places: Mapping[str, Array], choices: Choices
) -> tuple[Fields, list[str]]:
    """Describe the columns by their training values, one after the other."""
    made, notes, empty, holes = [], list[str](), list[str](), dict[str, Array]()
    example: Table | None = None
    with watched("reading columns", len(inputs), "columns") as tell:
        for k, name in enumerate(inputs):
            table = source.table([name])
            if table is None:
                empty.append(name)
                continue
            values = table.columns[name].values
            if choices.missing == "error" and values.null_count():
                holes[name] = values.is_null().to_numpy()
                # All that is told of a further column is its kind.
                column = replace(table.columns[name], values=values[:0] if example else values)
                held = {**(example.columns if example else {}), name: column}
                example = replace(table, columns=held)
                continue
            made.append(fit_input(table, name, places["train"], choices))
            notes += table.notes
            one = Fields((made[-1],))
            notes += column_notes(one, {name: values}, dict(places))
            tell(k + 1)
    if holes and example is not None:
        raise holes_in(example, holes)
    if empty:
        noun, verb = ("column", "is") if len(empty) == 1 else ("columns", "are")
        shown = shorten_names([repr(one) for one in empty])
        notes.append(f"The {noun} {shown} {verb} empty and left out.")
    if not made:
        raise DataError(f"{source.where} has no values")
    reading = source.reading
    fields = Fields(
        tuple(made), (), reading.missing, reading.missing_numbers, tuple(reading.rename.items())
    )
    return fields, notes


def _encoded(
    source: _Source, fields: Fields, places: Mapping[str, Array], count: int
) -> Iterator[tuple[str, Array]]:
    """Yield the inputs of rows and the split that they go to."""
    where = np.full(count, -1, dtype=np.int8)
    for k, part in enumerate(_PARTS):
        where[places[part]] = k
    start = 0
    with watched("reading a table", count, "rows") as tell:
        for block in source.blocks(list(fields.names)):
            own = where[start : start + len(block)]
            chosen = np.flatnonzero(own >= 0)
            if len(chosen):
                rows = encode(fields, block[chosen])
                if not np.isfinite(rows).all():
                    row, column = (int(v[0]) for v in np.nonzero(~np.isfinite(rows)))
                    raise DataError(
                        f"{source.where}, row {start + int(chosen[row])}: the column "
                        f"{fields.columns[column]!r} has no finite value; mend it, or name it in "
                        "`drop`"
                    )
                for k, part in enumerate(_PARTS):
                    mine = own[chosen] == k
                    if mine.any():
                        yield part, rows[mine]
            start += len(block)
            tell(start)


def _how(x: Mapping[str, Any], folder: Path) -> str:
    size = sum(one.numel() for one in x.values()) * 4 / 1e9
    return (
        f"The inputs stay on the disk, {size:.3g} GB in {str(folder)!r}, and are read as they are "
        "needed."
    )
