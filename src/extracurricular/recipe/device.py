"""The section ``device`` of a recipe: on what a run computes, and how."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from extracurricular.errors import shorten
from extracurricular.recipe.students import Section


def _spell_off(value: Any) -> Any:
    # YAML reads a bare off as false.
    return "off" if value is False else value


def _number_or_auto(value: Any) -> Any:
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"is {shorten(value)}; it should be a whole number of at least 1, or auto")
    return value


class DeviceSection(Section):
    """The device, the precision of computation, and how its steps are carried out.

    Accelerators and precisions have their names in Lightning Fabric.

    Args:
        accelerator: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``; or ``auto``, which is ``bf16-mixed``
            on a CUDA device that computes in bfloat16, and ``32-true`` elsewhere. The result is
            written in each stage, and a run that was begun keeps it on whatever device it goes on.
        tf32: Whether products of float32 may be computed in TF32, with 10 bits of mantissa instead
            of 23, on CUDA devices.
        capture: ``auto`` replays steps as CUDA graphs where they can be captured; ``off`` launches
            each operation from Python.
        compile: Whether ``torch.compile`` compiles students and teacher, which takes up to minutes
            for each network and pays in long trainings.
        together: Trainings at once on one GPU, each on a stream of its own; ``auto`` for as many as
            pay. No number depends on it.
        threads: Threads of one training on the CPU. Small networks gain nothing from more than
            one, and as many trainings run at once as the cores allow.
        devices: Devices that share each training, or processes on a CPU; ``auto`` for all CUDA
            devices of the machine. Numbers depend on it by rounding alone (docs/scale.md).
        nodes: Machines with so many devices each, for ``torchrun``.
        strategy: ``ddp``: each device has the whole student and the whole teacher. ``fsdp``: the
            weights of the teacher are spread over the devices. ``auto`` is ``ddp``.
        sync_batchnorm: Whether batch norms take their statistics over the batch of all devices, as
            one device would; if false, over the slice of each, and numbers depend on devices.
    """

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    tf32: bool = False
    capture: Annotated[Literal["auto", "off"], BeforeValidator(_spell_off)] = "auto"
    compile: bool = False
    together: Annotated[int | str, BeforeValidator(_number_or_auto)] = "auto"
    threads: Annotated[int, Field(ge=1)] = 1
    devices: Annotated[int | str, BeforeValidator(_number_or_auto)] = 1
    nodes: Annotated[int, Field(ge=1)] = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    sync_batchnorm: bool = True
