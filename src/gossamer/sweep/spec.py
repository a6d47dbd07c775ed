"""What does a sweep say? A base recipe and axes; expanded, one case for every point of their product."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar, cast

from pydantic import BeforeValidator, Field, PositiveInt, ValidationError, model_validator

from gossamer.errors import ConfigError
from gossamer.recipe.build import check
from gossamer.recipe.load import config_error, merged, read_fields, read_values, validate, with_field
from gossamer.recipe.schema import Recipe, Section

Label: TypeAlias = bool | int | float | str | None
Fields: TypeAlias = Mapping[str, Any]
"""Values of a recipe by where they stand, such as training.epochs."""

_RECIPE = "recipe"
"""Under what an axis of recipes moves: no field of a recipe."""


def _several(value: object) -> object:
    return value if isinstance(value, list | tuple) else (value,)


class Axis(Section):
    """One axis, said in one of five ways.

    field, values: one field takes each value, and the value is the label. zip: several fields move together; the label
    is the value of the first. list: named sets of fields, where a whole section may be null: not said. seeds: so many,
    or these. recipes: by label, each in the place of the sweep's base.
    """

    field: str | None = None
    values: Annotated[tuple[Any, ...], Field(min_length=1)] | None = None
    zip: dict[str, tuple[Any, ...]] | None = None
    list: dict[str, dict[str, Any]] | None = None
    seeds: PositiveInt | tuple[int, ...] | None = None
    recipes: dict[str, str] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "Axis":
        others = [self.zip, self.list, self.seeds, self.recipes]
        said = [self.field is not None or self.values is not None, *(each is not None for each in others)]
        if said.count(True) != 1 or (self.field is None) != (self.values is None):
            raise ConfigError(
                "axis",
                expected="one of: field and values; zip; list; seeds; recipes",
                got=", ".join(sorted(self.model_fields_set)) or "nothing",
                remedy="write {field: method.density, values: [0.1, 0.01]}, say",
            )
        if not list(self.points()):
            raise ConfigError("axis", expected="at least one point", got="none", remedy="give it a value")
        self._check_labels()
        return self

    def _check_labels(self) -> None:
        labels = [label for label, _ in self.points()]
        if repeated := sorted({str(label) for label in labels if labels.count(label) > 1}):
            raise ConfigError(
                "axis",
                expected="points with labels that differ; of a zip, values of its first field",
                got=f"{', '.join(repeated)} more than once",
                remedy="remove it, or name the points: list: {NAME: {FIELD: VALUE}}",
            )

    def points(self) -> Iterator[tuple[Label, Fields]]:
        """Yield the label and the fields of each point; raises ConfigError for a zip of unequal lengths."""
        if self.field is not None and self.values is not None:
            yield from ((_label(value), {self.field: value}) for value in self.values)
        elif self.zip is not None:
            yield from _zipped(self.zip)
        elif self.list is not None:
            yield from self.list.items()
        elif self.seeds is not None:
            seeds = range(self.seeds) if isinstance(self.seeds, int) else self.seeds
            yield from ((seed, {"seed": seed}) for seed in seeds)
        elif self.recipes is not None:
            yield from ((label, {_RECIPE: recipe}) for label, recipe in self.recipes.items())


class Sweep(Section):
    """A base recipe (a shipped name, a path or its values), what is set in all of it, and axes, multiplied.

    base: none where an axis names recipes. skip: cases to leave out, only: those to keep; each a mapping from axes to a
    label or several, of which all hold.
    """

    name: str = "sweep"
    claim: str = ""
    base: str | dict[str, Any] | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    axes: Annotated[dict[str, Axis], Field(min_length=1)]
    skip: tuple[dict[str, Annotated[tuple[Any, ...], BeforeValidator(_several)]], ...] = ()
    only: tuple[dict[str, Annotated[tuple[Any, ...], BeforeValidator(_several)]], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Case:
    """One point of a sweep: its label on every axis, and its recipe."""

    labels: Mapping[str, Label]
    recipe: Recipe

    def __str__(self) -> str:
        return ", ".join(f"{axis}={label}" for axis, label in self.labels.items())


def load_sweep(source: Path | str | Mapping[str, Any]) -> Sweep:
    """Return the sweep of a YAML file or of these values; a relative base lies beside the file. Raises ConfigError."""
    return validated(Sweep, read_source(source, "sweep"), "sweep")


def read_source(source: Path | str | Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the fields of a YAML file, named after it and with recipes that lie beside it, or a mapping's own."""
    if isinstance(source, Mapping):
        return dict(source)
    path = Path(source)
    values = read_fields(path, f"{kind} {source}")
    if "base" in values:
        values["base"] = _beside(path, values["base"])
    if isinstance(values.get("axes"), dict):
        values["axes"] = {name: _with_recipes_beside(path, axis) for name, axis in values["axes"].items()}
    return {"name": path.stem, **values}


