"""`gossamer audit`: can the robust accuracy of a run, or of a model of one's own, be trusted?"""

from pathlib import Path
from typing import Annotated

import typer

from gossamer.cli.subjects import choose_one, own_data, own_model, read_options
from gossamer.errors import ConfigError
from gossamer.evaluation.audit import audit as examine
from gossamer.recipe.open import open_run
from gossamer.threat import ThreatModel
from gossamer.training.devices import place
from gossamer.training.progress import progress


def audit(
    run: Annotated[Path | None, typer.Argument(help="a run folder; leave out with --model")] = None,
    threat: Annotated[str | None, typer.Option(help="norm and radius as linf:8/255; by default the run's own")] = None,
    n: Annotated[int, typer.Option("--n", help="how many samples, at least 30")] = 200,
    budget: Annotated[str, typer.Option(help="how hard to try: quick, standard or thorough")] = "standard",
    layer: Annotated[
        list[str] | None, typer.Option(help="a layer to be passed as if it were the identity; repeatable")
    ] = None,
    part: Annotated[str, typer.Option(help="test, train or held_out")] = "test",
    model: Annotated[str | None, typer.Option(help="package.module:factory of your own model")] = None,
    weights: Annotated[Path | None, typer.Option(help="safetensors file for --model")] = None,
    twin: Annotated[
        str | None, typer.Option(help="package.module:factory of a network whose adversarial examples are tried too")
    ] = None,
    twin_weights: Annotated[Path | None, typer.Option(help="safetensors file for --twin")] = None,
    data: Annotated[str | None, typer.Option(help="data set, where no run names it (`gossamer list datasets`)")] = None,
    data_option: Annotated[
        list[str] | None, typer.Option(help="an option of --data, as image_size=32; repeatable")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="where data sets lie; by default $GOSSAMER_DATA")] = None,
    batch_size: Annotated[int | None, typer.Option(help="images at a time; found automatically if left out")] = None,
    seed: Annotated[int, typer.Option(help="seed of the attacks' draws")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N, or auto")] = "auto",
    json: Annotated[Path | None, typer.Option(help="where to write the result")] = None,
) -> None:
    """Look for signs that a robust accuracy is overstated, settle each, and give a verdict: trust, doubt or reject."""
    path = choose_one(run, model)
    opened = open_run(path, data_dir) if path is not None else None
    if opened is not None:
        network, images, name = opened.model(), opened.part(part), opened.folder.name
    else:
        images = own_data(data, part, data_dir, read_options(data_option, "--data-option"))
        network, name = own_model(str(model), weights).eval(), str(model)
    own_threat = None if opened is None else opened.threat
    with progress() as shown:
        found = examine(
            network,
            images,
            threat=_threat(threat, own_threat),
            n=n,
            seed=seed,
            budget=budget,
            twin=None if twin is None else own_model(twin, twin_weights, "--twin-weights").eval(),
            layers=tuple(layer or ()),
            batch_size=batch_size,
            device=place(device).device,
            name=name,
            progress=shown.evaluation,
        )
    print(found)
    for target in (json, None if opened is None else opened.folder.result("audit")):
        if target is not None:
            found.save(target)
            print(f"written: {target}")


def _threat(text: str | None, own: ThreatModel | None) -> ThreatModel:
    if text is not None:
        return ThreatModel.parse(text)
    if own is None:
        raise ConfigError("--threat", expected="norm and radius", got="none", remedy="write --threat linf:8/255")
    return own
