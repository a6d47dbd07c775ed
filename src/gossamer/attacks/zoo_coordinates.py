"""How does ZOO move images without gradients? By finite differences along a few coordinates (Chen et al., 2017)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from gossamer.attacks.stepwise import Rows
from gossamer.types import Model

SpaceName: TypeAlias = Literal["tanh", "box"]
SolverName: TypeAlias = Literal["adam", "newton"]

TANH_SHARE = 1.999999
BETAS = (0.9, 0.999)
ADAM_TINY = 1e-8


@dataclass(frozen=True, kw_only=True)
class Space:
    """The variables w: (n, d) float64 that are moved in an image's place, pixels in [0, 1]: (n, d).

    enter: from pixels to w; image: from w to pixels; clip: w after a step.
    """

    enter: Callable[[Tensor], Tensor]
    image: Callable[[Tensor], Tensor]
    clip: Callable[[Tensor], Tensor]


SPACES: dict[SpaceName, Space] = {
    "tanh": Space(
        enter=lambda x: torch.atanh((x.double() - 0.5) * TANH_SHARE),
        image=lambda w: torch.tanh(w) / 2 + 0.5,
        clip=lambda w: w,
    ),
    "box": Space(enter=lambda x: x.double(), image=lambda w: w, clip=lambda w: w.clamp(0, 1)),
}


@dataclass(frozen=True, kw_only=True)
class Probe:
    """n images and, for each, k coordinates of it moved by +h and by -h: 2k + 1 probes, the image itself the first.

    base: (n, d) float64 pixels; where: (n, 2k + 1) int64, the pixel a probe changes; value: (n, 2k + 1), to what.
    """

    base: Tensor
    where: Tensor
    value: Tensor

    def logits(self, model: Model, like: Tensor, batch_size: int) -> Tensor:
        """Return logits: (n, 2k + 1, K), by at most `batch_size` forwards a call; like: (n, C, H, W) images."""
        n, probes = self.where.shape
        return torch.cat([model(points) for points in self._points(like, batch_size)]).view(n, probes, -1)

    def squared_distance(self, origin: Tensor) -> Tensor:
        """Return the squared l2 distances from origin: (n, d), of all probes: (n, 2k + 1)."""
        change = self.base - origin
        here = (change**2).sum(dim=1, keepdim=True)
        return here - change.gather(1, self.where) ** 2 + (self.value - origin.gather(1, self.where)) ** 2

    def _points(self, like: Tensor, batch_size: int) -> Iterator[Tensor]:
        base, where, value = self.base.to(like.dtype), self.where.flatten(), self.value.flatten().to(like.dtype)
        for part in torch.arange(len(where), device=like.device).split(batch_size):
            image = part // self.where.shape[1]
            points = base[image].scatter_(1, where[part, None], value[part, None])
            yield points.view(-1, *like.shape[1:])


def probe(space: Space, w: Tensor, coordinates: Tensor, h: float) -> Probe:
    """Return the probes at w: (n, d) along coordinates: (n, k) int64."""
    base = space.image(w)
    here = w.gather(1, coordinates)
    moved = space.image(torch.stack([here + h, here - h], dim=2).flatten(1))
    where = torch.cat([torch.zeros_like(coordinates[:, :1]), coordinates.repeat_interleave(2, dim=1)], dim=1)
    return Probe(base=base, where=where, value=torch.cat([base[:, :1], moved], dim=1))


def move(
    rows: Rows, coordinates: Tensor, loss: Tensor, *, solver: SolverName, space: Space, lr: float, h: float
) -> Rows:
    """Return the rows with w one step on along coordinates: (n, k); loss: (n, 2k + 1), of the probes.

    rows: w, first, second: (n, d) float64, the variables and the moments of their gradients; count: (n, d) float64,
    the steps that each coordinate has taken.
    """
    plus, minus = loss[:, 1::2], loss[:, 2::2]
    gradient = (plus - minus) / (2 * h)
    if solver == "newton":
        curvature = (plus - 2 * loss[:, :1] + minus) / h**2
        return _put_w(rows, coordinates, newton_step(gradient, curvature, lr), space)
    count = rows["count"].gather(1, coordinates) + 1
    first = BETAS[0] * rows["first"].gather(1, coordinates) + (1 - BETAS[0]) * gradient
    second = BETAS[1] * rows["second"].gather(1, coordinates) + (1 - BETAS[1]) * gradient**2
    correction = (1 - BETAS[1] ** count).sqrt() / (1 - BETAS[0] ** count)
    rows = _put_w(rows, coordinates, lr * correction * first / (second.sqrt() + ADAM_TINY), space)
    moments = {"first": first, "second": second, "count": count}
    return rows | {name: rows[name].scatter(1, coordinates, value) for name, value in moments.items()}


def newton_step(gradient: Tensor, curvature: Tensor, lr: float) -> Tensor:
    """Return lr * gradient / curvature; a negative curvature counts as 1, one below 0.1 as 0.1."""
    return lr * gradient / torch.where(curvature < 0, 1.0, curvature.clamp(min=0.1))


def _put_w(rows: Rows, coordinates: Tensor, step: Tensor, space: Space) -> Rows:
    moved = space.clip(rows["w"].gather(1, coordinates) - step)
    return {**rows, "w": rows["w"].scatter(1, coordinates, moved)}
