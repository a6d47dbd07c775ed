"""What do trackers see of a run? Its recipe as flat parameters, and its results by name."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from gossamer.recipe.load import config_error
from gossamer.recipe.schema import Machine, Recipe
from gossamer.runs import RunFolder
from gossamer.runs import results as records
from gossamer.training.trackers import TRACKERS
from gossamer.training.trackers.courier import Courier
from gossamer.training.trackers.protocol import Parameter, Tracker
from gossamer.training.trackers.redaction import without_secrets
from gossamer.training.tracking import Tracking


def with_trackers(recipe: Recipe, names: Sequence[str]) -> Recipe:
    """Return a recipe with further trackers; raises ConfigError for one that is not known."""
    if not names:
        return recipe
    values = {**recipe.machine.model_dump(), "trackers": (*recipe.machine.trackers, *names)}
    try:
        return recipe.model_copy(update={"machine": Machine.model_validate(values)})
    except ValidationError as error:
        raise config_error(error, Machine, "machine") from error


def make_trackers(recipe: Recipe) -> dict[str, Tracker]:
    """Import and return the trackers of a recipe by name; raises ConfigError where one is not installed."""
    names = recipe.machine.all_trackers
    return {name: TRACKERS[name]() for name in names}


def check_trackers(recipes: Iterable[Recipe]) -> None:
    """Raise ConfigError for a tracker of these recipes that is not installed or has no key: now, not once they end."""
    for name in dict.fromkeys(name for recipe in recipes for name in recipe.machine.all_trackers):
        TRACKERS[name]()


def tracking(trackers: Mapping[str, Tracker], run: RunFolder, recipe: Recipe, tell: Callable[[str], None]) -> Tracking:
    """Return what tells trackers of a run of a recipe."""
    told = parameters(recipe)
    return Tracking([Courier(name, tracker, run, told) for name, tracker in trackers.items()], tell=tell)


def parameters(recipe: Recipe) -> dict[str, Parameter]:
    """Return every value of a recipe by its field, as training.optimizer.lr or evaluation.0.attack.

    A login within an address is left out, as in a path to images.
    """
    return {
        ".".join(path): without_secrets(value) if isinstance(value, str) else value
        for path, value in _flat(recipe.model_dump(mode="json"), ())
    }


def _flat(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Parameter]]:
    if not isinstance(value, dict | list):
        yield path, value
        return
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in inner:
        yield from _flat(each, (*path, str(key)))


def results(run: RunFolder) -> dict[str, float]:
    """Return what was measured of a finished run: accuracies by evaluation, which names its part, weights and work."""
    found: dict[str, float] = {}
    if run.result("network").exists():
        network = records.read_network(run)
        found |= {"density": network.totals.density, "nonzero": network.totals.nonzero}
        found |= {} if network.work_ratio is None else {"work_ratio": network.work_ratio}
    for path in records.evaluation_files(run):
        measured = records.read_evaluation(path)
        found[f"{path.stem}/clean_accuracy"] = measured.clean_accuracy
        found[f"{path.stem}/n"] = measured.n
        for outcome in measured.attacks:
            several = len(measured.attacks) > 1
            found[f"{path.stem}/robust_accuracy{f'-{outcome.eps:.4g}' if several else ''}"] = outcome.robust_accuracy
    return found
