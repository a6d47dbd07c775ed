"""By which parameters are attacks of one name told apart? By those in which they differ, as two attacks would."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

SAME = ("threat", "early_drop")
"""What is told beside an attack, and what changes no outcome."""


def differing(attacks: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, list[str]]:
    """Return, for each name, the parameters that differ between attacks of it; none where all are alike."""
    namesakes: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, parameters in attacks:
        told = {key: value for key, value in parameters.items() if key not in SAME}
        namesakes.setdefault(name, {})[json.dumps(told, sort_keys=True)] = told
    return {name: _keys(list(each.values())) for name, each in namesakes.items()}


def _keys(several: list[Mapping[str, Any]]) -> list[str]:
    every = dict.fromkeys(key for told in several for key in told)
    return [key for key in every if len({json.dumps(told.get(key), sort_keys=True) for told in several}) > 1]
