"""`gossamer protocol`: measure runs by a protocol of the field, and write its table."""

import hashlib
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from gossamer.cli import options
from gossamer.cli.keeping import command_of, with_command
from gossamer.errors import ConfigError
from gossamer.evaluation.tables import tell
from gossamer.recipe.open import OpenRun, open_run
from gossamer.recipe.protocols import PROTOCOLS, Question, ask, read_options, read_question
from gossamer.runs import records
from gossamer.threat import parse_eps
from gossamer.training.progress import progress


def protocol(
    name: Annotated[str, typer.Argument(help=f"one of {', '.join(PROTOCOLS)}")],
    runs: Annotated[list[Path], typer.Argument(help="run folders, all on the same data")],
    attack: Annotated[str | None, typer.Option(help="an attack, by default the protocol's own")] = None,
    eps: options.Radii = None,
    norm: options.Norm = None,
    n: options.Count = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", help="an option of the protocol, as steps=[10,20]; repeatable")
    ] = None,
    part: options.Part = "test",
    data_dir: options.DataDir = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    folder: Annotated[
        Path | None, typer.Option(help="where finished cells lie; by default partial/protocols of the first run")
    ] = None,
    json: options.Json = None,
) -> None:
    """Measure runs by a protocol; a command that was killed goes on with what it has not measured yet."""
    asked = _question(name, option, attack=attack, eps=eps, norm=norm, n=n, seed=seed, part=part, batch_size=batch_size)
    opened = [open_run(path, data_dir) for path in runs]
    named = _names(opened, runs)
    with progress() as shown:
        flags = {"--attack": attack, "--eps": eps, "--norm": norm, "--n": n, "--seed": seed, "--data-dir": data_dir}
        flags |= {"--part": None if part == "test" else part, "--option": tuple(option or ())}
        command = command_of(["gossamer", "protocol", name, *runs], flags)
        cells = folder or opened[0].folder.partial / "protocols"
        record = with_command(ask(asked, named, folder=cells, device=device, progress=shown.evaluation), command)
    print(tell(record))
    asked_for = hashlib.sha256(command.encode()).hexdigest()[:8]
    for target in (opened[0].folder.result(f"protocol-{name}-{asked_for}"), json):
        if target is not None:
            records.write(target, record)
            print(f"written: {target}")


def _question(name: str, option: list[str] | None, **fields: Any) -> Question:
    """Return what the flags ask; raises ConfigError for an option that the protocol does not have."""
    eps = fields["eps"]
    radii = None if eps is None else tuple(parse_eps(each.strip()) for each in eps.split(","))
    return read_question({"name": name, **fields, "eps": radii, **_given(name, option)})


def _given(name: str, given: list[str] | None) -> dict[str, Any]:
    read: dict[str, Any] = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        try:
            read[key] = yaml.safe_load(value) if equals else None
        except yaml.YAMLError as error:
            raise ConfigError(
                f"--option {key}", expected="a value in YAML", got=repr(value), remedy="write another value"
            ) from error
    return read_options(name, read, "--option")


def _names(opened: list[OpenRun], paths: list[Path]) -> dict[str, OpenRun]:
    names = [run.folder.name for run in opened]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    named = dict(zip(names, opened, strict=True))
    if len(named) == len(opened):
        return named
    raise ConfigError("runs", expected="each run once", got=", ".join(names), remedy="leave out doubles")