def _beside(path: Path, recipe: object) -> object:
    """Return a recipe's file as it lies beside the one that names it; a shipped name, or values, as they are."""
    return str(path.parent / recipe) if isinstance(recipe, str) and recipe.endswith((".yaml", ".yml")) else recipe


def _with_recipes_beside(path: Path, axis: object) -> object:
    said = cast("dict[str, object]", axis) if isinstance(axis, dict) else {}
    if not isinstance(said.get("recipes"), dict):
        return axis
    recipes = cast("dict[str, object]", said["recipes"])
    return {**said, "recipes": {label: _beside(path, recipe) for label, recipe in recipes.items()}}


def expand(sweep: Sweep) -> list[Case]:
    """Return every case, the last axis moving fastest. Raises ConfigError naming the case whose recipe cannot be."""
    _check_conditions(sweep)
    base = None if sweep.base is None else with_settings(sweep.base, sweep.set)
    points = [[(name, *point) for point in axis.points()] for name, axis in sweep.axes.items()]
    cases: list[Case] = []
    for chosen in itertools.product(*points):
        labels = {name: label for name, label, _ in chosen}
        if _kept(sweep, labels):
            cases.append(_case(sweep, base, labels, [fields for _, _, fields in chosen]))
    if not cases:
        raise ConfigError("sweep", expected="at least one case", got="none", remedy="see its skip and only")
    return cases


