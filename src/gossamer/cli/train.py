"""`gossamer train`: train a recipe to its end, or go on where it stopped."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from gossamer.recipe.train import train as train_recipe
from gossamer.training.interruption import Interrupted
from gossamer.training.progress import progress
from gossamer.training.ranks import leave, of_environment


def train(
    recipe: Annotated[str, typer.Argument(help="a shipped recipe (`gossamer list recipes`) or a YAML path")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="a field to change, as field.subfield=value; repeatable")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="the run folder; by default runs/NAME")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="where data sets lie or are downloaded to; by default $GOSSAMER_DATA")
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(help="log to tensorboard, mlflow or wandb too, beside the recipe's trackers; repeatable"),
    ] = None,
    allow_numeric_drift: Annotated[
        bool, typer.Option("--allow-numeric-drift", help="resume on another machine or build, in other bits")
    ] = False,
) -> None:
    """Train a recipe, evaluate it, and print the run folder; the same command goes on with a stopped run."""
    try:
        run = train_recipe(
            recipe,
            settings=settings or (),
            out=out,
            data_dir=data_dir,
            track=track or (),
            allow_numeric_drift=allow_numeric_drift,
            progress=progress(),
        )
    except (Interrupted, KeyboardInterrupt) as stop:
        # A KeyboardInterrupt comes from an evaluation, or from a second Ctrl-C: what is stored stands.
        if of_environment().first:
            print(f"{stop or 'stopped'}; to go on: {_command()}", file=sys.stderr)
        raise SystemExit(stop.exit_status if isinstance(stop, Interrupted) else 130) from None
    leave()
    if not of_environment().first:
        return
    print(f"done: {run.folder.path}")
    print(f"look: gossamer report {shlex.quote(str(run.folder.path))} -o report.html")


def _command() -> str:
    """Return what to write in a shell to start again what this process is part of."""
    here = os.environ.get("LOCAL_WORLD_SIZE", "1")
    starter = ["torchrun", f"--nproc-per-node={here}", "-m"] if of_environment().several else []
    return shlex.join([*starter, "gossamer", *sys.argv[1:]])
