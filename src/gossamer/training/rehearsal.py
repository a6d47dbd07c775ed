"""Can every phase begin, and craft? Tried on throwaway networks, before anything is trained or written."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from gossamer.data.batches import make_batch
from gossamer.data.dataset import DataSet
from gossamer.seeding import Draws
from gossamer.sparsity import Horizon
from gossamer.training.phases import Phase, Rehearsed
from gossamer.training.scene import count_steps
from gossamer.types import WithState


def rehearse(phases: Sequence[Phase], make_model: Callable[[], nn.Module], data: DataSet) -> None:
    """Attach every phase's sparsifier to the untrained network, and let starts that can be rehearsed look at one.

    Of every phase that trains, one image is attacked. Raises ConfigError for budgets that cannot be met, and where
    objective, attack and images do not go together.
    """
    for phase in phases:
        horizon = Horizon(epochs=phase.epochs, steps_per_epoch=count_steps(phase, data), image_shape=data.image_shape)
        with torch.random.fork_rng(devices=[]):
            model = make_model()
            phase.sparsifier().attach(model, Draws(0).at(phase.name), horizon)
            if isinstance(phase.start, Rehearsed):
                phase.start.rehearse(make_model(), data.image_shape)
            if phase.epochs:
                _craft(phase, model.eval(), data)


def _craft(phase: Phase, model: nn.Module, data: DataSet) -> None:
    draws, device = Draws(0).at(phase.name), torch.device("cpu")
    state = (
        phase.objective.initial_state(1, data.image_shape, draws=draws, device=device)
        if isinstance(phase.objective, WithState)
        else {}
    )
    batch = make_batch(data, torch.tensor([0]), phase.augmentation, draws, device)
    phase.objective.craft(model, batch, phase.attack, state, draws=draws)
