"""Which protocols are there, and how is a question of one put to runs?"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, ConfigDict, PositiveInt, TypeAdapter, ValidationError
from torch import nn

from gossamer.attacks.queries import QueryAttack
from gossamer.attacks.registry import build
from gossamer.attacks.zoo import ZOO
from gossamer.deploy.latency import latency
from gossamer.errors import ConfigError
from gossamer.evaluation import adversary_matrix as adversaries
from gossamer.evaluation.classes import by_class
from gossamer.evaluation.corruptions import corruptions
from gossamer.evaluation.effort import RESTARTS, STEPS, effort
from gossamer.evaluation.ensembles import ensemble
from gossamer.evaluation.least_norm import Search
from gossamer.evaluation.matching import matching
from gossamer.evaluation.pruning_benchmark import RADII, pruning_benchmark
from gossamer.evaluation.query_success import query_success
from gossamer.evaluation.setting import Setting
from gossamer.evaluation.smoothing import RADII as SMOOTHING_RADII
from gossamer.evaluation.smoothing import Smoothing, certify
from gossamer.evaluation.standing import Progress
from gossamer.evaluation.stochastic import stochastic
from gossamer.evaluation.subject import count_weights
from gossamer.evaluation.transfer_matrix import transfer_matrix
from gossamer.evaluation.weights import GAMMAS, weights
from gossamer.models.folding import plain_copy
from gossamer.recipe.build import build_phases
from gossamer.recipe.load import config_error
from gossamer.recipe.open import OpenRun
from gossamer.recipe.schema import Component, Eps
from gossamer.threat import Norm, ThreatModel
from gossamer.training.devices import place
from gossamer.training.schedules import Opening
from gossamer.types import Attack


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _several(value: object) -> object:
    return (value,) if isinstance(value, str | float | int) else value


class Wanted(Component):
    """An attack by name, with its own options beside the name."""

    def build(self, threat: ThreatModel) -> Attack:
        """Return the attack under a threat; raises ConfigError."""
        return build(self.name, threat, **self.options)


class Question(Component):
    """A protocol by name, and with what it is asked; its own options stand beside these fields.

    attack: the protocol's own if left out; eps: radii, those of the first run's threat if left out; n: samples of the
    part, all if left out.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    attack: Annotated[Wanted | None, BeforeValidator(_named)] = None
    eps: Annotated[tuple[Eps, ...] | None, BeforeValidator(_several)] = None
    norm: Norm | None = None
    n: PositiveInt | None = None
    seed: int = 0
    part: Literal["test", "train", "held_out"] = "test"
    batch_size: PositiveInt | None = None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What every protocol is asked with; threats: the radii asked for, else the first run's own."""

    opened: dict[str, OpenRun]
    models: dict[str, nn.Module]
    architectures: dict[str, str]
    trained: dict[str, str]
    setting: Setting
    threats: list[ThreatModel]
    attack: Wanted | None

    @property
    def threat(self) -> ThreatModel:
        """The one threat of protocols that have one; raises ConfigError where several radii are given."""
        if len(self.threats) == 1:
            return self.threats[0]
        raise ConfigError("--eps", expected="one radius", got=len(self.threats), remedy="ask for each in turn")

    def build(self, default: str = "pgd-50-10") -> Attack:
        """Return the attack asked for, else the default one."""
        return (self.attack or Wanted(name=default)).build(self.threat)


def _effort(asked: Asked, *, steps: list[int] = list(STEPS), restarts: list[int] = list(RESTARTS)) -> object:  # noqa: B006
    attack = asked.build()
    return effort(asked.models, asked.setting, threat=asked.threat, attack=attack, steps=steps, restarts=restarts)


def _transfer(asked: Asked, *, sources: list[str] | None = None) -> object:
    first = asked.threats[0]
    radii = [threat.eps for threat in asked.threats]
    return transfer_matrix(
        asked.models,
        asked.setting,
        eps=radii if len(radii) > 1 else [first.eps * factor for factor in (0.25, 0.5, 1, 2)],
        norm=first.norm,
        attack=None if asked.attack is None else asked.attack.build(first),
        sources=sources,
        architectures=asked.architectures,
    )


def _adversaries(asked: Asked, *, steps: list[int] = list(adversaries.PAPER_STEPS)) -> object:  # noqa: B006
    tests = adversaries.pgd_adversaries(asked.threat, steps)
    if asked.attack is not None:
        tests[asked.attack.name] = asked.build()
    return adversaries.adversary_matrix(asked.models, asked.setting, tests, trained=asked.trained)


