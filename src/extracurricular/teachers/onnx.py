"""An ONNX file as a teacher, through onnxruntime."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from extracurricular.data.base import Data
from extracurricular.distributions import Distribution, concatenate
from extracurricular.errors import from_extra, known_names
from extracurricular.inputs import Batch, Inputs, fixed_batches, leaves
from extracurricular.teachers.onnx_format import Layout, read_layout
from extracurricular.teachers.onnx_input import Taken, taken_by
from extracurricular.teachers.onnx_output import answer_names, columns_of
from extracurricular.teachers.raw import (
    Array,
    Arrays,
    Output,
    RawTeacher,
    check_output,
    parts_of,
    read_answer,
)

_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


def open_session(path: Path) -> Any:
    """Open an ONNX file for the CPU, once its layout has been checked.

    Raises:
        ValueError: onnxruntime is not installed, or cannot open the file.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ValueError(f"an ONNX file needs onnxruntime, {from_extra('onnx')}") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        found = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        # It decodes these when they are asked for.
        _ = found.get_modelmeta().custom_metadata_map
        _ = [one.name for one in (*found.get_inputs(), *found.get_outputs())]
        return found
    except UnicodeDecodeError:
        raise ValueError(
            f"the file {str(path)!r} cannot be opened: a name or text in it is not UTF-8"
        ) from None
    except Exception as error:  # onnxruntime has a class of its own for each way to fail
        text = " ".join(str(error).split())
        raise ValueError(f"the file {str(path)!r} cannot be opened: {text}") from None


def _numbers(given: float | Sequence[float]) -> tuple[float, ...]:
    """Return one number, or one for each channel, as a tuple."""
    return (float(given),) if isinstance(given, int | float) else tuple(given)


