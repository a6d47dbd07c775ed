"""Which class does a targeted attack drive an image to? Rules as values, and how a recipe writes them."""

import re
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from gossamer.errors import ConfigError


@dataclass(frozen=True)
class Ranked:
    """The class of the given rank among the wrong ones, 1 the most likely; rank -1 the least likely."""

    rank: int

    def __post_init__(self) -> None:
        if self.rank == 0:
            raise _no_target(self)

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the targets, (N,) int64, from clean logits: (N, K) and labels y: (N,).

        Raises ConfigError where there are fewer wrong classes than the rank asks for.
        """
        wrong = logits.shape[1] - 1
        if abs(self.rank) > wrong:
            raise ConfigError(
                "attack target",
                expected=f"a rank among {wrong} wrong classes",
                got=self.rank,
                remedy=f"write a rank from 1 to {wrong}",
            )
        without_label = logits.detach().scatter(1, y[:, None], -torch.inf)
        order = without_label.argsort(dim=1, descending=True, stable=True)[:, :wrong]
        return order[:, self.rank - 1 if self.rank > 0 else self.rank]

    def __str__(self) -> str:
        return "least-likely" if self.rank == -1 else f"rank:{self.rank}"


@dataclass(frozen=True, eq=False)
class Given:
    """The classes of a tensor, one per image of the batch attacked: (N,) int64."""

    classes: Tensor

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the given classes: (N,)."""
        return self.classes.to(logits.device)


Target: TypeAlias = Ranked | Given

LEAST_LIKELY = Ranked(-1)

_RANK = re.compile(r"rank:(?P<rank>\d+)")


def parse_target(value: str | Target | None) -> Target | None:
    """Return the target written as "none", "least-likely" or "rank:1"; else ConfigError."""
    if value is None or value == "none":
        return None
    if callable(value):
        return value
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _no_target(repr(value))
    if value == "least-likely":
        return LEAST_LIKELY
    match = _RANK.fullmatch(value)
    if match is None:
        raise _no_target(repr(value))
    return Ranked(int(match["rank"]))


def _no_target(got: object) -> ConfigError:
    return ConfigError(
        "attack target",
        expected="none, least-likely or rank:R with R >= 1",
        got=got,
        remedy="write rank:1 for the most likely wrong class",
    )
