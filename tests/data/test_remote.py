"""Data behind URLs: equal to those on a disk, read by few requests, refused by one sentence."""

from __future__ import annotations

import http.server
import logging
import os
import pickle
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

import extracurricular as xcl
from extracurricular.cli import app
from extracurricular.data import remote
from extracurricular.data.images import decode as module
from extracurricular.data.sets.imagefolder import imagefolder
from extracurricular.data.sets.table import table
from extracurricular.data.sets.webdataset import webdataset
from extracurricular.errors import DataError
from extracurricular.recipe.paths import absolute_spec
from extracurricular.recipe.read import parse_recipe
from extracurricular.run.finished import open_run
from extracurricular.samplers.stored import Empirical
from tests.conftest import small_recipe
from tests.data.shard_files import CLASSES, both, encoded, labelled, write_shard

fsspec = pytest.importorskip("fsspec")
IDS = torch.arange(60)


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return both(tmp_path_factory.mktemp("same"))


@pytest.fixture(scope="module")
def bucket(same: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket of moto's server, with the shards in it; and a cache of one's own."""
    pytest.importorskip("s3fs")
    server_of = pytest.importorskip("moto.server").ThreadedMotoServer
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "anybody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "unseen-secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        server = server_of("127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        system = fsspec.filesystem("s3")
        system.mkdir("s3://a-bucket")
        for file in same[1].glob("*.tar"):
            system.put_file(str(file), f"s3://a-bucket/set/{file.name}")
        yield "s3://a-bucket"
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        server.stop()


class Requests:
    """Counts the requests for bytes, and keeps the ranges."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seen: list[remote.Range] = []
        fetch = remote._fetch

        def counted(ranges: Any) -> Any:
            self.seen += ranges
            return fetch(ranges)

        patch.setattr(remote, "_fetch", counted)


@pytest.mark.parametrize("stream", [False, True])
def test_shards_behind_a_url_are_those_on_the_disk(
    bucket: str, same: tuple[Path, Path], stream: bool
) -> None:
    wanted = Empirical(webdataset(str(same[1]), size=8))(IDS)
    for path in ("set", "set/s-{000..002}.tar", "set/s-*.tar"):
        data = webdataset(f"{bucket}/{path}", size=8, stream=stream, workers=1)
        assert data.classes == CLASSES
        assert torch.equal(Empirical(data)(IDS).x, wanted.x)  # type: ignore[arg-type]


def test_an_index_is_kept_until_the_object_changes(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = fsspec.filesystem("s3")
    url = f"{bucket}/two/x.tar"
    first = [("a.png", encoded(np.random.default_rng(9), "png")), ("a.cls", b"a")]
    members = labelled(["a", "b"] * 6)
    shards = [write_shard(tmp_path / "x", members), write_shard(tmp_path / "y", first + members)]
    system.put_file(str(shards[0]), url)
    webdataset(url, size=8, stream=False)
    requests = Requests(monkeypatch)
    webdataset(url, size=8, stream=False)
    # Twelve small images of a shard, one after the other, are one request.
    assert len(requests.seen) == 1
    requests.seen.clear()
    data = webdataset(url, size=8, stream=True, workers=1)
    system.put_file(str(shards[1]), url)
    with pytest.raises(DataError, match=r"the shard 's3://a-bucket/two/x.tar' is not what it was"):
        Empirical(data)(IDS)
    assert webdataset(url, size=8, stream=False).notes[0].startswith("1 index was made")


def test_a_worker_asks_once_for_the_images_of_an_order(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data: Any = webdataset(f"{bucket}/set", size=8, stream=True, workers=1)
    images = data.train.x
    pictures = images._pictures(torch.arange(24), None, None)
    order = module.order(images.files.view, 0, [(p.file, p.word) for p in pictures])
    requests = Requests(monkeypatch)
    pixels = np.zeros(24 * 3 * 8 * 8, np.uint8)
    assert module.obey(order, pixels) == b"{}\n"
    assert torch.equal(torch.from_numpy(pixels).view(24, 3, 8, 8), images[:24])
    assert len(requests.seen) == 3  # one for each shard


def test_a_server_that_ends_in_the_midst_is_told(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data: Any = webdataset(f"{bucket}/set", size=8, stream=True, workers=1, damaged="skip")
    monkeypatch.setattr(remote, "_again", lambda *a: [ConnectionError("reset by peer")])
    images = data.train.x
    pictures = images._pictures(torch.arange(4), None, None)
    order = module.order(images.files.view, 0, [(p.file, p.word) for p in pictures])
    answer = module.obey(order, np.zeros(4 * 192, np.uint8))
    assert answer.count(b"cannot be read: ConnectionError: reset by peer") == 4
    with pytest.raises(remote.SourceError, match="reset by peer"):
        module.check_source(module.problem(remote.SourceError("reset by peer")))


def test_tables_behind_a_url(bucket: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"a": rng.normal(size=90), "b": rng.normal(size=90)})
    frame.write_csv(tmp_path / "t.csv")
    for k in range(3):
        frame[30 * k : 30 * (k + 1)].write_parquet(tmp_path / f"t{k}.parquet")
    system = fsspec.filesystem("s3")
    for file in tmp_path.iterdir():
        system.put_file(str(file), f"{bucket}/tables/{file.name}")
    wanted: Any = table(str(tmp_path / "t.csv"))
    for name, settings in (("t.csv", {}), ("t*.parquet", {}), ("t*.parquet", {"on_disk": True})):
        for _ in range(2):
            data: Any = table(f"{bucket}/tables/{name}", **settings)  # type: ignore[arg-type]
            assert torch.equal(data.train.x, wanted.train.x)
            assert data.name == "t" if name == "t.csv" else "tables"
    with pytest.raises(DataError, match=r"'s3://a-bucket/tables/t.csv' has no column 'c'"):
        table(f"{bucket}/tables/t.csv", target="c")
    with pytest.raises(DataError, match=r"'s3://a-bucket/tables/none.csv' does not exist"):
        table(f"{bucket}/tables/none.csv")
    with pytest.raises(DataError, match=r"no file is called so"):
        table(f"{bucket}/tables/none*.csv")
    # A file that changed there is copied again.
    frame.with_columns(pl.col("a") + 1).write_csv(tmp_path / "t.csv")
    system.put_file(str(tmp_path / "t.csv"), f"{bucket}/tables/t.csv")
    again: Any = table(f"{bucket}/tables/t.csv")
    assert not torch.equal(again.train.x, wanted.train.x)


def test_a_finished_run_needs_no_network_and_holds_no_secret(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"path": f"{bucket}/set", "size": 8, "stream": False}
    recipe = small_recipe({"webdataset": settings}, {"mlp": {"hidden": [8]}}, seeds=[0])
    recipe["students"] = {"kd": {}}
    run = tmp_path / "run"
    xcl.execute(parse_recipe(recipe), run)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    monkeypatch.setattr(remote, "_opened", lambda url: pytest.fail("the network was asked"))
    assert open_run(run).summary["students"]["kd"]
    image = tmp_path / "new.png"
    image.write_bytes(encoded(np.random.default_rng(3), "png"))
    assert xcl.load(run, student="kd").predict(image).probs.shape == (1, 3)
    shown = CliRunner().invoke(app, ["report", str(run)])
    assert shown.exit_code == 0, shown.output
    assert f"{bucket}/set" in (run / "data.json").read_text()
    for file in run.rglob("*"):
        assert not file.is_file() or b"unseen-secret" not in file.read_bytes(), file


# Without a bucket


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:unseen@bucket/x.tar",
        "https://me@host/x.tar",
        "https://host/x.tar?X-Amz-Signature=unseen",
        "https://host/x.tar?sv=1&sig=unseen",
        "https://host/x.tar?token=unseen",
    ],
)
def test_a_url_with_credentials_is_refused_and_never_shown(url: str) -> None:
    for attempt in (
        lambda: webdataset(url),
        lambda: table(url),
        lambda: absolute_spec({"webdataset": {"path": "x", "test": url}}, Path("/")),
        lambda: absolute_spec(f"webdataset:{url}", Path("/")),
    ):
        with pytest.raises(DataError, match="is given with a password, a key or a sig") as told:
            attempt()
        assert "unseen" not in str(told.value)


def test_urls_in_recipes_stay_as_they_are() -> None:
    spec = {"webdataset": {"path": "s3://bucket/x-{0..3}.tar"}}
    assert absolute_spec(spec, Path("/home")) == {
        "webdataset": {"path": "s3://bucket/x-{0..3}.tar"}
    }
    assert absolute_spec("table:https://host/a.csv", Path("/home")) == "table:https://host/a.csv"


def test_a_file_url_is_a_path(same: tuple[Path, Path]) -> None:
    data: Any = webdataset(f"file://{same[1]}", size=8, stream=False)
    other: Any = webdataset(str(same[1]), size=8, stream=False)
    assert torch.equal(data.train.x, other.train.x)
    images: Any = imagefolder(f"file://{same[0]}", size=8)
    assert torch.equal(images.train.x, other.train.x)
    with pytest.raises(DataError, match=r"a folder of images is not read from a URL; .*webdataset"):
        imagefolder("s3://bucket/folder")


def test_memory_is_of_one_process(
    same: tuple[Path, Path], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    system = fsspec.filesystem("memory")
    for file in same[1].glob("*.tar"):
        system.pipe_file(f"/kept/{file.name}", file.read_bytes())
    data: Any = webdataset("memory://kept", size=8, stream=False)
    other: Any = webdataset(str(same[1]), size=8, stream=False)
    assert torch.equal(data.train.x, other.train.x)
    streams: Any = webdataset("memory://kept", size=8, stream=False)
    assert streams.notes == ()
    with pytest.raises(DataError, match="memory:// is of one process alone"):
        webdataset("memory://kept", size=8, stream=True, workers=1)
    system.rm("/kept", recursive=True)


def test_hosts_and_kinds_that_are_not_there() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(DataError, match=rf"'http://127.0.0.1:{port}/x.tar' cannot be read: .*"):
            webdataset(f"http://127.0.0.1:{port}/x.tar")
    with pytest.raises(
        DataError, match=r"'bogus://a/x.tar' is of a kind that fsspec does not know"
    ):
        webdataset("bogus://a/x.tar")
    with pytest.raises(DataError, match=r"'nothing://a/\*.csv' is of a kind that fsspec does not"):
        table("nothing://a/*.csv")


def test_a_back_end_that_is_missing_is_named_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(remote, "_opened", missing)
    with pytest.raises(DataError, match=r"needs s3fs, which the extra 'remote' installs"):
        webdataset("s3://bucket/x.tar")

    def absent(url: str) -> Any:
        raise ModuleNotFoundError("No module named 'fsspec'")

    monkeypatch.setattr(remote, "_opened", absent)
    with pytest.raises(DataError, match=r"needs fsspec, which the extra 'remote' installs"):
        webdataset("https://host/x.tar")


class Server(http.server.SimpleHTTPRequestHandler):
    """A server that gives no parts of files, and some to nobody."""

    def do_GET(self) -> None:
        if "secret" in self.path:
            self.send_error(403)
        else:
            super().do_GET()

    do_HEAD = do_GET  # noqa: N815 - the name that the library asks for

    def log_message(self, *given: Any) -> None:
        """Say nothing."""


def test_a_server_that_gives_no_parts_or_no_access_is_told(
    same: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copy(same[1] / "s-000.tar", tmp_path / "x.tar")
    served = lambda *given: Server(*given, directory=str(tmp_path))  # noqa: E731
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), served) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        home = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            with pytest.raises(DataError, match="cannot be read in parts"):
                webdataset(f"{home}/x.tar", size=8, stream=False)
            with pytest.raises(DataError, match=r"/secret.tar' cannot be read: .*403"):
                webdataset(f"{home}/secret.tar")
            with pytest.raises(DataError, match=r"/none.tar' does not exist"):
                webdataset(f"{home}/none.tar")
        finally:
            server.shutdown()


def test_ranges_that_are_near_are_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"m://a": bytes(range(250)) * 2000, "m://b": b"b" * 1000}
    asked: list[remote.Range] = []

    def fetch(ranges: Any) -> list[bytes]:
        asked.extend(ranges)
        return [content[url][start:end] for url, start, end in ranges]

    monkeypatch.setattr(remote, "_fetch", fetch)
    wanted = [("m://a", 400_000, 400_100), ("m://b", 5, 9), ("m://a", 0, 10), ("m://a", 900, 950),
              ("m://a", 5, 7), ("m://a", 900, 950)]  # fmt: skip
    found = remote.read_ranges(wanted)
    assert found == [content[url][start:end] for url, start, end in wanted]
    assert asked == [("m://a", 0, 950), ("m://a", 400_000, 400_100), ("m://b", 5, 9)]
    with pytest.raises(DataError, match="'m://b' is shorter than it was"):
        remote.read_ranges([("m://b", 990, 1010)])


def test_what_is_secret_is_not_shown() -> None:
    text = "could not get https://me:word@host/a?sig=abc and s3://k:v@b/c: Forbidden"
    assert remote.shown(text) == "could not get https://host/a and s3://b/c: Forbidden"
    assert pickle.loads(pickle.dumps(remote.SourceError("a"))).args == ("a",)
    assert not os.environ.get("FSSPEC_S3_KEY")
