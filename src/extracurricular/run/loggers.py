"""Loggers that take the curves of a training while it runs, besides its ``log.jsonl``.

A recipe names them: ``log: tensorboard``, ``log: [tensorboard, {wandb: {project: mine}}]``, or any
class with the methods of a Lightning logger, ``log: {"lightning.pytorch.loggers:CSVLogger": {}}``.
Loggers only watch: no result depends on them, and one that fails is reported and dropped.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from extracurricular.errors import RecipeError, XclError, from_extra
from extracurricular.registry import Registry, split_spec


class Logger(Protocol):
    """The part of a Lightning logger that is used."""

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        """Take the settings of a training."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Take figures by name at a step."""

    def finalize(self, status: str) -> None:
        """Close the logger at the end of the training: ``success`` or ``failed``."""


LOGGERS: Registry[Logger] = Registry("logger")

# The module that each logger needs; the extra that installs it has the logger's name.
_NEEDS = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}


@LOGGERS.register("tensorboard")
def tensorboard(folder: Path, start: int) -> Logger:
    """Log to TensorBoard; ``tensorboard --logdir RUN`` shows all stages of a run.

    Args:
        folder: The stage's folder.
        start: First step to write; TensorBoard hides the later figures of an interrupted
            training.
    """
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    return TensorBoardLogger(folder, name="", version="tensorboard", purge_step=start)


@LOGGERS.register("wandb")
class WeightsAndBiases:
    """A logger to Weights & Biases, with a run for each stage and a group for each folder.

    Args:
        folder: The stage's folder.
        title: The stage's name.
        group: The folder of the whole run.
        project: The project there.
        entity: The user or team; None for the user who is logged in.
        mode: ``online``, ``offline`` or ``disabled``; None for the mode that the environment sets.
    """

    def __init__(
        self,
        folder: Path,
        title: str,
        group: str,
        project: str = "extracurricular",
        entity: str | None = None,
        mode: str | None = None,
    ) -> None:
        import wandb

        self.run = wandb.init(
            project=project, entity=entity, mode=mode, group=group, name=title, dir=str(folder)
        )

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        """Take the settings of a training."""
        self.run.config.update(params)

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Take figures by name at a step."""
        self.run.log(metrics, step=step)

    def finalize(self, status: str) -> None:
        """Close the logger at the end of the training."""
        self.run.finish(exit_code=0 if status == "success" else 1)


def specs_of(log: Any) -> list[Any]:
    """Return the loggers that a recipe's ``log`` names: none, one, or a list of them."""
    if log is None:
        return []
    return log if isinstance(log, list) else [log]


def check_loggers(log: Any) -> None:
    """Check that the loggers can be made, before anything is trained.

    Raises:
        RecipeError: A name or setting is unknown, or a package is missing.
    """
    for place, spec in enumerate(specs_of(log)):
        key = f"log.{place}" if isinstance(log, list) else "log"
        name, _ = split_spec(spec, "logger", key)
        if name in _NEEDS:
            try:
                importlib.import_module(_NEEDS[name])
            except ImportError as error:
                problem = f"{name} is missing, {from_extra(name)}"
                raise RecipeError(key, problem) from error
        entry, _ = LOGGERS.find(name, key=key)
        LOGGERS.settings(spec, key=key, context=tuple(_supplied(entry, Path(), "", "", 0)))


class Curves:
    """The loggers of one stage, opened at the first figures.

    Args:
        log: The recipe's ``log``.
        folder: The stage's folder.
        title: The stage's name.
        group: The folder of the whole run.
        settings: The stage's settings.
        tell: Called with a sentence when a logger fails.
    """

    def __init__(
        self,
        log: Any,
        folder: Path,
        title: str,
        group: str,
        settings: dict[str, Any],
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.specs = specs_of(log)
        self.folder, self.title, self.group = folder, title, group
        self.settings, self.tell = settings, tell
        self.loggers: dict[str, Logger] | None = None

    def __call__(self, line: dict[str, Any]) -> None:
        """Pass a line of the log to each logger."""
        step = line["step"]
        if self.loggers is None:
            self.loggers = {}
            for spec in self.specs:
                name, _ = split_spec(spec, "logger", "log")
                self._guarded(name, self._open, name, spec, step)
        figures = _flat(line)
        for name, logger in list(self.loggers.items()):
            self._guarded(name, logger.log_metrics, figures, step)

    def __enter__(self) -> Curves:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close("success" if kind is None else "failed")

    def close(self, status: str) -> None:
        """Close all loggers: ``success`` or ``failed``."""
        for name, logger in list((self.loggers or {}).items()):
            self._guarded(name, logger.finalize, status)

    def _open(self, name: str, spec: Any, start: int) -> None:
        entry, _ = LOGGERS.find(name, key="log")
        supplied = _supplied(entry, self.folder, self.title, self.group, start)
        logger = LOGGERS.build(spec, key="log", **supplied)
        logger.log_hyperparams(self.settings)
        assert self.loggers is not None
        self.loggers[name] = logger

    def _guarded(self, name: str, act: Callable[..., None], *given: Any) -> None:
        """Call a logger, and drop it if it fails: hours of training outweigh its curves."""
        try:
            act(*given)
        except XclError:
            raise
        except Exception as error:
            assert self.loggers is not None
            self.loggers.pop(name, None)
            if self.tell is not None:
                self.tell(f"{self.title}: {name} gets no more figures: {error}")


def _supplied(
    entry: Callable[..., Logger], folder: Path, title: str, group: str, start: int
) -> dict[str, Any]:
    """Return the arguments that the program supplies and the logger accepts."""
    parameters = inspect.signature(entry).parameters
    if entry.__module__ == __name__:
        known = {"folder": folder, "title": title, "group": group, "start": start}
    else:
        # Lightning's names for the folder that a logger may write to.
        known = dict.fromkeys(("save_dir", "root_dir"), str(folder))
    return {name: value for name, value in known.items() if name in parameters}


def _flat(line: dict[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, dict):
            found |= {f"{name}/{inner}": float(v) for inner, v in value.items()}
        elif name != "step":
            found[name] = float(value)
    return found
