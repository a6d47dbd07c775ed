"""Which training shows what to keep? The recipe's own, or a cheaper one in its place."""

from dataclasses import replace
from typing import Literal, TypeAlias

from gossamer.errors import ConfigError
from gossamer.objectives.fast_at import FastAT
from gossamer.objectives.natural import Natural
from gossamer.threat import ThreatModel
from gossamer.training.phases import Phase

Draw: TypeAlias = Literal["recipe", "natural", "fgsm"]


def drawn_by(phase: Phase, draw: Draw) -> Phase:
    """Return the phase under another objective: clean images, or one step of 1.25 eps from a random start.

    Such a training ends with its last epoch: its robust accuracy, were it measured, would say nothing of the mask.
    Raises ConfigError where that step is asked for and the phase's attack, if any, has no threat in one norm.
    """
    if draw == "recipe" or (draw == "natural" and isinstance(phase.objective, Natural)):
        return phase
    if draw == "natural":
        return clean(phase)
    threat = getattr(phase.attack, "threat", None)
    if not isinstance(threat, ThreatModel):
        raise ConfigError(
            "method.draw",
            expected="natural or recipe where there is no training attack with a threat in one norm",
            got="fgsm",
            remedy="write draw: natural",
        )
    single_step = FastAT()
    return replace(clean(phase), objective=single_step, attack=single_step.default_attack(threat))


def clean(phase: Phase) -> Phase:
    """Return the phase on clean images alone; it ends with its last epoch, whatever its robust accuracy does."""
    return replace(
        phase,
        objective=Natural(),
        attack=None,
        equip=None,
        adapt=None,
        replays=1,
        perturbation=None,
        monitors=tuple,
        select=None,
    )
