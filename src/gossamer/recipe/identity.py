"""What identifies a phase? The hash of all that it computes from, so that equal work is done once and found again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields

from gossamer.data import DataSet
from gossamer.models.registry import MODELS
from gossamer.plugins import is_reference
from gossamer.recipe.build import Parts, build_model, model_options
from gossamer.recipe.description import Plain, describe
from gossamer.recipe.schema import Recipe
from gossamer.recipe.semantics import shared
from gossamer.training.phases import Phase

_DIGITS = 24
# Publishing a state does not change it: phases that differ in this alone are one, which publishes for them all.
_SILENT = {"publish"}


def phase_keys(
    recipe: Recipe, phases: Sequence[Phase], parts: Parts, unlabelled: Mapping[str, str] | None = None
) -> list[str]:
    """Return the key of each phase of a recipe, in order.

    A key holds every effective value of the phase, defaults included; what the network and its first weights are made
    from; seed, data and how numbers are computed; and the keys of the phases before it, whose states it may read. Two
    recipes share a phase where its keys are equal, whatever else they say. unlabelled: the checksums of pseudo-labelled
    images, where there are any. Raises ConfigError for a phase that holds what cannot be written down.
    """
    machine = recipe.machine
    common: dict[str, Plain] = {
        "seed": recipe.seed,
        "model": _network(recipe, parts.train),
        "data": describe(parts.train),
        "unlabelled": describe(dict(unlabelled or {})),
        "numeric": [machine.precision, machine.channels_last, machine.compile],
        "semantics": dict(sorted(shared().items())),
    }
    keys: list[str] = []
    for phase in phases:
        said: dict[str, Plain] = {
            field.name: describe(getattr(phase, field.name)) for field in fields(phase) if field.name not in _SILENT
        }
        keys.append(_digest({**common, "phase": said, "parents": list[Plain](keys)}))
    return keys


def _network(recipe: Recipe, train: DataSet) -> Plain:
    """Return what a network and its first weights are made from; of a user's own, those weights themselves."""
    name, options = recipe.model.name, model_options(recipe, train)
    if is_reference(name):
        weights = {key: describe(value) for key, value in build_model(recipe, train).state_dict().items()}
        return {"name": name, "options": describe(options), "weights": weights}
    return {"name": name, "options": describe({**MODELS[name].defaults, **options})}


def _digest(value: Plain) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
