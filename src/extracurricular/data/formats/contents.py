"""The contents of a data set: how many examples each split has, their checksum, and what changed.

A checksum depends on contents and their order alone: not on paths, devices or the time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from extracurricular.data.base import Data, Split
from extracurricular.data.formats.checksums import checksums
from extracurricular.data.formats.description import describe_data
from extracurricular.data.images.stream import streamed
from extracurricular.inputs import as_bytes, images, leaves

PARTS = ("train", "validation", "test")
# Scales that differ less than this, as a part of the deviation, differ by some examples alone.
_SCALE = 0.05


def contents(data: Data) -> dict[str, dict[str, Any]]:
    """Return count and checksum of each split, by its name."""
    found = {}
    for part in PARTS:
        split: Split = getattr(data, part)
        found[part] = {"count": len(split), "sha256": split_checksum(split)}
    return found


def ids_of(data: Data) -> dict[str, list[Any]]:
    """Return what identifies the examples of each split at their source, as plain values."""
    return {part: list(ids) for part, ids in data.ids.items()}


def split_checksum(split: Split) -> str:
    """Return the SHA-256 of the examples and labels of a split, in their order.

    Streamed images enter it by the checksums of their files and the way they are decoded.
    """
    digest = hashlib.sha256()
    for key, leaf in sorted(leaves(split.x).items()):
        digest.update(f"{key}\0".encode())
        pictures = streamed(leaf)
        if pictures is None:
            _add(digest, leaf)
            continue
        names = pictures.names(torch.arange(len(pictures)))
        digest.update(repr(pictures.files.view).encode())
        digest.update("".join(checksums(pictures.files.store, names)).encode())
    if split.y is not None:
        _add(digest, split.y)
    return digest.hexdigest()


def _add(digest: Any, tensor: Tensor) -> None:
    digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    digest.update(as_bytes(tensor.cpu()).numpy().data)


def changes(
    known: Mapping[str, Any],
    splits: Mapping[str, Any],
    data: Data,
    fresh: Mapping[str, Any] | None = None,
    ids: Mapping[str, Sequence[Any]] | None = None,
) -> list[str]:
    """Return what differs between a data set and what is known of it, a clause for each.

    Args:
        known: Its description, as :func:`~.description.describe_data` wrote it.
        splits: What :func:`contents` returned.
        data: The data set as it is now.
        fresh: What :func:`contents` returns for it, if that is known.
        ids: What :func:`ids_of` returned; None where it was not kept.
    """
    now = describe_data(data)
    found = [*_forms(known, now)]
    if found:
        return found
    noun = "images" if images(data.train.x) else "rows" if data.columns else "examples"
    found += _counts(splits, data, noun, ids or {})
    if not found:
        found += _scales(known, now)
    fresh = fresh or contents(data)
    same = {part for part in PARTS if fresh[part] == splits[part]}
    if not found and len(same) < len(PARTS):
        others = [part for part in PARTS if part not in same]
        found.append(f"other {' and '.join(others)} {noun}, as many as there were")
    return found


def _forms(known: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield what differs in task, names and shapes."""
    for noun, key in (("class", "classes"), ("column", "columns"), ("target", "outputs")):
        yield from _names(noun, known[key], now[key])
    task, was = now["task"], known["task"]
    if task["kind"] != was["kind"]:
        yield f"{task['kind']} where there was {was['kind']}"
    elif task["size"] != was["size"] and now["classes"] == known["classes"]:
        nouns = {"classification": "classes", "multilabel": "labels"}
        what = nouns.get(task["kind"], "targets")
        yield f"{task['size']} {what} where there were {was['size']}"
    names = [[r["name"] for r in (o["target"] or {}).get("transform", ())] for o in (now, known)]
    if names[0] != names[1]:
        shown = [", ".join(one) or "none" for one in names]
        yield f"target_transform {shown[0]} where there was {shown[1]}"
    shapes = [[(i["key"], i["shape"], i["dtype"]) for i in one["inputs"]] for one in (now, known)]
    if shapes[0] != shapes[1] and now["columns"] == known["columns"]:
        shown = [", ".join(f"{s} {t}" for _, s, t in one) for one in shapes]
        yield f"inputs of {shown[0]} where they were {shown[1]}"


def _names(noun: str, was: Sequence[str], now: Sequence[str]) -> Iterator[str]:
    gone, new = [n for n in was if n not in now], [n for n in now if n not in was]
    for old, other in zip(gone, new, strict=False):
        yield f"{noun} {other!r} where there was {old!r}"
    both = min(len(gone), len(new))
    yield from (f"{noun} {name!r} is gone" for name in gone[both:])
    yield from (f"{noun} {name!r} is new" for name in new[both:])
    if not gone and not new and list(was) != list(now):
        yield f"the {noun} names are in another order"


def _counts(
    splits: Mapping[str, Any], data: Data, noun: str, ids: Mapping[str, Sequence[Any]]
) -> Iterator[str]:
    which = _moved(data.ids, ids)
    for part in ("test", "validation", "train"):
        count, was = len(getattr(data, part)), splits[part]["count"]
        if count != was:
            yield f"{count} {part} {noun} where there were {was}{which}"
            which = ""


def _moved(now: Mapping[str, Sequence[Any]], before: Mapping[str, Sequence[Any]]) -> str:
    """Return an example that is new or gone, in brackets, if examples are known by name."""
    here, there = ({str(one) for ids in some.values() for one in ids} for some in (now, before))
    named = any(isinstance(one, str) for ids in now.values() for one in ids[:1])
    if not named or not there:
        return ""
    new, gone = sorted(here - there), sorted(there - here)
    return f" ({new[0]!r} is new)" if new else f" ({gone[0]!r} is gone)" if gone else ""


def _scales(known: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield the inputs and targets whose scale differs by more than a few examples explain."""
    single = len(now["inputs"]) == 1
    for was, one in zip(known["inputs"], now["inputs"], strict=True):
        image = len(one["shape"]) == 3
        names = now["columns"] if single and not image else []
        for k, clause in _differing(was, one):
            if image:
                where = "the images" if single else f"the images {one['key']!r}"
                yield f"{where} have another scale ({clause})"
                break
            name = f"column {names[k]!r}" if k < len(names) else f"input {one['key'] or k!r}"
            yield f"{name} has another scale ({clause})"
    if now["target"] is not None:
        for k, clause in _differing(known["target"], now["target"]):
            which = now["outputs"][k] if now["outputs"] else k
            yield f"target {which!r} has another scale ({clause})"


def _differing(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Yield the place of each value whose scale differs, and how."""
    shifts, scales = (
        [torch.tensor(one[key], dtype=torch.float64).flatten() for one in (was, now)]
        for key in ("shift", "scale")
    )
    moved = (shifts[1] - shifts[0]).abs() > _SCALE * scales[0]
    grown = (scales[1] / scales[0]).log().abs() > _SCALE
    for k in (moved | grown).nonzero().flatten().tolist():
        pair = scales if bool(grown[k]) else shifts
        word = "deviation" if bool(grown[k]) else "mean"
        yield k, f"{word} {float(pair[1][k]):.4g} where it was {float(pair[0][k]):.4g}"