class OnnxTeacher(RawTeacher):
    """An ONNX file, run on the CPU. Only operators of onnxruntime are executed.

    Args:
        path: The file.
        data: The data set. A single tensor goes to the only input of the file; several go to the
            inputs of their names (positions of a tuple: ``0``, ``1``, …), or as ``inputs`` says.
        output: How to read answers (see :func:`~extracurricular.teachers.raw.read_answer`);
            ``probs`` or ``mean_std`` where None.
        std: The deviation where the answer is only the mean, in the units of the answer, or in
            those of the transform of the target.
        inputs: Name of the file's input for each tensor of the data.
        outputs: Names of the file's outputs that are the answer, one or two; where empty, all
            that hold real numbers.
        raw: Whether the file takes raw values and answers in the target's own units; otherwise it
            takes and gives standardised values, as networks trained here do.
        shift, scale: The file takes ``(raw - shift) / scale``: one number, or one for each channel
            (255 for an image whose values should be from 0 to 1).
        input: How it takes an image, where the file leaves that open: ``layout`` (``nchw``,
            ``nhwc``, ``flat``) and ``size`` (a number, or height and width). Images of another size
            are resized.

    The first call opens the file. It raises ``ValueError`` where the file is missing or damaged,
    reads a file out of its folder, or does not go with the data.
    """

    def __init__(
        self,
        path: str | Path,
        data: Data,
        *,
        output: Output | None = None,
        std: Any = None,
        inputs: dict[str, str] | None = None,
        outputs: tuple[str, ...] = (),
        raw: bool = True,
        shift: float | tuple[float, ...] = (0.0,),
        scale: float | tuple[float, ...] = (1.0,),
        input: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(data)
        self.path = Path(path)
        self.output = check_output(output, data.task, std)
        self.std = std
        self.input_names = dict(inputs or {})
        self.output_names = tuple(outputs)
        self.raw = raw
        self.input = None if input is None else dict(input)
        self.shift, self.scale = _numbers(shift), _numbers(scale)
        if not self.shift or not self.scale or 0 in self.scale:
            raise ValueError(
                f"shift is {list(self.shift)} and scale {list(self.scale)}; each needs one number "
                "or one for each channel, and no scale can be 0"
            )

    @cached_property
    def layout(self) -> Layout:
        """Parameters and further files of the file, checked before anything is loaded."""
        return read_layout(self.path)

    @property
    def parameters(self) -> int | None:
        """Count of the numbers in its tensors."""
        return self.layout.parameters

    @cached_property
    def session(self) -> Any:
        """The file, opened."""
        _ = self.layout
        return open_session(self.path)

    @cached_property
    def _places(self) -> dict[str, Any]:
        """The file's input for each tensor of the data."""
        found = {one.name: one for one in self.session.get_inputs()}
        keys = list(leaves(self.data.train.x))
        if keys == [""] and not self.input_names:
            names = list(found)[:1]
        else:
            names = [self.input_names.get(key, key) for key in keys]
        unknown = [key for key in self.input_names if key not in keys]
        if unknown:
            raise ValueError(f"inputs has {unknown[0]!r}; {known_names(unknown[0], keys)}")
        for name in names:
            if name not in found:
                raise ValueError(
                    f"the file {str(self.path)!r} has no input {name!r}; {known_names(name, found)}"
                )
        if len(names) != len(found):
            raise ValueError(
                f"the file {str(self.path)!r} takes {len(found)} inputs ({', '.join(found)}), "
                f"but the data have {len(names)}"
            )
        for name in names:
            if found[name].type not in _TYPES:
                raise ValueError(
                    f"input {name!r} of {str(self.path)!r} is a {found[name].type}; "
                    f"it must be one of {', '.join(_TYPES)}"
                )
        return dict(zip(keys, [found[name] for name in names], strict=True))

    @cached_property
    def _taken(self) -> dict[str, Taken]:
        """How the file takes each image."""
        return taken_by(self.input, self._places, leaves(self.data.train.x), self._where)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the person, where images are resized."""
        x = leaves(self.data.train.x)
        said = [one.describe(x[key].shape[1:]) for key, one in self._taken.items()]
        return tuple(one for one in said if one is not None)

    @cached_property
    def _answers(self) -> list[str]:
        """Names of the outputs that are the answer."""
        found = {one.name: one.type for one in self.session.get_outputs()}
        return answer_names(found, self.output_names, self.output, self.task, self._where)

    @property
    def _where(self) -> str:
        return f"the file {str(self.path)!r}"

    def inputs(self, x: Inputs) -> Arrays:
        """Return raw arrays, or standardised ones for a file that takes those."""
        if self.raw:
            return super().inputs(x)
        parts = {key: leaf.float().cpu().numpy() for key, leaf in leaves(x).items()}
        return parts if isinstance(x, dict) else parts[""] if "" in parts else tuple(parts.values())

    def answer(self, x: Arrays) -> Distribution:
        """Run the file; the answer is in the target's own units if ``raw``, else standardised."""
        parts = {key: self._ready(key, part) for key, part in parts_of(x).items()}
        fixed = self._fixed_batch()
        if fixed is None:
            return self._run(parts)
        tree = {key: torch.from_numpy(part) for key, part in parts.items()}
        done = []
        for part, true in fixed_batches(tree, fixed):
            said = self._run({key: leaf.numpy() for key, leaf in leaves(part).items()})
            done.append(said[:true])
        return concatenate(done)

    def __call__(self, batch: Batch) -> Distribution:
        """Return the standardised distribution, on the device of the batch."""
        if self.raw:
            return super().__call__(batch)
        said = self.answer(self.inputs(batch.x))
        return type(said).from_output(said.parameters.float().to(batch.ids.device))

    def _run(self, parts: dict[str, Array]) -> Distribution:
        feed = {self._places[key].name: part for key, part in parts.items()}
        try:
            found = self.session.run(self._answers, feed)
        except Exception as error:  # onnxruntime has a class of its own for each way to fail
            text = " ".join(str(error).split())
            shapes = ", ".join(f"{name} {part.shape}" for name, part in feed.items())
            raise ValueError(
                f"the file {str(self.path)!r} does not take {shapes}: {text}"
            ) from None
        answer = found[0] if len(found) == 1 else found
        if len(found) == 1 and isinstance(answer, list):
            answer = columns_of(answer, self.data, self.output, self._where)
        transform = self.data.y_transform if self.raw else None
        return read_answer(answer, self.task, self.output, self.std, transform)

    def _fixed_batch(self) -> int | None:
        """Return the only batch size that the file takes; None if it takes any."""
        shapes = [one.shape for one in self._places.values()]
        sizes = {shape[0] for shape in shapes if shape and isinstance(shape[0], int)}
        return min(sizes) if sizes else None

    def _ready(self, key: str, values: Array) -> Array:
        """Shift, scale and reshape an input, and convert it to the type that the file takes."""
        form = self._taken.get(key)
        if form is not None:
            bytes_range = self.raw and leaves(self.data.train.x)[key].dtype == torch.uint8
            values = form.resized(values, bytes_range)
        if self.shift != (0.0,) or self.scale != (1.0,):
            shape = (-1, *[1] * (values.ndim - 2))
            shift, scale = (np.asarray(part, np.float32) for part in (self.shift, self.scale))
            values = (values - shift.reshape(shape)) / scale.reshape(shape)
        values = values if form is None else form.arranged(values)
        kind = _TYPES[self._places[key].type]
        if np.issubdtype(kind, np.integer):
            info = np.iinfo(kind)
            values = np.clip(np.round(values), info.min, info.max)
        return np.ascontiguousarray(values, dtype=kind)

    def identity(self) -> Any:
        """Return a hash of the file and its further files, and how answers are read."""
        digest = hashlib.sha256()
        for file in (self.path, *self.layout.files):
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        how = {k: getattr(self, k) for k in ("output", "std", "raw")}
        how |= {"shift": list(self.shift), "scale": list(self.scale)}
        how |= {"inputs": self.input_names, "outputs": list(self.output_names)}
        how |= {} if self.input is None else {"input": self.input}
        return {"onnx": digest.hexdigest()[:32], **how}
