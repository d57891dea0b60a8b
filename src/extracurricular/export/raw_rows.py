"""Put the columns of a table before an ONNX graph, so that a raw row goes in as it is.

What :func:`extracurricular.data.encode.encode` does to a row is said here in ONNX operators, from
the same description of the columns.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from extracurricular.data.encode import turns
from extracurricular.data.fields import Field, Fields
from extracurricular.export.graph import OUTPUTS, STATED
from extracurricular.export.verify import Runner, session_of

# The operators for texts and tables, which every onnxruntime has.
_ML, _ML_VERSION = "ai.onnx.ml", 2
_MISSING, _UNKNOWN = -2, -1


def raw_inputs(fields: Fields) -> dict[str, str]:
    """Return the graph's name of each column's input, by the name of the column.

    It is the column's own, unless an output is called so.
    """
    taken = {name for known in (OUTPUTS, STATED) for names in known.values() for name in names}
    return {name: f"{name} (input)" if name in taken else name for name in fields.names}


def with_raw_rows(proto: Any, fields: Fields) -> Any:
    """Return a graph that takes raw columns in place of the input ``x``.

    Each column is an input [N, 1]: float64 for numbers and for dates, in days since 1970-01-01, and
    strings for categories. A missing number is NaN, a missing text is empty or one of the words for
    it. Blanks around texts stay, and numbers are no texts, unlike in a table that is read.

    Args:
        proto: An ``onnx.ModelProto`` with the one input ``x``; it is not changed.
        fields: The description of the columns.
    """
    import onnx
    from onnx import TensorProto, helper

    made = onnx.ModelProto()
    made.CopyFrom(proto)
    graph = made.graph
    names = raw_inputs(fields)
    inner = _prefix("network/", names.values())
    _rename_inside(graph, inner)
    builder = _Builder(_prefix("columns/", names.values()))
    parts = [builder.column(field, fields, names[field.name]) for field in fields.inputs]
    builder.node("Concat", [part for found in parts for part in found], f"{inner}x", axis=1)
    nodes = [*builder.nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(builder.constants)
    del graph.input[:]
    for field in fields.inputs:
        kind = TensorProto.STRING if field.kind == "category" else TensorProto.DOUBLE
        graph.input.append(helper.make_tensor_value_info(names[field.name], kind, ["N", 1]))
    if builder.texts:
        made.opset_import.append(helper.make_opsetid(_ML, _ML_VERSION))
    onnx.checker.check_model(made)
    return made


def _prefix(start: str, names: Iterable[str]) -> str:
    """Return a prefix that none of some names has."""
    return next(
        prefix
        for prefix in (start + "/" * count for count in itertools.count())
        if not any(name.startswith(prefix) for name in names)
    )


def _rename_inside(graph: Any, prefix: str) -> None:
    """Give all values but the outputs names that no column has."""
    outputs = {value.name for value in graph.output}

    def inside(name: str) -> str:
        return name if name in outputs or not name else prefix + name

    for node in graph.node:
        node.input[:] = map(inside, node.input)
        node.output[:] = map(inside, node.output)
    for constant in graph.initializer:
        constant.name = inside(constant.name)


class _Builder:
    """The nodes and constants that make the inputs of a network from columns.

    Args:
        prefix: The beginning of all names.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.texts = False

    def node(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        """Add a node, and return the name of its output."""
        from onnx import helper

        output = output or f"{self.prefix}{len(self.nodes)}"
        domain = _ML if kind == "LabelEncoder" else ""
        self.nodes.append(helper.make_node(kind, inputs, [output], domain=domain, **attributes))
        return output

    def constant(self, value: Any, dtype: Any = np.float64) -> str:
        """Add a constant, and return its name."""
        from onnx import numpy_helper

        name = f"{self.prefix}constant {len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def float32(self, value: str) -> str:
        """Return a value as float32."""
        from onnx import TensorProto

        return self.node("Cast", [value], to=TensorProto.FLOAT)

    def column(self, field: Field, fields: Fields, raw: str) -> list[str]:
        """Return the inputs that are made of one column, float32, [N, k] each, in order."""
        if field.kind == "category":
            made, absent = self._category(field, fields, raw)
        else:
            made, absent = self._number(field, fields, raw)
        return [*made, self.float32(absent)] if field.indicator else made

    def _category(self, field: Field, fields: Fields, raw: str) -> tuple[list[str], str]:
        self.texts = True
        codes = {name: code for code, name in enumerate(field.categories)}
        codes |= {old: codes.get(new, _UNKNOWN) for old, new in fields.rename}
        words = {word for text in fields.missing for word in (text, text.upper(), text.title())}
        keys = dict.fromkeys(sorted(words), _MISSING) | codes
        code = self.node(
            "LabelEncoder", [raw], keys_strings=list(keys), values_int64s=list(keys.values()),
            default_int64=_UNKNOWN,
        )  # fmt: skip
        absent = self.node("Equal", [code, self.constant(_MISSING, np.int64)])
        if field.fill is not None:
            fill = self.constant(codes.get(str(field.fill), _UNKNOWN), np.int64)
            code = self.node("Where", [absent, fill, code])
        places = self.constant(np.arange(len(field.categories))[None], np.int64)
        return [self.float32(self.node("Equal", [code, places]))], absent

    def _number(self, field: Field, fields: Fields, raw: str) -> tuple[list[str], str]:
        absent = self.node("IsNaN", [raw])
        if field.kind == "number" and fields.missing_numbers:
            # As float32, which inputs are, so that a value can be named as it is shown.
            small = self.float32(raw)
            for number in fields.missing_numbers:
                same = self.node("Equal", [small, self.constant(number, np.float32)])
                absent = self.node("Or", [absent, same])
            raw = self.node("Where", [absent, self.constant(math.nan), raw])
        if field.fill is not None:
            raw = self.node("Where", [absent, self.constant(field.fill), raw])
        value = self.node("Sub", [raw, self.constant(field.origin)])
        made = [self.float32(self.node("Mul", [value, self.constant(field.factor)]))]
        for shift, period in turns(field):
            moved = self.node("Add", [raw, self.constant(shift)])
            turn = self.node("Div", [moved, self.constant(period)])
            part = self.node("Sub", [turn, self.node("Floor", [turn])])
            angle = self.node("Mul", [part, self.constant(2 * math.pi)])
            # As a sine, since runtimes before 1.32 have no cosine of float64.
            ahead = self.node("Add", [angle, self.constant(math.pi / 2)])
            made += [self.float32(self.node("Sin", [one])) for one in (angle, ahead)]
        return made, absent


def raw_row(fields: Fields, x: Any) -> dict[str, float | str]:
    """Return a raw row that becomes the input ``x``, float32, [D]; the inverse of encoding.

    A category that training does not have becomes a text that is none of its categories.
    """
    row: dict[str, float | str] = {}
    start = 0
    for field in fields.inputs:
        width = len(field.labels)
        part = [float(value) for value in x[start : start + width]]
        start += width
        if field.indicator and part[-1]:
            row[field.name] = "" if field.kind == "category" else math.nan
        elif field.kind == "category":
            known = part[: len(field.categories)]
            row[field.name] = field.categories[known.index(1.0)] if 1.0 in known else _other(field)
        else:
            value = part[0] / field.factor + field.origin
            row[field.name] = _day(field, value, part) if field.kind == "date" else value
    return row


def _day(field: Field, about: float, part: list[float]) -> float:
    """Return a date in days, more exactly than the float32 that counts them says."""
    if not field.clock:
        return float(round(about))
    if not field.parts:
        return about
    clock = 2 * len(turns(field))
    time = math.atan2(part[clock - 1], part[clock]) / (2 * math.pi) % 1
    return round(about - time) + time


def _other(field: Field) -> str:
    name = "another"
    while name in field.categories:
        name += "_"
    return name


def row_runner(content: bytes, fields: Fields) -> Runner:
    """Open a graph of :func:`with_raw_rows` as a function from the input ``x`` to its outputs.

    It takes each input back to a raw row, for the comparison with the student.

    Raises:
        ExportError: onnxruntime does not open it.
    """
    session = session_of(content)
    outputs = [one.name for one in session.get_outputs()]
    inputs = raw_inputs(fields)

    def run(raw: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        rows = [raw_row(fields, x) for x in raw["x"].numpy()]
        columns = {
            inputs[field.name]: np.array(
                [[row[field.name]] for row in rows],
                object if field.kind == "category" else np.float64,
            )
            for field in fields.inputs
        }
        found = session.run(outputs, columns)
        return {name: torch.from_numpy(part) for name, part in zip(outputs, found, strict=True)}

    return run
