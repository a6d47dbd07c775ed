"""`gossamer evaluate`: attack a run, an ONNX file or a model of one's own, and write what was measured."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer
import yaml
from torch import nn

from gossamer.attacks.registry import build as build_attack
from gossamer.attacks.transfer import Transfer
from gossamer.data import DataSet
from gossamer.data.registry import load
from gossamer.errors import ConfigError
from gossamer.evaluation.adapters import Outputs, as_module
from gossamer.evaluation.evaluate import Evaluation
from gossamer.evaluation.evaluate import evaluate as measure
from gossamer.evaluation.onnx_model import OnnxModel
from gossamer.recipe.build import build_foreign_model
from gossamer.recipe.open import open_run
from gossamer.recipe.train import evaluation_name
from gossamer.runs import atomic
from gossamer.threat import ThreatModel, parse_eps
from gossamer.training.devices import place
from gossamer.training.progress import progress
from gossamer.types import Attack


def evaluate(
    run: Annotated[Path | None, typer.Argument(help="a run folder or .onnx file; leave out with --model")] = None,
    attack: Annotated[
        str, typer.Option(help="an attack (`gossamer list attacks`) or package.module:factory")
    ] = "pgd-50-10",
    threat: Annotated[str | None, typer.Option(help="norm and radius as linf:8/255; by default the run's own")] = None,
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
    outputs: Annotated[str, typer.Option(help="what --model or the file gives: logits or probabilities")] = "logits",
    twin: Annotated[
        str | None, typer.Option(help="package.module:factory of a network on which the attack seeks its points")
    ] = None,
    twin_weights: Annotated[Path | None, typer.Option(help="safetensors file for --twin")] = None,
    data: Annotated[str | None, typer.Option(help="data set, where no run names it (`gossamer list datasets`)")] = None,
    data_option: Annotated[
        list[str] | None, typer.Option(help="an option of --data, as image_size=32; repeatable")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="where data sets lie; by default $GOSSAMER_DATA")] = None,
    batch_size: Annotated[int | None, typer.Option(help="images at a time; found automatically if left out")] = None,
    seed: Annotated[int, typer.Option(help="seed of the attack's draws")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N, or auto")] = "auto",
    json: Annotated[Path | None, typer.Option(help="where to write the result")] = None,
) -> None:
    """Measure clean and robust accuracy; with a run, the result is kept in its folder too."""
    path = _only(run, model)
    opened = open_run(path, data_dir) if path is not None and path.suffix != ".onnx" else None
    attacks = _attacks(attack, _threats(threat, eps, norm, opened.threat if opened else None), _options(option))
    if opened is not None:
        network, images, name = opened.model().eval(), opened.part(part), opened.folder.name
    else:
        images = _data(data, part, data_dir, _options(data_option, "--data-option"))
        own = OnnxModel(path) if path is not None else _own(str(model), weights)
        network, name = as_module(own, outputs=cast("Outputs", outputs)).eval(), str(path or model)
    if twin is not None:
        source = as_module(_own(twin, twin_weights, "--twin-weights")).eval()
        attacks = [Transfer(attack=each, source=source) for each in attacks]
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


def _only(run: Path | None, model: str | None) -> Path | None:
    """Return the run or file where it is given, None where a model of one's own is."""
    if (run is None) != (model is None):
        return run
    raise ConfigError(
        "what to evaluate",
        expected="a run folder, or --model package.module:factory, or an .onnx file",
        got="none" if run is None else "more than one",
        remedy="give one of them",
    )


def _save(measured: Evaluation, path: Path) -> None:
    measured.save(path)
    print(f"written: {path}")


def _threats(text: str | None, eps: str | None, norm: str | None, own: ThreatModel | None) -> list[ThreatModel]:
    if text is not None and (eps, norm) != (None, None):
        raise ConfigError(
            "--threat", expected="no --eps and --norm beside it", got=text, remedy="write both in one, as linf:8/255"
        )
    if text is not None:
        return [ThreatModel.parse(text)]
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


def _own(reference: str, weights: Path | None, flag: str = "--weights") -> nn.Module:
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


def _data(name: str | None, part: str, data_dir: Path | None, options: dict[str, Any]) -> DataSet:
    if name is None:
        raise ConfigError("--data", expected="a data set", got="none", remedy="write --data folder --data-dir DIR, say")
    return load(name, part, data_dir=data_dir, **options)
