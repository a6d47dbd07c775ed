"""How are stochastic networks attacked in the table of methods? Through the mean of ten passes: an attack by name."""

from gossamer.attacks.eot import Expectation
from gossamer.attacks.registry import build
from gossamer.threat import ThreatModel

PASSES = 10


def pgd_50_10(threat: ThreatModel) -> Expectation:
    """Return PGD of 50 steps from 10 starts, along the gradient of the mean logits of ten passes."""
    return Expectation(attack=build("pgd-50-10", threat), passes=PASSES)
