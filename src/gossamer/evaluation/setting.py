"""On what is every cell of a protocol measured? The samples, the settings, and the folder of what is finished."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from gossamer.data import DataSet
from gossamer.errors import ConfigError
from gossamer.evaluation.cells import cell_path, kept, mark_of
from gossamer.evaluation.evaluate import evaluate
from gossamer.evaluation.plan import plan_of
from gossamer.evaluation.record import Evaluation
from gossamer.evaluation.samples import Data, as_dataset, select_samples
from gossamer.evaluation.standing import Progress
from gossamer.evaluation.subject import place_of, seed_noise
from gossamer.evaluation.trials import Attacks, plan_trials
from gossamer.intervals import wilson
from gossamer.runs import results
from gossamer.runs.environment import environment
from gossamer.runs.protocols import Share
from gossamer.seeding import derive
from gossamer.threat import ThreatModel

Record = TypeVar("Record")

EXAMPLES = 8
"""Images on which models without tensors of their own are told apart."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The samples, and how models are measured on them; the fields are those of `evaluate`.

    folder: where finished cells lie as JSON, under the hash of everything that decides them, and unfinished ones as
    partial results; a protocol that was killed, or is asked for one cell more, measures only what is missing. None
    keeps nothing.
    """

    data: Data
    n: int | None = None
    seed: int = 0
    batch_size: int | None = None
    device: torch.device | str | None = None
    fast: bool = True
    progress: Progress | None = None
    folder: Path | None = None

    @property
    def samples(self) -> DataSet:
        """The samples that every model is measured on."""
        return self._chosen[0]

    @property
    def dataset(self) -> results.Dataset:
        """What the samples are, for a record."""
        whole, (chosen, selection) = self.whole, self._chosen
        return results.Dataset(
            name=whole.name, part=whole.part, checksum=whole.checksum, selection=selection, n=len(chosen)
        )

    def environment_of(self, model: nn.Module) -> dict[str, Any]:
        """Return the machine and versions that a model is measured with."""
        return environment(place_of(model, self.device))

    def measure(
        self,
        name: str,
        model: nn.Module,
        attacks: Attacks,
        *,
        threat: ThreatModel | None = None,
        seed: int | None = None,
        fast: bool | None = None,
        **identity: object,
    ) -> Evaluation:
        """Return the evaluation of a model, from the folder where it was finished before.

        seed, fast: instead of the setting's own; identity: what decides the outcome and neither the model nor the
        attacks' fields tell. Errors are those of `evaluate`.
        """
        used_seed, used_fast = self.seed if seed is None else seed, self.fast if fast is None else fast
        trials = plan_trials(attacks, threat)
        known = {"mark": self.mark(model), "name": name, **identity}
        path = self._path(name, plan_of(model, self.samples, trials, seed=used_seed, fast=used_fast, **known))

        def make() -> Evaluation:
            place = place_of(model, self.device)
            # What a stochastic model draws before its evaluation seeds it must not differ after a kill either.
            with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
                seed_noise(derive(used_seed, "protocol"), place)
                made = evaluate(
                    model,
                    self.samples,
                    attacks,
                    threat=threat,
                    batch_size=self.batch_size,
                    seed=used_seed,
                    device=self.device,
                    fast=used_fast,
                    name=name,
                    progress=self.progress,
                    partial=None if path is None else path.with_suffix(".partial"),
                )
            return replace(made, dataset=self.dataset)

        return kept(path, Evaluation, make)

    def mark(self, model: nn.Module) -> str:
        """Return what tells a model from others, for the plan of a cell."""
        return mark_of(model, self.samples.float(torch.arange(min(EXAMPLES, len(self.samples)))), self.device)

    def keep(self, name: str, kind: type[Record], make: Callable[[], Record], plan: object) -> Record:
        """Return what `make` gives, from the folder where a cell of this plan was finished before.

        plan: plain JSON, everything that decides the cell.
        """
        return kept(self._path(name, [kind.__name__, plan]), kind, make)

    def part_folder(self, name: str, plan: object) -> Path | None:
        """Return the folder of files of a plan that are too large for JSON, None where nothing is kept."""
        path = self._path(name, plan)
        return None if path is None else path.with_suffix("")

    @cached_property
    def whole(self) -> DataSet:
        """The data that the samples are chosen from."""
        return as_dataset(self.data)

    @cached_property
    def _chosen(self) -> tuple[DataSet, str]:
        return select_samples(self.whole, self.n, seed=self.seed)

    def _path(self, name: str, plan: object) -> Path | None:
        return cell_path(self.folder, name, plan)


def share_of(flags: Tensor | Sequence[int], *, told: bool = False) -> Share:
    """Return how many of flags: (N,) hold, with the 95 % interval; told: and which."""
    counted = sum(flags.int().tolist()) if isinstance(flags, Tensor) else sum(flags)
    right = outcomes(flags) if told else None
    return Share(value=counted / len(flags), interval=wilson(counted, len(flags)), n=len(flags), right=right)


def outcomes(flags: Tensor | Sequence[int]) -> str:
    """Return flags: (N,) as records keep them, "1" or "0" a sample."""
    return "".join(str(flag) for flag in (flags.int().tolist() if isinstance(flags, Tensor) else flags))


def clean_share(measured: results.Evaluation, *, told: bool = False) -> Share:
    """Return an evaluation's clean accuracy; told: and which samples are right."""
    right = outcomes(measured.samples.clean_correct) if told else None
    return Share(value=measured.clean_accuracy, interval=measured.clean_interval, n=measured.n, right=right)


def robust_share(measured: results.Evaluation) -> Share:
    """Return an evaluation's robust accuracy, the worst case over its attacks."""
    return Share(value=measured.robust_accuracy, interval=measured.interval, n=measured.n)


def check_models(models: Mapping[str, nn.Module], *, least: int = 1) -> None:
    """Raise ConfigError unless models is a mapping from at least so many names to modules."""
    named = cast("Mapping[str, object]", models) if isinstance(cast("object", models), Mapping) else {}
    if len(named) >= least and all(isinstance(model, nn.Module) for model in named.values()):
        return
    raise ConfigError(
        "models",
        expected=f"a dict from name to nn.Module, of at least {least}",
        got=f"{len(named)} of them" if named else type(models).__name__,
        remedy='write for example {"dense": dense, "sparse": sparse}',
    )


def check_rising(name: str, values: Sequence[float]) -> None:
    """Raise ConfigError unless values are at least one, above 0 and rising."""
    if values and values[0] > 0 and all(smaller < larger for smaller, larger in pairwise(values)):
        return
    raise ConfigError(
        name,
        expected="at least one value, each above 0 and above the one before",
        got=list(values),
        remedy="sort them and leave out doubles",
    )
