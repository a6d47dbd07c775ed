"""`gossamer search`: a space of recipes in, the trials that none is better than out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from gossamer.cli import engines, options
from gossamer.cli.subjects import one_of, read_options
from gossamer.errors import ConfigError
from gossamer.sweep.search.drive import run_search
from gossamer.sweep.search.results import front_text
from gossamer.sweep.search.spec import Parameter, Search, check_search, load_search
from gossamer.sweep.search.study import Trial, counts, saved_trials


def search(
    file: Annotated[Path, typer.Argument(help="a YAML file: a base recipe, a space, objectives (docs/search.md)")],
    store: Annotated[str | None, typer.Option(help="where phases and runs lie; by default searches/NAME")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="how many in all; by default what the file says")] = None,
    engine: engines.Name = "local",
    slots: engines.Slots = None,
    gpus: engines.Gpus = None,
    engine_option: engines.Options = None,
    attempts: engines.Attempts = 3,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print space, objectives and what is done")] = False,
    data_dir: options.DataDir = None,
) -> None:
    """Look for recipes that are best at several things at once; stopped or killed, the same command goes on."""
    engines.check_alone("search")
    one_of("--engine", engine, engines.ENGINES)
    asked = load_search(file)
    if trials is not None:
        asked = asked.model_copy(update={"trials": trials})
    if store is not None and "://" in store:
        raise ConfigError("--store", expected="a folder", got=store, remedy="name one that every worker sees")
    root = Path(store or Path("searches") / asked.name).absolute()
    given = read_options(tuple(engine_option or ()), "--engine-option")
    engines.check_flags(engine, str(root), slots, gpus, given)
    check_search(asked)
    print(describe(asked, saved_trials(asked, root)))
    if dry_run:
        return
    hands = engines.make_engine(engine, str(root), slots, gpus, given)
    with engines.stoppable():
        ended = run_search(asked, root, hands, data_dir=engines.absolute(data_dir), attempts=attempts)
    print(f"\n{_standing(asked, ended.trials)}; those that no other beats, measured on the held-out split:")
    print(front_text(asked, ended.trials))
    print(f"runs in {root / 'runs'}")
    if ended.stopped:
        print("stopped after trials that failed in a row: mend the cause, and run the same command again")
        raise SystemExit(1)


def describe(asked: Search, trials: Sequence[Trial]) -> str:
    """Return what is searched for, where, and what is done."""
    wanted = ", ".join(f"{way} {what}" for way, what in zip(asked.directions, asked.measures, strict=True))
    judged = asked.evaluation.attack + (f", n {asked.evaluation.n}" if asked.evaluation.n else "")
    return "\n".join(
        [
            f"{asked.name}: {wanted}; robust under {judged}, all on the held-out split",
            *(f"  {name}: {_space(parameter)}" for name, parameter in asked.space.items()),
            f"  sampler {asked.sampler.name}, seed {asked.seed}" + _rule(asked),
            f"  {_standing(asked, trials)}",
        ]
    )


def _space(parameter: Parameter) -> str:
    if parameter.low is None:
        return ", ".join(map(str, parameter.labels))
    step = "" if parameter.step is None else f" in steps of {parameter.step}"
    return f"{parameter.low} to {parameter.high}{step}{', logarithmic' if parameter.log else ''}"


def _rule(asked: Search) -> str:
    rule = asked.prune
    if rule is None:
        return "; no trial is pruned"
    return f"; pruned by {' and '.join(rule.metric)} from epoch {rule.after}, beside {rule.least} trials or more"


def _standing(asked: Search, trials: Sequence[Trial]) -> str:
    told = ", ".join(f"{count} {state}" for state, count in counts(trials).items() if count)
    return f"{len(trials)} of {asked.trials} trials" + (f" ({told})" if told else "")
