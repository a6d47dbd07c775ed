"""Where recipes come from (a shipped name, a YAML path, a mapping), and what their runs are called."""

import difflib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel, ValidationError

from gossamer.errors import ConfigError, GossamerError
from gossamer.recipe.schema import Recipe

# What changes neither the numbers nor the meaning of a run, and so not its name.
_UNNAMED = {"name": True, "claim": True, "machine": {"device", "checkpoint_seconds", "tensorboard", "trackers"}}

PARTS = "parts/"
"""The folder of what shipped recipes extend and nobody trains as it is."""


def recipes() -> dict[str, str]:
    """Return the shipped recipes, name to the claim that heads each."""
    return {name: str(_read_one(name, None)[1].get("claim", "")).strip() for name in _shipped()}


def load_recipe(source: str | Path | Mapping[str, Any], settings: Sequence[str] = ()) -> Recipe:
    """Return a validated recipe from a shipped name, a YAML path or a mapping.

    settings: "training.epochs=5" and the like, values as YAML. Raises ConfigError naming the field, what was expected,
    what came and what to write.
    """
    values = read_values(source)
    for setting in settings:
        values = _with_setting(values, setting)
    return validate(values)


def read_values(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a recipe as they are written, what it extends filled in; raises ConfigError."""
    return dict(source) if isinstance(source, Mapping) else _read(str(source))


def read_fields(path: Path, subject: str) -> dict[str, Any]:
    """Return the fields of a YAML file; subject: what an error says of it. Raises ConfigError."""
    try:
        read = _parsed(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(subject, expected="text in UTF-8", got=str(error), remedy="save the file in UTF-8") from error
    except OSError as error:
        raise ConfigError(subject, expected="a readable file", got=error.strerror, remedy="check the path") from error
    except yaml.YAMLError as error:
        raise ConfigError(
            subject, expected="YAML", got=str(error).replace("\n", " "), remedy="mend the file there"
        ) from error
    if not isinstance(read, dict):
        raise ConfigError(
            subject,
            expected="fields such as data, model, threat",
            got=type(read).__name__,
            remedy="start from a shipped recipe: `gossamer list recipes`",
        )
    return cast("dict[str, Any]", read)


def with_field(values: Mapping[str, Any], field: str, value: object) -> dict[str, Any]:
    """Return a recipe's values with one field, such as training.epochs, set. Raises ConfigError for no field's name."""
    path = field.split(".")
    if not all(path):
        raise ConfigError("field", expected="field.subfield", got=repr(field), remedy="write training.epochs, say")
    return _with_value(values, path, value)


def validate(values: Mapping[str, Any]) -> Recipe:
    """Return the recipe of these values; raises ConfigError for the first field that cannot be."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise config_error(error, Recipe, "recipe") from error


def to_yaml(recipe: Recipe) -> str:
    """Return a recipe with every value written out."""
    return yaml.dump(recipe.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def run_name(recipe: Recipe) -> str:
    """Return what a run of this recipe is called: its name, its seed, and a hash of its non-default values.

    Fields added later, with defaults, do not change it.
    """
    said = recipe.model_dump(mode="json", exclude=_UNNAMED, exclude_defaults=True)  # pyright: ignore[reportArgumentType]
    if not said.get("machine"):
        said.pop("machine", None)  # only what does not count was said of it
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:8]
    return f"{recipe.name.replace('/', '-')}-seed{recipe.seed}-{digest}"


# libyaml reads several times faster, where PyYAML was built with it.
_Fastest: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Fastest):
    """Safe YAML in which 1e-6 is a number and 2:4 a text, as YAML 1.2 has them.

    YAML 1.1 reads a text in the first, and 124, two minutes and four seconds, in the second.
    """