def with_settings(recipe: str | Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a recipe, by its name, its path or as they are, with what is set in all of a sweep."""
    values = read_values(recipe)
    for field, value in settings.items():
        values = set_field(values, field, value)
    return values


def _case(sweep: Sweep, base: Mapping[str, Any] | None, labels: Mapping[str, Label], moved: Sequence[Fields]) -> Case:
    named = [fields[_RECIPE] for fields in moved if _RECIPE in fields]
    if len(named) + (base is not None) != 1:
        raise ConfigError(
            f"{sweep.name}: base",
            expected="one: the sweep's, or that of one axis of recipes",
            got=len(named) + (base is not None),
            remedy="leave base out where an axis names recipes, and name them on one axis alone",
        )
    values = dict(base) if base is not None else with_settings(named[0], sweep.set)
    for fields in moved:
        for field, value in fields.items():
            values = values if field == _RECIPE else set_field(values, field, value)
    for (axis, label), fields in zip(labels.items(), moved, strict=True):
        check_kept(f"{sweep.name}, axis {axis}, point {label}", fields, values)
    # An axis may move what is set for all; it may not take it away unseen.
    taken = {field: value for field, value in _flat(sweep.set) if _at(values, field) is None}
    check_kept(f"{sweep.name}, set", taken, values)
    try:
        return Case(labels=labels, recipe=validate(values))
    except ConfigError as error:
        told = ", ".join(f"{axis}={label}" for axis, label in labels.items())
        raise ConfigError(
            f"{sweep.name}, case {told}: {error.subject}", expected=error.expected, got=error.got, remedy=error.remedy
        ) from error


def check_kept(where: str, fields: Fields, values: Mapping[str, Any], *, moved_by: str = "axis") -> None:
    """Refuse what is set first and taken back later: a label would say what the recipe is not.

    moved_by: what an error calls that which moves fields. A field may be gone with its section where what came in its
    place has no such field: a dense network has no density. Raises ConfigError.
    """
    for field, value in _flat(fields):
        if value is None or field == _RECIPE:
            continue
        found = _at(values, field)
        if found == value or (found is None and not _takes(values, field, value)):
            continue
        later = f"a later {moved_by}"
        raise ConfigError(
            where,
            expected=f"{field} to be {value!r}",
            got=f"nothing: {later} replaces its section" if found is None else f"{found!r}, set by {later}",
            remedy=f"let one {moved_by} alone move {field}, and put it after those that replace its section",
        )


def _flat(fields: Fields, head: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each field by where it stands, those within sections too."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(cast("Fields", value), f"{head}{name}.")
        else:
            yield f"{head}{name}", value


def _takes(values: Mapping[str, Any], field: str, value: object) -> bool:
    """Tell whether a recipe would be one with a field set too."""
    try:
        check(validate(with_field(values, field, value)))
    except ConfigError:
        return False
    return True


def _at(values: Mapping[str, Any], field: str) -> object:
    found: object = values
    for name in field.split("."):
        found = cast("Mapping[str, object]", found).get(name) if isinstance(found, Mapping) else None
    return found


def set_field(values: Mapping[str, Any], field: str, value: object) -> dict[str, Any]:
    """Set a field; a section is merged, and replaced whole where it names another thing, as in recipes.

    A section that is set to null is as if the recipe did not say it.
    """
    if value is None and "." not in field:
        return {name: each for name, each in values.items() if name != field}
    if isinstance(value, Mapping) and "." not in field:
        return merged(values, {field: value})
    return with_field(values, field, value)


def _zipped(fields: Mapping[str, Sequence[Any]]) -> Iterator[tuple[Label, Fields]]:
    lengths = {len(values) for values in fields.values()}
    if len(lengths) != 1:
        told = ", ".join(f"{field} has {len(values)}" for field, values in fields.items())
        raise ConfigError("zip", expected="fields of equally many values", got=told, remedy="give each a value a point")
    for values in zip(*fields.values(), strict=True):
        yield _label(values[0]), dict(zip(fields, values, strict=True))


def _label(value: object) -> Label:
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)


def _kept(sweep: Sweep, labels: Mapping[str, Label]) -> bool:
    def holds(condition: Mapping[str, Sequence[object]]) -> bool:
        return all(labels[axis] in wanted for axis, wanted in condition.items())

    if any(holds(condition) for condition in sweep.skip):
        return False
    return not sweep.only or any(holds(condition) for condition in sweep.only)


def _check_conditions(sweep: Sweep) -> None:
    """Refuse a condition on an axis or a label that is not there, which would do nothing."""
    labels = {name: [label for label, _ in axis.points()] for name, axis in sweep.axes.items()}
    for condition in (*sweep.skip, *sweep.only):
        for axis, wanted in condition.items():
            if axis not in labels:
                raise ConfigError(
                    "skip or only", expected=f"an axis: {', '.join(labels)}", got=axis, remedy="rename it"
                )
            unknown = [str(label) for label in wanted if label not in labels[axis]]
            if unknown:
                raise ConfigError(
                    f"skip or only, {axis}",
                    expected=f"labels: {', '.join(map(str, labels[axis]))}",
                    got=", ".join(unknown),
                    remedy="check the spelling",
                )


_Spec = TypeVar("_Spec", bound=Section)


def validated(spec: type[_Spec], values: Mapping[str, Any], subject: str) -> _Spec:
    """Return what fields say; subject: what an error calls them. Raises ConfigError for the first that cannot be."""
    try:
        return spec.model_validate(values)
    except ValidationError as error:
        raise config_error(error, spec, subject) from error
