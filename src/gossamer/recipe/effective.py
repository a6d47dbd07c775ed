"""Which values does a recipe come to? Every field that decides a run, those that are left to defaults filled in."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gossamer.evaluation.trials import parameters
from gossamer.models.registry import MODELS
from gossamer.recipe.build import build_method_and_base, has_own_code
from gossamer.recipe.schema import Recipe

# What a network takes from its data where the recipe does not say it, whatever its own defaults are.
_FROM_DATA = {"num_classes", "in_channels", "image_size", "mean", "std"}


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field that differs: the distinct values of it in the runs of each side; None where it is not set."""

    field: str
    a: tuple[Any, ...]
    b: tuple[Any, ...]


def effective(recipe: Recipe) -> dict[str, Any]:
    """Return every value of a recipe by its dotted field, as plain JSON; name and claim, which decide nothing, apart.

    Defaults of network, method, objective, training attack, optimiser and schedule are those a run would take. Code of
    a user's own is not imported for it: what depends on that stands as it is written. Raises ConfigError for what
    cannot be.
    """
    values = recipe.model_dump(mode="json", exclude={"name", "claim"})
    if recipe.model.name in MODELS:
        defaults = MODELS[recipe.model.name].defaults.items()
        own = {name: str(each) if callable(each) else each for name, each in defaults if name not in _FROM_DATA}
        values["model"] = {"name": recipe.model.name, **own, **values["model"]}
    if not has_own_code(recipe):
        _fill(values, recipe)
    return flat(values)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, by dotted fields; lists are values. 1.0 is 1."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = int(value) if isinstance(value, float) and value.is_integer() else value
    return found


def differing(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> list[Field]:
    """Return the fields whose values are not the same in the runs of both sides, section by section."""
    fields = list(dict.fromkeys(field for run in (*a, *b) for field in run))
    sections = list(dict.fromkeys(map(_section, fields)))
    found = (Field(field=field, a=_distinct(a, field), b=_distinct(b, field)) for field in fields)
    return sorted(
        (each for each in found if not _same(each.a, each.b)), key=lambda each: sections.index(_section(each.field))
    )


def mixed(side: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the fields in which the runs of one side differ among themselves."""
    fields = dict.fromkeys(field for run in side for field in run)
    return [field for field in fields if len(_distinct(side, field)) > 1]


def _section(field: str) -> str:
    return field.partition(".")[0]


def _fill(values: dict[str, Any], recipe: Recipe) -> None:
    """Replace what a recipe says of its components by what they come to."""
    method, base = build_method_and_base(recipe)
    written, training = values["attack"], values["training"]
    values["method"] = {"name": recipe.method.name, **_held(method, recipe)}
    values["objective"] = {"name": recipe.objective.name, **_held(base.objective, recipe)}
    values["attack"] = {
        "kind": None if base.attack is None else _kind(base.attack),
        "batch_norm": written["batch_norm"],
        "fast": written["fast"],
        **({} if base.attack is None else _held(base.attack, recipe)),
    }
    training["optimizer"] = asdict(base.optimizer)
    training["schedule"] = {"name": recipe.training.schedule.name, **_held(base.schedule, recipe)}


def _held(value: Any, recipe: Recipe) -> dict[str, Any]:
    """Return the fields of a component, without its type and the threat that stands at the recipe's top."""
    return {
        name: each
        for name, each in parameters(value).items()
        if name != "type" and not (name == "threat" and each == recipe.threat)
    }


def _kind(value: Any) -> str:
    return str(parameters(value)["type"]).rpartition(".")[2]


def _distinct(side: Sequence[Mapping[str, Any]], field: str) -> tuple[Any, ...]:
    return tuple({json.dumps(run.get(field), sort_keys=True): run.get(field) for run in side}.values())


def _same(a: Sequence[Any], b: Sequence[Any]) -> bool:
    written = [{json.dumps(value, sort_keys=True) for value in side} for side in (a, b)]
    return written[0] == written[1]
