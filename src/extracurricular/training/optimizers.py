"""The optimisers that a recipe can name.

Each is made from groups of parameters, each group with its weight decay, and from a rate, which is
a tensor on the device where steps are captured. One of the user's own, ``module:Class``, is made as
those of torch are: ``Class(groups, lr=rate, **settings)``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from extracurricular.errors import RecipeError, XclError, raised
from extracurricular.registry import Registry, check_settings, split_spec

OPTIMIZERS: Registry[torch.optim.Optimizer] = Registry("optimizer")
Groups: TypeAlias = list[dict[str, Any]]
Rate: TypeAlias = float | Tensor

SUPPLIED = ("groups", "lr", "momentum", "fused")
"""Parameters that the training gives."""

# Optimisers that compute the loss several times a step, as people name them.
_CLOSURES = {"lbfgs": "L-BFGS", "sam": "SAM", "asam": "ASAM", "gsam": "GSAM"}
_CLOSURE = (
    "computes the loss several times a step, by a function that it calls (a closure), which the "
    "loop, whose steps are captured as graphs and resumed to the last bit, does not give; choose "
    "another"
)


def _on_device(lr: Rate) -> bool:
    """Return whether a rate is a tensor on a device whose steps may be captured."""
    return isinstance(lr, Tensor) and lr.device.type == "cuda"


@OPTIMIZERS.register("sgd")
def sgd(
    groups: Groups, lr: Rate, momentum: float, fused: bool, nesterov: bool = True
) -> torch.optim.Optimizer:
    """Make the gradient step with momentum, as `training.momentum` sets it.

    Args:
        groups: The parameters.
        lr: The rate.
        momentum: The momentum.
        fused: Whether one kernel does the whole step.
        nesterov: Whether the momentum is Nesterov's.
    """
    ahead = nesterov and momentum > 0
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=ahead, fused=fused)


@OPTIMIZERS.register("adamw")
def adamw(
    groups: Groups,
    lr: Rate,
    fused: bool,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> torch.optim.Optimizer:
    """Make Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    Args:
        groups: The parameters.
        lr: The rate.
        fused: Whether one kernel does the whole step.
        betas: What the averages of gradients and of their squares keep.
        eps: Added to the deviation that a gradient is divided by.
    """
    made = torch.optim.AdamW(
        groups, lr=lr, betas=betas, eps=eps, fused=fused, capturable=_on_device(lr)
    )
    return _silent(made)


@OPTIMIZERS.register("adam")
def adam(
    groups: Groups,
    lr: Rate,
    fused: bool,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    amsgrad: bool = False,
) -> torch.optim.Optimizer:
    """Make Adam (Kingma and Ba 2015), whose weight decay is a part of the gradient.

    Args:
        groups: The parameters.
        lr: The rate.
        fused: Whether one kernel does the whole step.
        betas: What the averages of gradients and of their squares keep.
        eps: Added to the deviation that a gradient is divided by.
        amsgrad: Whether the largest average of squares counts, not the last (Reddi et al. 2018).
    """
    made = torch.optim.Adam(
        groups, lr=lr, betas=betas, eps=eps, amsgrad=amsgrad, fused=fused, capturable=_on_device(lr)
    )
    return _silent(made)


@OPTIMIZERS.register("nadam")
def nadam(
    groups: Groups,
    lr: Rate,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> torch.optim.Optimizer:
    """Make Adam with Nesterov's momentum (Dozat 2016) and decoupled weight decay.

    Args:
        groups: The parameters.
        lr: The rate.
        betas: What the averages of gradients and of their squares keep.
        eps: Added to the deviation that a gradient is divided by.
    """
    made = torch.optim.NAdam(
        groups, lr=lr, betas=betas, eps=eps, decoupled_weight_decay=True, capturable=_on_device(lr)
    )
    return _silent(made)


@OPTIMIZERS.register("rmsprop")
def rmsprop(
    groups: Groups,
    lr: Rate,
    alpha: float = 0.99,
    eps: float = 1e-8,
    centered: bool = False,
) -> torch.optim.Optimizer:
    """Make RMSprop without momentum (Tieleman and Hinton 2012).

    Args:
        groups: The parameters.
        lr: The rate.
        alpha: What the average of squared gradients keeps.
        eps: Added to the deviation that a gradient is divided by.
        centered: Whether squares are of the gradient less its mean.
    """
    made = torch.optim.RMSprop(
        groups, lr=lr, alpha=alpha, eps=eps, centered=centered, capturable=_on_device(lr)
    )
    return _silent(made)


@OPTIMIZERS.register("adagrad")
def adagrad(groups: Groups, lr: Rate, eps: float = 1e-10) -> torch.optim.Optimizer:
    """Make Adagrad (Duchi, Hazan and Singer 2011); its steps are not captured as graphs.

    Args:
        groups: The parameters.
        lr: The rate.
        eps: Added to the root that a gradient is divided by.
    """
    made = torch.optim.Adagrad(groups, lr=lr, eps=eps)
    made.obstacle = "Adagrad counts its steps on the host"  # type: ignore[attr-defined]
    return made


@OPTIMIZERS.register("lion")
def lion(
    groups: Groups, lr: Rate, betas: tuple[float, float] = (0.9, 0.99)
) -> torch.optim.Optimizer:
    """Make Lion, which steps by the sign of a momentum (Chen et al. 2023, algorithm 2).

    Its rate is 3 to 10 times smaller than Adam's, and its decoupled weight decay as much larger.

    Args:
        groups: The parameters.
        lr: The rate.
        betas: What the step and the average keep of the average of gradients.
    """
    return Lion(groups, lr, betas)


class Lion(torch.optim.Optimizer):
    """Steps by the sign of a momentum.

    Args:
        groups: The parameters, by groups with ``weight_decay``.
        lr: The rate, a number or a tensor.
        betas: What the step and the average keep of the average of gradients.

    Source: Chen, Liang, Huang, Real, Wang, Pham, Dong, Luong, Hsieh, Lu and Le 2023, "Symbolic
    Discovery of Optimization Algorithms", NeurIPS, algorithm 2.
    """

    obstacle = None

    def __init__(self, groups: Groups, lr: Rate, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas is {list(betas)}; each must be at least 0 and below 1")
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make one step."""
        for group in self.param_groups:
            first, second = group["betas"]
            lr, decay = group["lr"], group["weight_decay"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["average"] = torch.zeros_like(weight)
                average = state["average"]
                step = average.lerp(weight.grad, 1 - first).sign_()
                weight.sub_((step + decay * weight) * lr)
                average.lerp_(weight.grad, 1 - second)


def _silent(made: torch.optim.Optimizer) -> torch.optim.Optimizer:
    # It would warn of the runs that precede a capture.
    made._warned_capturable_if_run_uncaptured = True
    made.obstacle = None  # type: ignore[attr-defined]
    return made


def build_optimizer(
    spec: Any, groups: Groups, lr: Rate, *, momentum: float, fused: bool, key: str = "optimizer"
) -> torch.optim.Optimizer:
    """Make the optimiser that a spec names.

    Args:
        spec: ``NAME``, ``{NAME: {setting: value}}``, or the same with ``module:Class``.
        groups: The parameters, by groups with ``weight_decay``.
        lr: The rate.
        momentum: The momentum, for those that have it.
        fused: Whether one kernel may do the whole step.
        key: Key of the spec in the recipe, for errors.

    Raises:
        RecipeError: There is no such optimiser, a setting is wrong, or it needs a closure.
    """
    name, given = split_spec(spec, "optimizer", key)
    refuse_closures(name, key)
    entry, _ = OPTIMIZERS.find(name, key=key)
    supplied = {"groups": groups, "lr": lr, "momentum": momentum, "fused": fused}
    if not OPTIMIZERS.names_own_code(name):
        takes = inspect.signature(entry).parameters
        return OPTIMIZERS.build(spec, key=key, **{k: v for k, v in supplied.items() if k in takes})
    _check_own(entry, name, key)
    settings = check_settings(entry, given, f"{key}.{name}", skip=(*_first(entry), "lr"))
    try:
        made = entry(groups, lr=lr, **settings)
    except XclError:
        raise
    except Exception as error:
        raise RecipeError(f"{key}.{name}", f"cannot be made: {raised(error)}") from error
    if not isinstance(made, torch.optim.Optimizer):
        raise RecipeError(
            f"{key}.{name}", f"gives a {type(made).__name__}, which is no torch.optim.Optimizer"
        )
    return made


def refuse_closures(name: str, key: str) -> None:
    """Refuse, by its name, an optimiser that computes the loss several times a step.

    Raises:
        RecipeError: It does.
    """
    known = _CLOSURES.get(name.rpartition(":")[2].lower())
    if known is not None:
        raise RecipeError(key, f"is {name!r}; {known} {_CLOSURE}")


def _check_own(entry: Callable[..., Any], name: str, key: str) -> None:
    """Refuse code of the user's own whose step needs a closure.

    Raises:
        RecipeError: It does.
    """
    step = getattr(entry, "step", None)
    closure = None if step is None else inspect.signature(step).parameters.get("closure")
    needed = closure is not None and closure.default is inspect.Parameter.empty
    # Implementations of SAM have two halves of a step.
    if needed or hasattr(entry, "first_step"):
        raise RecipeError(key, f"is {name!r}, which {_CLOSURE}")


def _first(entry: Callable[..., Any]) -> tuple[str, ...]:
    """Return the name of the first parameter, which takes the groups."""
    return tuple(inspect.signature(entry).parameters)[:1]


def check_optimizer(spec: Any, key: str = "optimizer") -> None:
    """Refuse a spec of no use, on a single number; code of the user's own is made too.

    Raises:
        RecipeError: As :func:`build_optimizer` has it.
    """
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "weight_decay": 0.0}]
    build_optimizer(spec, groups, 1e-3, momentum=0.9, fused=False, key=key)


def obstacle_of(optimizer: torch.optim.Optimizer) -> str | None:
    """Return the reason why a CUDA graph cannot hold its step, as a clause; None if it can.

    One of the user's own says so by ``capturable = True``, or by ``obstacle``.
    """
    if hasattr(optimizer, "obstacle"):
        found: str | None = optimizer.obstacle
        return found
    if getattr(optimizer, "capturable", False) is True or type(optimizer) is torch.optim.SGD:
        return None
    return f"the optimizer {type(optimizer).__name__} does not say that it is capturable"
