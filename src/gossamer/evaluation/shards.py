"""How is one evaluation shared out? Every rank takes every k-th sample; the parts merge into one result."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Any, TypeVar

import torch

from gossamer.data import DataSet
from gossamer.errors import ConfigError, RunError
from gossamer.evaluation.checks import check_clean
from gossamer.evaluation.record import Evaluation
from gossamer.evaluation.remarks import ON_CLEAN
from gossamer.intervals import wilson
from gossamer.runs.notices import Notice
from gossamer.runs.results import AttackOutcome, Samples, Stage

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Part `rank` of `of`: the samples at rank, rank + of, rank + 2 of, ...; draws are keyed by sample.

    Raises ConfigError where rank is not in [0, of).
    """

    rank: int = 0
    of: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.of:
            raise ConfigError(
                "shard", expected="RANK/OF with 0 <= RANK < OF", got=str(self), remedy="write 0/2 and 1/2"
            )

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Return the shard written as RANK/OF; raises ConfigError for anything else."""
        rank, _, of = text.partition("/")
        if not (rank.isdecimal() and of.isdecimal()):
            raise ConfigError("shard", expected="RANK/OF", got=repr(text), remedy="write 0/2 and 1/2")
        return cls(int(rank), int(of))

    @classmethod
    def of_process(cls) -> "Shard":
        """Return the shard that torchrun's environment gives this process; the whole without one."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    def __str__(self) -> str:
        return f"{self.rank}/{self.of}"

    @property
    def label(self) -> str:
        """How its files are named."""
        return f"shard-{self.rank}-of-{self.of}"

    def part(self, dataset: DataSet) -> DataSet:
        """Return this shard's samples; raises ConfigError where there are fewer samples than shards."""
        if self.of == 1:
            return dataset
        if len(dataset) < self.of:
            raise ConfigError(
                "shards", expected=f"at most {len(dataset)}, one a sample", got=self.of, remedy="ask for fewer"
            )
        return dataset.subset(torch.arange(self.rank, len(dataset), self.of))


WHOLE = Shard()


def merge(parts: Sequence[Evaluation]) -> Evaluation:
    """Return the evaluation that the parts of all shards make, in the order of their ranks.

    seconds: the longest part's. notices: those of all parts, each once; what clean predictions tell is asked of all of
    them. Raises RunError where the parts are not of one evaluation.
    """
    first = parts[0]
    _check_same(parts)
    outcomes = tuple(_merge_outcomes(each) for each in zip(*(part.attacks for part in parts), strict=True))
    n = sum(part.n for part in parts)
    samples = Samples(
        **{
            name: _interleave([getattr(part.samples, name) for part in parts])
            for name in ("index", "label", "clean_prediction", "clean_correct")
        }
    )
    correct = sum(samples.clean_correct)
    standing = sum(all(flags) for flags in zip(*(outcome.robust for outcome in outcomes), strict=True))
    return replace(
        first,
        n=n,
        dataset=replace(first.dataset, n=n),
        samples=samples,
        clean_accuracy=correct / n,
        clean_interval=wilson(correct, n),
        robust_accuracy=standing / n,
        interval=wilson(standing, n),
        seconds=max(part.seconds for part in parts),
        attacks=outcomes,
        notices=_merge_notices(parts, samples),
    )


def _merge_notices(parts: Sequence[Evaluation], samples: Samples) -> tuple[Notice, ...]:
    found = {notice.code: notice for part in reversed(parts) for notice in part.notices if notice.code not in ON_CLEAN}
    predictions, labels = torch.tensor(samples.clean_prediction), torch.tensor(samples.label)
    # As many classes as occur: a part does not say how many there are.
    classes = 1 + int(torch.maximum(predictions, labels).max())
    return (*found.values(), *check_clean(predictions, labels, classes))


def _merge_outcomes(parts: tuple[AttackOutcome, ...]) -> AttackOutcome:
    robust = _interleave([part.robust for part in parts])
    return replace(
        parts[0],
        robust=robust,
        robust_accuracy=sum(robust) / len(robust),
        interval=wilson(sum(robust), len(robust)),
        n=len(robust),
        seconds=max(part.seconds for part in parts),
        rejected=sum(part.rejected for part in parts),
        borderline=sum(part.borderline for part in parts),
        stages=_merge_stages([part.stages for part in parts], [part.n for part in parts]),
    )


def _merge_stages(parts: Sequence[tuple[Stage, ...] | None], sizes: Sequence[int]) -> tuple[Stage, ...] | None:
    known = [stages for stages in parts if stages is not None]
    if len(known) < len(parts):
        return None
    return tuple(
        replace(
            same[0],
            attacked=sum(stage.attacked for stage in same),
            broken=sum(stage.broken for stage in same),
            robust_accuracy=sum(s.robust_accuracy * n for s, n in zip(same, sizes, strict=True)) / sum(sizes),
            seconds=max(stage.seconds for stage in same),
        )
        for same in zip(*known, strict=True)
    )


def _interleave(parts: Sequence[tuple[T, ...]]) -> tuple[T, ...]:
    missing = object()
    rounds: Any = zip_longest(*parts, fillvalue=missing)
    return tuple(value for value in chain.from_iterable(rounds) if value is not missing)


def _check_same(parts: Sequence[Evaluation]) -> None:
    def identity(part: Evaluation) -> list[object]:
        attacks = [(outcome.attack, outcome.threat, outcome.parameters) for outcome in part.attacks]
        return [part.dataset.checksum, part.dataset.selection, part.model, part.seed, attacks]

    indices = [index for part in parts for index in part.samples.index]
    sizes = [part.n for part in parts]
    apart = len(set(indices)) == len(indices) and sizes == sorted(sizes, reverse=True) and sizes[0] - sizes[-1] <= 1
    if not apart or any(identity(part) != identity(parts[0]) for part in parts):
        raise RunError(
            "shards",
            expected="parts of one evaluation",
            got="parts of several",
            remedy="evaluate all shards with the same command",
        )
