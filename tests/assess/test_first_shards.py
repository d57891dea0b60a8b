"""Shards of images, and URLs, as the data of a first recipe."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml

from extracurricular.assess.first_data import find_first, recognised
from extracurricular.assess.first_recipe import choose, facts_of, recipe_text
from extracurricular.assess.first_shards import is_shard, names_shards
from extracurricular.errors import DataError
from extracurricular.recipe.read import parse_recipe
from tests.conftest import checked
from tests.data.shard_files import both, labelled, write_shard


def settings_of(what: str) -> dict[str, Any]:
    found = find_first(what, {})
    assert found.name == "webdataset"
    return {one.name: one.value for one in found.settings}


def test_a_folder_of_shards_gets_a_recipe(tmp_path: Path) -> None:
    shards = both(tmp_path, each=20)[1]
    found = find_first(str(shards), {})
    assert found.name == "webdataset"
    values = {one.name: one.value for one in found.settings}
    assert values["size"] == 16, "images have 12 by 10 pixels"
    made = recipe_text(
        found, choose(facts_of(found)), name="first", file="recipe.yaml", path=str(shards)
    )
    recipe = parse_recipe(yaml.safe_load(made))
    assert checked(recipe, tmp_path / "run")


@pytest.mark.parametrize("what", ["shards/s-*.tar", "shards/s-{000..002}.tar", "shards/s-001.tar"])
def test_names_of_shards_are_known(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert recognised(what)[0] == "webdataset"
    assert recognised(what)[1]["path"].value == what


def test_real_labels_of_shards_are_found(tmp_path: Path) -> None:
    write_shard(tmp_path / "s" / "a.tar", labelled([f"0.{k}" for k in range(60)]))
    found = find_first(str(tmp_path / "s"), {})
    assert facts_of(found).kind == "regression"
    assert not facts_of(found).flips, "a mirror may change a number"


def test_a_tar_of_folders_of_classes_is_no_shard(tmp_path: Path) -> None:
    folder, _ = both(tmp_path)
    with tarfile.open(tmp_path / "photos.tar", "w") as made:
        made.add(folder, "photos")
    assert not is_shard(tmp_path / "photos.tar")
    assert recognised(str(tmp_path / "photos.tar"))[0] == "imagefolder"


@pytest.mark.parametrize("content", [b"", b"no tar", b"\0" * 1024])
def test_a_tar_that_cannot_be_read_is_no_shard(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    file.write_bytes(content)
    assert not is_shard(file)
    assert not is_shard(tmp_path / "nowhere.tar")
    with pytest.raises(DataError, match=r"a\.tar"):
        find_first(str(file), {})


def test_urls_of_shards_and_tables_are_told_apart() -> None:
    assert names_shards("s3://bucket/set")
    assert names_shards("s3://bucket/train-{000..009}.tar?versionId=3")
    assert not names_shards("https://host/houses.csv")
    assert not names_shards("{webdataset: {path: a.tar}}")
    assert recognised("https://host/houses.csv")[0] == "table"
    assert recognised("s3://bucket/set")[0] == "webdataset"


def test_a_table_behind_a_url_gets_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rows = "\n".join(f"{k % 13},{k % 7},{k % 13 + 0.5}" for k in range(200))
    with fsspec.open("memory://first/houses.csv", "w") as file:
        file.write(f"rooms,floors,price\n{rows}\n")
    found = find_first("memory://first/houses.csv", {})
    assert {s.name: s.value for s in found.settings}["target"] == "price"


def test_shards_behind_a_url_tell_the_size_of_their_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shards = both(tmp_path)[1]
    for shard in shards.iterdir():
        with fsspec.open(f"memory://first-shards/{shard.name}", "wb") as file:
            file.write(shard.read_bytes())
    assert settings_of("memory://first-shards")["size"] == 16
