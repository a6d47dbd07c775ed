"""The command line: a table from command name to function; each command imports only what it needs."""

import functools
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from gossamer.errors import ConfigError, GossamerError

GOES_ON = "the same command goes on from what was last saved"
BESIDE = f"{GOES_ON}, which without a run's folder, --json or --partial is nothing"
ANEW = "the same command begins anew"


class Command(NamedTuple):
    """Where a command's function is, one line on it, and what becomes of it after a Ctrl-C."""

    module: str
    function: str
    summary: str
    stopped: str = ANEW


COMMANDS = {
    "list": Command("gossamer.cli.listing", "list_things", "what there is: methods, attacks, models, data, recipes"),
    "train": Command("gossamer.cli.train", "train", "train a recipe, evaluate it, or go on where it stopped", GOES_ON),
    "evaluate": Command("gossamer.cli.evaluate", "evaluate", "attack a run, or a model of your own", BESIDE),
    "audit": Command("gossamer.cli.audit", "audit", "say whether a robust accuracy can be trusted, and why", BESIDE),
    "protocol": Command("gossamer.cli.protocol", "protocol", "measure runs by a protocol of the field", GOES_ON),
    "explain": Command("gossamer.cli.explain", "explain", "show where networks look: input gradients and Grad-CAM"),
    "export": Command("gossamer.cli.export", "export", "write a run as a file for devices: sparse, C, ONNX, torch"),
    "verify": Command("gossamer.cli.verify", "verify", "compare and attack an artifact as it ships", BESIDE),
    "bench": Command("gossamer.cli.bench", "bench", "time artifacts beside dense engines"),
    "sweep": Command("gossamer.cli.sweep", "sweep", "train a grid of recipes, what they share once", GOES_ON),
    "search": Command(
        "gossamer.cli.search", "search", "look for recipes that are best at several things at once", GOES_ON
    ),
    "reproduce": Command(
        "gossamer.cli.reproduce", "reproduce", "rebuild published tables with our numbers beside", GOES_ON
    ),
    "runs": Command("gossamer.cli.runs", "runs", "what is here, in what state, and what it reached"),
    "compare": Command("gossamer.cli.compare", "compare", "what differs between runs, in recipe and result"),
    "publish": Command("gossamer.cli.publish", "publish", "write a run as a folder that others can load, or send it"),
    "convert": Command("gossamer.cli.convert", "convert", "import a checkpoint of HYDRA's or RobustBench's layout"),
    "report": Command("gossamer.cli.report", "report", "draw runs on one self-contained page"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; errors made for users are printed without a traceback, with exit status 2 (input) or 1 (run)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = words[0] if words else "--help"
    if name in ("-h", "--help"):
        print(_usage())
        return
    if name == "--version":
        from importlib.metadata import version  # noqa: PLC0415

        print(version("gossamer"))
        return
    try:
        _run(name, words[1:])
    except GossamerError as error:
        print(_told(error), file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ValueError) else 1) from None


def _run(name: str, words: list[str]) -> None:
    if name not in COMMANDS:
        raise ConfigError(
            "command", expected=f"one of {', '.join(COMMANDS)}", got=repr(name), remedy="see `gossamer --help`"
        )
    command = COMMANDS[name]
    try:
        import typer  # noqa: PLC0415

        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        function = getattr(importlib.import_module(command.module), command.function)
        app.command(name)(_stoppable(function, command))
        app(args=words, prog_name=f"gossamer {name}")
    except KeyboardInterrupt:
        _stop(command)


def _stoppable(function: Callable[..., None], command: Command) -> Callable[..., None]:
    """Return a command that a Ctrl-C ends with a message: the parser of options would end it without one."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except KeyboardInterrupt:
            _stop(command)

    return call


def _stop(command: Command) -> NoReturn:
    print(f"stopped; {command.stopped}", file=sys.stderr)
    raise SystemExit(130) from None


def _usage() -> str:
    lines = [f"  {name:<10} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: gossamer COMMAND [OPTIONS]",
            "",
            "Robust and sparse image classifiers: train them, measure them, ship them.",
            "",
            *lines,
            "",
            "`gossamer COMMAND --help` says more.",
        ]
    )


def _told(error: GossamerError) -> str:
    return f"error: {error.subject}\n  expected: {error.expected}\n  got:      {error.got}\n  do:       {error.remedy}"
