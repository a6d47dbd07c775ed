"""`gossamer reproduce`: train what a published table or figure needs, and print it with our numbers beside."""

import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import typer

from gossamer.cli import engines, options
from gossamer.cli.subjects import one_of, read_options
from gossamer.cli.sweep import describe, ended
from gossamer.errors import ConfigError
from gossamer.recipe.load import run_name
from gossamer.report.shell import render_parts
from gossamer.reproduce.drawing import overview, part
from gossamer.reproduce.published import Entry, entries, load_entry
from gossamer.reproduce.scales import SCALES, Ours, Place, Scale, Study, load_study, places, planned_elsewhere
from gossamer.reproduce.standing import Rebuilt, rebuild
from gossamer.reproduce.text import markdown, overview_markdown, spent_text, to_json
from gossamer.runs import atomic
from gossamer.sweep.drive import drive
from gossamer.sweep.measurement import Measurement
from gossamer.sweep.plan import Plan
from gossamer.sweep.plan import plan as make_plan
from gossamer.sweep.spec import Case

LEFT = 75
"""Exit status where the minutes were over before the work: the same command goes on (EX_TEMPFAIL of sysexits.h)."""


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """An entry, and what is planned for it at a scale; None: nothing is."""

    entry: Entry
    study: Study | None
    ours: Ours | None


def reproduce(
    tables: Annotated[
        list[str] | None, typer.Argument(metavar="TABLE...", help="such as bcs/table-4; a study, as bcs; or all")
    ] = None,
    scale: Annotated[str, typer.Option(help="smoke: digits, in minutes; paper: the published setting")] = "smoke",
    store: Annotated[str | None, typer.Option(help="the folder runs lie in; by default reproduced/SCALE")] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="a folder for each as Markdown and JSON, or one .html page of all"),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="train nothing: print with the runs that are there")] = False,
    listed: Annotated[bool, typer.Option("--list", help="print the tables and figures that there are")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print what would be trained, and what is done")] = False,
    minutes: Annotated[float | None, typer.Option(help="stop after so long; the same command goes on")] = None,
    engine: engines.Name = "local",
    slots: engines.Slots = None,
    gpus: engines.Gpus = None,
    engine_option: engines.Options = None,
    attempts: engines.Attempts = 3,
    data_dir: options.DataDir = None,
) -> None:
    """Rebuild published tables and figures: what was printed and what we reached; stopped, the command goes on."""
    began = time.monotonic()
    engines.check_alone("reproduce")
    chosen = cast("Scale", one_of("--scale", scale, SCALES))
    _check_minutes(minutes)
    if listed:
        print(_list(chosen))
        return
    asked = [_asked(name, chosen) for name in _names(tables or [])]
    if not dry_run:
        _check_out(out)
    root = _root(store, chosen)
    status = 0
    if not show:
        given = read_options(tuple(engine_option or ()), "--engine-option")
        engines.check_flags(engine, str(root), slots, gpus, given)
        graph = make_plan(_cases(asked), data_dir, measurements=_measurements(asked), leave_out=True)
        _tell_left_out(graph)
        print(f"{len(asked)} entries at the scale {chosen}: {len(graph.runs)} runs\n{describe(graph, str(root))}")
        if dry_run:
            return
        hands = engines.make_engine(engine, str(root), slots, gpus, given)
        status = LEFT
        with engines.stoppable(), _limited(minutes, began):
            outcome = drive(graph, str(root), hands, data_dir=engines.absolute(data_dir), attempts=attempts)
            print(ended(outcome, graph, str(root)))
            status = int(not outcome.complete or bool(graph.left_out))
    rebuilt = [
        rebuild(each.entry, each.study, each.ours, root, planned_elsewhere(each.entry, chosen)) for each in asked
    ]
    if out is None:
        print("\n".join(markdown(each, chosen) for each in rebuilt))
        print(spent_text(rebuilt))
    elif out.suffix == ".html":
        _draw(rebuilt, chosen, out)
    else:
        _write(rebuilt, chosen, out)
    if status:
        raise SystemExit(status)


def _tell_left_out(graph: Plan) -> None:
    """Print which runs cannot be planned here, by why; raises ConfigError where none can."""
    reasons: dict[str, list[str]] = {}
    for case, why in graph.left_out:
        reasons.setdefault(why, []).append(case)
    for why, cases in reasons.items():
        print(f"left out, {len(cases)} runs such as {cases[0]}: {why}", file=sys.stderr)
    if not graph.runs:
        raise ConfigError(
            "table", expected="runs that can be planned", got="none", remedy="bring the data that the lines above name"
        )


