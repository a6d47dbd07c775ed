"""`gossamer protocol`: measure runs by a protocol of the field, and write its table."""

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import typer
import yaml
from torch import nn

from gossamer.attacks.queries import QueryAttack
from gossamer.attacks.registry import build
from gossamer.attacks.zoo import ZOO
from gossamer.cli import options
from gossamer.cli.keeping import command_of, with_command
from gossamer.cli.subjects import threats
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
from gossamer.evaluation.stochastic import stochastic
from gossamer.evaluation.tables import tell
from gossamer.evaluation.transfer_matrix import transfer_matrix
from gossamer.recipe.open import OpenRun, open_run
from gossamer.runs import records
from gossamer.threat import ThreatModel
from gossamer.training.devices import place
from gossamer.training.progress import progress
from gossamer.types import Attack


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What every protocol is asked with; threats: the radii of --eps, else the first run's own."""

    opened: dict[str, OpenRun]
    models: dict[str, nn.Module]
    architectures: dict[str, str]
    trained: dict[str, str]
    setting: Setting
    threats: list[ThreatModel]
    attack: str | None

    @property
    def threat(self) -> ThreatModel:
        """The one threat of protocols that have one; raises ConfigError where several radii are given."""
        if len(self.threats) == 1:
            return self.threats[0]
        raise ConfigError("--eps", expected="one radius", got=len(self.threats), remedy="ask for each in turn")

    def build(self, default: str = "pgd-50-10") -> Attack:
        """Return the attack asked for, else the default one."""
        return build(self.attack or default, self.threat)


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
        attack=None if asked.attack is None else build(asked.attack, first),
        sources=sources,
        architectures=asked.architectures,
    )


def _adversaries(asked: Asked, *, steps: list[int] = list(adversaries.PAPER_STEPS)) -> object:  # noqa: B006
    tests = adversaries.pgd_adversaries(asked.threat, steps)
    if asked.attack is not None:
        tests[asked.attack] = asked.build()
    return adversaries.adversary_matrix(asked.models, asked.setting, tests, trained=asked.trained)


def _pruning(asked: Asked, *, as_published: bool = False, opinion: bool = True, trials: int = 32) -> object:
    return pruning_benchmark(
        asked.models,
        asked.setting,
        attack=asked.attack or "autoattack",
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
    attack = asked.attack or "pgd-50-10"
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
    dense, name = asked.opened[first].model(parent), f"{first} ({parent})"
    return matching(dense, asked.models, asked.setting, asked.build(), name=name)


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
    attack = ZOO() if asked.attack is None else build(asked.attack, asked.threat)
    return query_success(asked.models, asked.setting, cast("QueryAttack", attack), n=samples)


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
}


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
    measure = _named(name)
    opened = [open_run(path, data_dir) for path in runs]
    parameters = _parameters(name, measure, option)
    named = _names(opened, runs)
    _check_same_data(opened, part)
    with progress() as shown:
        setting = Setting(
            data=opened[0].part(part),
            n=n,
            seed=seed,
            batch_size=batch_size,
            device=place(device).device,
            progress=shown.evaluation,
            folder=folder or opened[0].folder.partial / "protocols",
        )
        asked = Asked(
            opened=named,
            models={label: run.model() for label, run in named.items()},
            architectures={label: run.recipe.model.name for label, run in named.items()},
            trained={label: _training(run) for label, run in named.items()},
            setting=setting,
            threats=threats(eps, norm, opened[0].threat),
            attack=attack,
        )
        flags = {"--attack": attack, "--eps": eps, "--norm": norm, "--n": n, "--seed": seed, "--data-dir": data_dir}
        flags |= {"--part": None if part == "test" else part, "--option": tuple(option or ())}
        command = command_of(["gossamer", "protocol", name, *runs], flags)
        record = with_command(measure(asked, **parameters), command)
    print(tell(record))
    asked_for = hashlib.sha256(command.encode()).hexdigest()[:8]
    for target in (opened[0].folder.result(f"protocol-{name}-{asked_for}"), json):
        if target is not None:
            records.write(target, record)
            print(f"written: {target}")


def _named(name: str) -> Callable[..., object]:
    if name in PROTOCOLS:
        return PROTOCOLS[name][0]
    raise ConfigError(
        "protocol", expected=f"one of {', '.join(PROTOCOLS)}", got=repr(name), remedy="see `gossamer list protocols`"
    )


def _parameters(name: str, measure: Callable[..., object], given: list[str] | None) -> dict[str, Any]:
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415  (slow to import, needed here alone)

    known = {key: each for key, each in inspect.signature(measure).parameters.items() if key != "asked"}
    read: dict[str, Any] = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals or key not in known:
            raise ConfigError(
                f"--option of {name}",
                expected=f"NAME=VALUE with a name of {', '.join(known) or 'none: it has no options'}",
                got=repr(text),
                remedy="check its spelling",
            )
        try:
            read[key] = TypeAdapter(known[key].annotation).validate_python(yaml.safe_load(value))
        except (ValidationError, yaml.YAMLError) as error:
            raise ConfigError(
                f"--option {key}", expected=str(known[key].annotation), got=repr(value), remedy="write another value"
            ) from error
    missing = [key for key, each in known.items() if each.default is each.empty and key not in read]
    if missing:
        raise ConfigError(
            f"--option of {name}", expected=f"{missing[0]}=VALUE", got="none", remedy=f"add --option {missing[0]}=VALUE"
        )
    return read


def _names(opened: list[OpenRun], paths: list[Path]) -> dict[str, OpenRun]:
    names = [run.folder.name for run in opened]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    named = dict(zip(names, opened, strict=True))
    if len(named) == len(opened):
        return named
    raise ConfigError("runs", expected="each run once", got=", ".join(names), remedy="leave out doubles")


def _check_same_data(opened: list[OpenRun], part: str) -> None:
    checksums = {run.part(part).checksum for run in opened}
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
