"""Robust and sparse in anyone's own training loop: one line before it, one line in it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gossamer.attacks.crafting import BatchNormMode
from gossamer.data.augment import DrawnView
from gossamer.errors import ConfigError, DataError
from gossamer.objectives.registry import build as build_objective
from gossamer.objectives.registry import default_attack, default_batch_norm
from gossamer.seeding import Draws
from gossamer.sparsity import ConnectivitySampling, HardMask, Horizon, ScoreMask, Sparsifier, targets
from gossamer.sparsity.budgets import check_keeps
from gossamer.sparsity.dynamic_mask import DynamicMask
from gossamer.sparsity.flying_bird import FlyingBird
from gossamer.sparsity.gradual import GradualPruning
from gossamer.threat import ThreatModel
from gossamer.training.crafting import Crafter
from gossamer.training.devices import Place
from gossamer.types import Attack, Batch, Objective, WithState

_SPARSIFIERS: Mapping[str, Callable[..., Sparsifier]] = {
    "bcs": ConnectivitySampling,
    "magnitude": partial(HardMask, score="magnitude"),
    "random": partial(HardMask, score="random", scope="layer"),
    "scores": ScoreMask,
    "set": partial(DynamicMask, growth="random", every=None),
    "rigl": partial(DynamicMask, growth="gradient"),
    "flying-bird": FlyingBird,
    "gradual": GradualPruning,
}

_OF_THEIR_OWN = ("bcs", "scores")
"""Methods that put other numbers in the place of weights: connectivity parameters, scores."""

_CRAFTERS: WeakKeyDictionary[nn.Module, Crafter] = WeakKeyDictionary()


def sparsify(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    density: float,
    method: str = "bcs",
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    seed: int = 0,
    done: int = 0,
    **options: Any,
) -> Sparsifier:
    """Make a module sparse while its owner trains it; returns the sparsifier, whose `finalize(model)` ends it.

    The optimiser keeps the parameters it holds, and from now on each of its steps is followed by what the method does:
    `bcs` starts from sparse weights of its own and rewires at every step (with an optimiser other than the published
    one, see `gossamer.methods.bcs`); `magnitude` keeps the largest weights as they stand; `random` keeps random ones;
    `scores` freezes the weights as they stand and learns which to keep, as HYDRA's second phase does, to be fine-tuned
    afterwards (the optimiser trains scores and batch norms).
    `set`, `rigl` and `flying-bird` start from random masks and move them, `gradual` cuts a dense network bit by bit:
    these four pace themselves by the length of training, epochs and steps_per_epoch.
    done: steps taken before, where a training goes on: sparsify again, load the states of model, optimiser and
    sparsifier, and it keeps its pace. options: the sparsifier's own. Raises ConfigError.
    """
    if method not in _SPARSIFIERS:
        raise ConfigError(
            "method", expected=f"one of {', '.join(_SPARSIFIERS)}", got=repr(method), remedy="choose one of them"
        )
    layers = targets(model)
    check_keeps({layer.name: layer.size for layer in layers}, density)
    if done < 0:
        raise ConfigError("done", expected="steps, at least 0", got=done, remedy="leave it out at the start")
    sparsifier: Sparsifier = _SPARSIFIERS[method](density=density, **options)
    held = [layer.parameter for layer in layers]
    sparsifier.attach(model, Draws(seed).at("sparsify"), _horizon(epochs, steps_per_epoch))
    for parameter in held if method in _OF_THEIR_OWN else ():
        # Momentum of the weights that were there is none of what is in their place.
        optimizer.state.pop(parameter, None)
    steps = done

    def before(owner: Optimizer, _args: object, _kwargs: object) -> None:
        sparsifier.before_step(steps, owner)

    def after(owner: Optimizer, _args: object, _kwargs: object) -> None:
        nonlocal steps
        sparsifier.after_step(steps, owner)
        steps += 1

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)
    return sparsifier


def _horizon(epochs: int | None, steps_per_epoch: int | None) -> Horizon | None:
    if epochs is None and steps_per_epoch is None:
        return None
    for field, value in (("epochs", epochs), ("steps_per_epoch", steps_per_epoch)):
        if value is None or value < 1:
            raise ConfigError(
                field,
                expected="at least 1, beside the other of epochs and steps_per_epoch",
                got=value,
                remedy="write epochs=90, steps_per_epoch=len(loader), or leave both out",
            )
    assert epochs is not None
    assert steps_per_epoch is not None
    return Horizon(epochs=epochs, steps_per_epoch=steps_per_epoch)


def robust_loss(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    threat: ThreatModel | str,
    objective: Objective | str = "trades",
    attack: Attack | None = None,
    attack_bn: BatchNormMode | None = None,
    seed: int | None = None,
) -> Tensor:
    """Return the robust training loss of one batch, ready for `.backward()`, in place of the loop's own loss.

    x: (N, C, H, W) in [0, 1]; y: (N,). threat: such as "linf:8/255"; attack: None takes the objective's published one;
    attack_bn: what batch norm does while crafting; None takes what the objective was published with. seed: of the
    attack's start, drawn from torch's global generator where None. Raises ConfigError and DataError.
    """
    _check_range(x)
    where = ThreatModel.parse(threat) if isinstance(threat, str) else threat
    goal = build_objective(objective, threat=where) if isinstance(objective, str) else objective
    _refuse_memory(goal)
    chosen = attack if attack is not None else default_attack(goal, where)
    drawn = int(torch.randint(2**31, ())) if seed is None else seed
    draws = Draws(drawn).at("robust_loss")
    everywhere = torch.ones_like(y, dtype=torch.bool)
    batch = Batch(x=x, y=y, index=torch.arange(len(y), device=y.device), labelled=everywhere, view=DrawnView())
    mode = attack_bn or default_batch_norm(goal)
    x_adv = _crafter(model, x.device, mode)(goal, model, batch, chosen, {}, draws=draws.at("attack"))
    return goal.loss(model, batch, x_adv, draws=draws.at("loss")).total


def _crafter(model: nn.Module, device: torch.device, attack_bn: BatchNormMode) -> Crafter:
    known = _CRAFTERS.get(model)
    if known is not None and known.fits(model, attack_bn):
        return known
    made = _CRAFTERS[model] = Crafter(model, Place(device=device), attack_bn)
    return made


def _refuse_memory(objective: Objective) -> None:
    if isinstance(objective, WithState):
        raise ConfigError(
            "objective",
            expected="one that keeps nothing from step to step, in a loop of your own",
            got=type(objective).__name__,
            remedy="train it with a recipe, or choose adversarial, trades or fast-at",
        )


def _check_range(x: Tensor) -> None:
    low, high = (float(x.min()), float(x.max())) if x.is_floating_point() else (float("nan"), float("nan"))
    if not (low >= 0.0 and high <= 1.0):
        raise DataError(
            "x",
            expected="floating images in [0, 1]",
            got=f"{x.dtype} in [{low:g}, {high:g}]",
            remedy="divide by 255, and put normalisation inside the model (gossamer.models.layers.Normalize)",
        )
