"""What identifies a phase? The hash of all that it computes from, so that equal work is done once and found again."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

from torch import Tensor

from gossamer.data import DataSet
from gossamer.errors import RunError
from gossamer.methods.registry import METHODS
from gossamer.models.registry import MODELS
from gossamer.objectives.registry import OBJECTIVES
from gossamer.plugins import is_reference
from gossamer.recipe.build import Parts, build_model, model_options
from gossamer.recipe.description import Plain, describe
from gossamer.recipe.schema import Recipe
from gossamer.recipe.semantics import semantics, shared
from gossamer.training.phases import PRETRAIN, Phase

_DIGITS = 24
# Publishing a state does not change it: phases that differ in this alone are one, which publishes for them all.
_SILENT = {"publish"}


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What identifies the phases of a recipe: their keys, in order, and the paths of all of the package they name."""

    keys: Sequence[str]
    named: tuple[str, ...]


def identify(
    recipe: Recipe, phases: Sequence[Phase], parts: Parts, unlabelled: Mapping[str, str] | None = None
) -> Identity:
    """Return what identifies the phases of a recipe.

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
    said = [_said(phase) for phase in phases]
    named = {*_named(common), *chain.from_iterable(map(_named, said))}
    silent = {path: version for path, version in _raised(recipe).items() if not _any_within(path, named)}
    keys: list[str] = []
    for phase, own in zip(phases, said, strict=True):
        unnamed = {"unnamed": dict[str, Plain](silent)} if silent and phase.name != PRETRAIN else {}
        keys.append(_digest({**common, "phase": own, "parents": list[Plain](keys), **unnamed}))
    return Identity(keys=keys, named=tuple(sorted(named)))


def _said(phase: Phase) -> dict[str, Plain]:
    return {field.name: describe(getattr(phase, field.name)) for field in fields(phase) if field.name not in _SILENT}


def _raised(recipe: Recipe) -> dict[str, int]:
    """Return the versions of a recipe's method and objective that were raised; plain phases may name neither."""
    return {path: semantics(path) for path in _modules(recipe) if semantics(path) > 1}


def _any_within(path: str, named: Iterable[str]) -> bool:
    return any(name == path or name.startswith(f"{path}.") for name in named)


def _modules(recipe: Recipe) -> list[str]:
    """Return the modules of a recipe's method and objective, of those that are the package's own."""
    found = METHODS.get(recipe.method.name), OBJECTIVES.get(recipe.objective.name)
    return [entry.make.__module__ for entry in found if entry is not None]


def phase_keys(
    recipe: Recipe, phases: Sequence[Phase], parts: Parts, unlabelled: Mapping[str, str] | None = None
) -> list[str]:
    """Return the key of each phase of a recipe, in order; raises what `identify` raises."""
    return list(identify(recipe, phases, parts, unlabelled).keys)


def images_key(parts: Parts) -> str:
    """Return what identifies the images that networks are judged on, which no phase need have seen."""
    return _digest({"test": describe(parts.test), "held_out": describe(parts.held_out)})


def check_images(parts: Parts, planned: str) -> None:
    """Raise RunError where a machine would judge networks on other images than were planned."""
    mine = images_key(parts)
    if mine != planned:
        raise RunError(
            "images to evaluate on",
            expected=f"those that were planned, of key {planned}",
            got=f"others, of key {mine}",
            remedy="give every machine the same, or plan the sweep again",
        )


def versions_of(recipe: Recipe, named: Iterable[str] = ()) -> dict[str, int]:
    """Return the versions of the arithmetic that a recipe names: its method's, its objective's, and all that is shared.

    named: paths of what else it computes with, as `identify` found them. Told without any data, so that what was made
    before can be held against what would be made now.
    """
    return {**shared(), **{path: semantics(path) for path in (*_modules(recipe), *named)}}


def _named(value: Plain) -> Iterator[str]:
    """Yield the paths of types and functions of the package in a description."""
    if isinstance(value, str) and value.startswith("gossamer."):
        yield value.partition("@")[0]
    elif isinstance(value, dict):
        yield from chain.from_iterable(map(_named, value.values()))
    elif isinstance(value, list):
        yield from chain.from_iterable(map(_named, value))


def _network(recipe: Recipe, train: DataSet) -> Plain:
    """Return what a network and its first weights are made from; of a user's own, those weights themselves."""
    name, options = recipe.model.name, model_options(recipe, train)
    described = network_of(name, options)
    if is_reference(name):
        weights = {key: describe(value) for key, value in build_model(recipe, train).state_dict().items()}
        return {**described, "weights": weights}
    return described


def network_of(name: str, options: Mapping[str, Any]) -> dict[str, Plain]:
    """Return by which function, and with which options, a network is made, those left to defaults filled in."""
    defaults = MODELS[name].defaults if name in MODELS else {}
    return {"name": name, "options": describe({**defaults, **options})}


def content_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors: their names, types, shapes and bytes, whatever file they lie in."""
    return hashlib.sha256(_text(describe(tensors)).encode()).hexdigest()


def _text(value: Plain) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _digest(value: Plain) -> str:
    return hashlib.sha256(_text(value).encode()).hexdigest()[:_DIGITS]