def _names(tables: Sequence[str]) -> list[str]:
    """Return the entries that are named: one, all of a study, or all. Raises ConfigError."""
    known = list(entries())
    if not tables:
        raise ConfigError("table", expected="one or more", got="none", remedy="see `gossamer reproduce --list`")
    found: list[str] = []
    for table in tables:
        own = [name for name in known if table in (name, name.partition("/")[0], "all")]
        if not own:
            raise ConfigError(
                "table",
                expected="one of `gossamer reproduce --list`, a study, or all",
                got=repr(table),
                remedy="rename it",
            )
        found += own
    return list(dict.fromkeys(found))


def _asked(name: str, scale: Scale) -> _Asked:
    study = load_study(name.partition("/")[0], scale)
    ours = None if study is None else study.entries.get(name.partition("/")[2])
    return _Asked(entry=load_entry(name), study=study, ours=ours)


def _cases(asked: Sequence[_Asked]) -> list[Case]:
    """Return the cases that entries need, each once. Raises ConfigError where nothing is planned for any."""
    found = {run_name(case.recipe): case for each in asked for case in _own(each)}
    if not found:
        raise ConfigError(
            "table",
            expected="one with runs planned at this scale",
            got=", ".join(each.entry.name for each in asked),
            remedy="choose another scale, or --show what was published",
        )
    return list(found.values())


def _own(asked: _Asked) -> Iterator[Case]:
    for place in _places(asked):
        yield from place.runs


def _measurements(asked: Sequence[_Asked]) -> list[Measurement]:
    places = [place for each in asked for place in _places(each)]
    return [each for place in places for found in place.measurements.values() for each in found]


def _places(asked: _Asked) -> Sequence[Place]:
    if asked.study is None or asked.ours is None:
        return ()
    return places(asked.entry, asked.ours, asked.study)


def _list(scale: Scale) -> str:
    lines: list[str] = []
    for name in entries():
        asked = _asked(name, scale)
        runs = len({run_name(case.recipe) for case in _own(asked)})
        lines.append(f"{name:32} {f'{runs} runs' if runs else '-':>9}  {asked.entry.title}")
    return "\n".join([*lines, f"runs: planned at the scale {scale}"])


def _draw(rebuilt: Sequence[Rebuilt], scale: Scale, out: Path) -> None:
    sections = [overview(rebuilt, scale), *(part(each, scale) for each in rebuilt)]
    title = f"Published tables and figures, rebuilt: {scale}"
    atomic.write_text(out, render_parts(title, sections, command=shlex.join(["gossamer", *sys.argv[1:]])))
    print(f"written: {out}")


def _write(rebuilt: Sequence[Rebuilt], scale: Scale, out: Path) -> None:
    for each in rebuilt:
        path = out / each.entry.name
        atomic.write_text(path.with_name(f"{path.name}.md"), markdown(each, scale))
        atomic.write_json(path.with_name(f"{path.name}.json"), to_json(each, scale))
    if len(rebuilt) > 1:
        atomic.write_text(out / "README.md", overview_markdown(rebuilt, scale))
    print(f"written: {out}")


def _check_out(out: Path | None) -> None:
    """Refuse what could not be written at the end, before hours of training; raises ConfigError and RunError."""
    if out is None:
        return
    page = out.suffix == ".html"
    if out.is_dir() if page else out.is_file():
        raise ConfigError(
            "--out",
            expected="a page that ends in .html, or a folder for Markdown and JSON",
            got=f"a {'folder' if page else 'file'} called {out}",
            remedy="name another",
        )
    folder = out.parent if page else out
    atomic.make_directory(folder)
    with atomic.refusals_told(folder), tempfile.TemporaryFile(dir=folder):
        pass


def _root(store: str | None, scale: Scale) -> Path:
    if store is not None and "://" in store:
        raise ConfigError("--store", expected="a folder", got=store, remedy="mount it, or copy its runs/ here")
    return (Path(store) if store else Path("reproduced") / scale).absolute()


def _check_minutes(minutes: float | None) -> None:
    if minutes is not None and not minutes > 0:
        raise ConfigError("--minutes", expected="a number above 0", got=minutes, remedy="write 10, say")


@contextmanager
def _limited(minutes: float | None, began: float) -> Generator[None]:
    """Stop what is inside so many minutes after it began, as Ctrl-C would, and go on with what comes after it."""
    if minutes is None:
        yield
        return
    over, inside = threading.Event(), threading.get_ident()

    def stop() -> None:
        over.set()
        signal.pthread_kill(inside, signal.SIGINT)

    # Never so soon that it would not find what is inside.
    timer = threading.Timer(max(0.1, began + 60 * minutes - time.monotonic()), stop)
    timer.daemon = True
    # A script's background commands are born deaf to it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer.start()
    try:
        yield
    except KeyboardInterrupt:
        if not over.is_set():
            raise
        print(f"{minutes:g} minutes are over: the same command goes on", file=sys.stderr)
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
