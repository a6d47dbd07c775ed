"""How does robust accuracy fall as the attacker may do more? One attack over rising eps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import nn

from gossamer.attacks.registry import build
from gossamer.errors import ConfigError
from gossamer.evaluation.evaluate import evaluate
from gossamer.evaluation.record import Evaluation
from gossamer.evaluation.samples import Data
from gossamer.evaluation.standing import Progress
from gossamer.evaluation.trials import at_eps
from gossamer.intervals import wilson
from gossamer.runs.results import AttackOutcome
from gossamer.threat import Norm, ThreatModel
from gossamer.types import Attack


@dataclass(frozen=True, kw_only=True)
class SecurityCurve:
    """Robust accuracy of one attack over rising eps.

    evaluation: the attack at every eps on its own; its headline is the end of the cumulative curve. cumulative: the
    same with a sample that broke at a smaller eps counted as broken: the smaller ball lies in the larger, so where
    the two differ the attack, not the model, was weaker at the larger eps.
    """

    evaluation: Evaluation
    cumulative: tuple[AttackOutcome, ...]

    @property
    def raw(self) -> tuple[AttackOutcome, ...]:
        """The attack's outcome at every eps on its own, in rising order."""
        return self.evaluation.attacks

    @property
    def eps(self) -> tuple[float, ...]:
        """The radii, in pixel units of [0, 1], in rising order."""
        return tuple(outcome.eps for outcome in self.raw)


def security_curve(
    model: nn.Module,
    data: Data,
    attack: str | Attack,
    eps_list: Sequence[float],
    *,
    norm: Norm = "linf",
    n: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    fast: bool = True,
    name: str | None = None,
    progress: Progress | None = None,
) -> SecurityCurve:
    """Evaluate an attack at every eps of `eps_list`: rising, above 0 (clean accuracy is the point at 0).

    attack: a value, whose threat gives the norm, or a name under `norm`. Draws are the same at every eps. The other
    arguments and errors are those of `evaluate`.
    """
    radii = _checked(eps_list)
    base = build(attack, ThreatModel(norm, radii[0])) if isinstance(attack, str) else attack
    evaluation = evaluate(
        model,
        data,
        [at_eps(base, eps) for eps in radii],
        n=n,
        batch_size=batch_size,
        seed=seed,
        device=device,
        fast=fast,
        name=name,
        progress=progress,
    )
    raw = tuple(replace(outcome, kind="curve") for outcome in evaluation.attacks)
    return SecurityCurve(evaluation=replace(evaluation, attacks=raw), cumulative=_accumulate(raw))


def _accumulate(raw: tuple[AttackOutcome, ...]) -> tuple[AttackOutcome, ...]:
    standing = torch.tensor([outcome.robust for outcome in raw]).cummin(dim=0).values
    return tuple(_with_flags(outcome, flags.tolist()) for outcome, flags in zip(raw, standing, strict=True))


def _with_flags(outcome: AttackOutcome, flags: list[int]) -> AttackOutcome:
    return replace(
        outcome,
        kind="cumulative curve",
        robust=tuple(flags),
        robust_accuracy=sum(flags) / len(flags),
        interval=wilson(sum(flags), len(flags)),
    )


def _checked(eps_list: Sequence[float]) -> tuple[float, ...]:
    radii = tuple(eps_list)
    if radii and radii[0] > 0 and all(smaller < larger for smaller, larger in pairwise(radii)):
        return radii
    raise ConfigError(
        "eps list",
        expected="at least one eps, each above 0 and above the one before",
        got=list(radii),
        remedy="write for example [2/255, 4/255, 8/255]; clean accuracy is the point at 0",
    )
