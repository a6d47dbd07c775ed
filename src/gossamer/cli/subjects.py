"""What do commands work on? A run folder, an artifact, or a model and data of one's own, as the options name them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from torch import nn

from gossamer.data import DataSet
from gossamer.data.registry import load
from gossamer.deploy.artifact import is_artifact, open_artifact
from gossamer.deploy.published import is_published
from gossamer.errors import ConfigError
from gossamer.evaluation.adapters import Outputs, as_module
from gossamer.models.folding import plain_copy
from gossamer.recipe.build import build_foreign_model
from gossamer.recipe.open import open_run
from gossamer.runs import RunFolder, atomic
from gossamer.threat import ThreatModel, parse_eps
from gossamer.zoo.load import load as load_published


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network in eval mode, its images, and what results call it.

    threat: of its training, where it is known; dense_weights: of the dense parent, where it is.
    """

    network: nn.Module
    images: DataSet
    name: str
    threat: ThreatModel | None
    dense_weights: int | None = None


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where an artifact came from. network: its float twin; part: its images, by part; folder: of a run, else None."""

    network: nn.Module
    part: Callable[[str], DataSet]
    threat: ThreatModel | None
    folder: RunFolder | None


def open_origin(path: Path, data_dir: Path | None, *, trust: bool = False) -> Origin:
    """Open a run folder or a published network; raises ConfigError, DataError and RunError where it is neither."""
    if is_published(path):
        found = load_published(path, allow_factory=trust)
        return Origin(
            network=plain_copy(found.twin),
            part=lambda part: found.images(part, data_dir),
            threat=found.threat,
            folder=None,
        )
    run = open_run(path, data_dir)
    return Origin(network=plain_copy(run.twin()), part=run.part, threat=run.threat, folder=run.folder)


@dataclass(frozen=True, kw_only=True)
class Source:
    """The options that name a subject and its twin, in plain values that can be sent to another process.

    run: a run folder, a published folder or an artifact, any .onnx file included; trust: that a .c or .pt2 one, or a
    published network's own factory, may run code. Raises ConfigError where both or neither of run and model are given,
    and for an option that would be ignored.
    """

    run: Path | None
    model: str | None
    weights: Path | None
    outputs: str
    twin: str | None
    twin_weights: Path | None
    data: str | None
    data_options: tuple[str, ...]
    data_dir: Path | None
    part: str
    trust: bool = False

    def __post_init__(self) -> None:
        if (self.run is None) == (self.model is None):
            raise ConfigError(
                "what to work on",
                expected="a run or published folder, an artifact, or --model package.module:factory",
                got="none" if self.run is None else "both",
                remedy="give one of them",
            )
        for flag, remedy in self._unused().items():
            raise ConfigError(flag, expected="none here", got="one", remedy=remedy)

    def _unused(self) -> dict[str, str]:
        """Return the options that would be ignored, each with what to do instead."""
        if self.run is None:
            return {}
        told = {"--weights": "leave it out: what is named has its own weights"}
        if self.file is None:
            told["--outputs"] = "leave it out: a run's network returns logits"
        if self.run.is_dir() and self.published is None and self.file is None:
            of_run = "leave it out: a run is measured on its own images; publish it to measure it on others"
            told |= {"--data": of_run, "--data-option": of_run}
        return {flag: remedy for flag, remedy in told.items() if self.flags[flag]}

    @property
    def file(self) -> Path | None:
        """The artifact, where that is what the argument names."""
        return self.run if self.run is not None and is_artifact(self.run) else None

    @property
    def folder(self) -> RunFolder | None:
        """The folder of the run, where it is one; raises RunError where there is none."""
        of_run = self.run is not None and self.file is None and self.published is None
        return RunFolder.open(str(self.run)) if of_run else None

    @property
    def published(self) -> Path | None:
        """The published folder, where that is what the argument names: it is read, and never written to."""
        return self.run if self.run is not None and is_published(self.run) else None

    @property
    def words(self) -> tuple[Path, ...]:
        """The argument that names the subject, where there is one."""
        return () if self.run is None else (self.run,)

    @property
    def flags(self) -> dict[str, object]:
        """The options that name the subject and its twin, None where they are left out."""
        return {
            "--part": None if self.part == "test" else self.part,
            "--model": self.model,
            "--weights": self.weights,
            "--outputs": None if self.outputs == "logits" else self.outputs,
            "--twin": self.twin,
            "--twin-weights": self.twin_weights,
            "--data": self.data,
            "--data-option": self.data_options,
            "--data-dir": self.data_dir,
            "--trust": self.trust,
        }

    def open(self) -> Subject:
        """Read the network and the images."""
        if self.published is not None:
            return self._open_published(self.published)
        if self.run is not None and self.file is None:
            run = open_run(self.run, self.data_dir)
            return Subject(
                network=run.model().eval(),
                images=run.part(self.part),
                name=run.folder.name,
                threat=run.threat,
                dense_weights=run.dense_weights(),
            )
        if self.file is not None:
            network = open_artifact(self.file, trust=self.trust).model
        else:
            network = own_model(str(self.model), self.weights)
        outputs = cast("Outputs", one_of("--outputs", self.outputs, ("logits", "probabilities")))
        return Subject(
            network=as_module(network, outputs=outputs).eval(),
            images=self._own_data(),
            name=str(self.file or self.model),
            threat=None,
        )

    def open_twin(self) -> nn.Module | None:
        """Read the twin, where one is named."""
        if self.twin is None:
            return None
        return as_module(own_model(self.twin, self.twin_weights, "--twin-weights")).eval()

    def _open_published(self, folder: Path) -> Subject:
        found = load_published(folder, allow_factory=self.trust)
        return Subject(
            network=found.module,
            images=found.images(self.part, self.data_dir) if self.data is None else self._own_data(),
            name=found.manifest.name,
            threat=found.threat,
            dense_weights=found.manifest.dense_weights,
        )

    def _own_data(self) -> DataSet:
        if self.data is None:
            raise ConfigError(
                "--data", expected="a data set", got="none", remedy="write --data folder --data-dir DIR, say"
            )
        return load(self.data, self.part, data_dir=self.data_dir, **read_options(self.data_options, "--data-option"))


def read_options(options: tuple[str, ...], flag: str = "--option") -> dict[str, Any]:
    """Return the values of a repeatable option NAME=VALUE, read as YAML; raises ConfigError for anything else."""
    parsed: dict[str, Any] = {}
    for each in options:
        name, equals, value = each.partition("=")
        if not equals:
            raise ConfigError(flag, expected="name=value", got=repr(each), remedy=f"write {flag} NAME=VALUE")
        parsed[name] = _read_yaml(f"{flag} {name}", value)
    return parsed


def own_model(reference: str, weights: Path | None, flag: str = "--weights") -> nn.Module:
    """Return what a factory makes, with weights of a safetensors file; raises ConfigError where they do not fit."""
    network = build_foreign_model(reference, {})
    if weights is None:
        return network
    found = atomic.read_safetensors(weights)
    try:
        network.load_state_dict(found)
    except RuntimeError as error:
        raise ConfigError(
            f"{flag} {weights}",
            expected=f"the tensors of {reference}",
            got=" ".join(str(error).split())[:300],
            remedy="save them with safetensors.torch.save_file(model.state_dict(), FILE)",
        ) from error
    return network


def threats(eps: str | None, norm: str | None, own: ThreatModel | None) -> list[ThreatModel]:
    """Return the threats of --eps and --norm, else a run's own; raises ConfigError where no radius is known."""
    chosen: Any = norm or (own.norm if own else "linf")
    if eps is not None:
        return [ThreatModel(chosen, parse_eps(each.strip())) for each in eps.split(",")]
    if own is None:
        raise ConfigError("--eps", expected="a radius", got="none", remedy="write --eps 8/255")
    if chosen != own.norm:
        raise ConfigError("--eps", expected=f"a radius in {chosen}", got="none", remedy="write --eps 0.5, say")
    return [own]


def one_of(flag: str, value: str, known: tuple[str, ...]) -> str:
    """Return a value that is known; raises ConfigError for another."""
    if value in known:
        return value
    raise ConfigError(flag, expected=" or ".join(known), got=repr(value), remedy="check its spelling")


def _read_yaml(flag: str, value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(flag, expected="a value in YAML", got=repr(value), remedy="write steps=20, say") from error
