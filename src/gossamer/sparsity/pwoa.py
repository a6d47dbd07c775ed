"""PwoA's draw towards a sparse copy: ADMM whose copy is taken anew from the weights at every epoch.

Source: Jian et al., "Pruning Adversarially Robust Neural Networks without Adversarial Examples", ICDM 2022, and its
released code.
"""

import torch
from torch import nn
from torch.optim import Optimizer

from gossamer.seeding import Draws
from gossamer.sparsity.admm import ADMM, Interval
from gossamer.sparsity.protocol import Horizon
from gossamer.sparsity.sets import ConstraintSet


class EpochwiseADMM(ADMM):
    """ADMM that moves between epochs: every `every` of them rho, Z and U; at the others Z alone, to proj(W).

    Nothing moves after the last epoch, so that 50 epochs and every third make 16 updates. rho, rho_factor, most: 0.01
    is multiplied by 1.35 at each update and stops at 1, which it reaches at the sixteenth. restart: Z follows W at
    every epoch, as in the released code; otherwise it stays between updates.
    """

    def __init__(
        self,
        *,
        density: float,
        constraint: ConstraintSet,
        rho: float = 0.01,
        rho_factor: float = 1.35,
        most: float = 1.0,
        every: int = 3,
        restart: bool = True,
    ) -> None:
        interval = Interval(every)
        super().__init__(density=density, constraint=constraint, rho=rho, rho_factor=rho_factor, interval=interval)
        self._most = most
        self._every = every
        self._restart = restart
        self._steps_per_epoch = 1
        self._epochs = 0

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Start from Z = proj(W), U = 0."""
        super().attach(model, draws, horizon)
        self._steps_per_epoch = self._steps // self._every
        self._epochs = 0 if horizon is None else horizon.epochs

    @torch.no_grad()
    def after_step(self, step: int, optimizer: Optimizer) -> None:
        """Move Z, or all of them, where another epoch begins."""
        if not self.due(step + 1):
            return
        if self._ends_interval(step + 1):
            self.splitting.update(self._drawn(), self._project)
            self.splitting.rho = min(self._most, self.splitting.rho)
        else:
            self.splitting.copy = self._project(self._drawn())

    def due(self, done: int) -> bool:
        """Return whether another epoch begins, at which Z moves, or Z and U do."""
        epochs, within = divmod(done, self._steps_per_epoch)
        if within or epochs >= self._epochs:
            return False
        return self._restart or self._ends_interval(done)
