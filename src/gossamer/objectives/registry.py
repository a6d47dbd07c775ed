"""Which training loss does a name mean? The names of recipes and of the command line."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

from gossamer.attacks.crafting import BatchNormMode
from gossamer.attacks.starts import parse_start
from gossamer.attacks.steps import StepRule, parse_step
from gossamer.errors import ConfigError
from gossamer.objectives.adversarial import Adversarial
from gossamer.objectives.fast_at import FastAT
from gossamer.objectives.free_at import FreeAT
from gossamer.objectives.gaussian import Gaussian
from gossamer.objectives.mart import Mart
from gossamer.objectives.mixed_batch import MixedBatch
from gossamer.objectives.natural import Natural
from gossamer.objectives.protocol import WithDefaultAttack
from gossamer.objectives.several import Several
from gossamer.objectives.stored import Stored
from gossamer.objectives.trades import Trades
from gossamer.objectives.weighted import Weighted
from gossamer.options import Reader, construct
from gossamer.plugins import is_reference, make_one
from gossamer.threat import ThreatModel
from gossamer.types import Attack, Objective


@dataclass(frozen=True, kw_only=True)
class ObjectiveEntry:
    """One named objective: its dataclass and one line on it."""

    make: type
    summary: str

    @property
    def options(self) -> tuple[str, ...]:
        """The names a recipe may set; the threat is the recipe's own."""
        return tuple(name for name in self._fields if name != "threat")

    @property
    def needs_threat(self) -> bool:
        """Whether it perturbs images itself, under a threat it is built with."""
        return "threat" in self._fields

    @property
    def _fields(self) -> list[str]:
        return [each.name for each in fields(self.make)]


OBJECTIVES: dict[str, ObjectiveEntry] = {
    "natural": ObjectiveEntry(make=Natural, summary="cross-entropy on clean images"),
    "adversarial": ObjectiveEntry(make=Adversarial, summary="cross-entropy on attacked images (Madry et al., 2018)"),
    "mixed-batch": ObjectiveEntry(make=MixedBatch, summary="half of each batch attacked (Kurakin et al., 2017)"),
    "trades": ObjectiveEntry(make=Trades, summary="clean cross-entropy and agreement (Zhang et al., 2019)"),
    "mart": ObjectiveEntry(make=Mart, summary="misclassification-aware (Wang et al., 2020)"),
    "weighted": ObjectiveEntry(
        make=Weighted, summary="a share of adversarial, the rest clean cross-entropy (Rakin et al., 2019)"
    ),
    "fast-at": ObjectiveEntry(
        make=FastAT, summary="one gradient step from a random start (Wong et al., 2020), or from far noise (N-FGSM)"
    ),
    "free-at": ObjectiveEntry(
        make=FreeAT, summary="one backward for weights and perturbation, every batch replayed (Shafahi et al., 2019)"
    ),
    "stored": ObjectiveEntry(
        make=Stored, summary="perturbations kept for every image from epoch to epoch (Zheng et al., 2020)"
    ),
    "gaussian": ObjectiveEntry(
        make=Gaussian, summary="cross-entropy on noisy images, for smoothing certificates (Cohen et al., 2019)"
    ),
    "several": ObjectiveEntry(
        make=Several, summary="a base objective under the worst, or all, of several threats (Tramer & Boneh, 2019)"
    ),
}

# Objectives that attack every image of a batch and keep nothing: what others may be built on.
BASES = ("adversarial", "trades", "mart", "weighted")


def default_attack(
    objective: Objective,
    threat: ThreatModel,
    *,
    steps: int | None = None,
    step: str | float | StepRule | None = None,
) -> Attack | None:
    """Return the objective's published training attack, with its number of steps and its step replaced if given.

    None where it attacks nothing or, as a user's own may, names no attack. step: as `parse_step` reads it.
    """
    if not isinstance(objective, WithDefaultAttack):
        return None
    said = {"steps": steps, "step": None if step is None else parse_step(step)}
    given: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    return objective.default_attack(threat, **given)


def default_batch_norm(objective: Objective | str) -> BatchNormMode:
    """Return what batch norm does while an objective's inputs are crafted, where nobody says otherwise.

    Its attribute `batch_norm` tells, as published; eval without one, and for a user's "package.module:factory".
    """
    if not isinstance(objective, str):
        return getattr(objective, "batch_norm", "eval")
    return getattr(OBJECTIVES[objective].make, "batch_norm", "eval") if objective in OBJECTIVES else "eval"


def build(name: str, *, threat: ThreatModel | None = None, **options: object) -> Objective:
    """Return the objective of a name in OBJECTIVES, or of the factory "package.module:factory".

    options: the objective's fields, where step, start, base and threats may be texts; a user's factory is called with
    them as they are. threat: of those that perturb images themselves. Raises ConfigError for an unknown name or option,
    a value of another type, and one that cannot be.
    """
    return _build(name, options, "objective", threat)


def _build(name: str, options: Mapping[str, object], subject: str, threat: ThreatModel | None = None) -> Objective:
    if is_reference(name):
        return _build_foreign(name, options)
    if name not in OBJECTIVES:
        raise ConfigError(
            subject,
            expected=f"one of {', '.join(OBJECTIVES)}, or package.module:factory",
            got=repr(name),
            remedy="check its spelling",
        )
    entry = OBJECTIVES[name]
    made = construct(entry.make, options, subject, readers=_READERS, given=_threat(name, entry, threat))
    return cast("Objective", made)


def _threat(name: str, entry: ObjectiveEntry, threat: ThreatModel | None) -> dict[str, ThreatModel]:
    if not entry.needs_threat:
        return {}
    if threat is None:
        raise ConfigError(
            f"objective {name}", expected="a threat model", got="none", remedy="give threat=ThreatModel(...)"
        )
    return {"threat": threat}


def _base(said: object) -> Objective:
    if isinstance(said, Objective):
        return said
    values: dict[str, Any] = dict(cast("Mapping[str, object]", said)) if isinstance(said, Mapping) else {"name": said}
    name = str(values.pop("name", None))
    if name not in BASES and not is_reference(name):
        raise ConfigError(
            "objective.base",
            expected=f"one of {', '.join(BASES)}, or package.module:factory",
            got=name,
            remedy="write trades, or {name: trades, beta: 6}",
        )
    return _build(name, values, "objective.base")


def _threats(said: object) -> tuple[ThreatModel, ...]:
    listed: list[object] = list(said) if isinstance(said, list | tuple) else [said]
    return tuple(each if isinstance(each, ThreatModel) else ThreatModel.parse(str(each)) for each in listed)


_READERS: Mapping[str, Reader] = {
    "step": parse_step,
    "start": parse_start,
    "base": _base,
    "threats": _threats,
}


def _build_foreign(reference: str, options: Mapping[str, object]) -> Objective:
    made = make_one(
        "objective",
        reference,
        options,
        fits=lambda each: isinstance(each, Objective),
        expected="a factory that returns an object with craft and loss",
        remedy="define both, as gossamer.types.Objective describes them",
    )
    return cast("Objective", made)
