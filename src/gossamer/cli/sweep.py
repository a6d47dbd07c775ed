"""`gossamer sweep`: a grid in, all of its runs out, each distinct phase trained once."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from gossamer.cli import engines, options
from gossamer.cli.subjects import one_of, read_options
from gossamer.errors import RunError
from gossamer.sweep.drive import Outcome, drive
from gossamer.sweep.estimate import Estimate, estimate, estimate_evaluations, estimate_protocols
from gossamer.sweep.plan import Plan, ProtocolNode, RunNode
from gossamer.sweep.plan import plan as make_plan
from gossamer.sweep.run import root_of
from gossamer.sweep.spec import expand, load_sweep
from gossamer.sweep.store import PhaseRecord, Store
from gossamer.sweep.tasks import is_done, phase_task, protocol_task, run_task


def sweep(
    file: Annotated[Path, typer.Argument(help="a YAML file: a base recipe and axes (docs/sweeps.md)")],
    store: Annotated[
        str | None, typer.Option(help="where phases and runs lie: a folder or a URL; by default sweeps/NAME")
    ] = None,
    engine: engines.Name = "local",
    slots: engines.Slots = None,
    gpus: engines.Gpus = None,
    engine_option: engines.Options = None,
    attempts: engines.Attempts = 3,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the graph, what is done and what is left")] = False,
    data_dir: options.DataDir = None,
) -> None:
    """Train every distinct phase of a grid once, put its runs together and evaluate them; stopped, it goes on."""
    engines.check_alone("sweep")
    one_of("--engine", engine, engines.ENGINES)
    asked = load_sweep(file)
    cases = expand(asked)
    root = root_of(store, asked.name)
    given = read_options(tuple(engine_option or ()), "--engine-option")
    engines.check_flags(engine, root, slots, gpus, given)
    graph = make_plan(cases, data_dir)
    print(f"{asked.name}: {len(cases)} cases, {len(graph.runs)} runs")
    print(describe(graph, root))
    if dry_run:
        return
    hands = engines.make_engine(engine, root, slots, gpus, given)
    with engines.stoppable():
        outcome = drive(graph, root, hands, data_dir=engines.absolute(data_dir), attempts=attempts)
    print(ended(outcome, graph, root))
    if not outcome.complete:
        raise SystemExit(1)


def describe(graph: Plan, root: str) -> str:
    """Return the graph as a table: phases by name, what is done, what is left, and about how long that takes."""
    finished = Store(root)
    done = {key for key, node in graph.phases.items() if is_done(phase_task(node, root))}
    lines: list[str] = []
    for name in dict.fromkeys(node.name for node in graph.phases.values()):
        own = [node for node in graph.phases.values() if node.name == name]
        shared = sum(node.used_by for node in own)
        epochs = sum(node.epochs for node in own)
        have = sum(node.key in done for node in own)
        lines.append(f"  {name}: {len(own)} distinct of {shared}, {epochs:,} epochs, {have} done")
    runs = [run for run in graph.runs if not is_done(run_task(run, root))]
    lines.append(f"  runs put together and evaluated: {len(graph.runs) - len(runs)} of {len(graph.runs)}")
    protocols = [node for node in graph.protocols if not is_done(protocol_task(node, root))]
    if graph.protocols:
        measured = len(graph.protocols) - len(protocols)
        lines.append(f"  protocols measured of runs: {measured} of {len(graph.protocols)}")
    lines.append(f"  epochs: {graph.epochs:,}, where runs alone would train {graph.epochs_alone:,}")
    left = [node for key, node in graph.phases.items() if key not in done]
    lines.append(_left("train", "phases", estimate(left, _readable(finished))))
    lines += _left_after(graph, finished, runs, protocols)
    return "\n".join(lines)


def _left_after(graph: Plan, store: Store, runs: Sequence[RunNode], protocols: Sequence[ProtocolNode]) -> list[str]:
    """Return how long these runs take to evaluate, and these protocols to measure, a line each where there are any."""
    standings, lines = store.standings() if runs or protocols else [], list[str]()
    if any(run.recipe.evaluation for run in runs):
        lines.append(_left("evaluate", "evaluations", estimate_evaluations(runs, standings)))
    if protocols:
        recipes = {run.name: run.recipe for run in graph.runs}
        lines.append(_left("measure", "protocols", estimate_protocols(protocols, recipes, standings)))
    return lines


def _left(what: str, units: str, guess: Estimate) -> str:
    unknown = [f"{guess.unknown} {units} there is nothing to go by for"] if guess.unknown else []
    known = [] if unknown and not guess.seconds else [f"about {_hours(guess.seconds)} of one worker"]
    return f"  left to {what}: {', and '.join([*known, *unknown])}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _readable(store: Store) -> list[PhaseRecord]:
    """Return the records to estimate by; a damaged one of another sweep is no reason to stop this."""
    found: list[PhaseRecord] = []
    for key in store.keys():  # noqa: SIM118
        with suppress(RunError):
            record = store.find(key)
            found += [] if record is None else [record]
    return found


def ended(outcome: Outcome, graph: Plan, root: str) -> str:
    """Return how a sweep ended: why tasks failed, what waits for them, and how many runs there are."""
    lines = [f"{name}: {why}" for name, why in outcome.failed.items()]
    if outcome.blocked:
        lines.append(f"{len(outcome.blocked)} tasks wait for those: mend the cause, and run the same command again")
    runs = sum(f"run-{run.name}" in set(outcome.done) for run in graph.runs)
    return "\n".join([*lines, f"{runs} of {len(graph.runs)} runs in {root.rstrip('/')}/runs"])
