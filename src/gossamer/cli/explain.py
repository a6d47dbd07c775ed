"""`gossamer explain`: where do the networks of runs look, at clean and at attacked images?"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from gossamer.attacks.registry import build
from gossamer.cli import options
from gossamer.cli.keeping import command_of, with_command
from gossamer.cli.subjects import read_options
from gossamer.evaluation.explanations import explain as look
from gossamer.evaluation.explanations import require_captum
from gossamer.recipe.open import open_run
from gossamer.runs import explanations
from gossamer.threat import ThreatModel
from gossamer.training.devices import place

_OF_PANELS = {"steps": 20}


def explain(
    runs: Annotated[list[Path], typer.Argument(help="run folders")],
    n: Annotated[int, typer.Option("--n", help="how many images, the same for all runs on the same data")] = 8,
    attack: Annotated[
        str, typer.Option(help="an attack (`gossamer list attacks`) or package.module:factory; pgd has 20 steps")
    ] = "pgd",
    option: options.AttackOptions = None,
    threat: options.Threat = None,
    layer: Annotated[
        str | None, typer.Option(help="of Grad-CAM, as layer4; by default the last convolution that has places")
    ] = None,
    passes: Annotated[int, typer.Option(help="draws of a model that draws noise, of which the mean is shown")] = 20,
    part: options.Part = "test",
    data_dir: options.DataDir = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
) -> None:
    """Keep input gradients and Grad-CAM of a few images in each run's folder, for `gossamer report` to draw.

    Each network is attacked itself, under its own threat.
    """
    require_captum()
    opened = [open_run(path, data_dir) for path in runs]
    for run in opened:
        run.form()
    given = (_OF_PANELS if attack == "pgd" else {}) | read_options(tuple(option or ()))
    attacks = [build(attack, ThreatModel.parse(threat) if threat else run.threat, **given) for run in opened]
    flags = {"--n": n, "--attack": attack, "--option": tuple(option or ()), "--threat": threat, "--layer": layer}
    flags |= {"--passes": None if passes == 20 else passes, "--part": None if part == "test" else part}
    command = command_of(["gossamer", "explain", *runs], flags | {"--data-dir": data_dir, "--seed": seed})
    for run, built in zip(opened, attacks, strict=True):
        found = look(
            run.model(),
            run.part(part),
            built,
            n=n,
            layer=layer,
            passes=passes,
            seed=seed,
            device=place(device).device,
        )
        about = with_command(found.about, command)
        seen = f"Grad-CAM at {about.layer}" if about.layer else f"no Grad-CAM: {about.reason}"
        print(f"{run.folder.name}: {len(about.index)} images, {seen}")
        print(f"written: {explanations.write(run.folder, replace(found, about=about))}")
