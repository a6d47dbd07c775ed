"""`gossamer list`: what there is to choose from."""

from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from gossamer.errors import ConfigError


def list_things(
    kind: Annotated[
        str | None,
        typer.Argument(help="methods, objectives, attacks, models, datasets, recipes, protocols, artifacts or engines"),
    ] = None,
) -> None:
    """Print what can be named in a recipe or on the command line; engines are what `bench` times artifacts against."""
    if kind is not None and kind not in _KINDS:
        raise ConfigError("list", expected=f"one of {', '.join(_KINDS)}", got=repr(kind), remedy="leave it out for all")
    for name in [kind] if kind else _KINDS:
        print(f"{name}:")
        entries = _KINDS[name]()
        width = max(len(entry) for entry in entries)
        for entry, summary in entries.items():
            print(f"  {entry:<{width}}  {summary}")


def _methods() -> Mapping[str, str]:
    from gossamer.methods.registry import METHODS  # noqa: PLC0415

    return {name: entry.summary for name, entry in METHODS.items()}


def _objectives() -> Mapping[str, str]:
    from gossamer.objectives.registry import OBJECTIVES  # noqa: PLC0415

    return {name: entry.summary for name, entry in OBJECTIVES.items()}


def _attacks() -> Mapping[str, str]:
    from gossamer.attacks.registry import ATTACKS  # noqa: PLC0415

    return {name: entry.summary for name, entry in ATTACKS.items()}


def _models() -> Mapping[str, str]:
    from gossamer.models.registry import MODELS  # noqa: PLC0415

    return {name: f"{entry.description} ({entry.reference})" for name, entry in MODELS.items()}


def _datasets() -> Mapping[str, str]:
    from gossamer.data import DATASETS  # noqa: PLC0415

    return {name: source.description for name, source in DATASETS.items()}


def _recipes() -> Mapping[str, str]:
    from gossamer.recipe.load import recipes  # noqa: PLC0415

    return recipes()


def _protocols() -> Mapping[str, str]:
    from gossamer.recipe.protocols import PROTOCOLS  # noqa: PLC0415

    return {name: summary for name, (_, summary) in PROTOCOLS.items()}


def _artifacts() -> Mapping[str, str]:
    from gossamer.deploy.export import KINDS  # noqa: PLC0415

    return {name: entry.summary for name, entry in KINDS.items()}


def _engines() -> Mapping[str, str]:
    from gossamer.deploy.contestants import ENGINES  # noqa: PLC0415

    return {name: entry.summary for name, entry in ENGINES.items()}


_KINDS: Mapping[str, Callable[[], Mapping[str, str]]] = {
    "methods": _methods,
    "objectives": _objectives,
    "attacks": _attacks,
    "models": _models,
    "datasets": _datasets,
    "recipes": _recipes,
    "protocols": _protocols,
    "artifacts": _artifacts,
    "engines": _engines,
}
