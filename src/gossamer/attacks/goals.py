"""What is an attack after? The loss it raises, the labels it leaves, the targets it reaches."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from gossamer.attacks.targets import Target
from gossamer.errors import ConfigError
from gossamer.losses import cross_entropy, dlr, dlr_targeted, kl, margin, margin_targeted
from gossamer.seeding import Draws
from gossamer.types import Model

LossName: TypeAlias = Literal["ce", "kl", "dlr", "margin"]
Labels: TypeAlias = Literal["true", "predicted"]

SEED_ZERO = Draws()


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What one batch is driven to.

    labels: (N,) the classes to leave; target: (N,) the classes to reach, or None; reference: (N, K) clean
    logits, where the loss compares with them.
    """

    loss: LossName
    labels: Tensor
    target: Tensor | None = None
    reference: Tensor | None = None

    def value(self, logits: Tensor) -> Tensor:
        """Return the loss to raise, in at least float32: (N,), from logits: (N, K)."""
        table = _UNTARGETED if self.target is None else _TARGETED
        return table[self.loss](self, logits.to(torch.promote_types(logits.dtype, torch.float32)))

    def reached(self, logits: Tensor) -> Tensor:
        """Return where the label is left, or the target reached: (N,) bool, from logits: (N, K)."""
        predicted = logits.argmax(dim=1)
        return predicted != self.labels if self.target is None else predicted == self.target

    def select(self, positions: Tensor) -> "Goal":
        """Return the goal of a part of the batch; positions: (M,) int64."""
        return replace(
            self,
            labels=self.labels[positions],
            target=None if self.target is None else self.target[positions],
            reference=None if self.reference is None else self.reference[positions],
        )

    def repeat(self, times: int) -> "Goal":
        """Return the goal of so many copies of the batch, one after the other."""
        if times == 1:
            return self
        return replace(
            self,
            labels=self.labels.repeat(times),
            target=None if self.target is None else self.target.repeat(times),
            reference=None if self.reference is None else self.reference.repeat(times, 1),
        )


def make_goal(model: Model, x: Tensor, y: Tensor, *, loss: LossName, labels: Labels, target: Target | None) -> Goal:
    """Return the goal for x: (N, C, H, W) with labels y: (N,); one forward on x only where something needs it.

    labels "predicted" replaces y by the model's own prediction on x, so that no label leaks into training
    (Kurakin et al., ICLR 2017).
    """
    if labels == "true" and target is None and loss != "kl":
        return Goal(loss=loss, labels=y)
    with torch.no_grad():
        clean = model(x)
    left = clean.argmax(dim=1) if labels == "predicted" else y
    return Goal(
        loss=loss,
        labels=left,
        target=None if target is None else target(clean, left),
        reference=clean if loss == "kl" else None,
    )


def check_goal(loss: LossName, labels: Labels, target: Target | None) -> None:
    """Raise ConfigError for an unknown loss or labels, and for a loss that has no targeted form."""
    if labels not in get_args(Labels):
        raise ConfigError(
            "attack labels",
            expected="true or predicted",
            got=repr(labels),
            remedy="write predicted to keep labels from leaking",
        )
    known = _UNTARGETED if target is None else _TARGETED
    if loss not in known:
        kind = "an attack loss" if target is None else "an attack loss with a target"
        raise ConfigError(
            "attack loss",
            expected=f"{kind}: {', '.join(known)}",
            got=repr(loss),
            remedy="write ce",
        )


def input_gradient(model: Model, x_adv: Tensor, goal: Goal) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradient at x_adv: (N, C, H, W), loss: (N,) and logits: (N, K), by one forward and one backward.

    The gradient is taken of the input alone: no parameter's `.grad` is written.
    """
    leaf = x_adv.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = model(leaf)
        value = goal.value(logits)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return gradient, value.detach(), logits.detach()


def _reference(goal: Goal) -> Tensor:
    assert goal.reference is not None
    return goal.reference


def _target(goal: Goal) -> Tensor:
    assert goal.target is not None
    return goal.target


_UNTARGETED: Mapping[str, Callable[[Goal, Tensor], Tensor]] = {
    "ce": lambda goal, logits: cross_entropy(logits, goal.labels),
    "kl": lambda goal, logits: kl(_reference(goal).to(logits.dtype), logits),
    "dlr": lambda goal, logits: dlr(logits, goal.labels),
    "margin": lambda goal, logits: margin(logits, goal.labels),
}

_TARGETED: Mapping[str, Callable[[Goal, Tensor], Tensor]] = {
    "ce": lambda goal, logits: -cross_entropy(logits, _target(goal)),
    "dlr": lambda goal, logits: dlr_targeted(logits, goal.labels, _target(goal)),
    "margin": lambda goal, logits: margin_targeted(logits, _target(goal)),
}
