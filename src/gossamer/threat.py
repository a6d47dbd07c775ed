"""What may an attacker do to an image? The only file that knows a norm."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, cast, get_args

import torch
from torch import Tensor

from gossamer.errors import ConfigError
from gossamer.seeding import Draws

Norm: TypeAlias = Literal["linf", "l2", "l1"]
NORMS: tuple[Norm, ...] = get_args(Norm)


def parse_eps(value: str | float) -> float:
    """Return a radius in pixel units of [0, 1], from a number or a text such as "8/255" or "0.5".

    Raises ConfigError for anything but a finite number of at least 0.
    """
    eps = _ratio(value) if isinstance(value, str) else float(value)
    if isinstance(value, bool) or not math.isfinite(eps) or eps < 0:
        raise ConfigError(
            "eps",
            expected="a finite number >= 0 in pixel units of [0, 1]",
            got=repr(value),
            remedy="write 8/255, or a decimal such as 0.5",
        )
    return eps


def _ratio(text: str) -> float:
    numerator, slash, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError):
        return math.nan


def format_eps(eps: float) -> str:
    """Return the shortest text that `parse_eps` reads back to the bit, in 255ths where they fit."""
    if eps == int(eps):
        return str(int(eps))
    levels = round(eps * 255)
    return f"{levels}/255" if levels / 255 == eps else repr(eps)


@dataclass(frozen=True)
class ThreatModel:
    """All images of [0, 1] within `eps` of x in `norm`; images: (N, C, H, W), eps in pixel units of [0, 1].

    Raises ConfigError for an unknown norm, a negative or non-finite eps, and eps > 1 in linf.
    """

    norm: Norm
    eps: float

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ConfigError(
                "threat norm",
                expected=f"one of {', '.join(NORMS)}",
                got=repr(self.norm),
                remedy="write the threat as linf:8/255",
            )
        object.__setattr__(self, "eps", parse_eps(self.eps))
        if self.norm == "linf" and self.eps > 1:
            raise ConfigError(
                "threat eps",
                expected="eps in pixel units of [0, 1]",
                got=self.eps,
                remedy=f"write {self.eps:g}/255 for {self.eps:g}",
            )

    @classmethod
    def parse(cls, text: str) -> "ThreatModel":
        """Return the threat written as NORM:EPS, such as "linf:8/255"; raises ConfigError for anything else."""
        norm, colon, eps = text.strip().partition(":")
        if not colon:
            raise ConfigError(
                "threat",
                expected="NORM:EPS",
                got=repr(text),
                remedy="write linf:8/255, l2:0.5 or l1:12",
            )
        return cls(cast("Norm", norm.strip()), parse_eps(eps))

    def __str__(self) -> str:
        return f"{self.norm}:{format_eps(self.eps)}"

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return x_adv brought into ball and box; x_adv, x: (N, C, H, W), x in [0, 1].

        linf and l1: the Euclidean projection onto the intersection (l1: Croce & Hein, ICML 2021, section 2).
        l2: onto the ball, then into the box, which can only shrink the norm.
        """
        return self.projector(x)(x_adv)

    def projector(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """Return `project` for a fixed x, with what depends on x alone computed once; x: (N, C, H, W)."""
        return _GEOMETRY[self.norm].projector(x, self.eps)

    def random_start(self, x: Tensor, draws: Draws) -> Tensor:
        """Return points drawn uniformly from the ball around x: (N, C, H, W), then clipped into the box."""
        return _add_inwards(x, self.eps * _GEOMETRY[self.norm].draw(x, draws)).clamp_(0, 1)

    def steepest(self, grad: Tensor, x: Tensor | None = None, *, size: float = 1.0) -> Tensor:
        """Return the step of norm `size` along which a linear loss rises fastest; grad: (N, C, H, W).

        linf: the sign. l2: grad over its norm. l1: all of `size` on the largest coordinate of |grad|; with x
        given, at most what the box leaves on it, the rest on the next largest, and so on: the exact optimum of
        a linear loss over l1-ball and box, without a share of coordinates to tune. A zero gradient gives zero.
        """
        return _GEOMETRY[self.norm].steepest(grad, x, size)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the norm of x_adv - x, summed in float64: (N,)."""
        order = _GEOMETRY[self.norm].order
        return torch.linalg.vector_norm((x_adv.double() - x.double()).flatten(1), ord=order, dim=1)

    def violates(self, x_adv: Tensor, x: Tensor, tolerance: float = 1e-6) -> Tensor:
        """Return where x_adv leaves ball or box by more than `tolerance`, or is not a number: (N,) bool."""
        inside_ball = self.distance(x_adv, x) <= self.eps + tolerance
        return ~inside_ball | leaves_box(x_adv, tolerance)


class Allowance(Protocol):
    """What an attacker may do, as far as a judge asks: a ball, a union of balls, a set of places.

    norm: the ball's, or another word where there is none; eps: in pixel units of [0, 1], 0 where there is no ball.
    """

    @property
    def norm(self) -> str:
        """The name of the norm, or of what stands for it."""
        ...

    @property
    def eps(self) -> float:
        """The radius."""
        ...

    def violates(self, x_adv: Tensor, x: Tensor, tolerance: float = 1e-6) -> Tensor:
        """Return where x_adv is not allowed for x, or is not a number: (N,) bool."""
        ...


def leaves_box(x_adv: Tensor, tolerance: float = 1e-6) -> Tensor:
    """Return where x_adv: (N, C, H, W) leaves [0, 1] by more than `tolerance`, or is not a number: (N,) bool."""
    return ~((x_adv >= -tolerance) & (x_adv <= 1 + tolerance)).flatten(1).all(dim=1)


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """Return values: (N,) shaped (N, 1, 1, 1) to meet images `like`: (N, C, H, W)."""
    return values.view(-1, *[1] * (like.dim() - 1))


def _add_inwards(x: Tensor, delta: Tensor) -> Tensor:
    # x + delta rounds half of its coordinates outwards; over thousands of them that leaves an l1-ball.
    moved = x + delta
    return torch.where((moved - x).abs() > delta.abs(), torch.nextafter(moved, x), moved)


def _projector_linf(x: Tensor, eps: float) -> Callable[[Tensor], Tensor]:
    lower, upper = (x - eps).clamp_(min=0), (x + eps).clamp_(max=1)
    return lambda x_adv: torch.clamp(x_adv, lower, upper)


def _draw_linf(x: Tensor, draws: Draws) -> Tensor:
    return (2 * draws.uniform(x.shape, device=x.device) - 1).to(x.dtype)


def _steepest_linf(grad: Tensor, x: Tensor | None, size: float) -> Tensor:  # noqa: ARG001
    return grad.sign().mul_(size)


def _projector_l2(x: Tensor, eps: float) -> Callable[[Tensor], Tensor]:
    def project(x_adv: Tensor) -> Tensor:
        delta = x_adv - x
        norm = torch.linalg.vector_norm(delta.flatten(1), dim=1, dtype=torch.float64)
        scale = (eps / norm.clamp(min=torch.finfo(torch.float64).tiny)).clamp(max=1).to(x.dtype)
        return _add_inwards(x, delta * per_image(scale, x)).clamp_(0, 1)

    return project


def _draw_l2(x: Tensor, draws: Draws) -> Tensor:
    direction = _steepest_l2(draws.normal(x.shape, device=x.device), None, 1.0)
    radius = draws.at("radius").uniform(x.shape[:1], device=x.device) ** (1 / x[0].numel())
    return (direction * per_image(radius, x)).to(x.dtype)


def _steepest_l2(grad: Tensor, x: Tensor | None, size: float) -> Tensor:  # noqa: ARG001
    # Dividing by the largest entry first: squares of a confident network's gradients underflow in float32.
    largest = grad.abs().flatten(1).amax(dim=1).clamp(min=torch.finfo(grad.dtype).tiny)
    scaled = torch.nan_to_num(grad / per_image(largest, grad))
    norm = torch.linalg.vector_norm(scaled.flatten(1), dim=1).clamp(min=0.5)
    return scaled.mul_(size) / per_image(norm, grad)


def _projector_l1(x: Tensor, eps: float) -> Callable[[Tensor], Tensor]:
    def project(x_adv: Tensor) -> Tensor:
        delta = (x_adv - x).flatten(1).double()
        room = torch.where(delta > 0, 1 - x.flatten(1), x.flatten(1)).clamp(min=0).double()
        shrink = _l1_multiplier(delta.abs(), room, eps)
        kept = torch.minimum((delta.abs() - shrink).clamp(min=0), room)
        return _add_inwards(x, (kept * delta.sign()).to(x.dtype).view_as(x)).clamp_(0, 1)

    return project


def _l1_multiplier(magnitude: Tensor, room: Tensor, eps: float) -> Tensor:
    """Return the smallest s >= 0 with sum(clip(magnitude - s, 0, room)) <= eps: (N, 1).

    The sum falls piecewise linearly in s: coordinate i starts to fall at magnitude - room and ends at magnitude.
    """
    starts, ends = (magnitude - room).clamp(min=0), magnitude
    breaks, order = torch.cat([starts, ends], dim=1).sort(dim=1)
    falling = torch.cat([torch.ones_like(starts), -torch.ones_like(ends)], dim=1).gather(1, order).cumsum(dim=1)
    width = torch.diff(breaks, dim=1, append=breaks[:, -1:])
    total = torch.minimum(magnitude, room).sum(dim=1, keepdim=True)
    at_end = total - (falling * width).cumsum(dim=1)
    segment = (at_end > eps).sum(dim=1, keepdim=True).clamp(max=breaks.shape[1] - 1)
    slope = falling.gather(1, segment)
    excess = at_end.gather(1, segment) + slope * width.gather(1, segment) - eps
    solved = breaks.gather(1, segment) + excess.clamp(min=0) / slope.clamp(min=1)
    return torch.where(total > eps, solved, torch.zeros_like(solved))


def _draw_l1(x: Tensor, draws: Draws) -> Tensor:
    # d + 1 exponentials over their sum are uniform on the simplex; dropping one leaves the solid l1-ball.
    centred = 2 * draws.uniform(x.shape, device=x.device) - 1
    exponential = -torch.log1p(-centred.abs().clamp(max=1 - 2**-24))
    spare = -torch.log1p(-draws.at("radius").uniform(x.shape[:1], device=x.device))
    total = exponential.flatten(1).sum(dim=1) + spare
    return (exponential * centred.sign() / per_image(total, x)).to(x.dtype)


def _steepest_l1(grad: Tensor, x: Tensor | None, size: float) -> Tensor:
    slope = torch.nan_to_num(grad).flatten(1)
    room = torch.full_like(slope, size)
    if x is not None:
        room = torch.where(slope > 0, 1 - x.flatten(1), x.flatten(1)).clamp(min=0)
    order = slope.abs().argsort(dim=1, descending=True, stable=True)
    room_in_order = room.gather(1, order)
    spent_before = room_in_order.cumsum(dim=1) - room_in_order
    amount = torch.minimum((size - spent_before).clamp(min=0), room_in_order)
    return (torch.zeros_like(slope).scatter(1, order, amount) * slope.sign()).view_as(grad)


@dataclass(frozen=True, kw_only=True)
class _Geometry:
    order: float
    projector: Callable[[Tensor, float], Callable[[Tensor], Tensor]]
    draw: Callable[[Tensor, Draws], Tensor]
    steepest: Callable[[Tensor, Tensor | None, float], Tensor]


_GEOMETRY: dict[Norm, _Geometry] = {
    "linf": _Geometry(order=math.inf, projector=_projector_linf, draw=_draw_linf, steepest=_steepest_linf),
    "l2": _Geometry(order=2, projector=_projector_l2, draw=_draw_l2, steepest=_steepest_l2),
    "l1": _Geometry(order=1, projector=_projector_l1, draw=_draw_l1, steepest=_steepest_l1),
}
