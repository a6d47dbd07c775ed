"""`gossamer evaluate`: attack a run, or a model of one's own, and write what was measured."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from gossamer.attacks.registry import build as build_attack
from gossamer.data.registry import load
from gossamer.errors import ConfigError
from gossamer.evaluation.evaluate import Evaluation
from gossamer.evaluation.evaluate import evaluate as measure
from gossamer.recipe.build import build_foreign_model
from gossamer.recipe.open import open_run
from gossamer.recipe.train import evaluation_name
from gossamer.runs import atomic
from gossamer.threat import ThreatModel, parse_eps
from gossamer.training.devices import place
from gossamer.training.progress import progress
from gossamer.types import Attack


def evaluate(
    run: Annotated[Path | None, typer.Argument(help="a run folder; leave out with --model")] = None,
    attack: Annotated[
        str, typer.Option(help="an attack (`gossamer list attacks`) or package.module:factory")
    ] = "pgd-50-10",
    eps: Annotated[
        str | None, typer.Option(help="radius such as 8/255, or several with commas; by default the run's own")
    ] = None,
    norm: Annotated[str | None, typer.Option(help="linf, l2 or l1; by default the run's own, else linf")] = None,
    n: Annotated[int | None, typer.Option("--n", help="how many samples; all if left out")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", help="an option of the attack, as steps=20; repeatable")
    ] = None,
    part: Annotated[str, typer.Option(help="test, train or held_out")] = "test",
    model: Annotated[str | None, typer.Option(help="package.module:factory of your own model")] = None,
    weights: Annotated[Path | None, typer.Option(help="safetensors file for --model")] = None,
    data: Annotated[str | None, typer.Option(help="data set for --model (`gossamer list datasets`)")] = None,
    data_option: Annotated[
        list[str] | None, typer.Option(help="an option of the data set for --model, as image_size=32; repeatable")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="where data sets lie; by default $GOSSAMER_DATA")] = None,
    batch_size: Annotated[int | None, typer.Option(help="images at a time; found automatically if left out")] = None,
    seed: Annotated[int, typer.Option(help="seed of the attack's draws")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N, or auto")] = "auto",
    json: Annotated[Path | None, typer.Option(help="where to write the result")] = None,
) -> None:
    """Measure clean and robust accuracy; with a run, the result is kept in its folder too."""
    if (run is None) == (model is None):
        raise ConfigError(
            "what to evaluate",
            expected="a run folder, or --model package.module:factory",
            got="neither" if run is None else "both",
            remedy="give one of the two",
        )
    opened = open_run(run, data_dir) if run is not None else None
    threat = opened.threat if opened else None
    attacks = _attacks(attack, _threats(eps, norm, threat), _options(option))
    if opened is not None:
        network, images, name = opened.model(), opened.part(part), opened.folder.name
    else:
        assert model is not None
        network, images, name = (
            _own(model, weights),
            _data(data, part, data_dir, _options(data_option, "--data-option")),
            model,
        )
    with progress() as shown:
        measured = measure(
            network,
            images,
            attacks,
            n=n,
            batch_size=batch_size,
            seed=seed,
            device=place(device).device,
            name=name,
            progress=shown.evaluation,
        )
    print(measured)
    if json is not None:
        _save(measured, json)
    if opened is not None:
        _save(measured, opened.folder.result(evaluation_name(measured)))


def _save(measured: Evaluation, path: Path) -> None:
    measured.save(path)
    print(f"written: {path}")


def _threats(eps: str | None, norm: str | None, own: ThreatModel | None) -> list[ThreatModel]:
    if eps is None and own is None:
        raise ConfigError("--eps", expected="a radius", got="none", remedy="write --eps 8/255")
    chosen: Any = norm or (own.norm if own else "linf")
    if eps is None:
        assert own is not None
        if chosen != own.norm:
            raise ConfigError("--eps", expected=f"a radius in {chosen}", got="none", remedy="write --eps 0.5, say")
        return [own]
    return [ThreatModel(chosen, parse_eps(each.strip())) for each in eps.split(",")]


def _options(options: list[str] | None, flag: str = "--option") -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for each in options or ():
        name, equals, value = each.partition("=")
        if not equals:
            raise ConfigError(flag, expected="name=value", got=repr(each), remedy=f"write {flag} NAME=VALUE")
        parsed[name] = yaml.safe_load(value)
    return parsed


def _attacks(name: str, threats: list[ThreatModel], options: dict[str, Any]) -> list[Attack]:
    return [build_attack(name, threat, **options) for threat in threats]


def _own(reference: str, weights: Path | None) -> Any:
    network = build_foreign_model(reference, {})
    if weights is None:
        return network
    found = atomic.read_safetensors(weights)
    try:
        network.load_state_dict(found)
    except RuntimeError as error:
        raise ConfigError(
            f"--weights {weights}",
            expected=f"the tensors of {reference}",
            got=" ".join(str(error).split())[:300],
            remedy="save them with safetensors.torch.save_file(model.state_dict(), FILE)",
        ) from error
    return network


def _data(name: str | None, part: str, data_dir: Path | None, options: dict[str, Any]) -> Any:
    if name is None:
        raise ConfigError("--data", expected="a data set", got="none", remedy="write --data folder --data-dir DIR, say")
    return load(name, part, data_dir=data_dir, **options)
