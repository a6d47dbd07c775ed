"""What may an objective know beyond craft and loss? The attack it was published with, and how it replays batches."""

from typing import Protocol, runtime_checkable

from gossamer.attacks.steps import StepRule
from gossamer.threat import ThreatModel
from gossamer.types import Attack


@runtime_checkable
class WithDefaultAttack(Protocol):
    """An objective that knows the training attack it was published with."""

    def default_attack(self, threat: ThreatModel, *, steps: int = ..., step: StepRule = ...) -> Attack | None:
        """Return the published training attack, or None where nothing is attacked."""
        ...


@runtime_checkable
class WithReplays(Protocol):
    """An objective that takes several steps on every batch."""

    @property
    def replays(self) -> int:
        """Steps on every batch."""
        ...
