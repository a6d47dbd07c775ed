"""Can several processes train a phase together? Asked of every phase before anything is trained or written."""

from collections.abc import Sequence

from gossamer.attacks.fgsm import FGSM
from gossamer.attacks.pgd import PGD
from gossamer.data.dataset import DataSet
from gossamer.errors import ConfigError
from gossamer.objectives.fast_at import NoisyFGSM
from gossamer.objectives.mixed_batch import MixedBatch
from gossamer.training.devices import Place
from gossamer.training.phases import Phase
from gossamer.training.scene import whole_batch

# Their forward passes are as many whatever the images.
_STEADY = (PGD, FGSM, NoisyFGSM)


def check_together(phases: Sequence[Phase], data: DataSet, place: Place) -> None:
    """Raise ConfigError for a batch without equal parts, and for what would let the processes part ways."""
    ranks = place.ranks
    if not ranks.several:
        return
    for phase in phases:
        if not phase.epochs:
            continue
        whole = whole_batch(phase, data)
        ranks.check_divides(whole, "training.batch_size")
        _check_halves(phase, whole, ranks.world)
        _check_passes(phase, place)


def _check_halves(phase: Phase, whole: int, world: int) -> None:
    if isinstance(phase.objective, MixedBatch) and whole % (2 * world):
        raise ConfigError(
            "training.batch_size",
            expected=f"a multiple of {2 * world}: half of every process's part is attacked",
            got=whole,
            remedy="change it, or start another number of processes",
        )


def _check_passes(phase: Phase, place: Place) -> None:
    attack = phase.attack
    steady = attack is None or (isinstance(attack, _STEADY) and not getattr(attack, "early_drop", False))
    if steady or not place.sync_batch_norm or phase.attack_bn == "eval":
        return
    raise ConfigError(
        "machine.sync_batch_norm",
        expected="false where an attack makes as many forward passes as its images ask for, and batch norm moves in it",
        got=f"true, with {type(attack).__name__} and attack.batch_norm: {phase.attack_bn}",
        remedy="write attack.batch_norm: eval, attack by pgd, or leave sync_batch_norm out",
    )
