"""Which attacks are tried under which threat: names, values and mappings made into one list, and into plain JSON."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias, cast

from torch import Tensor

from gossamer.attacks.cascade import Cascade, Ensemble
from gossamer.attacks.registry import ATTACKS, build
from gossamer.errors import ConfigError
from gossamer.threat import Allowance, ThreatModel
from gossamer.types import Attack

Attacks: TypeAlias = str | Attack | Sequence[str | Attack] | Mapping[str, str | Attack]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One attack under the threat it is judged by."""

    name: str
    attack: Attack
    threat: Allowance


def plan_trials(attacks: Attacks, threat: ThreatModel | str | None = None) -> tuple[Trial, ...]:
    """Return the trials of one attack, a sequence of them, or a mapping from name to attack.

    An attack is a value or a name such as "pgd-50-10", which needs a threat. Raises ConfigError where there is no
    attack, two of one name, a threat missing or contradicted, or more than one norm.
    """
    judged_by = ThreatModel.parse(threat) if isinstance(threat, str) else threat
    trials = tuple(_trial(name, attack, judged_by) for name, attack in _named(attacks))
    if not trials:
        raise ConfigError("attacks", expected="at least one", got="none", remedy='write for example "pgd-50-10"')
    places = [(trial.name, trial.threat) for trial in trials]
    if len(set(places)) < len(places):
        raise ConfigError(
            "attacks",
            expected="one name for each attack under one threat",
            got=", ".join(trial.name for trial in trials),
            remedy="give a mapping from your own names to the attacks",
        )
    norms = sorted({trial.threat.norm for trial in trials})
    if len(norms) > 1:
        raise ConfigError("attacks", expected="one norm", got=", ".join(norms), remedy="evaluate each norm on its own")
    return trials


def at_eps(attack: Attack, eps: float) -> Attack:
    """Return the same attack with the radius eps, in pixel units of [0, 1]; a wrapper's inner attack changes.

    Raises ConfigError where the attack is no dataclass with a field `threat`.
    """
    names = _field_names(attack)
    value = cast("Any", attack)
    if isinstance(attack, Cascade):
        members = tuple((name, at_eps(member, eps)) for name, member in attack.members)
        return dataclasses.replace(attack, threat=ThreatModel(attack.threat.norm, eps), members=members)
    if "threat" in names:
        return dataclasses.replace(value, threat=ThreatModel(value.threat.norm, eps))
    if "attack" in names:
        return dataclasses.replace(value, attack=at_eps(value.attack, eps))
    raise ConfigError(
        f"attack {type(attack).__name__}",
        expected="a dataclass with a field `threat`, whose eps can be replaced",
        got="none",
        remedy="give one attack for each eps",
    )


def has_eps(attack: Attack) -> bool:
    """Return whether `at_eps` can change the attack's radius."""
    names = _field_names(attack)
    return "threat" in names or ("attack" in names and has_eps(cast("Any", attack).attack))


def _field_names(attack: Attack) -> set[str]:
    return {field.name for field in dataclasses.fields(attack)} if dataclasses.is_dataclass(attack) else set()


def parameters(attack: Attack) -> dict[str, Any]:
    """Return every field of an attack as plain JSON, with its type's name."""
    if dataclasses.is_dataclass(attack):
        return _fields(attack)
    return {"type": _named_type(attack)}


def members(trial: Trial) -> tuple[tuple[str, Attack], ...]:
    """Return the attacks of a trial by name: the members of a cascade, or the one attack."""
    return trial.attack.members if isinstance(trial.attack, Ensemble) else ((trial.name, trial.attack),)


def find_parameter(values: Mapping[str, Any], name: str) -> Any:
    """Return the parameter of that name, the outermost where wrappers nest, or None."""
    if name in values:
        return values[name]
    nested = (find_parameter(value, name) for value in values.values() if isinstance(value, Mapping))
    return next((found for found in nested if found is not None), None)


def _named(attacks: Attacks) -> list[tuple[str | None, str | Attack]]:
    if isinstance(attacks, Mapping):
        return list(attacks.items())
    if isinstance(attacks, Sequence) and not isinstance(attacks, str):
        return [(None, attack) for attack in attacks]
    return [(None, attacks)]


def _trial(name: str | None, given: str | Attack, threat: ThreatModel | None) -> Trial:
    if isinstance(given, str):
        if threat is None:
            raise ConfigError(f"attack {given}", expected="a threat", got="none", remedy='write threat="linf:8/255"')
        attack = build(given, threat)
        own = _threat_of(attack)
        return Trial(name=name or given, attack=attack, threat=threat if isinstance(own, ThreatModel | None) else own)
    own = _threat_of(given)
    judged_by = threat or own
    label = name or _name_of(given, own)
    if judged_by is None or own not in (None, judged_by):
        raise ConfigError(
            f"attack {label}",
            expected="a threat to judge it by" if judged_by is None else f"the evaluation's threat {judged_by}",
            got="none" if own is None else str(own),
            remedy='write threat="linf:8/255"' if judged_by is None else "leave out threat, or change the attack",
        )
    return Trial(name=label, attack=given, threat=judged_by)


def _threat_of(attack: Attack) -> Allowance | None:
    found = getattr(attack, "threat", None)
    if found is not None and hasattr(found, "violates"):
        return cast("Allowance", found)
    inner = getattr(attack, "attack", None)
    return None if inner is None else _threat_of(inner)


def _name_of(attack: Attack, threat: Allowance | None) -> str:
    kin = [name for name, entry in ATTACKS.items() if type(attack) is entry.make]
    presets = (name for name in kin if isinstance(threat, ThreatModel) and build(name, threat) == attack)
    own = getattr(attack, "__name__", type(attack).__name__)
    return next(iter(presets), own.lower())


def _fields(value: Any) -> dict[str, Any]:
    entries = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return {"type": _named_type(value), **entries}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return _plain_object(value)


def _plain_object(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    # Threats, step rules and starts are written as a recipe would write them.
    if dataclasses.is_dataclass(value):
        return _fields(value) if type(value).__str__ is object.__str__ else str(value)
    return _named_type(value)


def _named_type(value: Any) -> str:
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"
