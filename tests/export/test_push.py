"""`--push`, against an endpoint on this machine that answers as the Hugging Face Hub does."""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from extracurricular.errors import ExportError, RecipeError
from extracurricular.export.push import check_push, push

TOKEN = "hf_notarealtoken"


class Hub:
    """The few calls of the Hub that an upload makes.

    Args:
        status: What making a repository is answered with.
    """

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.repositories: dict[str, bool] = {}
        self.files: dict[str, bytes] = {}
        self.stored: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        self.commits = 0
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                name = self.path.removeprefix("/api/models/")
                known = name in hub.repositories
                private = hub.repositories.get(name)
                self._reply(200 if known else 404, {"id": name, "private": private})

            def do_POST(self) -> None:
                hub.tokens.add(self.headers.get("authorization"))
                self._reply(*hub.answer(self.path, self._body()))

            def do_PUT(self) -> None:
                hub.stored[self.path.rpartition("/")[2]] = self._body()
                self._reply(200, {})

            def _body(self) -> bytes:
                if "chunked" not in self.headers.get("transfer-encoding", ""):
                    return self.rfile.read(int(self.headers.get("content-length", 0)))
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def _reply(self, status: int, value: Any) -> None:
                content = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, path: str, body: bytes) -> tuple[int, Any]:
        if path == "/api/repos/create":
            given = json.loads(body)
            name = f"{given.get('organization') or 'me'}/{given['name']}"
            if self.status != 200:
                return self.status, {"error": "no"}
            if name in self.repositories:
                return 409, {"error": "You already created this model repo", "url": self._url(name)}
            self.repositories[name] = "private" in (
                given.get("visibility"),
                *(k for k, v in given.items() if v is True),
            )
            return 200, {"url": self._url(name), "name": name}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/preupload/" in path:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".onnx") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return 200, {"files": files}
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.address}/store/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return 200, {"transfer": "basic", "objects": objects}
        if "/commit/" in path:
            self.commits += 1
            for line in body.splitlines():
                self._commit(json.loads(line))
            name = path.removeprefix("/api/models/").partition("/commit/")[0]
            address = f"{self._url(name)}/commit/{'0' * 40}"
            return 200, {"success": True, "commitUrl": address, "commitOid": "0" * 40}
        return 404, {"error": path}

    def _url(self, name: str) -> str:
        return f"{self.address}/{name}"

    def _commit(self, line: Any) -> None:
        value = line["value"]
        if line["key"] == "file":
            self.files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            self.files[value["path"]] = self.stored[value["oid"]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    # Older versions of the package have no such transfer to turn off.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    found = Hub()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    contents = {
        "s.onnx": b"\x08\x0a" * 300,
        "metadata.json": b"{}\n",
        "README.md": b"---\ntags: [onnx]\n---\n\n# s\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "private notes.txt").write_text("not to be uploaded")
    return [tmp_path / name for name in contents]


def test_what_was_exported_is_uploaded_and_no_more(hub: Hub, files: list[Path]) -> None:
    address = push(files, "me/digits", endpoint=hub.address)
    assert address.startswith(f"{hub.address}/me/digits/commit/")
    assert hub.files == {file.name: file.read_bytes() for file in files}
    assert hub.repositories == {"me/digits": False}
    assert hub.tokens >= {f"Bearer {TOKEN}"}
    assert hub.commits == 1


def test_a_repository_that_is_there_is_used(hub: Hub, files: list[Path]) -> None:
    push(files, "me/digits", private=True, endpoint=hub.address)
    files[0].write_bytes(b"new")
    push(files, "me/digits", endpoint=hub.address)
    assert hub.repositories == {"me/digits": True}
    assert hub.files["s.onnx"] == b"new"


def test_a_public_repository_is_not_taken_for_a_private_one(hub: Hub, files: list[Path]) -> None:
    push(files[1:], "me/digits", endpoint=hub.address)
    with pytest.raises(ExportError, match="is there already, and public; nothing was uploaded"):
        push(files, "me/digits", private=True, endpoint=hub.address)
    assert "s.onnx" not in hub.files
    push(files, "me/other", private=True, endpoint=hub.address)
    assert "s.onnx" in hub.files


def test_a_name_without_an_owner_is_ones_own(hub: Hub, files: list[Path]) -> None:
    assert "/me/digits/" in push(files, "digits", endpoint=hub.address)


@pytest.mark.parametrize("status", [401, 403])
def test_who_may_not_write_is_told_so(status: int, hub: Hub, files: list[Path]) -> None:
    hub.status = status
    with pytest.raises(
        ExportError, match=r"lies in '.*', but cannot be pushed to 'me/d' at"
    ) as told:
        push(files, "me/d", endpoint=hub.address)
    assert "hf auth login" in str(told.value)
    assert TOKEN not in str(told.value)
    assert "\n" not in str(told.value)
    assert hub.files == {}


def test_a_refusal_is_quoted(hub: Hub, files: list[Path]) -> None:
    hub.status = 400
    with pytest.raises(ExportError, match=r"cannot be pushed to 'me/d' at http.+: no$") as told:
        push(files, "me/d", endpoint=hub.address)
    assert "\n" not in str(told.value)


def test_nobody_answers(hub: Hub, files: list[Path]) -> None:
    with pytest.raises(ExportError, match=r"cannot be pushed to 'me/d' at http.+: .*refused"):
        push(files, "me/d", endpoint="http://127.0.0.1:1")


def test_names_that_cannot_be() -> None:
    for name in ("a/b/c", "-x", "", "a--b"):
        with pytest.raises(RecipeError, match=r"--push: is .*; it must be NAME or OWNER/NAME"):
            check_push(name)
    check_push("me/digits-xcl")


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ExportError, match=r"needs huggingface_hub, .*pip install -e '.\[hub\]'"):
        check_push("me/digits")