def _pruning(asked: Asked, *, as_published: bool = False, opinion: bool = True, trials: int = 32) -> object:
    return pruning_benchmark(
        asked.models,
        asked.setting,
        attack="autoattack" if asked.attack is None else asked.attack.name,
        eps=[threat.eps for threat in asked.threats] if len(asked.threats) > 1 else RADII,
        search=Search(trials=trials),
        opinion=opinion,
        as_published=as_published,
    )


def _ensemble(asked: Asked) -> object:
    return ensemble(asked.models, asked.setting, asked.build(), name=" + ".join(asked.models))


def _stochastic(asked: Asked, *, passes: int = 20, trials: int = 5) -> object:
    return stochastic(asked.models, asked.setting, asked.build(), passes=passes, trials=trials)


def _corruptions(asked: Asked, *, corrupted: str) -> object:
    setting = asked.setting
    return corruptions(
        asked.models,
        corrupted,
        n=setting.n,
        seed=setting.seed,
        batch_size=setting.batch_size,
        device=setting.device,
        cells=setting.folder,
    )


def _classes(asked: Asked) -> object:
    if len(asked.models) > 1:
        raise ConfigError("runs", expected="one", got=len(asked.models), remedy="ask for each run in turn")
    ((name, model),) = asked.models.items()
    attack = "pgd-50-10" if asked.attack is None else asked.attack.name
    measured = asked.setting.measure(name, model, {attack: asked.build()})
    return by_class(measured, asked.setting.whole.classes)


def _matching(asked: Asked, *, parent: str = "train.end") -> object:
    first, *others = asked.models
    if others:
        return matching(
            asked.models[first],
            {name: asked.models[name] for name in others},
            asked.setting,
            asked.build(),
            name=first,
        )
    dense, name = _parent_of(asked.opened[first], asked.models[first], parent), f"{first} ({parent})"
    return matching(dense, asked.models, asked.setting, asked.build(), name=name)


def _parent_of(run: OpenRun, sparse: nn.Module, state: str) -> nn.Module:
    """Return the dense network that a run keeps under a state; raises ConfigError for a state that is no parent."""
    made_by = next((phase for phase in build_phases(run.recipe, run.parts) if state == f"{phase.name}.end"), None)
    parent = run.model(state)
    if made_by is not None and isinstance(made_by.schedule, Opening):
        trained = made_by.schedule.epochs
        problem = f"{state}, {made_by.epochs} of {trained} epochs of a training: it was never finished"
    elif count_weights(parent)[1] <= (kept := count_weights(sparse)[1]):
        problem = f"{state}, which keeps no more weights than the run's own network ({kept:,})"
    else:
        return parent
    raise ConfigError(
        f"the parent of {run.folder.path.name}",
        expected="the state of a dense network that was trained to its end",
        got=problem,
        remedy="give the dense parent's run first, then this one: gossamer protocol matching PARENT SPARSE",
    )


def _smoothing(
    asked: Asked,
    *,
    sigma: float = 0.25,
    n0: int = 100,
    copies: int = 100_000,
    alpha: float = 0.001,
    radii: list[float] = list(SMOOTHING_RADII),  # noqa: B006
) -> object:
    smoothing = Smoothing(sigma=sigma, n0=n0, n=copies, alpha=alpha)
    return certify(asked.models, asked.setting, smoothing, radii=radii)


def _black_box(asked: Asked, *, samples: int = 200) -> object:
    attack = ZOO() if asked.attack is None else asked.attack.build(asked.threat)
    return query_success(asked.models, asked.setting, cast("QueryAttack", attack), n=samples)


def _weights(asked: Asked, *, gammas: list[float] = list(GAMMAS)) -> object:  # noqa: B006
    return weights({name: run.twin() for name, run in asked.opened.items()}, gammas=gammas)


def _latency(
    asked: Asked,
    *,
    kind: str = "c",
    batch: int = 1,
    threads: int = 1,
    rounds: int = 10,
    repeats: int = 10,
    loading: bool = True,
) -> object:
    return latency(
        {name: plain_copy(run.twin()) for name, run in asked.opened.items()},
        asked.setting.samples,
        kind=kind,
        batch=batch,
        threads=threads,
        rounds=rounds,
        repeats=repeats,
        loading=loading,
    )


