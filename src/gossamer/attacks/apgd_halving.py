"""How does Auto-PGD move in linf and l2 (Croce & Hein, ICML 2020)? Steps with momentum that halve at checkpoints.

x, point, gradient: (n, C, H, W). The formulas are those of the authors' code where ours of `threat` differ from them
by rounding or for tiny gradients: which samples an attack breaks depends on it.
"""

from functools import lru_cache

import torch
from torch import Tensor

from gossamer.attacks.stepwise import Rows
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel, per_image

_MOMENTUM = 0.25


def begin(threat: ThreatModel, x: Tensor, value: Tensor, draws: Draws) -> Rows:
    """Return point, step length and what is known of the loss at the start; value: (n,) zeros of the loss's type.

    The start is noise stretched to the radius: in linf U[-1, 1) by its largest entry, in l2 N(0, 1) by its length.
    """
    count = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    direction = _linf_direction(x, draws) if threat.norm == "linf" else _l2_direction(x, draws)
    return {
        "point": (x + threat.eps * direction).clamp(0, 1),
        "size": x.new_full((len(x),), 2 * threat.eps),
        "rises": count,
        "halved": torch.ones_like(count, dtype=torch.bool),
        "last_loss": value,
        "checked_loss": value,
    }


def adapt(rows: Rows, loss: Tensor, steps: int, rho: float) -> tuple[Rows, Tensor]:
    """Return the rows with their steps adapted to the loss at their points: (n,), and whose halved: (n,) bool.

    A step halves at a checkpoint where the loss rose in at most a share rho of the interval's steps, or the step
    did not halve at the last one and the best loss has stood still since (section 3.2, conditions 1 and 2). As in
    the authors' code, an attempt's first step counts as a rise where its loss is above 0, whatever the start's was.
    """
    first = rows["step"] == 0
    rises = rows["rises"] + (~first & (loss > rows["last_loss"]))
    last_peak = torch.where(first, loss, rows["checked_loss"])
    most = _most_rises(steps, rho, loss.device)[rows["step"]]
    due = most >= 0
    halve = due & ((rises <= most) | (~rows["halved"] & (last_peak >= rows["peak_loss"])))
    adapted: Rows = {
        "size": torch.where(halve, rows["size"] / 2, rows["size"]),
        "rises": torch.where(due, 0, rises),
        "halved": torch.where(due, halve, rows["halved"]),
        "last_loss": torch.where(first, 0, loss),
        "checked_loss": torch.where(due, rows["peak_loss"], last_peak),
    }
    return {**rows, **adapted}, halve


def checkpoints(steps: int) -> tuple[int, ...]:
    """Return after which steps the step may halve: intervals of 22 % of them, 3 % shorter each time, down to 6 %."""
    interval, less, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    made: list[int] = []
    at = interval
    while at <= steps:
        made.append(at)
        interval = max(interval - less, least)
        at += interval
    return tuple(made)


@lru_cache(maxsize=16)
def _most_rises(steps: int, rho: float, device: torch.device) -> Tensor:
    """Return, by how many steps are done, up to how many rises the step halves; -1 where there is no checkpoint."""
    most = [-1.0] * (steps + 1)
    before = 0
    for end in checkpoints(steps):
        most[end] = rho * (end - before)
        before = end
    return torch.tensor(most, device=device)


def move(threat: ThreatModel, x: Tensor, point: Tensor, gradient: Tensor, rows: Rows) -> Tensor:
    """Return the point after a step up the gradient, in linf along its signs, with momentum."""
    if threat.norm == "linf":
        project = threat.projector(x)
        ahead = project(gradient.sign().mul_(per_image(rows["size"], x)).add_(point))
        return project(_with_momentum(point, ahead, rows))
    ahead = _into_l2_ball(threat.eps, point + per_image(rows["size"], x) * _unit(gradient), x)
    return _into_l2_ball(threat.eps, _with_momentum(point, ahead, rows), x)


def _linf_direction(x: Tensor, draws: Draws) -> Tensor:
    noise = (2 * draws.uniform(x.shape, device=x.device) - 1).to(x.dtype)
    return noise / (per_image(noise.abs().flatten(1).amax(dim=1), x) + 1e-12)


def _l2_direction(x: Tensor, draws: Draws) -> Tensor:
    return _unit(draws.normal(x.shape, device=x.device).to(x.dtype))


def _with_momentum(point: Tensor, ahead: Tensor, rows: Rows) -> Tensor:
    share = per_image((rows["step"] > 0).to(point.dtype) * _MOMENTUM, point)
    return (ahead - point).mul_(1 - share).add_(point).add_((point - rows["previous"]).mul_(share))


def _unit(direction: Tensor) -> Tensor:
    return direction / (per_image(_l2_norm(direction), direction) + 1e-12)


def _l2_norm(delta: Tensor) -> Tensor:
    return (delta**2).flatten(1).sum(dim=1).sqrt()


def _into_l2_ball(eps: float, point: Tensor, x: Tensor) -> Tensor:
    delta = point - x
    return (x + _unit(delta) * per_image(_l2_norm(delta).clamp(max=eps), x)).clamp(0, 1)
