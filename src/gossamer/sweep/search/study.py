"""Where are the trials kept, and who proposes the next one? An Optuna study, opened by a search and never lost."""

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from gossamer.errors import ConfigError, RunError
from gossamer.recipe.schema import Recipe
from gossamer.runs import atomic
from gossamer.seeding import derive
from gossamer.sweep.search.spec import Parameter, Parameters, Search, base_recipe

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial

State: TypeAlias = Literal["done", "pruned", "failed", "running"]

FILE = "search.db"
SAMPLERS = {"tpe": "TPESampler", "random": "RandomSampler", "nsga-ii": "NSGAIISampler"}

# What changes neither what is searched nor how it is measured.
_ASIDE = {"name", "claim", "machine"}
_SAID = "gossamer search"
_STORE = "store"
_RUN, _MADE_OF, _WHY = "run", "made_of", "why"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A trial. values: its objectives, where it is done; front: whether no other is better; run: its run folder's name.

    why: what a pruned or a failed one ended by; made_of: what its run is made of, data and versions included.
    """

    number: int
    state: State
    parameters: Parameters
    values: tuple[float, ...] | None
    front: bool
    run: str | None
    why: str | None
    made_of: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True)
class Trials:
    """The trials of a search, in a study that keeps each of their steps before the next is taken."""

    search: Search
    study: "Study"
    storage: "RDBStorage"

    def keep_to(self, store: str) -> None:
        """Raise RunError for trials whose runs lie in another store, where another process may be at them.

        store: what tells stores apart, whatever paths lead there.
        """
        before = self.study.user_attrs.get(_STORE)
        if before is None:
            self.study.set_user_attr(_STORE, store)
        elif before != store:
            raise RunError(
                f"search {self.search.name}",
                expected="the store in which its trials began",
                got="another one, while the storage holds them for all",
                remedy="name that with --store, or give the search another name",
            )

    def propose(self) -> tuple[int, Parameters]:
        """Begin a trial, and return its number and parameters.

        They are a function of the seed, of how many were proposed before, and of what is known by now: a sampler that
        went on drawing would begin anew in a new process, and propose the same again.
        """
        self.study.sampler = _sampler(self.search, len(self.begun()))
        space = {name: _distribution(parameter) for name, parameter in self.search.space.items()}
        asked = self.study.ask(fixed_distributions=space)
        return asked.number, dict(asked.params)

    def recover(self) -> dict[int, Parameters]:
        """Return the trials that were running when the search ended, and forget one that was killed half proposed."""
        from optuna.trial import TrialState  # noqa: PLC0415

        found: dict[int, Parameters] = {}
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._whole(trial):
                found[trial.number] = dict(trial.params)
            else:
                self.study.tell(trial.number, state=TrialState.FAIL)
        return found

    def begun(self) -> list[Trial]:
        """Return every trial that got parameters, in order."""
        best = {trial.number for trial in self.study.best_trials}
        trials = self.study.get_trials(deepcopy=False)
        return [self._trial(trial, front=trial.number in best) for trial in trials if self._whole(trial)]

    def name_run(self, number: int, run: str, made_of: Sequence[str]) -> None:
        """Note which run folder is a trial's, and what it is made of."""
        self._note(number, _RUN, run)
        self._note(number, _MADE_OF, list(made_of))

    def finish(self, number: int, values: list[float]) -> None:
        """Note what a trial reached."""
        self.study.tell(number, values)

    def give_up(self, number: int, why: str, state: Literal["pruned", "failed"]) -> None:
        """Note that a trial ended before its end, and why."""
        from optuna.trial import TrialState  # noqa: PLC0415

        self._note(number, _WHY, why)
        self.study.tell(number, state=TrialState.PRUNED if state == "pruned" else TrialState.FAIL)

    def _note(self, number: int, name: str, value: str | list[str]) -> None:
        study = self.storage.get_study_id_from_name(self.study.study_name)
        identity = self.storage.get_trial_id_from_study_id_trial_number(study, number)
        self.storage.set_trial_user_attr(identity, name, value)

    def _whole(self, trial: "FrozenTrial") -> bool:
        return trial.params.keys() == self.search.space.keys()

    @staticmethod
    def _trial(trial: "FrozenTrial", *, front: bool) -> Trial:
        states: dict[str, State] = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed"}
        done, made_of = trial.state.name == "COMPLETE", trial.user_attrs.get(_MADE_OF)
        return Trial(
            number=trial.number,
            state=states.get(trial.state.name, "running"),
            parameters=dict(trial.params),
            values=tuple(trial.values) if done else None,
            front=front,
            run=trial.user_attrs.get(_RUN),
            why=trial.user_attrs.get(_WHY),
            made_of=None if made_of is None else tuple(made_of),
        )


