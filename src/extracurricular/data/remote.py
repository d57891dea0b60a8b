"""Files that a URL names (``s3://…``, ``https://…``), read through fsspec by ranges of bytes.

fsspec keeps its file systems by process and thread, so a fork or a worker process has its own.
Credentials come from the environment or from fsspec's own configuration files, never from a URL,
since a recipe is kept in run folders. Nothing here needs torch, and fsspec is imported when a URL
is opened.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

from extracurricular.errors import DataError, XclError, first_line, from_extra, shorten_text

# A range of a file: its URL, and the places of its first byte and of the first one behind it.
Range: TypeAlias = tuple[str, int, int]

_URL = re.compile(r"[a-z][a-z0-9+]*://", re.IGNORECASE)
_PERSON = re.compile(r"(://)[^/@\s]*@")
_QUERY = re.compile(r"(://[^\s?'\"]*)\?[^\s'\"]*")
# Words in the query of a URL that lend the rights of whoever made it.
_SIGNED = re.compile(r"[?&][^=&]*(signature|credential|token|sig|secret|password|key)=", re.I)
# Ranges of one file that are so near are read at once: a request takes as long as these bytes.
_NEAR = 2**16
# The most bytes of one request.
_MOST = 2**23
_TRIES = 3
# Seconds after which a host that does not answer counts as not there, and one that fell silent.
_CONNECT, _SILENT = 5, 60


class SourceError(DataError):
    """The file that data lie in cannot be reached, or is another than it was."""


class Stamp(NamedTuple):
    """What tells that a file has changed.

    Args:
        size: Its size in bytes.
        tag: Its ETag, or where there is none the time of its change; empty where neither is known.
    """

    size: int
    tag: str


def is_url(path: str) -> bool:
    """Return whether a path is a URL."""
    return _URL.match(path) is not None


def local_path(path: str) -> str:
    """Return the path on this machine that a ``file://`` URL names; other paths as they are."""
    return path[len("file://") :] if path.lower().startswith("file://") else path


def shown(text: str) -> str:
    """Return a URL, or a text with URLs in it, without persons, passwords and queries."""
    return _QUERY.sub(r"\1", _PERSON.sub(r"\1", text))


def check_url(url: str) -> None:
    """Refuse a URL that holds credentials.

    Raises:
        DataError: It has a person's name, a password or a signature.
    """
    if is_url(url) and (_PERSON.search(url) or _SIGNED.search(url)):
        raise DataError(
            f"the URL {shown(url)!r} is given with a password, a key or a signature, which would "
            "be kept in run folders; leave them out, and set them in the environment or in "
            "fsspec's configuration files"
        )


@contextmanager
def telling(url: str) -> Iterator[None]:
    """Turn whatever goes wrong with a URL into one sentence that names it.

    Raises:
        SourceError: The network, the server or fsspec refused.
    """
    where = f"the URL {shown(url)!r}"
    try:
        yield
    except XclError:
        raise
    except FileNotFoundError as error:
        cause = error.__cause__
        # fsspec says so of a web server that is not there, too.
        if url.lower().startswith("http") and cause is not None and str(cause)[:3] != "404":
            raise SourceError(f"{where} cannot be read: {_said(cause)}") from error
        alone = url.lower().startswith("memory://")
        more = " in this process, and memory:// is of one process alone" if alone else ""
        raise SourceError(f"{where} does not exist{more}") from error
    except PermissionError as error:
        raise SourceError(
            f"{where} is not open to you; credentials come from the environment or from fsspec's "
            f"configuration files ({_said(error)})"
        ) from error
    except ImportError as error:
        protocol = url.partition(":")[0].lower()
        needed = {"s3": "s3fs", "s3a": "s3fs"}.get(protocol)
        if needed or "fsspec" in str(error).split("'")[1:2]:
            cure = f"needs {needed or 'fsspec'}, {from_extra('remote')}"
        else:
            cure = f"needs a package of its own: {_said(error)}"
        raise DataError(f"{where} {cure}") from error
    except ValueError as error:
        if "Protocol not known" not in str(error):
            raise SourceError(f"{where} cannot be read: {_said(error)}") from error
        raise DataError(
            f"{where} is of a kind that fsspec does not know; it knows s3://, gs://, https:// and "
            "others"
        ) from error
    except Exception as error:  # each back end has errors of its own
        if "Credentials" in type(error).__name__:
            raise SourceError(
                f"{where} is not open to you, as there are no credentials; set them in the "
                f"environment or in fsspec's configuration files ({_said(error)})"
            ) from error
        raise SourceError(f"{where} cannot be read: {_said(error)}") from error


def _said(error: BaseException) -> str:
    """Return an error's text in one line, without what is secret in it."""
    name = type(error).__name__
    text = first_line(error) if isinstance(error, Exception) else name
    return shorten_text(shown(text if text.startswith(name) else f"{name}: {text}"))


