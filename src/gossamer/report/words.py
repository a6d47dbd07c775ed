"""How is a number written so that it cannot be misread? With its interval, attack, norm, eps and n."""

import re
from collections.abc import Mapping
from typing import Any

from gossamer.errors import ConfigError
from gossamer.runs.audits import Verdict
from gossamer.runs.results import AttackOutcome, Evaluation, Interval
from gossamer.threat import format_eps, parse_eps

_NAMES = {
    "fgsm": "FGSM",
    "pgd": "PGD",
    "apgd-ce": "APGD-CE",
    "apgd-dlr": "APGD-DLR",
    "apgd-t": "APGD-T",
    "fab": "FAB",
    "fab-t": "FAB-T",
    "square": "Square",
    "cw": "CW",
    "zoo": "ZOO",
}
_AUTOATTACK = {
    f"autoattack{'' if each == 'standard' else f'-{each}'}": each for each in ("standard", "plus", "rand", "early")
}
_FULL = {"steps": 100, "queries": 5000}
_VERDICTS: Mapping[Verdict, str] = {"trust": "✓", "doubt": "?", "reject": "✗"}
_COUNTED = re.compile(r"^(.*?)(?:-(\d+))?(?:-(\d+))?$")


def percent(share: float | None) -> str:
    """Return 0.812 as "81.2 %", with two significant digits at least below one per cent."""
    if share is None:
        return "–"
    value = 100 * share
    return f"{value:.1f} %" if value == 0 or abs(value) >= 1 else f"{value:.2g} %"


def brackets(interval: Interval) -> str:
    """Return a 95 % interval (0.774, 0.851) as "[77, 85]", in per cent; one of less than two points with decimals."""
    digits = 1 if interval[1] - interval[0] < 0.02 else 0
    return f"[{100 * interval[0]:.{digits}f}, {100 * interval[1]:.{digits}f}]"


def attack_name(name: str, parameters: Mapping[str, Any]) -> str:
    """Return "PGD-50 ×10" for 50 steps and 10 restarts, of the name where there are no parameters.

    A name of no known kind is left as it is.
    """
    if name in _AUTOATTACK or parameters.get("version") in _AUTOATTACK.values():
        return _autoattack(name, parameters)
    base, *counts = _COUNTED.findall(name)[0]
    steps, restarts = parameters.get("steps"), parameters.get("restarts")
    if steps is None and restarts is None:
        if base not in _NAMES:
            return name
        steps, restarts = (count or None for count in counts)
    shown = _NAMES.get(base, base)
    return f"{shown}{f'-{steps}' if steps is not None else ''}{f' ×{restarts}' if restarts is not None else ''}"


def _autoattack(name: str, parameters: Mapping[str, Any]) -> str:
    """Return the version, and what was spared in a rehearsal, which must not be quoted as AutoAttack."""
    version = _AUTOATTACK.get(name) or str(parameters.get("version"))
    spared = [
        f"{parameters[key]} {key}"
        for key, full in _FULL.items()
        if isinstance(parameters.get(key, full), int) and parameters.get(key, full) < full
    ]
    shown = "AutoAttack" if version == "standard" else f"AutoAttack ({version})"
    return f"{shown}, rehearsed with {' and '.join(spared)}" if spared else shown


def radius(eps: float) -> str:
    """Return eps in 255ths where it is a whole number of them, in decimals otherwise."""
    text = format_eps(eps)
    return text if "/" in text else f"{eps:.4g}"


def conditions(name: str, parameters: Mapping[str, Any], threat: str, eps: float, n: int) -> str:
    """Return what a robust accuracy holds under: "PGD-50 ×10, linf eps 0.15, n=360"."""
    norm = threat.partition(":")[0]
    return f"{attack_name(name, parameters)}, {norm} eps {radius(eps)}, n={n}"


def headline_conditions(evaluation: Evaluation) -> str:
    """Return what the headline of an evaluation holds under."""
    return conditions(evaluation.attack, evaluation.attack_parameters, evaluation.threat, evaluation.eps, evaluation.n)


def outcome_name(outcome: AttackOutcome) -> str:
    """Return the attack of an outcome with its steps and restarts."""
    return attack_name(outcome.attack, outcome.parameters)


def attack_of(parameters: Mapping[str, Any]) -> str:
    """Return the attack of a record by its name, else its type, with its steps and restarts."""
    name = str(parameters.get("name") or parameters.get("type") or "an attack").rpartition(".")[2]
    return attack_name(name, parameters)


def threat_of(threat: str) -> str:
    """Return "linf:0.0313" as "linf eps 8/255"; what is no threat is left as it is."""
    norm, colon, eps = threat.partition(":")
    try:
        return f"{norm} eps {radius(parse_eps(eps))}" if colon else threat
    except ConfigError:
        return threat


def verdict(told: Verdict) -> str:
    """Return a verdict of an audit with a sign that needs no colour."""
    return f"{_VERDICTS[told]} {told}"


def duration(seconds: float) -> str:
    """Return seconds as "12 s", "3 min 20 s" or "5 h 10 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def described(value: object) -> str:
    """Return a recipe's value in one line: the name first where it has one, then what else is switched on."""
    if isinstance(value, dict):
        parts = {str(key): described(each) for key, each in value.items() if each not in (None, False, 0)}
        name = parts.pop("name", None)
        rest = ", ".join(f"{key} {each}".removesuffix(" True") for key, each in parts.items() if each)
        return f"{name} ({rest})" if name and rest else str(name or rest)
    if isinstance(value, list | tuple):
        return ", ".join(described(each) for each in value)
    return str(value)
