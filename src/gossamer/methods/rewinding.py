"""Pruning with rewinding: train, cut the smallest weights, go back to an early epoch, train again under the mask.

Source: Frankle et al., "Stabilizing the Lottery Ticket Hypothesis", 2019; under adversarial training, with a random
control at the same epoch: Gilles, "The Lottery Ticket Hypothesis in an Adversarial Setting", MIT 2020.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import nn

from gossamer.errors import ConfigError
from gossamer.methods.checks import check_rate
from gossamer.methods.drawing import Draw, drawn_by
from gossamer.methods.stretches import rest
from gossamer.seeding import Draws
from gossamer.sparsity import HeldMask, Masks, targets
from gossamer.sparsity.budgets import check_density
from gossamer.sparsity.choose import best_of_all
from gossamer.sparsity.masks import apply_masks
from gossamer.sparsity.scores import score
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase, epoch_state
from gossamer.training.scene import Scene

TRAIN = "train"

Choice: TypeAlias = Literal["magnitude", "relative", "random"]


def round_name(number: int) -> str:
    """Return the name of the training under the mask of a round, counted from 1."""
    return f"round-{number}"


@dataclass(frozen=True, kw_only=True)
class Rewinding:
    """Keep int(density * N) weights of the whole network, those of largest magnitude after training.

    rewind_epoch: the epochs done by the state gone back to, 0 for the initial weights (published: 8 of 160; the
    search: 0, 1, 2, 4, ..., 128). rounds: 1 cuts at once, as published; more cut an equal share of what is left each
    time and train in between (iterative magnitude pruning cuts 20 % a round). choose: `magnitude`; `relative`,
    magnitude over the mean of its layer (Li et al., 2020); or `random`, the control at the same epoch. schedule: `full`
    trains the whole recipe again, as in the thesis; `continued` only what is left after the rewind epoch, where its
    learning rate goes on (Frankle et al.'s code). draw: the dense training's objective, `natural` and `fgsm` (one step)
    in place of the recipe's; draw_lr: its learning rate as a share of the recipe's.
    """

    density: float
    rewind_epoch: int = 8
    rounds: int = 1
    choose: Choice = "magnitude"
    schedule: Literal["full", "continued"] = "full"
    draw: Draw = "recipe"
    draw_lr: float = 1.0

    def __post_init__(self) -> None:
        check_density(self.density, "method.density")
        if self.rewind_epoch < 0:
            raise ConfigError(
                "method.rewind_epoch",
                expected="an epoch, 0 for the initial weights",
                got=self.rewind_epoch,
                remedy="write 8 of 160 epochs, as published",
            )
        if self.rounds < 1:
            raise ConfigError(
                "method.rounds", expected="at least 1", got=self.rounds, remedy="write 1 to cut all at once"
            )
        check_rate("method.draw_lr", self.draw_lr)

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD with momentum 0.9 and coupled decay 1e-4 (unstated in the thesis; the default of open_lth)."""
        return OptimizerSpec(weight_decay=1e-4)

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return dense training, and one training under a mask for each round; raises ConfigError."""
        if self.rewind_epoch >= base.epochs:
            raise ConfigError(
                "method.rewind_epoch",
                expected=f"an epoch before the end of training ({base.epochs} epochs)",
                got=self.rewind_epoch,
                remedy="go back to an earlier epoch, or train longer",
            )
        phases = [self._dense(base)]
        for number in range(1, self.rounds + 1):
            start = Rewind(
                weights=epoch_state(TRAIN, self.rewind_epoch),
                trained=f"{phases[-1].name}.end",
                density=self.density ** (number / self.rounds),
                choose=self.choose,
            )
            phases.append(replace(self._again(base), name=round_name(number), start=start, sparsifier=HeldMask))
        return tuple(phases)

    def _dense(self, base: Phase) -> Phase:
        optimizer = base.optimizer.scaled(self.draw_lr)
        dense = replace(base, name=TRAIN, optimizer=optimizer, publish=(*base.publish, self.rewind_epoch))
        return drawn_by(dense, self.draw)

    def _again(self, base: Phase) -> Phase:
        return base if self.schedule == "full" else rest(base, self.rewind_epoch)


@dataclass(frozen=True, kw_only=True)
class Rewind:
    """Start from the state `weights`, under a mask chosen from the state `trained`; biases and norms rewind too."""

    weights: str
    trained: str
    density: float
    choose: Choice

    def __call__(self, model: nn.Module, scene: Scene) -> None:
        """Set the model's weights; raises RunError where a state is missing."""
        model.load_state_dict(dict(scene.state(self.trained)))
        masks = self._masks(model, scene.draws.at("random mask"))
        model.load_state_dict(dict(scene.state(self.weights)))
        apply_masks(model, masks)

    def _masks(self, model: nn.Module, draws: Draws) -> Masks:
        layers = targets(model)
        scores = score(self.choose, layers, draws)
        # What an earlier round cut stays cut.
        left = {layer.name: torch.where(layer.weight == 0, -1.0, scores[layer.name]) for layer in layers}
        return best_of_all(left, int(self.density * sum(layer.size for layer in layers)))
