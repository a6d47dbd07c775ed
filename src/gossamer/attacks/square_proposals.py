"""Which points does the Square Attack try? Stripes, tiles and windows, for each norm (Andriushchenko et al., 2020).

Every operation keeps the order and the precision of the AutoAttack authors' code: rounding decides here, as in l2
and l1 the leftover of a window that is "empty" but for rounding is scaled up to full length.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import torch
from torch import Tensor

from gossamer.seeding import Draws
from gossamer.threat import Norm, per_image

TINY = 1e-12
L1_SHARE = 1 - 1e-6

Start: TypeAlias = Callable[[Tensor, float, Draws], Tensor]
"""(x: (n, C, H, W), eps, draws) to first points: (n, C, H, W)."""

Propose: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]
"""(x, best: (n, C, H, W), sizes: (n,) int64, numbers: (n, `numbers(C)`) of U[0, 1), eps) to points: (n, C, H, W)."""


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """The points of one norm. least: the smallest window; odd: sizes are odd; fixed: numbers a step draws besides
    one for the sign of each channel.
    """

    start: Start
    propose: Propose
    least: int
    odd: bool
    fixed: int

    def size(self, share: float, shape: torch.Size) -> int:
        """Return the side of a window of `share` of the pixels, for images of shape (n, C, H, W)."""
        channels, height, width = shape[1:]
        side = max(round(math.sqrt(share * (channels * height * width) / channels)), self.least)
        side += int(self.odd and side % 2 == 0)
        return min(side, height, width)


def _signs(numbers: Tensor, like: Tensor) -> Tensor:
    return torch.sign(2 * numbers - 1).to(like.dtype)


def _offsets(room: Tensor | int, number: Tensor) -> Tensor:
    # As in the published code the last offset, a window at the far edge, is never drawn.
    return (room * number).long()


def _start_linf(x: Tensor, eps: float, draws: Draws) -> Tensor:
    n, channels, _, width = x.shape
    signs = _signs(draws.uniform((n, channels, 1, width), device=x.device), x)
    return (x + eps * signs).clamp_(0, 1)


def _propose_linf(x: Tensor, best: Tensor, sizes: Tensor, numbers: Tensor, eps: float) -> Tensor:
    """Shift one window by 2 eps in each channel, up or down, and clip: it lies at a corner of ball and box again."""
    height, width = x.shape[2:]
    top, left = _offsets(height - sizes, numbers[:, 0]), _offsets(width - sizes, numbers[:, 1])
    inside = _between(top, sizes, height)[:, None, :, None] & _between(left, sizes, width)[:, None, None, :]
    moved = best + 2 * eps * _signs(numbers[:, 2:], x)[:, :, None, None]
    return torch.where(inside, torch.clamp(moved, x - eps, x + eps).clamp_(0, 1), best)


def _between(first: Tensor, count: Tensor, length: int) -> Tensor:
    position = torch.arange(length, device=first.device)
    return (position >= first[:, None]) & (position < (first + count)[:, None])


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """What l2 and l1 do not share.

    power: how fast a bump falls off; length: the norm over dims, kept; window_length: of a channel's window, from
    the unused length of the image, the length in both windows, eps and the channels; bring: x + delta into the ball.
    """

    power: int
    length: Callable[[Tensor, tuple[int, ...]], Tensor]
    window_length: Callable[[Tensor, Tensor, float, int], tuple[Tensor, float]]
    bring: Callable[[Tensor, Tensor, float], Tensor]


def _length_l2(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    return (values**2).sum(dim=dims, keepdim=True).sqrt()


def _length_l1(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    return values.abs().sum(dim=dims, keepdim=True)


def _of_image(shape: _Shape, delta: Tensor) -> Tensor:
    return per_image(shape.length(delta.flatten(1), (1,)), delta)


def _window_length_l2(image: Tensor, windows: Tensor, eps: float, channels: int) -> tuple[Tensor, float]:
    unused = (torch.full_like(image, eps) ** 2 - image**2).clamp_(min=0)
    return (unused / channels + windows**2).sqrt(), 1


def _window_length_l1(image: Tensor, windows: Tensor, eps: float, channels: int) -> tuple[Tensor, float]:
    unused = (torch.full_like(image, eps) - image).clamp_(min=0)
    return unused / channels + windows, channels


def _bring_l2(x: Tensor, delta: Tensor, eps: float) -> Tensor:
    return (x + delta / (_of_image(_L2, delta) + TINY) * eps).clamp_(0, 1)


def _bring_l1(x: Tensor, delta: Tensor, eps: float) -> Tensor:
    return x + delta + _shift_l1(x, delta, eps * L1_SHARE)


def _shift_l1(x: Tensor, delta: Tensor, eps: float) -> Tensor:
    """Return what projects x + delta onto the l1-ball and the box (Croce & Hein, ICML 2021), in float32.

    |delta_i| shrinks by max(a, what the box asks for), at most to 0, for the smallest a >= 0 that fits the ball.
    `ThreatModel.project` computes the same in float64; here the rounding must be that of the published code.
    """
    centre, moved = x.flatten(1).float(), delta.flatten(1).float()
    magnitude = moved.abs()
    outside = torch.minimum(torch.zeros_like(moved), torch.minimum(1 - centre - moved, centre + moved)).neg_()
    breaks, order = torch.cat([outside, magnitude], dim=1).sort(dim=1)
    ahead = torch.cat([breaks[:, 1:], torch.zeros_like(breaks[:, :1])], dim=1)
    falling = (2 * (order < moved.shape[1]).float() - 1).cumsum(dim=1)
    shrunk, spare = outside.sum(dim=1, keepdim=True), eps - magnitude.sum(dim=1, keepdim=True)
    by_then = shrunk + ((ahead - breaks) * falling).cumsum(dim=1)
    segment = ((by_then + spare < 0).sum(dim=1, keepdim=True) - 1).clamp_(0, breaks.shape[1] - 2)
    missing = -by_then.gather(1, segment) - spare
    level = missing / falling.gather(1, segment + 1) + ahead.gather(1, segment)
    shrink = torch.where(shrunk + spare < 0, torch.minimum(torch.maximum(outside, level), magnitude), outside)
    return (moved.sign() * -shrink).view_as(x).to(x.dtype)


_L2 = _Shape(power=2, length=_length_l2, window_length=_window_length_l2, bring=_bring_l2)
_L1 = _Shape(power=4, length=_length_l1, window_length=_window_length_l1, bring=_bring_l1)


@lru_cache(maxsize=256)
def _pattern(shape: _Shape, size: int) -> Tensor:
    """Return the eta of a window: (size, size) of length 1, a bump in its upper half, minus one in the lower."""
    upper = _bump(shape, size // 2, size)
    lower = -_bump(shape, size - size // 2, size)
    both = torch.cat([upper, lower])
    return both / shape.length(both, (0, 1))


def _bump(shape: _Shape, height: int, width: int) -> Tensor:
    """Return sums of rank^-power over rings around the middle, outer rings ranking higher: (height, width)."""
    down = (torch.arange(height) - height // 2).abs()
    across = (torch.arange(width) - width // 2).abs()
    ring = torch.maximum(down[:, None], across[None, :])
    bump = torch.zeros(height, width)
    for rank in range(1, max(height, width) // 2 + 2):
        bump += (ring < rank) * (1 / torch.tensor(float(rank)) ** shape.power)
    return bump / shape.length(bump, (0, 1))


def _turned(pattern: Tensor, number: Tensor) -> Tensor:
    """Return the pattern (s, s), upright or lying by each number: (..., s, s)."""
    # Laid out in order: sums over a transposed layout round otherwise.
    return torch.where((number > 0.5)[..., None, None], pattern.T.contiguous(), pattern)


def _start_in(shape: _Shape) -> Start:
    def start(x: Tensor, eps: float, draws: Draws) -> Tensor:
        n, channels, height, width = x.shape
        size = max(height // 5, 1)
        down, across = height // size, width // size
        numbers = draws.uniform((n, down, across, 1 + channels), device=x.device)
        eta = _turned(_pattern(shape, size).to(x), numbers[..., 0])
        tiles = eta[:, :, :, None] * _signs(numbers[..., 1:], x)[..., None, None]
        laid = tiles.permute(0, 3, 1, 4, 2, 5).reshape(n, channels, down * size, across * size)
        edge = max((height - 5 * size) // 2, 0)
        # What runs over the far edge is cut off.
        laid = laid[:, :, : height - edge, : width - edge]
        delta = torch.zeros_like(x)
        delta[:, :, edge : edge + laid.shape[2], edge : edge + laid.shape[3]] = laid
        return shape.bring(x, delta, eps)

    return start


def _propose_in(shape: _Shape) -> Propose:
    def propose(x: Tensor, best: Tensor, sizes: Tensor, numbers: Tensor, eps: float) -> Tensor:
        present = sizes.unique().tolist()
        if len(present) == 1:
            return _propose_of_size(shape, x, best, present[0], numbers, eps)
        proposed = torch.empty_like(x)
        for size in present:
            at = (sizes == size).nonzero().flatten()
            proposed[at] = _propose_of_size(shape, x[at], best[at], size, numbers[at], eps)
        return proposed

    return propose


def _propose_of_size(shape: _Shape, x: Tensor, best: Tensor, size: int, numbers: Tensor, eps: float) -> Tensor:
    """Empty a second window into the first, which takes the norm of both and what is left of eps.

    numbers: top and left of both windows, whether eta lies, signs: one column each.
    """
    delta = best - x
    top, left = _offsets(x.shape[2] - size, numbers[:, 0:4:2]), _offsets(x.shape[3] - size, numbers[:, 1:4:2])
    first, second = (_window(top[:, i], left[:, i], size, x) for i in (0, 1))
    both = torch.zeros_like(delta)
    both[first] = 1
    both[second] = 1
    in_both = shape.length(delta * both, (-2, -1))
    image = _of_image(shape, delta)
    eta = _turned(_pattern(shape, size).to(x), numbers[:, 4])[:, None] * _signs(numbers[:, 5:], x)[:, :, None, None]
    old = delta[first]
    new = eta + old / (TINY + shape.length(old, (-2, -1)))
    length, factor = shape.window_length(image, in_both, eps, x.shape[1])
    delta[second] = 0
    delta[first] = new / (TINY + shape.length(new, (-2, -1))) * length * factor
    return shape.bring(x, delta, eps)


def _window(top: Tensor, left: Tensor, size: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the index of one (C, size, size) window in each image."""
    span = torch.arange(size, device=x.device)
    image, channel = (torch.arange(count, device=x.device) for count in x.shape[:2])
    return (
        image[:, None, None, None],
        channel[None, :, None, None],
        (top[:, None] + span)[:, None, :, None],
        (left[:, None] + span)[:, None, None, :],
    )


PROPOSALS: dict[Norm, Proposals] = {
    "linf": Proposals(start=_start_linf, propose=_propose_linf, least=1, odd=False, fixed=2),
    "l2": Proposals(start=_start_in(_L2), propose=_propose_in(_L2), least=3, odd=True, fixed=5),
    "l1": Proposals(start=_start_in(_L1), propose=_propose_in(_L1), least=3, odd=True, fixed=5),
}