class _Dumper(yaml.SafeDumper):
    """What `_Loader` reads back: it quotes a text such as 1e-6."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )

for _digit in "0123456789":
    _Loader.yaml_implicit_resolvers[_digit].insert(0, ("tag:yaml.org,2002:str", re.compile(r"^[0-9]+(:[0-9]+)+$")))


def _parsed(text: str) -> Any:
    return yaml.load(text, _Loader)


def _shipped() -> list[str]:
    return [name for name in _stored() if not name.startswith(PARTS)]


@cache
def _stored() -> tuple[str, ...]:
    root = Path(str(files("gossamer") / "recipes"))
    return tuple(sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml")))


def _read(source: str, extended: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the values of a recipe, those of the recipe it extends filled in; extended: the files on the way here."""
    path, values = _read_one(source, extended[-1].parent if extended else None)
    if "extends" not in values:
        return values
    if path.resolve() in extended:
        raise ConfigError(
            f"recipe {source}", expected="extends to end somewhere", got="itself again", remedy="remove the circle"
        )
    parent = _read(str(values.pop("extends")), (*extended, path.resolve()))
    return merged({key: value for key, value in parent.items() if key != "claim"}, values)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's values with changes: sections are merged, one that names another thing is replaced whole."""
    result = dict(base)
    for key, value in changes.items():
        before = result.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping) and _same_thing(before, value):  # pyright: ignore[reportUnknownArgumentType]
            result[key] = merged(cast("Mapping[str, Any]", before), cast("Mapping[str, Any]", value))
        else:
            result[key] = value
    return result


def _same_thing(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return "name" not in after or before.get("name") == after["name"]


def _read_one(source: str, beside: Path | None) -> tuple[Path, dict[str, Any]]:
    """Return a recipe's file and values; beside: the folder that a relative path starts from, None: this one."""
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        path = _shipped_path(source, _shipped() if beside is None else _stored())
    elif beside is not None:
        path = beside / path
    values = read_fields(path, f"recipe {source}")
    return path, {"name": path.stem if path.suffix and Path(source) == path else source, **values}


def _shipped_path(name: str, known: Sequence[str]) -> Path:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise ConfigError(
            "recipe",
            expected="a shipped recipe or a path that ends in .yaml",
            got=repr(name),
            remedy=f"did you mean {near[0]}?" if near else "see `gossamer list recipes`",
        )
    return Path(str(files("gossamer") / "recipes" / f"{name}.yaml"))


def _with_setting(values: dict[str, Any], setting: str) -> dict[str, Any]:
    path, equals, text = setting.partition("=")
    if not equals or not all(path.split(".")):
        raise ConfigError(
            "--set", expected="field.subfield=value", got=repr(setting), remedy="write --set training.epochs=5, say"
        )
    try:
        value = _parsed(text)
    except yaml.YAMLError as error:
        raise ConfigError("--set", expected="a YAML value", got=repr(text), remedy="quote it") from error
    return _with_value(values, path.split("."), value)


def _with_value(values: Mapping[str, Any], path: list[str], value: object) -> dict[str, Any]:
    head, *rest = path
    if not rest:
        return {**values, head: value}
    inner = values.get(head)
    return {
        **values,
        head: _with_value(cast("Mapping[str, Any]", inner) if isinstance(inner, dict) else {}, rest, value),
    }


def config_error(error: ValidationError, kind: type[BaseModel], subject: str) -> ConfigError:
    """Return the first refusal of a file's fields in our words; kind: what should have been read; subject: its name."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or subject
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, GossamerError):
        return ConfigError(field, expected=cause.expected, got=cause.got, remedy=cause.remedy)
    if first["type"] == "missing":
        return ConfigError(field, expected="a value", got="nothing", remedy=f"add {field} to the {subject}")
    if first["type"] == "extra_forbidden":
        known = _fields_at(kind, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        remedy = f"did you mean {near[0]}?" if near else "remove it"
        return ConfigError(field, expected=f"one of {', '.join(known)}", got="an unknown field", remedy=remedy)
    return ConfigError(field, expected=_lower(first["msg"]), got=repr(first["input"]), remedy="change the value")


def _fields_at(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    section: Any = kind
    for part in location:
        if isinstance(part, str) and part in section.model_fields:
            default = section.model_fields[part]
            section = _section_of(default.annotation) or section
    return list(section.model_fields)


def _section_of(annotation: Any) -> Any:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((each for each in candidates if hasattr(each, "model_fields")), None)


def _lower(message: str) -> str:
    text = message.removeprefix("Input should be ").removeprefix("Value error, ")
    return text[:1].lower() + text[1:]
