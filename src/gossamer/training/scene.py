"""What may a phase's beginning look at? Earlier states, the training data, and batches attacked as in training."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from gossamer.data import epoch_order, make_batch, steps_per_epoch
from gossamer.data.dataset import DataSet
from gossamer.errors import RunError
from gossamer.seeding import Draws
from gossamer.sparsity import Horizon, plain_copy
from gossamer.sparsity.protocol import Recall, measured_now
from gossamer.training.crafting import Crafter
from gossamer.training.devices import Place
from gossamer.training.phases import Phase, States
from gossamer.types import Batch, Objective, WithState


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A phase in its run: states of earlier phases, data, place, draws, and how a network is made.

    unlabelled_n: how many pseudo-labelled images batches are filled with, beside the data; recall: of its run.
    """

    phase: Phase
    states: States
    data: DataSet
    place: Place
    draws: Draws
    make_model: Callable[[], nn.Module]
    unlabelled_n: int = 0
    recall: Recall = measured_now

    @property
    def horizon(self) -> Horizon:
        """What lies ahead of the phase."""
        steps = count_steps(self.phase, self.data)
        shape = self.data.image_shape
        return Horizon(epochs=self.phase.epochs, steps_per_epoch=steps, image_shape=shape, recall=self.recall)

    def initial_state(self, objective: Objective) -> dict[str, Tensor]:
        """Return the tensors that an objective carries from step to step, before the first one."""
        if not isinstance(objective, WithState):
            return {}
        n = len(self.data) + self.unlabelled_n
        return objective.initial_state(n, self.data.image_shape, draws=self.draws.at("state"), device=self.place.device)

    def state(self, name: str) -> Mapping[str, Tensor]:
        """Return a named state of an earlier phase; raises RunError where no phase gave it."""
        if name not in self.states:
            raise RunError(
                f"state {name}",
                expected=f"one of {', '.join(self.states) or 'the states of earlier phases'}",
                got="no such state",
                remedy="let an earlier phase give it",
            )
        return self.states[name]

    def network(self, name: str) -> nn.Module:
        """Return a network of its own with an earlier state, here, in eval mode, none of its tensors trainable."""
        model = plain_copy(self.make_model())
        model.load_state_dict(dict(self.state(name)))
        return self.place.prepare(model).eval().requires_grad_(False)

    def batches(self, purpose: str, *, limit: int | None = None) -> Iterator[Batch]:
        """Yield augmented training batches of one epoch, at most `limit`; equal for an equal purpose."""
        draws = self.draws.at(purpose)
        data, size = self.data.to(self.place.device), self.phase.batch_size
        order = epoch_order(len(data), draws=draws)
        steps = steps_per_epoch(len(data), size, drop_last=len(data) >= size)
        for index in range(steps if limit is None else min(limit, steps)):
            positions = order[index * size : (index + 1) * size]
            batch = make_batch(data, positions, self.phase.augmentation, draws.at(index), self.place.device)
            yield self.place.batch(batch)

    def crafted(self, model: nn.Module, purpose: str, *, limit: int | None = None) -> Iterator[tuple[Batch, Tensor]]:
        """Yield the same batches, each with the adversarial images that training would meet: (batch, x_adv)."""
        phase = self.phase
        crafter = Crafter(model, self.place, phase.attack_bn, fast=phase.fast)
        state = self.initial_state(phase.objective)
        for index, batch in enumerate(self.batches(purpose, limit=limit)):
            draws = self.draws.at(purpose, "attack", index)
            yield batch, crafter(phase.objective, model, batch, phase.attack, state, draws=draws).detach()


def count_steps(phase: Phase, data: DataSet) -> int:
    """Return the optimiser steps of an epoch; an incomplete last batch is dropped unless it is the only one.

    The labelled data alone set its length.
    """
    size = labelled_size(phase)
    return phase.replays * steps_per_epoch(len(data), size, drop_last=len(data) >= size)


def labelled_size(phase: Phase) -> int:
    """Return how many images of a batch are labelled: at least one."""
    return max(1, phase.batch_size - int(phase.unlabelled_share * phase.batch_size))


def whole_batch(phase: Phase, data: DataSet) -> int:
    """Return how many images a batch holds, over all processes that share it."""
    labelled = labelled_size(phase)
    return min(labelled, len(data)) + phase.batch_size - labelled
