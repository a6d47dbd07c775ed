"""Draws that are not drawn but given: what a peer drew, handed to our attack, sample by sample."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from gossamer.seeding import Draws, Key

Place = tuple[tuple[Key, ...], tuple[Key, ...]]
"""Where a draw is made: its purpose, as given to `at`; its row, such as ("sample", 3, "attempt", 0, "step", 7)."""


@dataclass
class Tape:
    """Recorded random tensors, one row each by purpose, sample, and attempt and step where the draw has them."""

    rows: dict[Place, Tensor] = field(default_factory=dict)

    def record(
        self,
        purpose: str | tuple[Key, ...],
        tensor: Tensor,
        *,
        sample: Tensor,
        attempt: int | None = None,
        step: int | None = None,
    ) -> None:
        """Keep tensor: (n, ...) as what sample: (n,) int64 draws for a purpose; a second time replaces the first."""
        keys = (purpose,) if isinstance(purpose, str) else purpose
        below = () if attempt is None else ("attempt", attempt)
        below += () if step is None else ("step", step)
        for position, each in enumerate(sample.tolist()):
            self.rows[keys, ("sample", each, *below)] = tensor[position].clone()

    def draws(self) -> Draws:
        """Return what stands in for the draws of an attack; rows are keyed by `per_sample`."""
        return cast("Draws", Injected(self))


@dataclass(frozen=True)
class Injected:
    """The methods of Draws, whose `uniform` and `normal` give back what the tape holds for that place.

    A place that was never recorded raises KeyError: the attack asked for what its peer did not draw.
    """

    tape: Tape
    keys: tuple[Key, ...] = ()
    rows: tuple[tuple[Key, ...], ...] | None = None

    def at(self, *keys: Key) -> "Injected":
        return replace(self, keys=self.keys + keys)

    def per_sample(self, index: Tensor) -> "Injected":
        return replace(self, rows=tuple(("sample", sample) for sample in index.tolist()))

    def at_each(self, name: str, values: Tensor) -> "Injected":
        assert self.rows is not None
        return replace(
            self, rows=tuple((*row, name, value) for row, value in zip(self.rows, values.tolist(), strict=True))
        )

    def select(self, keep: Tensor) -> "Injected":
        assert self.rows is not None
        positions = keep.nonzero().flatten() if keep.dtype == torch.bool else keep
        return replace(self, rows=tuple(self.rows[position] for position in positions.tolist()))

    def uniform(self, shape: tuple[int, ...], *, device: torch.device | str = "cpu") -> Tensor:
        return self._played(shape).to(device)

    def normal(self, shape: tuple[int, ...], *, device: torch.device | str = "cpu") -> Tensor:
        return self._played(shape).to(device)

    def _played(self, shape: tuple[int, ...]) -> Tensor:
        assert self.rows is not None
        return torch.stack([self.tape.rows[self.keys, row] for row in self.rows]).view(shape)


def listen(
    monkeypatch: pytest.MonkeyPatch, name: str, heard: Callable[[Tensor], Any], *, module: object = torch
) -> None:
    """Have `heard` called with each tensor that a drawing function returns, such as "rand" or "randn" of torch."""
    draw = getattr(module, name)

    def listened(*arguments: Any, **options: Any) -> Tensor:
        drawn = draw(*arguments, **options)
        heard(drawn)
        return drawn

    monkeypatch.setattr(module, name, listened)


def positions_in(images: Tensor, part: Tensor) -> Tensor:
    """Return where each image of part: (m, ...) stands in images: (n, ...), all of them different: (m,) int64."""
    same = (part.flatten(1)[:, None] == images.flatten(1)[None]).all(dim=2)
    assert bool((same.sum(dim=1) == 1).all())
    return same.int().argmax(dim=1)
