"""Write an ONNX file or a program of ``torch.export``, both from one traced program."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch
from torch.export import ExportedProgram

from extracurricular.errors import ExportError, first_line, from_extra
from extracurricular.export.graph import Exported
from extracurricular.models.trees import OPERATOR, Trees

OPSET = 18
"""Version of the ONNX operators: torch writes it without conversion; it dates from 2022."""

METADATA_KEY = "extracurricular"
"""The key of a file's metadata."""

# This precedes the names of outputs while a file is made.
_OWN = "extracurricular."
# A protocol buffer holds less than 2 GiB; beyond that ONNX needs a second file.
_MOST_BYTES = 2 * 1000**3


@contextmanager
def quietly() -> Iterator[None]:
    """Hide messages of torch and onnxruntime that are meant for their own developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def trace(model: Exported) -> ExportedProgram:
    """Trace a model for batches of any size.

    It is traced with zeros, as a program keeps the example it was traced with.

    Raises:
        ExportError: torch cannot trace the network, or the network works with one batch size only.
    """
    batch = torch.export.Dim("batch")
    shapes = ({name: {0: batch} for name in model.example},)
    try:
        with quietly(), torch.no_grad():
            program = torch.export.export(model, (model.example,), dynamic_shapes=shapes)
    except Exception as error:  # torch passes on any error of the network's own code
        raise ExportError(f"torch.export cannot trace the network: {first_line(error)}") from error
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            # These are lines of source files on this machine, which a file must not give away.
            node.meta.pop("stack_trace", None)
    return program


def to_torch(program: ExportedProgram, metadata: str) -> bytes:
    """Return the content of a ``.pt2`` file; ``metadata`` is an extra file in it."""
    buffer = io.BytesIO()
    with quietly():
        torch.export.save(program, buffer, extra_files={METADATA_KEY: metadata})
    return buffer.getvalue()


def to_onnx(model: Exported, program: ExportedProgram) -> Any:
    """Return the program as an ``onnx.ModelProto``, weights included.

    Raises:
        ExportError: A library is missing, an operator has no counterpart, or the weights are more
            than one file holds.
    """
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    if size >= _MOST_BYTES:
        raise ExportError(
            f"the network has {size / 1e9:.1f} GB of weights, but an ONNX file holds less than "
            "2 GB; use --format pt2"
        )
    check_onnx()
    # torch names values after its functions, so that a value inside may be called as an output is.
    outputs = {f"{_OWN}{name}": name for name in model.outputs}
    try:
        with quietly():
            written = torch.onnx.export(
                program,
                dynamo=True,
                input_names=list(model.example),
                output_names=list(outputs),
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # one of a dozen kinds
        problem = f"torch cannot write the network as ONNX: {first_line(error)}"
        raise ExportError(f"{problem}{_blame(error)}") from error
    assert written is not None
    return _plain(_renamed(_planted(written.model_proto, model), outputs))


def _planted(proto: Any, model: Exported) -> Any:
    """Give the operator of a student's trees their nodes."""
    import onnx

    for node in proto.graph.node:
        if node.op_type == OPERATOR:
            [trees] = [part for part in model.modules() if isinstance(part, Trees)]
            for name, values in trees.onnx_attributes().items():
                node.attribute.append(onnx.helper.make_attribute(name, values))
    return proto


def _blame(error: Exception) -> str:
    """Return what to do about an exporter whose own libraries do not go together, as a clause."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, AttributeError | ImportError) and "onnx" in str(inner):
            return (
                f"; onnxscript {version('onnxscript')} does not go with torch {version('torch')}, "
                "so install a newer one (pip install --upgrade onnxscript)"
            )
        inner = inner.__cause__
    return ""


def check_onnx() -> None:
    """Check that the libraries that ONNX needs are installed.

    Raises:
        ExportError: One is missing.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(name)
        except ImportError:
            raise ExportError(f"ONNX needs {name}, {from_extra('onnx')}") from None


def with_metadata(proto: Any, metadata: str) -> bytes:
    """Return the content of an ONNX file that carries its metadata."""
    import onnx

    onnx.helper.set_model_props(proto, {METADATA_KEY: metadata})
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def _renamed(proto: Any, outputs: dict[str, str]) -> Any:
    """Give the outputs their names, and values inside that are called so another."""
    names = {name: f"inner.{name}" for name in outputs.values()} | outputs
    for node in proto.graph.node:
        for side in (node.input, node.output):
            side[:] = [names.get(name, name) for name in side]
    for value in proto.graph.output:
        value.name = names[value.name]
    return proto


def _plain(proto: Any) -> Any:
    """Name the batch dimension, and remove the source lines that each node came from."""
    proto.producer_name, proto.producer_version = "extracurricular", version("extracurricular")
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    # Shapes between the nodes follow from those of the inputs.
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = "batch"
    return proto
