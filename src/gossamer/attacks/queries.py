"""What did an attack that sees only the model's outputs find, and how often did it ask?"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.types import Model


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What was found for N images, and the price.

    points: (N, C, H, W), the best ones, x where none was found; found: (N,) bool, the model errs at the point, by
    the attack's own account; queries: (N,) int64, forwards of the image up to the first success, all of them where
    there is none; spent: (N,) int64, all forwards; distance: (N,) float64, l2 from x to what was found, else inf.
    """

    points: Tensor
    found: Tensor
    queries: Tensor
    spent: Tensor
    distance: Tensor


@runtime_checkable
class QueryAttack(Protocol):
    """An attack that counts its queries."""

    @property
    def threat(self) -> ThreatModel:
        """What the attacker may do."""
        ...

    def search(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = ...) -> Searched:
        """Search around x: (N, C, H, W) in [0, 1] with labels y: (N,)."""
        ...
