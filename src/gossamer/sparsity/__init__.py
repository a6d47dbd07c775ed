"""Which weights live: targets, budgets, scores, masks, the sparsifiers that hold them, the plain network in the end."""

from gossamer.sparsity.connectivity_sampling import ConnectivitySampling
from gossamer.sparsity.finalize import finalise, nonzero_masks, plain_copy
from gossamer.sparsity.hard_mask import HardMask
from gossamer.sparsity.held_mask import HeldMask
from gossamer.sparsity.masks import Masks
from gossamer.sparsity.none import NoSparsifier
from gossamer.sparsity.protocol import BudgetContract, Finalised, Horizon, Kind, Sparsifier
from gossamer.sparsity.score_mask import ScoreMask
from gossamer.sparsity.targets import Target, targets

__all__ = [
    "BudgetContract",
    "ConnectivitySampling",
    "Finalised",
    "HardMask",
    "HeldMask",
    "Horizon",
    "Kind",
    "Masks",
    "NoSparsifier",
    "ScoreMask",
    "Sparsifier",
    "Target",
    "finalise",
    "nonzero_masks",
    "plain_copy",
    "targets",
]
