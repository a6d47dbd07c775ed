"""Did an attack succeed? The caller judges: by the true model, inside the ball and the box, never by the attack."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from gossamer.errors import ConfigError, RunError
from gossamer.threat import Allowance
from gossamer.types import Model

TOLERANCE = 1e-6
BORDERLINE = 1e-5
"""Relative distance of the two largest logits below which rounding may decide."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a batch under one attack; every field has shape (N,).

    correct: the model is right at the point that was judged; rejected: the attack's point left the ball or the box
    or is not a number, and the clean image was judged in its place; prediction: int64 class at the judged point;
    borderline: there, the two largest logits are within rounding of each other.
    """

    correct: Tensor
    rejected: Tensor
    prediction: Tensor
    borderline: Tensor

    @property
    def broken(self) -> Tensor:
        """(N,) bool: an admissible point was found at which the model errs."""
        return ~self.correct & ~self.rejected


def judge(
    model: Model,
    x: Tensor,
    x_adv: Tensor,
    y: Tensor,
    threat: Allowance,
    *,
    index: Tensor | None = None,
) -> Outcome:
    """Judge adversarial examples x_adv for clean images x: (N, C, H, W) in [0, 1] with labels y: (N,).

    A point outside ball or box by more than 1e-6, or not finite, is rejected; nothing is projected for the attack.
    index: (N,) sample indices by which an error names a sample (positions in the batch where None).

    Raises RunError where x_adv has another shape than x or the model's logits are not finite.
    """
    points, rejected = admit(x_adv, x, threat)
    logits = predict(model, points, index=index)
    prediction = logits.argmax(dim=1)
    return Outcome(correct=prediction == y, rejected=rejected, prediction=prediction, borderline=_is_borderline(logits))


def _is_borderline(logits: Tensor) -> Tensor:
    if logits.shape[1] < 2:
        return torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    first, second = logits.topk(2, dim=1).values.unbind(dim=1)
    return first - second <= BORDERLINE * logits.abs().amax(dim=1)


def admit(x_adv: Tensor, x: Tensor, threat: Allowance) -> tuple[Tensor, Tensor]:
    """Return the points to judge, (N, C, H, W), and where x_adv was rejected and x stands in its place: (N,) bool.

    Raises RunError where x_adv has another shape than x.
    """
    if x_adv.shape != x.shape:
        raise RunError(
            "attack",
            expected=f"adversarial examples of shape {tuple(x.shape)}",
            got=tuple(x_adv.shape),
            remedy="return one image for every image given",
        )
    x_adv = x_adv.detach().to(x)
    rejected = threat.violates(x_adv, x, tolerance=TOLERANCE)
    return torch.where(rejected.view(-1, *(1,) * (x.dim() - 1)), x, x_adv), rejected


def predict(model: Model, x: Tensor, *, index: Tensor | None = None) -> Tensor:
    """Return finite logits (N, K) without a graph for x: (N, C, H, W).

    Raises ConfigError for another shape than (N, K), RunError naming the first sample whose logits are not finite.
    """
    with torch.no_grad():
        # A user's module may return anything.
        logits = cast("object", model(x))
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(x):
        raise ConfigError(
            "model",
            expected=f"logits of shape ({len(x)}, K) for images of shape {tuple(x.shape)}",
            got=tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__,
            remedy="give a module that maps images (N, C, H, W) to logits (N, K)",
        )
    broken = ~logits.isfinite().all(dim=1)
    if broken.any():
        position = int(broken.nonzero()[0, 0])
        sample = position if index is None else int(index[position])
        raise RunError(
            f"logits of sample {sample}",
            expected="finite numbers",
            got=logits[position].tolist(),
            remedy="look for a diverged training or a division by zero in the model",
        )
    return logits
