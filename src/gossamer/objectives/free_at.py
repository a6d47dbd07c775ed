"""Free adversarial training (Shafahi et al., NeurIPS 2019): one backward moves the weights and the perturbation."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from gossamer.attacks.checks import check_count
from gossamer.attacks.steps import WHOLE, StepRule
from gossamer.objectives.adversarial import Adversarial
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.types import Attack, Batch, Loss, State

DELTA = "delta"


@dataclass(frozen=True, kw_only=True)
class FreeAT:
    """mean CE(f(x + delta), y); after each backward, delta <- clip(delta + step * sign(gradient)).

    One delta of the batch's shape is carried from replay to replay and from batch to batch. replays: steps on every
    batch (published: 8 on CIFAR-10, 4 on ImageNet); an epoch therefore takes replays times the optimiser steps, and
    recipes divide their epochs by it. step: published eps. threat: the recipe's.
    """

    threat: ThreatModel
    replays: int = 8
    step: StepRule = WHOLE

    state_rows: ClassVar[str] = "batch"

    def __post_init__(self) -> None:
        check_count("objective.replays", self.replays)

    def initial_state(
        self, n: int, image_shape: tuple[int, int, int], *, draws: Draws, device: torch.device
    ) -> dict[str, Tensor]:
        """Return nothing: delta is 0, of the shape of the first whole batch, when that batch comes."""
        return {}

    def craft(
        self,
        model: nn.Module,
        batch: Batch,
        attack: Attack | None,
        state: State,
        *,
        draws: Draws,
    ) -> Tensor:
        """Return x + delta in ball and box: (N, C, H, W), a leaf that takes a gradient; nothing is attacked."""
        if DELTA not in state:
            whole = len(batch.x) if batch.part is None else batch.part.of
            state[DELTA] = batch.x.new_zeros(whole, *batch.x.shape[1:])
        return self.threat.project(batch.x + state[DELTA][_places(batch)], batch.x).detach().requires_grad_()

    def loss(self, model: nn.Module, batch: Batch, x_adv: Tensor, *, draws: Draws) -> Loss:
        """Return the mean cross-entropy of x_adv: (N, C, H, W), and what its gradient does to delta."""
        size = self.step.size(self.threat.eps, 1)

        def move(gradient: Tensor, state: State) -> None:
            moved = x_adv.detach() + self.threat.steepest(gradient, x_adv.detach(), size=size)
            state[DELTA][_places(batch)] = (self.threat.project(moved, batch.x) - batch.x).to(state[DELTA])

        return replace(Adversarial().loss(model, batch, x_adv, draws=draws), after_backward=move)


def _places(batch: Batch) -> slice | list[int]:
    return slice(len(batch.x)) if batch.part is None else batch.part.where
