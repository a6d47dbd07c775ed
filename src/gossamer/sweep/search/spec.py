"""What does a search say? A base recipe, a space of its fields, objectives, and when a trial is given up."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, model_validator

from gossamer.errors import ConfigError
from gossamer.recipe.build import build_threat, check, probed_metrics
from gossamer.recipe.load import validate
from gossamer.recipe.schema import Component, Evaluation, Recipe, Section
from gossamer.sweep.spec import Fields, Label, check_kept, read_source, set_field, validated, with_settings

Parameters: TypeAlias = Mapping[str, Label]
"""The values of a trial, by the names of the space."""

ACCURACIES = ("clean", "robust")
COSTS = ("nonzeros", "density", "multiply_adds", "latency")
JUDGED = Evaluation(attack="pgd-50-10")
TAKEN = ("trial", "state", "front", "run", "why", *ACCURACIES, *COSTS)
"""Columns of the table of trials, which no parameter may be called."""


def _parameter(value: object) -> object:
    return {"choices": value} if isinstance(value, list | tuple) else value


def _component(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class Parameter(Section):
    """What one name of the space may be, said in one of three ways.

    low, high: a number from low to high, whole where all of low, high and step are; log: drawn on a logarithmic scale;
    step: only low, low + step, ... . choices: one of these. list: one of these named sets of fields.
    """

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    choices: tuple[Any, ...] | None = None
    list: dict[str, dict[str, Any]] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "Parameter":
        said = [self.low is not None or self.high is not None, self.choices is not None, self.list is not None]
        if said.count(True) != 1 or (self.low is None) != (self.high is None):
            raise ConfigError(
                "space",
                expected="one of: low and high; choices; list",
                got=", ".join(sorted(self.model_fields_set)) or "nothing",
                remedy="write method.density: {low: 0.01, high: 0.2, log: true}, say",
            )
        if self.low is not None and self.high is not None:
            self._check_range(self.low, self.high)
        elif self.log or self.step is not None:
            raise ConfigError(
                "space", expected="log and step beside low and high", got="choices", remedy="leave them out"
            )
        else:
            self._check_choices()
        return self

    @property
    def whole(self) -> bool:
        """Whether a range is of whole numbers."""
        return all(isinstance(each, int) for each in (self.low, self.high, self.step) if each is not None)

    @property
    def labels(self) -> tuple[Label, ...]:
        """What may be chosen; of a range, its two ends."""
        if self.low is not None:
            return (self.low, self.high)
        return tuple(self.list) if self.list is not None else self.choices or ()

    def _check_range(self, low: float, high: float) -> None:
        wrong = None
        if low >= high:
            wrong = "low below high"
        elif self.log and (self.step is not None or low <= 0):
            wrong = "with log: low above 0 and no step"
        elif self.step is not None and (self.step <= 0 or _rest(low, high, self.step)):
            wrong = "a step that leads from low to high"
        if wrong is not None:
            told = ", ".join(f"{name} {value}" for name, value in self.model_dump(exclude_defaults=True).items())
            raise ConfigError("space", expected=wrong, got=told, remedy="change the range")

    def _check_choices(self) -> None:
        labels = self.labels
        plain = all(isinstance(each, bool | int | float | str) or each is None for each in labels)
        if not plain or len(set(labels)) != len(labels) or len(labels) < 2:
            raise ConfigError(
                "space",
                expected="at least two different choices, each a number, a text, true, false or null",
                got=str(list(labels)),
                remedy="name sets of fields with list, and put what has no choice under set",
            )


class Objective(Section):
    """What is wanted: an accuracy to maximize, or a cost to minimize."""

    maximize: str | None = None
    minimize: str | None = None

    @model_validator(mode="after")
    def _one_known(self) -> "Objective":
        for said, known in ((self.maximize, ACCURACIES), (self.minimize, COSTS)):
            if said is not None and said not in known:
                self._refuse(said)
        if (self.maximize is None) == (self.minimize is None):
            raise ConfigError(
                "objectives",
                expected="one of maximize and minimize in each",
                got=", ".join(sorted(self.model_fields_set)) or "nothing",
                remedy="write [{maximize: robust}, {minimize: nonzeros}], say",
            )
        return self

    @property
    def measure(self) -> str:
        """What is measured."""
        return self.maximize or self.minimize or ""

    def _refuse(self, said: str) -> None:
        if said.split("/", maxsplit=1)[0] == "test":
            raise ConfigError(
                "objectives",
                expected="a measure of the held-out split: the test set must not choose what it will judge",
                got=said,
                remedy="write clean or robust: a search measures them on what data.split.held_out keeps",
            )
        raise ConfigError(
            "objectives",
            expected=f"maximize {' or '.join(ACCURACIES)}; minimize {', '.join(COSTS[:-1])} or {COSTS[-1]}",
            got=f"{'maximize' if self.maximize == said else 'minimize'} {said}",
            remedy="choose one of these",
        )


class Prune(Section):
    """When a trial is given up: where all of `metric` lie below what the quantile of earlier trials had by then.

    metric: what probes measure on the held-out split, one or several; after: that many epochs; least: earlier trials
    to compare with, of which there must be so many.
    """

    metric: Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1)]
    after: PositiveInt = 1
    least: PositiveInt = 5
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.5


class Search(Section):
    """A base recipe, what is set in all of it, what may vary, what is wanted, and how long to look.

    evaluation: the attack under which robust is measured, on the held-out split and at one radius for all trials;
    trials: how many in all; seed: of what the sampler draws; storage: where Optuna keeps the trials, by default a
    SQLite file in the store.
    """

    name: str = "search"
    claim: str = ""
    base: str | dict[str, Any]
    set: dict[str, Any] = Field(default_factory=dict)
    space: Annotated[dict[str, Annotated[Parameter, BeforeValidator(_parameter)]], Field(min_length=1)]
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)]
    evaluation: Evaluation = JUDGED
    trials: PositiveInt = 20
    seed: NonNegativeInt = 0
    sampler: Annotated[Component, BeforeValidator(_component)] = Component(name="tpe")
    prune: Prune | None = None
    storage: str | None = None

    @model_validator(mode="after")
    def _agrees(self) -> "Search":
        if len(set(self.measures)) != len(self.measures):
            raise ConfigError(
                "objectives", expected="each once", got=", ".join(self.measures), remedy="remove the second"
            )
        if taken := sorted({*self.space} & {*TAKEN}):
            raise ConfigError(
                "space", expected="other names than the table's own", got=", ".join(taken), remedy="rename them"
            )
        if "part" in self.evaluation.model_fields_set and self.evaluation.part != "held_out":
            raise ConfigError(
                "evaluation.part",
                expected="held_out: the test set must not choose what it will judge",
                got=self.evaluation.part,
                remedy="leave it out, and evaluate the trials that you choose with `gossamer evaluate`",
            )
        if len(self.evaluation.eps or (0,)) != 1:
            raise ConfigError(
                "evaluation.eps", expected="one radius", got=str(self.evaluation.eps), remedy="name the one that counts"
            )
        return self

    @property
    def measures(self) -> tuple[str, ...]:
        """What is measured of each trial, in order."""
        return tuple(objective.measure for objective in self.objectives)

    @property
    def directions(self) -> tuple[Literal["maximize", "minimize"], ...]:
        """Which way each objective is better."""
        return tuple("minimize" if each.maximize is None else "maximize" for each in self.objectives)


def load_search(source: Path | str | Mapping[str, Any]) -> Search:
    """Return the search of a YAML file or of these values; a relative base lies beside the file. Raises ConfigError."""
    return validated(Search, read_source(source, "search"), "search")


def base_recipe(search: Search) -> Recipe:
    """Return the recipe before anything varies, judged as all trials are; raises ConfigError."""
    return _judged(search, validate(with_settings(search.base, search.set)))


def recipe_of(search: Search, parameters: Parameters) -> Recipe:
    """Return the recipe of a trial, with one evaluation on the held-out split in place of its own.

    Raises ConfigError for a recipe that cannot be, for one that is not what its parameters say, and for one that would
    be measured otherwise than the rest.
    """
    base, values = base_recipe(search), with_settings(search.base, search.set)
    moved = {name: _fields(search, name, parameters[name]) for name in search.space}
    for fields in moved.values():
        for field, value in fields.items():
            values = set_field(values, field, value)
    for name, fields in moved.items():
        check_kept(f"{search.name}, {name}={parameters[name]}", fields, values, moved_by="parameter")
    recipe = _judged(search, validate(values), base)
    for what, own, common in (
        ("its images", _images(recipe), _images(base)),
        ("the norm of its threat", build_threat(recipe).norm, build_threat(base).norm),
        ("the probes that prune it (their eps too)", _pruned_by(search, recipe), _pruned_by(search, base)),
    ):
        if own != common:
            raise ConfigError(
                "space",
                expected=f"trials that are measured alike: {what} as in the base, {common}",
                got=own,
                remedy="search each by itself",
            )
    check(recipe)
    return recipe


def check_search(search: Search) -> None:
    """Refuse what no trial could be, before any begins: every choice and both ends of every range are tried once.

    Raises ConfigError.
    """
    if not search.set.keys().isdisjoint({"evaluation"}) or _evaluates(search):
        raise ConfigError(
            "evaluation",
            expected="the search's own evaluation, one for all trials",
            got="a field of the recipe's, under set or space",
            remedy="write evaluation beside objectives",
        )
    base = base_recipe(search)
    if not base.data.split.held_out:
        raise ConfigError(
            "data.split.held_out",
            expected="images that no trial trains on: the test set must not choose what it will judge",
            got=base.data.split.held_out,
            remedy="write set: {data.split.held_out: 0.1}",
        )
    _check_prune(search, base)
    first = {name: parameter.labels[0] for name, parameter in search.space.items()}
    for name, parameter in search.space.items():
        for label in parameter.labels:
            try:
                recipe_of(search, {**first, name: label})
            except ConfigError as error:
                raise ConfigError(
                    f"{search.name}, {name}={label}: {error.subject}",
                    expected=error.expected,
                    got=error.got,
                    remedy=error.remedy,
                ) from error


def _fields(search: Search, name: str, label: Label) -> Fields:
    """Return the fields that a parameter sets to what was chosen."""
    sets = search.space[name].list
    return {name: label} if sets is None else sets[str(label)]


def _judged(search: Search, recipe: Recipe, base: Recipe | None = None) -> Recipe:
    radius = search.evaluation.eps or (build_threat(base or recipe).eps,)
    judged = search.evaluation.model_copy(update={"part": "held_out", "eps": radius})
    return recipe.model_copy(update={"evaluation": (judged,)})


def _images(recipe: Recipe) -> str:
    """Return what says which images are held out."""
    return str({"name": recipe.data.name, **recipe.data.options, "split": recipe.data.split.model_dump()})


def _pruned_by(search: Search, recipe: Recipe) -> str:
    probed = probed_metrics(recipe) if search.prune else {}
    return str({metric: probed.get(metric) for metric in (search.prune.metric if search.prune else ())})


def _evaluates(search: Search) -> bool:
    fields: list[str] = []
    for name, parameter in search.space.items():
        fields += [name] if parameter.list is None else [field for each in parameter.list.values() for field in each]
    return any(field.split(".")[0] == "evaluation" for field in fields)


def _check_prune(search: Search, base: Recipe) -> None:
    if search.prune is None:
        return
    measured = sorted(metric for metric in probed_metrics(base) if metric.startswith("held_out/"))
    for metric in search.prune.metric:
        if metric not in measured:
            raise ConfigError(
                "prune.metric",
                expected=f"what a probe measures on the held-out split ({', '.join(measured) or 'no probe does'})",
                got=metric,
                remedy="add a probe of part held_out under training.probes that measures it",
            )


def _rest(low: float, high: float, step: float) -> bool:
    return bool((Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step)))


def told(parameters: Parameters, space: Sequence[str]) -> str:
    """Return parameters as people read them, in the order of the space."""
    return ", ".join(f"{name}={_number(parameters[name])}" for name in space)


def _number(label: Label) -> str:
    return f"{label:.4g}" if isinstance(label, float) else str(label)