def _opened(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it."""
    check_url(url)
    import fsspec
    import fsspec.core

    protocol = url.partition(":")[0].lower()
    given: dict[str, Any] = {}
    if protocol in ("s3", "s3a") and "config_kwargs" not in fsspec.config.conf.get("s3", {}):
        waits = {"connect_timeout": _CONNECT, "read_timeout": _SILENT}
        given["config_kwargs"] = {**waits, "retries": {"max_attempts": 1}}
    elif protocol in ("http", "https") and not fsspec.config.conf.get(protocol):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_SILENT)
        given["client_kwargs"] = {"timeout": timeout}
    system, path = fsspec.core.url_to_fs(url, **given)
    if protocol in ("s3", "s3a"):
        system.retries = _TRIES
    return system, str(path)


def stamp(url: str) -> Stamp:
    """Return the size of a file and what tells its content from another's.

    Raises:
        DataError: It cannot be reached.
    """
    with telling(url):
        system, path = _opened(url)
        found = system.info(path)
        if found.get("type") == "directory":
            raise SourceError(f"the URL {shown(url)!r} is a folder; it must name files")
        known = {str(key).lower().replace("-", ""): value for key, value in found.items()}
        tags = ("etag", "contentmd5", "md5hash", "lastmodified", "updated", "mtime", "created")
        tag = next((str(known[key]) for key in tags if known.get(key)), "")
        size = known.get("size")
        if size is None:
            raise SourceError(
                f"the URL {shown(url)!r} cannot be read in parts, as its server does not tell its "
                "size; copy the file to a disk"
            )
        return Stamp(int(size), tag.strip('"'))


def listing(pattern: str) -> list[str]:
    """Return the URLs that fit a pattern with ``*``, ``?`` or ``[]``, sorted.

    Raises:
        DataError: The place cannot be reached.
    """
    with telling(pattern):
        system, path = _opened(pattern)
        found = system.glob(path)
        return sorted(system.unstrip_protocol(one) for one in found)


def read_ranges(ranges: Sequence[Range]) -> list[bytes]:
    """Read ranges of files; those that lie near each other in a file take one request.

    All requests run at once, where the back end can do that.

    Raises:
        SourceError: A file cannot be reached, or is shorter.
    """
    order = sorted(range(len(ranges)), key=lambda k: ranges[k])
    joined: list[list[int]] = []
    end = 0
    for k in order:
        url, start, stop = ranges[k]
        first = ranges[joined[-1][0]] if joined else None
        if (
            first is not None
            and first[0] == url
            and start - end <= _NEAR
            and max(stop, end) - first[1] <= _MOST
        ):
            joined[-1].append(k)
            end = max(end, stop)
        else:
            joined.append([k])
            end = stop
    wide = [(*ranges[own[0]][:2], max(ranges[k][2] for k in own)) for own in joined]
    found = [b""] * len(ranges)
    for own, (url, first_byte, stop), content in zip(joined, wide, _fetch(wide), strict=True):
        if len(content) > stop - first_byte:
            raise SourceError(
                f"the URL {shown(url)!r} cannot be read in parts, as its server sends whole files; "
                "copy it to a disk"
            )
        if len(content) < stop - first_byte:
            raise SourceError(f"the URL {shown(url)!r} is shorter than it was")
        for k in own:
            found[k] = content[ranges[k][1] - first_byte : ranges[k][2] - first_byte]
    return found


def _fetch(ranges: Sequence[Range]) -> list[bytes]:
    """Read ranges, each by a request of its own."""
    found: dict[int, bytes] = {}
    by_system: dict[int, tuple[Any, list[tuple[int, str]]]] = {}
    for k, (url, _, _) in enumerate(ranges):
        with telling(url):
            system, path = _opened(url)
        by_system.setdefault(id(system), (system, []))[1].append((k, path))
    for system, own in by_system.values():
        numbers = [k for k, _ in own]
        first = ranges[numbers[0]][0]
        with telling(first):
            contents = _again(
                system, [path for _, path in own], [ranges[k][1] for k in numbers],
                [ranges[k][2] for k in numbers],
            )  # fmt: skip
        for k, content in zip(numbers, contents, strict=True):
            if isinstance(content, BaseException):
                with telling(ranges[k][0]):
                    raise content
            found[k] = bytes(content)
    return [found[k] for k in range(len(ranges))]


def _again(system: Any, paths: list[str], starts: list[int], ends: list[int]) -> list[Any]:
    """Ask for ranges, and again for those that a fault of the moment kept back."""
    found: list[Any] = system.cat_ranges(paths, starts, ends, on_error="return")
    for k in range(1, _TRIES):
        left = [
            j
            for j, one in enumerate(found)
            if isinstance(one, BaseException)
            and not isinstance(one, FileNotFoundError | PermissionError)
        ]
        if not left:
            break
        time.sleep(0.2 * 2**k)
        some = system.cat_ranges(
            [paths[j] for j in left], [starts[j] for j in left], [ends[j] for j in left],
            on_error="return",
        )  # fmt: skip
        for j, one in zip(left, some, strict=True):
            found[j] = one
    return found


def download(url: str) -> bytes:
    """Read a whole file.

    Raises:
        SourceError: It cannot be reached.
    """
    with telling(url):
        system, path = _opened(url)
        return bytes(system.cat_file(path))
