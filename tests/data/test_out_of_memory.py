"""Tables and hf data sets beyond memory: what is drawn is what would be drawn from memory."""

from __future__ import annotations

import datetime as dt
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from extracurricular.data.base import Data, fit_scale
from extracurricular.data.formats import large_tables
from extracurricular.data.formats.contents import contents
from extracurricular.data.formats.on_disk import scale_of
from extracurricular.data.sets.hub import hf
from extracurricular.data.sets.table import table
from extracurricular.errors import DataError
from extracurricular.inputs import leaves
from extracurricular.samplers.stored import Empirical

N = 600


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "cache" / "extracurricular"


def frame(holes: bool = False) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    found = pl.DataFrame(
        {
            "a": rng.normal(size=N),
            "far": 1e9 + rng.normal(size=N),
            "whole": rng.integers(0, 5, N),
            "day": [dt.date(2020, 1, 1) + dt.timedelta(days=int(v)) for v in range(N)],
            "colour": rng.choice(["red", "green", "blue"], N),
            "person": rng.integers(0, 50, N),
            "key": [f"r{k}" for k in range(N)],
            "flag": rng.random(N) < 0.5,
            "price": rng.normal(size=N),
        }
    )
    if not holes:
        return found
    gone = {name: pl.Series(rng.random(N) < 0.1) for name in ("a", "colour", "price")}
    lost = [pl.when(g).then(None).otherwise(pl.col(n)).alias(n) for n, g in gone.items()]
    return found.with_columns(*lost, void=pl.lit(None))


