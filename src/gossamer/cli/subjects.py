"""What do commands work on? A run folder, or a model and data of one's own, as they are named on the command line."""

from pathlib import Path
from typing import Any

import yaml
from torch import nn

from gossamer.data import DataSet
from gossamer.data.registry import load
from gossamer.errors import ConfigError
from gossamer.recipe.build import build_foreign_model
from gossamer.runs import atomic


def choose_one(run: Path | None, model: str | None) -> Path | None:
    """Return the run or file where it is given, None where a model of one's own is; raises ConfigError otherwise."""
    if (run is None) != (model is None):
        return run
    raise ConfigError(
        "what to work on",
        expected="a run folder, or --model package.module:factory",
        got="none" if run is None else "both",
        remedy="give one of them",
    )


def read_options(options: list[str] | None, flag: str = "--option") -> dict[str, Any]:
    """Return the values of a repeatable option NAME=VALUE, read as YAML."""
    parsed: dict[str, Any] = {}
    for each in options or ():
        name, equals, value = each.partition("=")
        if not equals:
            raise ConfigError(flag, expected="name=value", got=repr(each), remedy=f"write {flag} NAME=VALUE")
        parsed[name] = yaml.safe_load(value)
    return parsed


def own_model(reference: str, weights: Path | None, flag: str = "--weights") -> nn.Module:
    """Return what a factory makes, with weights of a safetensors file; raises ConfigError where they do not fit."""
    network = build_foreign_model(reference, {})
    if weights is None:
        return network
    found = atomic.read_safetensors(weights)
    try:
        network.load_state_dict(found)
    except RuntimeError as error:
        raise ConfigError(
            f"{flag} {weights}",
            expected=f"the tensors of {reference}",
            got=" ".join(str(error).split())[:300],
            remedy="save them with safetensors.torch.save_file(model.state_dict(), FILE)",
        ) from error
    return network


def own_data(name: str | None, part: str, data_dir: Path | None, options: dict[str, Any]) -> DataSet:
    """Return the part of a named data set; raises ConfigError where none is named."""
    if name is None:
        raise ConfigError("--data", expected="a data set", got="none", remedy="write --data folder --data-dir DIR, say")
    return load(name, part, data_dir=data_dir, **options)