@contextmanager
def open_trials(search: Search, root: Path) -> Generator[Trials]:
    """Open the trials of a search; of one that never ran there are none yet.

    Raises ConfigError where Optuna is not installed or knows no such storage, sampler or option, RunError where the
    storage holds another search of this name.
    """
    optuna = _imported()
    _sampler(search, 0)
    with _stored(search, root) as storage:
        study = optuna.create_study(
            storage=storage, study_name=search.name, directions=search.directions, load_if_exists=True
        )
        _hold_same(search, study)
        yield Trials(search=search, study=study, storage=storage)


def saved_trials(search: Search, root: Path) -> list[Trial]:
    """Return the trials of a search so far, and begin none; raises what `open_trials` raises."""
    optuna = _imported()
    _sampler(search, 0)
    if search.storage is None and not (root / FILE).exists():
        return []
    with _stored(search, root) as storage:
        if search.name not in optuna.study.get_all_study_names(storage):
            return []
    with open_trials(search, root) as trials:
        return trials.begun()


@contextmanager
def _stored(search: Search, root: Path) -> "Generator[RDBStorage]":
    optuna = _imported()
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = _storage(search, root)
    try:
        yield storage
    finally:
        optuna.logging.set_verbosity(level)
        storage.remove_session()
        storage.engine.dispose()


def _hold_same(search: Search, study: "Study") -> None:
    """Refuse to mix trials of two searches; what merely says how long and how to look may change."""
    said = _said(search, base_recipe(search))
    before = study.user_attrs.get(_SAID)
    if before is None:
        study.set_user_attr(_SAID, said)
        return
    changed = [name for name, value in said.items() if before.get(name) != value]
    if changed:
        raise RunError(
            f"search {search.name}",
            expected="the search that its trials began with",
            got=f"another {', '.join(changed)}",
            remedy="give the search another name, or another --store: finished phases are shared within one store",
        )


def _said(search: Search, base: Recipe) -> dict[str, Any]:
    said = search.model_dump(mode="json", exclude_defaults=True, include={"space", "objectives"})
    recipe = base.model_dump(mode="json", exclude_defaults=True, exclude=_ASIDE)
    # As they come back from a storage: lists for tuples.
    return json.loads(json.dumps({"base": recipe, **said}))


def _sampler(search: Search, number: int) -> "BaseSampler":
    """Return what proposes a trial."""
    optuna = _imported()
    name, options = search.sampler.name, search.sampler.options
    if name not in SAMPLERS:
        raise ConfigError("sampler", expected=f"one of {', '.join(SAMPLERS)}", got=name, remedy="choose another")
    seed = derive(search.seed, "trial", number) % 2**32
    try:
        return getattr(optuna.samplers, SAMPLERS[name])(seed=seed, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"sampler {name}",
            expected=f"options of Optuna's {SAMPLERS[name]}",
            got=str(error),
            remedy="leave them out",
        ) from error


def _distribution(parameter: Parameter) -> "BaseDistribution":
    from optuna import distributions  # noqa: PLC0415

    low, high, step = parameter.low, parameter.high, parameter.step
    if low is None or high is None:
        return distributions.CategoricalDistribution(parameter.labels)
    if parameter.whole:
        return distributions.IntDistribution(int(low), int(high), log=parameter.log, step=int(step or 1))
    return distributions.FloatDistribution(float(low), float(high), log=parameter.log, step=step)


def _storage(search: Search, root: Path) -> Any:
    optuna = _imported()
    from sqlalchemy import URL, exc  # noqa: PLC0415

    if search.storage is None:
        atomic.make_directory(root)
        where = URL.create("sqlite", database=str(root / FILE)).render_as_string(hide_password=False)
    else:
        where = search.storage
    try:
        return optuna.storages.RDBStorage(where)
    except (exc.SQLAlchemyError, ImportError, ValueError) as error:
        raise ConfigError(
            "storage",
            expected="a database that SQLAlchemy reaches, as sqlite:///trials.db",
            got=(str(error).splitlines() or [""])[0],
            remedy="leave it out for a SQLite file in the store",
        ) from error


def _imported() -> Any:
    try:
        import optuna  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "search", expected="Optuna to be installed", got="no such package", remedy="pip install 'gossamer[search]'"
        ) from error
    return optuna


def counts(trials: Sequence[Trial]) -> Mapping[State, int]:
    """Return how many trials are in each state."""
    states: tuple[State, ...] = ("done", "pruned", "failed", "running")
    return {state: sum(trial.state == state for trial in trials) for state in states}
