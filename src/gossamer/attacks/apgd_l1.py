"""How does Auto-PGD move in an l1-ball (Croce & Hein, ICML 2021)? Radii in stages, sparse steps, one projection.

x, point, gradient: (n, C, H, W); eps: (n,). The order of the floating-point operations is that of the authors' code:
how sparse a perturbation is, and so the next step, is a count of coordinates that differ from x, if only by rounding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from gossamer.attacks.stepwise import Rows, put, select
from gossamer.seeding import Draws
from gossamer.threat import per_image

_FIRST_TOPK = 0.2
_SPARSER = 0.95
_OF_SUPPORT = 1.5
_SHORTER = 1.5
_SHORTEST = 10.0


@dataclass(frozen=True)
class Stage:
    """`steps` steps in the ball of radius `eps`."""

    eps: float
    steps: int


def stages(eps: float, steps: int, *, larger_eps: bool) -> tuple[Stage, ...]:
    """Return the balls of one attempt: with `larger_eps`, 3, 2 and 1 eps for 30, 30 and 40 % of the steps."""
    if not larger_eps:
        return (Stage(eps, steps),)
    early = math.ceil(0.3 * steps)
    return Stage(3 * eps, early), Stage(2 * eps, early), Stage(eps, steps - 2 * early)


def begin(x: Tensor, draws: Draws, plan: Sequence[Stage]) -> Rows:
    """Return point, step length and sparsity at the start of an attempt: noise of N(0, 1), projected."""
    noise = draws.normal(x.shape, device=x.device).to(x.dtype)
    stage = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    eps = _lengths(x, stage, [each.eps for each in plan])
    if len(plan) > 1:
        point = x + noise
        return _enter(x, point + shortest_way_in(x, point - x, eps), eps)
    point = x + noise + shortest_way_in(x, noise, eps)
    return {
        "point": point.clamp(0, 1),
        "size": eps,
        "topk": torch.full_like(eps, _FIRST_TOPK, dtype=torch.float32),
        "support": torch.full_like(stage, x[0].numel()),
    }


def adapt(x: Tensor, rows: Rows, plan: Sequence[Stage]) -> tuple[Rows, Tensor]:
    """Return the rows with adapted steps, and which of them go back to their best point: (n,) bool.

    At a check, where the best point's support has shrunk by more than 5 %, steps of full length start anew from
    it; elsewhere the length falls by 1.5, to a tenth of eps at the least. Steps change 1/1.5 of the support.
    """
    stage, step = rows["stage"], rows["step"]
    interval = torch.tensor([max(int(0.04 * each.steps), 1) for each in plan], device=x.device)[stage]
    due = (step > 0) & (step % interval == 0)
    support = _support(x, rows["peak"])
    sparser = support / rows["support"] < _SPARSER
    longest = _lengths(x, stage, [each.eps for each in plan])
    shortest = _lengths(x, stage, [each.eps / _SHORTEST for each in plan])
    size = torch.where(sparser, longest, rows["size"] / _SHORTER).clamp(shortest, longest)
    adapted: Rows = {
        "size": torch.where(due, size, rows["size"]),
        "topk": torch.where(due, _topk(x, support), rows["topk"]),
        "support": torch.where(due, support, rows["support"]),
    }
    return {**rows, **adapted}, due & sparser


def move(x: Tensor, point: Tensor, gradient: Tensor, rows: Rows, plan: Sequence[Stage]) -> Tensor:
    """Return the point after a step of l1-length `size` along the signs of the steepest coordinates, projected."""
    eps = _lengths(x, rows["stage"], [each.eps for each in plan])
    signs = _steepest_signs(gradient, rows["topk"])
    count = signs.abs().flatten(1).sum(dim=1)
    delta = point + per_image(rows["size"], x) * signs / (per_image(count, x) + 1e-10) - x
    return x + delta + shortest_way_in(x, delta, eps)


def next_stage(x: Tensor, rows: Rows, ended: Tensor, plan: Sequence[Stage]) -> Rows:
    """Return the rows with those of ended: (n,) bool begun anew in the next ball, from their best point."""
    positions = ended.nonzero().flatten()
    if not len(positions):
        return rows
    going, x = select(rows, positions), x[positions]
    stage = going["stage"] + 1
    entered = _enter(x, going["peak"], _lengths(x, stage, [each.eps for each in plan]))
    begun: Rows = {**entered, "previous": entered["point"], "stage": stage, "step": torch.zeros_like(stage)}
    return put(rows, positions, {**going, **begun})


def shortest_way_in(x: Tensor, delta: Tensor, eps: Tensor) -> Tensor:
    """Return what to add to delta: (n, C, H, W) so that its l1-norm is at most eps and x + delta is in the box.

    The Euclidean projection (ICML 2021, section 2.2): every |delta_i| falls by max(overshoot_i, min(s, |delta_i|)),
    overshoot_i being how far it leaves the box. The total fall rises piecewise linearly in s, with breaks where s
    passes overshoot_i and |delta_i|.
    """
    start, moved = x.flatten(1), delta.flatten(1)
    magnitude = moved.abs()
    overshoot = -torch.minimum(1 - start - moved, start + moved).clamp(max=0)
    breaks, order = torch.cat([overshoot, magnitude], dim=1).sort(dim=1)
    following = pad(breaks[:, 1:], (0, 1))
    slope = (2 * (order < start.shape[1]).to(x.dtype) - 1).cumsum(dim=1)
    boxed = overshoot.sum(dim=1, keepdim=True)
    room = eps[:, None] - magnitude.sum(dim=1, keepdim=True)
    fallen = boxed + ((following - breaks) * slope).cumsum(dim=1)
    before = ((fallen + room < 0).sum(dim=1, keepdim=True) - 1).clamp(0, breaks.shape[1] - 2)
    needed = -fallen.gather(1, before) - room
    level = needed / slope.gather(1, before + 1).clamp(min=1) + following.gather(1, before)
    fall = torch.where(boxed + room < 0, torch.minimum(torch.maximum(overshoot, level), magnitude), overshoot)
    return (moved.sign() * -fall).view_as(x)


def _enter(x: Tensor, point: Tensor, eps: Tensor) -> Rows:
    point = (point + shortest_way_in(x, point - x, eps)).clamp(0, 1)
    support = _support(x, point)
    return {"point": point, "size": eps, "topk": _topk(x, support), "support": support}


def _steepest_signs(gradient: Tensor, topk: Tensor) -> Tensor:
    slope = gradient.abs().flatten(1)
    count = slope.shape[1]
    position = ((1 - topk) * count).clamp(0, count - 1).long()
    least = slope.sort(dim=1).values.gather(1, position[:, None])
    return torch.where((slope >= least).view_as(gradient), gradient.sign(), 0)


def _support(x: Tensor, point: Tensor) -> Tensor:
    return (point != x).flatten(1).sum(dim=1)


def _topk(x: Tensor, support: Tensor) -> Tensor:
    return support / x[0].numel() / _OF_SUPPORT


def _lengths(x: Tensor, stage: Tensor, values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=x.device).to(x.dtype)[stage]
