"""Which attack does a name mean? The names of recipes and of the command line, and how their options are read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, cast

from gossamer.attacks.fgsm import FGSM
from gossamer.attacks.pgd import PGD
from gossamer.attacks.starts import RANDOM, parse_start
from gossamer.attacks.steps import OverSteps, parse_step
from gossamer.attacks.targets import parse_target
from gossamer.errors import ConfigError
from gossamer.plugins import is_reference, resolve
from gossamer.threat import ThreatModel
from gossamer.types import Attack

_PARSERS: Mapping[str, Callable[[Any], object]] = {
    "step": parse_step,
    "start": parse_start,
    "target": parse_target,
}


@dataclass(frozen=True, kw_only=True)
class AttackEntry:
    """One named attack: its dataclass, what the name fixes unless an option says otherwise, and one line on it."""

    make: type
    summary: str
    preset: Mapping[str, object] = field(default_factory=dict[str, object])

    @property
    def options(self) -> tuple[str, ...]:
        """The names a recipe may set."""
        return tuple(each.name for each in fields(self.make) if each.name != "threat")


ATTACKS: dict[str, AttackEntry] = {
    "fgsm": AttackEntry(make=FGSM, summary="one gradient step of length eps (Goodfellow et al., 2015)"),
    "pgd": AttackEntry(make=PGD, summary="projected gradient ascent (Madry et al., 2018)"),
    "pgd-50-10": AttackEntry(
        make=PGD,
        summary="PGD, 50 steps of 2.5 eps/50, 10 random restarts, final iterate (Ozdenizci & Legenstein, 2021)",
        preset={
            "steps": 50,
            "restarts": 10,
            "step": OverSteps(2.5),
            "start": RANDOM,
            "returns": "last",
            "early_drop": True,
        },
    ),
}


def build(name: str, threat: ThreatModel, **options: object) -> Attack:
    """Return the attack of a name in ATTACKS, or of the factory "package.module:factory".

    options: the attack's fields; step, start and target may be texts ("2.5eps/n", "gaussian(0.001)", "rank:1").
    A user's factory is called with threat=threat and the options as they are. Raises ConfigError for an unknown
    name or option and for an impossible value.
    """
    if is_reference(name):
        return _build_foreign(name, threat, options)
    if name not in ATTACKS:
        raise ConfigError(
            "attack",
            expected=f"one of {', '.join(ATTACKS)}, or package.module:factory",
            got=repr(name),
            remedy="check its spelling",
        )
    entry = ATTACKS[name]
    read = _read_options(f"attack {name}", options, entry.options)
    return cast("Attack", entry.make(threat=threat, **{**entry.preset, **read}))


def adjust(attack: Attack, **options: object) -> Attack:
    """Return the attack with some of its fields replaced, texts read as in `build`; raises ConfigError."""
    if not options:
        return attack
    known = [each.name for each in fields(attack)] if is_dataclass(attack) else []
    read = _read_options(f"attack {type(attack).__name__}", options, known)
    return cast("Attack", replace(cast("Any", attack), **read))


def _read_options(subject: str, options: Mapping[str, object], known: Sequence[str]) -> dict[str, object]:
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigError(
            f"options of {subject}",
            expected=f"some of {', '.join(known)}",
            got=", ".join(unknown),
            remedy="remove or rename them",
        )
    return {key: _PARSERS[key](value) if key in _PARSERS else value for key, value in options.items()}


def _build_foreign(reference: str, threat: ThreatModel, options: Mapping[str, object]) -> Attack:
    factory = resolve(reference)
    made: object = factory(threat=threat, **options) if callable(factory) else factory
    if not callable(factory) or not callable(made):
        raise ConfigError(
            f"attack {reference}",
            expected="a factory that returns attack(model, x, y, *, draws) -> x_adv",
            got=type(made).__name__,
            remedy="return a callable",
        )
    return cast("Attack", made)
