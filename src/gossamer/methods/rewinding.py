"""Pruning with rewinding: train, cut the smallest weights, go back to an early epoch, train again under the mask.

Source: Frankle et al., "Stabilizing the Lottery Ticket Hypothesis", 2019; under adversarial training, with a random
control at the same epoch: Gilles, "The Lottery Ticket Hypothesis in an Adversarial Setting", MIT 2020.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from gossamer.errors import ConfigError
from gossamer.methods.checks import check_rate
from gossamer.methods.drawing import Draw, drawn_by
from gossamer.sparsity import HeldMask, Masks, targets
from gossamer.sparsity.budgets import check_density
from gossamer.sparsity.choose import best_of_all
from gossamer.sparsity.masks import apply_masks
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase, epoch_state
from gossamer.training.scene import Scene
from gossamer.training.schedules import Continued

TRAIN = "train"

Choice: TypeAlias = Literal["magnitude", "relative", "random"]


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
            phases.append(replace(self._shortened(base), name=f"round-{number}", start=start, sparsifier=HeldMask))
        return tuple(phases)

    def _dense(self, base: Phase) -> Phase:
        optimizer = base.optimizer.scaled(self.draw_lr)
        dense = replace(base, name=TRAIN, optimizer=optimizer, publish=(*base.publish, self.rewind_epoch))
        return drawn_by(dense, self.draw)

    def _shortened(self, base: Phase) -> Phase:
        if self.schedule == "full":
            return base
        schedule = Continued(schedule=base.schedule, epochs=self.rewind_epoch)
        return replace(base, epochs=base.epochs - self.rewind_epoch, schedule=schedule)


@dataclass(frozen=True, kw_only=True)
class Rewind:
    """Start from the state `weights`, under a mask chosen from the state `trained`; biases and norms rewind too."""

    weights: str
    trained: str
    density: float
    choose: Choice

    def __call__(self, model: nn.Module, scene: Scene) -> None:
        """Set the model's weights; raises RunError where a state is missing."""
        trained = scene.state(self.trained)
        model.load_state_dict(dict(scene.state(self.weights)))
        apply_masks(model, self._masks(model, trained, scene))

    def _masks(self, model: nn.Module, trained: Mapping[str, Tensor], scene: Scene) -> Masks:
        layers = targets(model)
        keep = int(self.density * sum(layer.size for layer in layers))
        scores = {layer.name: self._scores(layer.name, trained[layer.name], scene) for layer in layers}
        return best_of_all(scores, keep)

    def _scores(self, name: str, weight: Tensor, scene: Scene) -> Tensor:
        if self.choose == "magnitude":
            return weight.abs()
        if self.choose == "relative":
            return weight.abs() / weight.abs().mean().clamp_min(torch.finfo(weight.dtype).tiny)
        drawn = scene.draws.at("random mask", name).uniform(weight.shape)
        # What an earlier round cut stays cut.
        return torch.where(weight == 0, -1.0, drawn)
