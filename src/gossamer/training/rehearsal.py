"""Can every phase begin? Tried on throwaway networks, before anything is trained or written."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from gossamer.data.dataset import DataSet
from gossamer.seeding import Draws
from gossamer.sparsity import Horizon
from gossamer.training.phases import Phase, Rehearsed
from gossamer.training.scene import count_steps


def rehearse(phases: Sequence[Phase], make_model: Callable[[], nn.Module], data: DataSet) -> None:
    """Attach every phase's sparsifier to the untrained network, and let starts that can be rehearsed look at one.

    Raises ConfigError for budgets that cannot be met.
    """
    for phase in phases:
        horizon = Horizon(epochs=phase.epochs, steps_per_epoch=count_steps(phase, data), image_shape=data.image_shape)
        with torch.random.fork_rng(devices=[]):
            phase.sparsifier().attach(make_model(), Draws(0).at(phase.name), horizon)
            if isinstance(phase.start, Rehearsed):
                phase.start.rehearse(make_model(), data.image_shape)
