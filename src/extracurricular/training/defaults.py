"""The optimiser and the rate of a training whose settings leave them open.

Images are classified by SGD with momentum, as in most published figures. A rate that suits it makes
the variance of a Gaussian explode, and leaves small networks on tables worse than a constant, so
everything else is trained by AdamW.
"""

from __future__ import annotations

from torch import nn

from extracurricular.distributions import Kind, Task
from extracurricular.registry import split_spec
from extracurricular.training.settings import RATES, WEIGHT_DECAY, Training

# Convolutional networks have more layers to carry a step through: with all but these the rate is a
# tenth.
_AS_WIDE = ("sgd", "adagrad")
# Weight decay of AdamW: at the rate 0.01, a network on 200 rows whose targets are noise has an NLL
# of 1.6 with 1, near a constant's 1.4, and of 6 with 0.1: its variance shrinks to known errors.
_STRONG: dict[Kind, float] = {"regression": 1.0, "classification": 0.1, "multilabel": 0.1}
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def is_open(settings: Training) -> bool:
    """Whether the settings leave the optimiser or its rate to the task and the network."""
    return settings.optimizer is None or settings.lr is None


def decided(settings: Training, task: Task, network: nn.Module) -> Training:
    """Return settings with an optimiser, a rate and a weight decay.

    A convolutional network that learns classes or labels gets ``sgd``, every other network
    ``adamw``. A rate alone is one of ``sgd``, as it was before there was a choice.

    Args:
        settings: The settings; those that leave nothing open are returned as they are.
        task: The task.
        network: The network to train.
    """
    if not is_open(settings):
        return settings
    convolutional = any(isinstance(part, _CONVOLUTIONS) for part in network.modules())
    optimizer = settings.optimizer
    if optimizer is None:
        usual = convolutional and task.kind != "regression"
        optimizer = "sgd" if usual or settings.lr is not None else "adamw"
    name, _ = split_spec(optimizer, "optimizer", "optimizer")
    rate = settings.lr
    if rate is None:
        narrow = name not in _AS_WIDE and convolutional
        rate = RATES[name] / 10 if narrow else RATES[name]
    decay = settings.weight_decay
    if decay is None:
        strong = name == "adamw" and settings.lr is None
        decay = _STRONG[task.kind] if strong else WEIGHT_DECAY
    return settings.model_copy(update={"optimizer": optimizer, "lr": rate, "weight_decay": decay})
