"""How is a number written so that it cannot be misread? With its interval, attack, norm, eps and n."""

import re
from collections.abc import Mapping
from typing import Any

from gossamer.runs.results import AttackOutcome, Evaluation, Interval
from gossamer.threat import format_eps

_NAMES = {
    "fgsm": "FGSM",
    "pgd": "PGD",
    "autoattack": "AutoAttack",
    "apgd-ce": "APGD-CE",
    "apgd-dlr": "APGD-DLR",
    "apgd-t": "APGD-T",
    "fab": "FAB",
    "fab-t": "FAB-T",
    "square": "Square",
    "cw": "CW",
}
_COUNTS = re.compile(r"(-\d+)+$")


def percent(share: float | None) -> str:
    """Return 0.812 as "81.2 %", with two significant digits at least below one per cent."""
    if share is None:
        return "–"
    value = 100 * share
    return f"{value:.1f} %" if value == 0 or abs(value) >= 1 else f"{value:.2g} %"


def brackets(interval: Interval) -> str:
    """Return a 95 % interval (0.774, 0.851) as "[77, 85]", in per cent."""
    return f"[{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]"


def attack_name(name: str, parameters: Mapping[str, Any]) -> str:
    """Return "PGD-50 ×10" for 50 steps and 10 restarts; a name of no known kind is left as it is."""
    base = _COUNTS.sub("", name)
    steps, restarts = parameters.get("steps"), parameters.get("restarts")
    if steps is None and restarts is None:
        return _NAMES.get(name, name)
    shown = _NAMES.get(base, base)
    return f"{shown}{f'-{steps}' if steps is not None else ''}{f' ×{restarts}' if restarts is not None else ''}"


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
