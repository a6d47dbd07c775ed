"""Who trains the tasks of a command? The engine that its options name, checked before anything is read."""

import os
import shlex
import signal
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import torch
import typer

from gossamer.cli.subjects import one_of
from gossamer.errors import ConfigError
from gossamer.options import construct
from gossamer.sweep.engine import Engine
from gossamer.sweep.local import LocalEngine, cores
from gossamer.training.ranks import of_environment

ENGINES = ("local", "ray", "slurm")

Name: TypeAlias = Annotated[str, typer.Option(help=f"who runs tasks: {', '.join(ENGINES)}")]
Slots: TypeAlias = Annotated[
    int | None, typer.Option(help="tasks at a time; by default one a core, or one a GPU; of slurm 64 jobs")
]
Gpus: TypeAlias = Annotated[
    str | None, typer.Option(help="devices that local tasks share, with commas, as 0,1; by default all there are")
]
Options: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--engine-option", help="of ray: address, cpus, gpus; of slurm: submitit's; as gpus=0.5; repeatable"),
]
Attempts: TypeAlias = Annotated[
    int, typer.Option(help="how often a task whose worker dies is begun without coming further")
]


def check_flags(engine: str, root: str, slots: int | None, gpus: str | None, given: Mapping[str, Any]) -> None:
    """Refuse what the engine would not heed, before anything is read."""
    _refuse(engine == "ray" and slots is not None, "--slots", "none beside ray, which knows its cluster", slots)
    _refuse(engine != "ray" and "://" in root, "--store", f"a folder, for the engine {engine}", root)
    _refuse(engine != "local" and gpus is not None, "--gpus", f"none beside --engine {engine}", gpus)
    _refuse(engine == "local" and bool(given), "--engine-option", "none, for the engine local", ", ".join(given))
    if engine == "ray":
        for name in given:
            one_of("--engine-option", name, ("address", "cpus", "gpus"))


def check_alone(command: str) -> None:
    """Refuse a command that hands work over itself where several processes of it were started."""
    world = of_environment().world
    if world > 1:
        raise ConfigError(
            "WORLD_SIZE",
            expected=f"one process of `gossamer {command}`, which hands its tasks to an engine itself",
            got=f"{world} of them, as torchrun starts",
            remedy="start it once, without torchrun (or unset WORLD_SIZE): --engine and --slots spread the work",
        )


def make_engine(name: str, root: str, slots: int | None, gpus: str | None, given: Mapping[str, Any]) -> Engine:
    """Return who runs tasks; only an engine that is asked for is imported."""
    if name == "ray":
        from gossamer.sweep.ray_engine import RayEngine  # noqa: PLC0415

        return construct(RayEngine, given, "--engine-option")
    folder = Path(root) / "tasks"
    if name == "slurm":
        from gossamer.sweep.slurm import SlurmEngine  # noqa: PLC0415

        return SlurmEngine(slots=64 if slots is None else slots, folder=folder, options=given)
    devices = _devices(gpus)
    return LocalEngine(slots=(len(devices) or cores()) if slots is None else slots, folder=folder, gpus=devices)


def _devices(gpus: str | None) -> list[str]:
    if gpus is not None:
        return [device.strip() for device in gpus.split(",") if device.strip()]
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if seen is None:
        return [str(number) for number in range(torch.cuda.device_count())]
    # -1 is how GPUs are hidden.
    return [device for device in seen.split(",") if device.strip() and not device.strip().startswith("-")]


def _refuse(wrong: bool, flag: str, expected: str, got: object) -> None:
    if wrong:
        raise ConfigError(flag, expected=expected, got=got, remedy="leave it out, or choose another engine")


def absolute(path: Path | None) -> Path | None:
    """Return a path that means the same to a worker, whatever folder it stands in."""
    return None if path is None else path.absolute()


@contextmanager
def stoppable() -> Generator[None]:
    """Let SIGTERM stop a command as Ctrl-C does, with status 130 and the words that go on with it."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        print(f"stopped; to go on: {shlex.join(['gossamer', *sys.argv[1:]])}", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