def assert_equal(a: Data, b: Data) -> None:
    assert (a.task, a.classes, a.columns, a.outputs) == (b.task, b.classes, b.columns, b.outputs)
    assert a.fields == b.fields
    assert a.reading == b.reading
    assert {part: list(ids) for part, ids in a.ids.items()} == {
        part: list(ids) for part, ids in b.ids.items()
    }
    assert contents(a) == contents(b)
    assert (a.unlabelled is None) == (b.unlabelled is None)
    if a.unlabelled is not None and b.unlabelled is not None:
        assert torch.equal(leaves(a.unlabelled.x)[""], leaves(b.unlabelled.x)[""])
    for one, other in ((a.x_scale[""], b.x_scale[""]),):
        torch.testing.assert_close(one.shift, other.shift, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(one.scale, other.scale, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("holes", "settings"),
    [
        (False, {"id": "key"}),
        (False, {"drop": ["key"], "group": "person", "dates": "parts"}),
        (False, {"drop": ["key"], "time": "day", "categorical": ["whole"]}),
        (False, {"drop": ["key"], "target": "colour", "fewest": 2}),
        (False, {"drop": ["key"], "target": ["price", "a"], "target_transform": "asinh"}),
        (True, {"drop": ["key"], "missing": "impute", "target": "price"}),
        (True, {"id": "key", "missing": "drop", "seed": 3, "target": "price"}),
    ],
)
def test_a_table_on_the_disk_is_that_in_memory(
    tmp_path: Path, holes: bool, settings: dict[str, Any]
) -> None:
    path = tmp_path / "t.parquet"
    frame(holes).write_parquet(path, row_group_size=70)
    wanted = table(str(path), on_disk=False, **settings)
    for _ in range(2):
        assert_equal(wanted, table(str(path), on_disk=True, **settings))


def test_several_files_are_one_table(tmp_path: Path) -> None:
    whole = frame().drop("key")
    for k, part in enumerate((whole[:250], whole[250:])):
        part.write_parquet(tmp_path / f"t{k}.parquet")
    path = str(tmp_path / "t*.parquet")
    assert_equal(table(path, on_disk=False), table(path, on_disk=True))


def test_files_above_the_memory_stay_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    frame().drop("key").write_parquet(path)
    assert not any("stay on the disk" in note for note in table(str(path)).notes)
    data = table(str(path), memory=1e-6)
    assert any("The inputs stay on the disk" in note for note in data.notes)
    ids = torch.arange(100)
    assert torch.equal(Empirical(data)(ids)[40:50].x, Empirical(data)(ids[40:50]).x)  # type: ignore[arg-type]


def test_the_files_are_made_once_and_again_if_damaged_or_of_another_table(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.parquet"
    frame().drop("key").write_parquet(path)
    made: list[int] = []
    fields = large_tables._fields
    monkeypatch.setattr(large_tables, "_fields", lambda *a: made.append(1) or fields(*a))
    wanted = contents(table(str(path), on_disk=True))
    table(str(path), on_disk=True)
    assert len(made) == 1
    [entry] = cache.glob("table-*")
    file = entry / "train.f32"
    content = bytearray(file.read_bytes())
    content[40] ^= 1
    file.write_bytes(content)
    assert contents(table(str(path), on_disk=True)) == wanted
    assert len(made) == 2
    (entry / "entry.json").write_text("{}")
    assert contents(table(str(path), on_disk=True)) == wanted
    frame().drop("key").with_columns(pl.col("a") + 1).write_parquet(path)
    assert contents(table(str(path), on_disk=True)) != wanted
    assert len(list(cache.glob("table-*"))) == 1


def test_an_interruption_leaves_nothing_that_is_read(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.parquet"
    frame().drop("key").write_parquet(path, row_group_size=100)
    encode, blocks = large_tables.encode, iter(range(3))

    def interrupted(*given: Any) -> Any:
        if next(blocks, None) is None:
            raise KeyboardInterrupt
        return encode(*given)

    monkeypatch.setattr(large_tables, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        table(str(path), on_disk=True)
    assert not [file for file in cache.rglob("*") if file.is_file()]
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    assert_equal(table(str(path), on_disk=False), table(str(path), on_disk=True))


def test_tables_that_cannot_stay_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    frame(holes=True).write_parquet(path)
    for settings, says in (
        ({"drop": ["key"], "target": "price"}, r"of 600 rows a value is missing of 'a' in \d+, 'c"),
        ({"target": "prize"}, r"has no column 'prize', which target names; it has a, far"),
        ({"drop": ["key"], "duplicates": "drop"}, r"cannot be used while the inputs stay on the"),
    ):
        with pytest.raises(DataError, match=says):
            table(str(path), on_disk=True, **settings)  # type: ignore[arg-type]
    frame().write_csv(tmp_path / "t.csv")
    with pytest.raises(DataError, match=r"polars.scan_csv\('in.csv'\).sink_parquet"):
        table(str(tmp_path / "t.csv"), on_disk=True)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match="cannot be read as parquet"):
        table(str(path), on_disk=True)


def test_a_scale_by_blocks_is_that_of_all_rows() -> None:
    rows = torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0)) * 3 + 50
    rows[:, 2] = 7
    one, other = scale_of(rows), fit_scale(rows)
    torch.testing.assert_close(one.shift, other.shift, rtol=1e-6, atol=0)
    torch.testing.assert_close(one.scale, other.scale, rtol=1e-6, atol=0)


MEMORY = """
import json, sys, threading
sys.path.insert(0, sys.argv[1])
from table_memory import read
print(json.dumps(read(sys.argv[2], True)["peak"]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system tells no memory")
def test_the_memory_is_that_of_a_few_columns(tmp_path: Path) -> None:
    columns, rows = 61, 200_000
    rng = np.random.default_rng(0)
    names = [f"c{k}" for k in range(columns - 1)]
    large = pl.DataFrame({name: rng.normal(size=rows) for name in [*names, "y"]})
    large.write_parquet(tmp_path / "large.parquet", row_group_size=20_000, compression="lz4")
    large[:1000].write_parquet(tmp_path / "small.parquet")
    size = 8 * columns * rows / 1e6
    benchmarks = Path(__file__).parents[2] / "benchmarks"
    answer = subprocess.run(
        [sys.executable, "-c", MEMORY, str(benchmarks), str(tmp_path / "large.parquet")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    # In memory, the frame alone takes 98 MB, and the reading of it three times as much.
    assert float(answer.stdout.splitlines()[-1]) < 1.5 * size


# hf


def saved(folder: Path, count: int = 40, inside: bool = True) -> str:
    datasets = pytest.importorskip("datasets")
    rng = np.random.default_rng(0)
    raw: list[Any] = []
    folder.mkdir()
    for k in range(count):
        buffer = io.BytesIO()
        pixels = rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, ("PNG", "JPEG")[k % 2])
        (folder / f"{k}.img").write_bytes(buffer.getvalue())
        path = str(folder / f"{k}.img")
        # Some images lie beside the Arrow files.
        own = inside or k % 3
        raw.append({"bytes": buffer.getvalue(), "path": None} if own else {"path": path})
    kinds = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])}
    )
    rows = {"image": raw, "label": [k % 2 for k in range(count)]}
    datasets.disable_progress_bars()
    made = datasets.Dataset.from_dict(rows, features=kinds)
    made.save_to_disk(str(folder / "saved"), num_shards=3)
    return str(folder / "saved")


@pytest.mark.parametrize("inside", [True, False])
def test_images_in_arrow_files_are_decoded_where_they_lie(tmp_path: Path, inside: bool) -> None:
    path = saved(tmp_path / "d", inside=inside)
    wanted = hf(path, size=8, stream=False)
    data = hf(path, size=8, memory=1e-9, workers=1)
    assert any("Images are decoded as they are needed" in note for note in data.notes)
    assert data.classes == wanted.classes
    ids = torch.arange(60)
    assert torch.equal(Empirical(data)(ids).x, Empirical(wanted)(ids).x)  # type: ignore[arg-type]
    assert torch.equal(Empirical(data)(ids).y, Empirical(wanted)(ids).y)  # type: ignore[arg-type]
    # The checksums of the images are kept beside them.
    assert list((tmp_path / "d").rglob(".xcl-checksums"))
    images: Any = data.train.x
    assert images.identity() == hf(path, size=8, stream=True, workers=1).train.x.identity()  # type: ignore[union-attr]


def test_images_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    path = saved(tmp_path / "d")
    with pytest.raises(DataError, match=r"`size` must be set; the first image has \[12, 9\]"):
        hf(path, stream=True)