PROTOCOLS: Mapping[str, tuple[Callable[..., object], str]] = {
    "effort": (_effort, "robust accuracy over the attack's steps and restarts; options steps, restarts"),
    "transfer": (_transfer, "sources by targets over eps; option sources"),
    "adversaries": (_adversaries, "training adversaries by test adversaries; option steps"),
    "pruning-benchmark": (_pruning, "AutoAttack at 0.031 and 8/255, least norm; options as_published, opinion, trials"),
    "ensemble": (_ensemble, "the mean of softmax probabilities, attacked as one model and by its members"),
    "stochastic": (_stochastic, "with noise and expectation over it, and without; options passes, trials"),
    "corruptions": (_corruptions, "a folder in CIFAR-10-C's layout; option corrupted=FOLDER"),
    "classes": (_classes, "clean and robust accuracy by class"),
    "matching": (
        _matching,
        "sparse runs beside the first, their parent; one run beside its state of option parent",
    ),
    "smoothing": (_smoothing, "certified accuracy over radius; options sigma, n0, copies, alpha, radii"),
    "black-box": (_black_box, "success rate and queries of zoo or square; option samples"),
    "weights": (_weights, "spread and size of weights, and those kept by channel and kernel; option gammas"),
    "latency": (
        _latency,
        "seconds of a pass, exported and in turns; options kind (c, onnx), batch, threads, rounds, repeats, loading",
    ),
}


def ask(
    question: Question,
    runs: Mapping[str, OpenRun],
    *,
    folder: Path | None,
    device: str = "auto",
    progress: Progress | None = None,
) -> object:
    """Put a question to runs, by their names, all on the same data; returns the protocol's record.

    folder: where finished cells lie, so that a question that was killed goes on; None keeps nothing. Raises ConfigError
    for a question that cannot be and what the protocol raises.
    """
    options = read_options(question.name, question.options)
    first, *_ = runs.values()
    _check_same_data(runs, question.part)
    asked = Asked(
        opened=dict(runs),
        models={name: run.model() for name, run in runs.items()},
        architectures={name: run.recipe.model.name for name, run in runs.items()},
        trained={name: _training(run) for name, run in runs.items()},
        setting=Setting(
            data=first.part(question.part),
            n=question.n,
            seed=question.seed,
            batch_size=question.batch_size,
            device=place(device).device,
            progress=progress,
            folder=folder,
        ),
        threats=_threats(question, first.threat),
        attack=question.attack,
    )
    return PROTOCOLS[question.name][0](asked, **options)


def read_question(values: Mapping[str, Any]) -> Question:
    """Return the question of these values; raises ConfigError for a value or option that it cannot have."""
    try:
        question = Question.model_validate(values)
    except ValidationError as error:
        raise config_error(error, Question, "question") from error
    read_options(question.name, question.options)
    return question


def read_options(name: str, values: Mapping[str, Any], said: str = "option") -> dict[str, Any]:
    """Return a protocol's options as it takes them; said: what an error calls one. Raises ConfigError."""
    if name not in PROTOCOLS:
        raise ConfigError(
            "protocol",
            expected=f"one of {', '.join(PROTOCOLS)}",
            got=repr(name),
            remedy="see `gossamer list protocols`",
        )
    measure = PROTOCOLS[name][0]
    known = {key: each for key, each in inspect.signature(measure).parameters.items() if key != "asked"}
    read: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(
                f"{said} of {name}",
                expected=f"NAME=VALUE with a name of {', '.join(known) or 'none: it has no options'}",
                got=repr(key),
                remedy="check its spelling",
            )
        try:
            read[key] = TypeAdapter(known[key].annotation).validate_python(value)
        except ValidationError as error:
            raise ConfigError(
                f"{said} {key}", expected=str(known[key].annotation), got=repr(value), remedy="write another value"
            ) from error
    missing = [key for key, each in known.items() if each.default is each.empty and key not in read]
    if missing:
        raise ConfigError(
            f"{said} of {name}", expected=f"{missing[0]}=VALUE", got="none", remedy=f"add {said} {missing[0]}=VALUE"
        )
    return read


def _threats(question: Question, own: ThreatModel) -> list[ThreatModel]:
    norm = question.norm or own.norm
    if question.eps is not None:
        return [ThreatModel(norm, eps) for eps in question.eps]
    if norm != own.norm:
        raise ConfigError("--eps", expected=f"a radius in {norm}", got="none", remedy="write --eps 0.5, say")
    return [own]


def _check_same_data(runs: Mapping[str, OpenRun], part: str) -> None:
    checksums = {run.part(part).checksum for run in runs.values()}
    if len(checksums) > 1:
        raise ConfigError(
            "runs",
            expected=f"runs on the same {part} images",
            got=f"{len(checksums)} sets of them",
            remedy="compare runs of one data set, prepared the same way",
        )


def _training(run: OpenRun) -> str:
    recipe = run.recipe
    parts = [recipe.objective.name, recipe.attack.name or "", str(recipe.threat)]
    steps = recipe.attack.options.get("steps")
    return " ".join(part for part in parts if part) + (f", {steps} steps" if steps is not None else "")
