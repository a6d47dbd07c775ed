"""From which network does a run begin that was trained before? One that takes the place of the phase `pretrain`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from gossamer.deploy.published import is_published, read_manifest, read_weights, verify_files
from gossamer.errors import ConfigError
from gossamer.objectives.natural import Natural
from gossamer.recipe.build import Parts, build_model, build_phases, own_options
from gossamer.recipe.identity import content_of, network_of
from gossamer.recipe.open import open_run
from gossamer.recipe.schema import Recipe
from gossamer.runs import RunFolder, atomic
from gossamer.sparsity.binary_weights import LATENT_SIGNS, under_dense_names
from gossamer.sparsity.forms import DENSE
from gossamer.training.phases import PRETRAIN, FromTensors, Phase
from gossamer.training.run import FINAL
from gossamer.training.schedules import Constant

_SUFFIX = ".safetensors"
# What images and classes decide is compared by the shapes of the tensors.
_OF_THE_DATA = {"num_classes", "in_channels", "image_size"}
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Start:
    """A network that was trained before. path: as the recipe has it; tensors: by the dense network's names."""

    path: str
    tensors: Mapping[str, Tensor] = field(repr=False)

    @property
    def record(self) -> dict[str, str]:
        """What the run's record says of it: its path, and the SHA-256 of its tensors."""
        return {"path": self.path, "sha256": content_of(self.tensors)}

    def in_place_of(self, pretrain: Phase) -> Phase:
        """Return a phase that trains nothing and ends with these tensors, as the one that it stands for would end.

        It holds nothing of how that one trains, so that whatever begins from the same tensors shares it.
        """
        return Phase(
            name=pretrain.name,
            epochs=0,
            batch_size=pretrain.batch_size,
            objective=Natural(),
            attack=None,
            schedule=Constant(),
            sparsifier=pretrain.sparsifier,
            start=FromTensors(self.tensors),
        )


def started_phases(recipe: Recipe, parts: Parts, data_dir: Path | None = None) -> tuple[Sequence[Phase], Start | None]:
    """Return the phases of a recipe, and the network that takes the place of the first one, None where none does.

    Raises ConfigError for what cannot be, DataError and RunError for a network that cannot be read.
    """
    phases = build_phases(recipe, parts)
    if recipe.start is None:
        return phases, None
    first, *rest = phases
    if first.name != PRETRAIN or not rest:
        raise ConfigError(
            "start",
            expected=f"a method whose first phase is {PRETRAIN}",
            got=f"{recipe.method.name}, whose phases are {', '.join(phase.name for phase in phases)}",
            remedy="leave start out, or choose a method that pretrains, such as hydra, harp, pwoa or robust-admm",
        )
    start = open_start(recipe, parts, data_dir)
    return (start.in_place_of(first), *rest), start


def open_start(recipe: Recipe, parts: Parts, data_dir: Path | None = None) -> Start:
    """Return the network that a recipe's `start` names, checked against the recipe's own."""
    assert recipe.start is not None
    found = _read(Path(recipe.start).expanduser(), data_dir)
    if found.network is not None:
        _check_network(found.network, network_of(recipe.model.name, own_options(recipe)))
    model = build_model(recipe, parts.train)
    tensors = under_dense_names(model, found.tensors)
    _check_tensors(tensors, model, recipe.model.name)
    return Start(path=recipe.start, tensors=tensors)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """Tensors that were read; network: what made the network they belong to, None where the file does not say."""

    tensors: Mapping[str, Tensor]
    network: Mapping[str, Any] | None


def _read(path: Path, data_dir: Path | None) -> _Found:
    if path.is_file():
        return _read_file(path)
    if is_published(path):
        manifest = read_manifest(path)
        verify_files(path, manifest)
        _check_form(manifest.network.form)
        network = network_of(manifest.network.name, manifest.network.options)
        return _Found(tensors=read_weights(path, manifest.storage), network=network)
    if not RunFolder(path).recipe.is_file():
        raise _no_network(str(path), "a folder without one" if path.is_dir() else "neither")
    run = open_run(path, data_dir)
    _check_form(run.form())
    network = network_of(run.recipe.model.name, own_options(run.recipe))
    return _Found(tensors=atomic.read_safetensors(run.folder.state(FINAL)), network=network)


def _read_file(path: Path) -> _Found:
    if path.suffix != _SUFFIX:
        raise _no_network(str(path), f"a file {path.suffix or 'without a suffix'}")
    _check_form(atomic.read_about(path).get("form", DENSE))
    return _Found(tensors=atomic.read_safetensors(path), network=None)


def _no_network(path: str, got: str) -> ConfigError:
    return ConfigError(
        "start",
        expected=f"a finished run, a published folder or a {_SUFFIX} file of tensors",
        got=f"{path}: {got}",
        remedy="check the path; `gossamer convert` makes a published folder of other checkpoints",
    )


def _check_form(name: str) -> None:
    if name in (DENSE, LATENT_SIGNS):
        return
    raise ConfigError(
        "start",
        expected="a network with the tensors of the dense one",
        got=f"one of the form {name}",
        remedy="name the network it was made from, such as states/pretrain.end.safetensors of its run",
    )


def _check_network(given: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise ConfigError for a network that another function, or the same with other options, made."""
    theirs, ours = (cast("dict[str, Any]", each["options"]) for each in (given, own))
    differing = [
        name
        for name in dict.fromkeys((*ours, *theirs))
        if name not in _OF_THE_DATA and theirs.get(name) != ours.get(name)
    ]
    if given["name"] == own["name"] and not differing:
        return
    raise ConfigError(
        "start",
        expected=f"the recipe's network, {_said(own, differing)}",
        got=_said(given, differing),
        remedy=f"make the recipe's model that one; a {_SUFFIX} file is compared by names and shapes of tensors alone",
    )


def _said(network: Mapping[str, Any], options: Sequence[str]) -> str:
    # Described numbers are texts: they are shown as numbers.
    values = ", ".join(f"{name}: {network['options'].get(name)}" for name in options[:_SHOWN]).replace("'", "")
    return f"{network['name']}{f' of {values}' if values else ''}"


def _check_tensors(given: Mapping[str, Tensor], model: nn.Module, name: str) -> None:
    own = model.state_dict()
    wrong = [f"no {key}" for key in own if key not in given]
    wrong += [f"{key}, which it has not" for key in given if key not in own]
    wrong += [
        f"{key} of {tuple(given[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    wrong += [f"{key} with values that are not finite" for key in given if not bool(torch.isfinite(given[key]).all())]
    if not wrong:
        return
    more = f", and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    raise ConfigError(
        "start",
        expected=f"the {len(own)} tensors of the recipe's network, {name}",
        got=f"{', '.join(wrong[:_SHOWN])}{more}",
        remedy="name a network of the recipe's model, with as many classes and channels, or change the recipe's model",
    )
