"""The example of use on a model card: code that runs as it stands, beside the file."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from extracurricular.data.fields import Fields
from extracurricular.export.graph import OUTPUTS, STATED
from extracurricular.export.raw_rows import raw_row
from extracurricular.export.subject import Subject
from extracurricular.models.families import read_family

_PHOTOGRAPH = "photograph.jpg"


def usage(subject: Subject, metadata: dict[str, Any], file: str) -> str:
    """Return the section as Markdown.

    Args:
        subject: The exported student.
        metadata: The content of ``metadata.json``.
        file: Name of the model's file.
    """
    if not file.endswith(".onnx"):
        return _program(metadata, file)
    rows = [name for name, says in metadata["files"].items() if "rows" in says]
    fields = subject.data.fields
    if fields is not None and rows:
        return f"{_one_row(subject, fields, metadata, rows[-1])}\n\n{_encoded(metadata, file)}"
    if "image" in subject.data.reading and list(metadata["inputs"]) == ["x"]:
        return _picture(subject.data.reading["image"], metadata, file)
    return _call(
        metadata, file, _zeros(metadata, "np.zeros({shape}, np.{dtype})"), ["import numpy as np"]
    )


def _one_row(subject: Subject, fields: Fields, metadata: dict[str, Any], file: str) -> str:
    inputs = metadata["files"][file]["rows"]
    x: Any = subject.split.x
    row = raw_row(fields, x[0])
    lines = [f"    {json.dumps(inputs[key])}: {_value(value)}," for key, value in row.items()]
    made = "\n".join(
        [
            "row = {",
            *lines,
            "}",
            "raw = {",
            "    name: np.array([[value]], object if isinstance(value, str) else np.float64)",
            "    for name, value in row.items()",
            "}",
        ]
    )
    code = _call(metadata, file, made, ["import numpy as np"])
    return (
        f"{code}\n\n`{file}` takes columns as they are, [N, 1] each: texts for categories, float64 "
        "for numbers, and dates in days since 1970-01-01. A missing number is `np.nan`, a missing "
        'text `""`, as far as training had missing values to learn from.'
    )


def _value(value: float | str) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if math.isnan(value):
        return "np.nan"
    # The fewest digits that are the same number in float32, which the network takes.
    short = float(str(np.float32(value)))
    return repr(short if np.float32(short) == np.float32(value) and abs(value) < 1e16 else value)


def _encoded(metadata: dict[str, Any], file: str) -> str:
    return (
        f"`{file}` takes rows that are encoded already, as `columns` and `reading` in "
        "`metadata.json` say; `xcl.load` reads it, and encodes rows itself."
    )


def _picture(image: dict[str, Any], metadata: dict[str, Any], file: str) -> str:
    height, width = image["size"]
    mode = "L" if image["channels"] == 1 else "RGB"
    bleed = (1 - image["centre"]) / 2
    cut = f", bleed={bleed:.6g}" if bleed else ""
    axes = "[None, None]" if mode == "L" else ".transpose(2, 0, 1)[None]"
    made = (
        f'image = ImageOps.exif_transpose(Image.open("{_PHOTOGRAPH}")).convert("{mode}")\n'
        f"image = ImageOps.fit(image, ({width}, {height}), Image.Resampling.BICUBIC{cut})\n"
        f'raw = {{"x": np.asarray(image){axes}}}'
    )
    text = _call(metadata, file, made, ["import numpy as np", "from PIL import Image, ImageOps"])
    text += (
        "\n\nThe photograph may have any size: its largest central part is scaled, as in training."
    )
    if image["draft"]:
        text += (
            " Training read large JPEGs at a fraction of their size, which moves pixels by a "
            "little; `xcl predict` and `xcl.load` do so too."
        )
    return text


def _call(metadata: dict[str, Any], file: str, made: str, imports: list[str]) -> str:
    family = read_family(metadata.get("distribution"))
    outputs = OUTPUTS[metadata["task"]]
    if metadata.get("calibration", {}).get("conformal") is not None:
        outputs += STATED[metadata["task"]]
    outputs += () if family is None else tuple(family.more)
    names = ", ".join(outputs)
    left = names if len(outputs) > 1 else f"({names},)"
    first, *rest = imports
    head = "\n".join([first, "import onnxruntime", *rest])
    return (
        f"```python\n{head}\n\n"
        f"session = onnxruntime.InferenceSession({json.dumps(file)})\n{made}\n"
        f"{left} = session.run({json.dumps(list(outputs))}, raw)\n{_interval(metadata)}```"
    )


# How a reader of mean and variance gets an interval of a transformed target.
_INTERVALS = {
    "log": "v = np.log1p(variance / mean**2)\nm = np.log(mean) - v / 2\n"
    "low, high = np.exp(m - 1.645 * v**0.5), np.exp(m + 1.645 * v**0.5)",
    "asinh": "unit = np.array({units})\na, b = mean / unit, variance / unit**2\n"
    "v = np.log1p(2 * b / (np.sqrt((1 + a**2) ** 2 + 2 * b) + 1 + a**2))\n"
    "m = np.arcsinh(a * np.exp(-v / 2))\n"
    "low, high = unit * np.sinh(m - 1.645 * v**0.5), unit * np.sinh(m + 1.645 * v**0.5)",
}


def _interval(metadata: dict[str, Any]) -> str:
    """Return lines for the 90 % interval of targets that are transformed alike; else nothing."""
    rules = metadata.get("target_transform", [])
    names = {rule["name"] for rule in rules}
    if len(names) != 1 or not names & _INTERVALS.keys():
        return ""
    text = _INTERVALS[names.pop()].format(units=[rule["unit"] for rule in rules])
    return f"# The 90 % interval; the network learned a transform of the target.\n{text}\n"


def _zeros(metadata: dict[str, Any], form: str) -> str:
    """Return code that makes an example of zeros; ``form`` has its shape and dtype."""
    made = [
        f"    {json.dumps(name)}: {form.format(shape=(1, *one['shape']), dtype=one['dtype'])},"
        for name, one in metadata["inputs"].items()
    ]
    return "\n".join(["raw = {", *made, "}"])


def _program(metadata: dict[str, Any], file: str) -> str:
    zeros = _zeros(metadata, "torch.zeros({shape}, dtype=torch.{dtype})")
    return (
        "```python\nimport torch\n\n"
        f"model = torch.export.load({json.dumps(file)}).module()\n{zeros}\n"
        "outputs = model(raw)\n```\n\n"
        "`torch.export.load` unpickles: open only a file whose source you trust. An ONNX file "
        "bears no such risk."
    )
