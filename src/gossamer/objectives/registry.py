"""Which training loss does a name mean? The names of recipes and of the command line."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Protocol, cast, runtime_checkable

from gossamer.attacks.steps import QUARTER, StepRule, parse_step
from gossamer.errors import ConfigError
from gossamer.objectives.adversarial import Adversarial
from gossamer.objectives.mart import Mart
from gossamer.objectives.mixed_batch import MixedBatch
from gossamer.objectives.natural import Natural
from gossamer.objectives.trades import Trades
from gossamer.plugins import is_reference
from gossamer.plugins import make as make_foreign
from gossamer.threat import ThreatModel
from gossamer.types import Attack, Objective


@dataclass(frozen=True, kw_only=True)
class ObjectiveEntry:
    """One named objective: its dataclass and one line on it."""

    make: type
    summary: str

    @property
    def options(self) -> tuple[str, ...]:
        """The names a recipe may set."""
        return tuple(each.name for each in fields(self.make))


OBJECTIVES: dict[str, ObjectiveEntry] = {
    "natural": ObjectiveEntry(make=Natural, summary="cross-entropy on clean images"),
    "adversarial": ObjectiveEntry(make=Adversarial, summary="cross-entropy on attacked images (Madry et al., 2018)"),
    "mixed-batch": ObjectiveEntry(make=MixedBatch, summary="half of each batch attacked (Kurakin et al., 2017)"),
    "trades": ObjectiveEntry(make=Trades, summary="clean cross-entropy and agreement (Zhang et al., 2019)"),
    "mart": ObjectiveEntry(make=Mart, summary="misclassification-aware (Wang et al., 2020)"),
}


@runtime_checkable
class WithDefaultAttack(Protocol):
    """An objective that knows the training attack it was published with."""

    def default_attack(self, threat: ThreatModel, *, steps: int, step: StepRule) -> Attack | None:
        """Return the published training attack, or None where nothing is attacked."""
        ...


def default_attack(
    objective: Objective, threat: ThreatModel, *, steps: int = 10, step: str | float | StepRule = QUARTER
) -> Attack | None:
    """Return the objective's published training attack, with its number of steps and its step replaced if given.

    None where it attacks nothing or, as a user's own may, names no attack. step: as `parse_step` reads it.
    """
    if not isinstance(objective, WithDefaultAttack):
        return None
    return objective.default_attack(threat, steps=steps, step=parse_step(step))


def build(name: str, **options: object) -> Objective:
    """Return the objective of a name in OBJECTIVES, or of the factory "package.module:factory".

    options: the objective's fields; a user's factory is called with them as they are. Raises ConfigError for an
    unknown name or option and for an impossible value.
    """
    if is_reference(name):
        return _build_foreign(name, options)
    if name not in OBJECTIVES:
        raise ConfigError(
            "objective",
            expected=f"one of {', '.join(OBJECTIVES)}, or package.module:factory",
            got=repr(name),
            remedy="check its spelling",
        )
    entry = OBJECTIVES[name]
    unknown = sorted(set(options) - set(entry.options))
    if unknown:
        raise ConfigError(
            f"options of objective {name}",
            expected=f"some of {', '.join(entry.options)}" if entry.options else "no options",
            got=", ".join(unknown),
            remedy="remove or rename them",
        )
    return cast("Objective", entry.make(**options))


def _build_foreign(reference: str, options: Mapping[str, object]) -> Objective:
    made = make_foreign(reference, **options)
    if not isinstance(made, Objective):
        raise ConfigError(
            f"objective {reference}",
            expected="a factory that returns an object with craft and loss",
            got=type(made).__name__,
            remedy="define both, as gossamer.types.Objective describes them",
        )
    return made
