"""Random draws as functions of (seed, keys): made anew where needed, never carried, never saved."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

Key: TypeAlias = str | int


def derive(seed: int, *keys: Key) -> int:
    """Return the 63-bit seed of one purpose: a hash of (seed, keys), equal on every machine."""
    text = "\x1f".join([str(seed), *(f"{type(key).__name__}:{key}" for key in keys)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *keys: Key, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator for (seed, keys) on `device`."""
    made = torch.Generator(device=device)
    made.manual_seed(derive(seed, *keys))
    return made


@dataclass(frozen=True)
class Part:
    """Where some images lie in a whole batch of `of`: their positions there, in order."""

    rows: tuple[int, ...]
    of: int

    def select(self, keep: Tensor) -> "Part":
        """Return the part of a part; keep: (N,) bool or (M,) positions."""
        return replace(self, rows=tuple(self.rows[i] for i in _positions(keep)))

    @property
    def where(self) -> slice | list[int]:
        """What picks the rows out of a tensor of the whole batch; a slice where they are regular: no device waits."""
        rows = list(self.rows)
        step = rows[1] - rows[0] if len(rows) > 1 else 1
        if not rows or step < 1 or rows != list(range(rows[0], rows[0] + step * len(rows), step)):
            return rows
        return slice(rows[0], rows[-1] + 1, step)


@dataclass(frozen=True)
class Draws:
    """A place in the tree of random draws, named by (seed, keys).

    Without `rows`, a draw of shape (N, ...) comes from one generator: a function of the whole batch, as in
    training. With `rows`, row i comes from a generator keyed by `rows[i]`: a function of the sample alone,
    so that an evaluation neither depends on the batch size nor on which samples were dropped before. With `part`, a
    draw for the part's images is cut out of the draw for the whole batch, so that several processes together draw what
    one would.
    """

    seed: int = 0
    keys: tuple[Key, ...] = ()
    rows: tuple[tuple[Key, ...], ...] | None = None
    part: Part | None = None

    def at(self, *keys: Key) -> "Draws":
        """Return the draws one level down, for a named purpose, restart or iteration."""
        return replace(self, keys=self.keys + keys)

    def per_sample(self, index: Tensor) -> "Draws":
        """Return draws keyed by sample; index: (N,) global sample indices, or places in the part of a batch."""
        samples = index.tolist() if self.part is None else [self.part.rows[place] for place in index.tolist()]
        return replace(self, rows=tuple(("sample", sample) for sample in samples))

    def at_each(self, name: str, values: Tensor) -> "Draws":
        """Return the draws one level down, for each row at its own value; values: (N,) int64, rows keyed."""
        if self.rows is None:
            raise ValueError("draws at a value for each row need rows: call per_sample first")
        return replace(
            self, rows=tuple((*row, name, value) for row, value in zip(self.rows, values.tolist(), strict=True))
        )

    def select(self, keep: Tensor) -> "Draws":
        """Return the draws of a part of the batch; keep: (N,) bool or (M,) positions."""
        if self.rows is not None:
            return replace(self, rows=tuple(self.rows[i] for i in _positions(keep)))
        return self if self.part is None else replace(self, part=self.part.select(keep))

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """Return the generator of this place, for the whole batch."""
        return generator(self.seed, *self.keys, device=device)

    def uniform(self, shape: torch.Size | tuple[int, ...], *, device: torch.device | str = "cpu") -> Tensor:
        """Return float32 draws of U[0, 1); shape: (N, ...), N equal to the number of samples where keyed."""
        return self._draw(torch.rand, shape, device)

    def normal(self, shape: torch.Size | tuple[int, ...], *, device: torch.device | str = "cpu") -> Tensor:
        """Return float32 draws of N(0, 1); shape: (N, ...), N equal to the number of samples where keyed."""
        return self._draw(torch.randn, shape, device)

    def _draw(
        self,
        draw: Callable[..., Tensor],
        shape: torch.Size | tuple[int, ...],
        device: torch.device | str,
    ) -> Tensor:
        if self.rows is None:
            return self._of_batch(draw, shape, device)
        # Keyed rows are drawn on the CPU, so that an evaluation starts from the same points on every device.
        drawn = [draw(shape[1:], generator=generator(self.seed, *self.keys, *row)) for row in self.rows]
        return torch.stack(drawn).to(device) if drawn else torch.empty(shape, device=device)

    def _of_batch(
        self,
        draw: Callable[..., Tensor],
        shape: torch.Size | tuple[int, ...],
        device: torch.device | str,
    ) -> Tensor:
        generator, part = self.generator(device), self.part
        if part is None or not shape or shape[0] != len(part.rows):
            return draw(shape, generator=generator, device=device)
        return draw((part.of, *shape[1:]), generator=generator, device=device)[part.where].contiguous()


def _positions(keep: Tensor) -> list[int]:
    return (keep.nonzero().flatten() if keep.dtype == torch.bool else keep).tolist()
