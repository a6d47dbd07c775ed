"""What is the smallest move that brings an image onto a hyperplane without leaving the box? One answer for each norm.

Every coordinate can close a part of the gap, |w_i| m_i, by moving m_i towards the side of the box where it helps,
and no further than the room it has there. The smallest move in linf lets all coordinates go equally far, in l2 in
proportion to |w_i|, in l1 those of the largest |w_i| first; each stops at its room (Croce & Hein, ICML 2020,
"Minimally distorted adversarial examples with a fast adaptive boundary attack", section 2.2).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gossamer.threat import Norm

FIRST_FEW = 64


def move_to_hyperplane(norm: Norm, points: Tensor, normal: Tensor, gap: Tensor) -> Tensor:
    """Return the smallest moves, in `norm`, after which <normal, point> has changed by -gap: (N, D).

    points: (N, D) in [0, 1]; normal: (N, D); gap: (N,), <normal, point> minus the offset of the hyperplane. The
    points moved lie in [0, 1] but for rounding. Where box and hyperplane do not meet, the gap is closed as far as
    the box allows. A coordinate of weight zero does not move. Independent of the scale of (normal, gap).
    """
    towards = torch.where(gap[:, None] >= 0, -normal, normal)
    room = torch.where(towards > 0, 1 - points, points).clamp_(min=0)
    weight = normal.abs()
    scale = weight.amax(dim=1, keepdim=True).clamp_(min=torch.finfo(normal.dtype).tiny)
    length = _GEOMETRY[norm].share(weight.div_(scale), room, gap.abs()[:, None] / scale)
    return length.mul_(towards.sign())


def dual_norm(norm: Norm, normal: Tensor) -> Tensor:
    """Return the norm that measures gradients where `norm` measures moves: (N,), from normal: (N, ...)."""
    return torch.linalg.vector_norm(normal.flatten(1), ord=_GEOMETRY[norm].dual, dim=1)


def length_of(norm: Norm, move: Tensor) -> Tensor:
    """Return `norm` of each move: (N,), from move: (N, ...)."""
    return torch.linalg.vector_norm(move.flatten(1), ord=_GEOMETRY[norm].order, dim=1)


def _equally(weight: Tensor, room: Tensor, need: Tensor) -> Tensor:
    return _fill(weight, (weight > 0).to(weight.dtype), weight, room, need)


def _in_proportion(weight: Tensor, room: Tensor, need: Tensor) -> Tensor:
    return _fill(weight, weight, weight * weight, room, need)


def _fill(weight: Tensor, speed: Tensor, slope: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """Return min(level * speed, room) at the level where its product with weight sums to need: (N, D).

    slope: weight * speed.

    What is closed is concave and piecewise linear in the level, so Newton's steps from 0 rise to the solution
    without passing it and end there exactly, after a handful of passes: nothing is sorted. A row that has ended
    stays as it is while others go on.
    """
    info = torch.finfo(weight.dtype)
    level, rest, full = torch.zeros_like(need), need, room <= 0
    while True:
        rising = torch.where(full, 0, slope).sum(dim=1, keepdim=True)
        level = torch.maximum(level, (rest / rising.clamp_(min=info.tiny)).clamp_(max=info.max))
        length = torch.minimum(level * speed, room)
        filled = length >= room
        if torch.equal(filled, full):
            return length
        full = filled
        rest = (need - torch.where(full, weight * room, 0).sum(dim=1, keepdim=True)).clamp_(min=0)


def _largest_first(weight: Tensor, room: Tensor, need: Tensor) -> Tensor:
    few = min(FIRST_FEW, weight.shape[1])
    length, done = _spend(weight, room, need, few)
    open_rows = (~done).nonzero().flatten()
    if few < weight.shape[1] and len(open_rows):
        length[open_rows], _ = _spend(weight[open_rows], room[open_rows], need[open_rows], weight.shape[1])
    return length


def _spend(weight: Tensor, room: Tensor, need: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the move along the `count` largest weights: (N, D), and where it closes the gap: (N,) bool."""
    value, order = weight.topk(count, dim=1)
    room = room.gather(1, order)
    closed = (value * room).cumsum(dim=1)
    left = (need - functional.pad(closed[:, :-1], (1, 0))).clamp_(min=0)
    amount = torch.minimum(left / value.clamp(min=torch.finfo(value.dtype).tiny), room)
    amount = torch.where(value > 0, amount, 0)
    return torch.zeros_like(weight).scatter_(1, order, amount), closed[:, -1] >= need[:, 0]


@dataclass(frozen=True, kw_only=True)
class _Geometry:
    order: float
    dual: float
    share: Callable[[Tensor, Tensor, Tensor], Tensor]


_GEOMETRY: dict[Norm, _Geometry] = {
    "linf": _Geometry(order=math.inf, dual=1, share=_equally),
    "l2": _Geometry(order=2, dual=2, share=_in_proportion),
    "l1": _Geometry(order=1, dual=math.inf, share=_largest_first),
}
