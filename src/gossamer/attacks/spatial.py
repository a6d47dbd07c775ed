"""Does a small rotation and shift fool a network? By grid or by chance (Engstrom et al., ICML 2019)."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from gossamer.attacks.checks import check_count
from gossamer.attacks.goals import SEED_ZERO
from gossamer.errors import ConfigError
from gossamer.losses import margin
from gossamer.seeding import Draws
from gossamer.threat import leaves_box, per_image
from gossamer.types import Model

Fill: TypeAlias = Literal["black", "edge"]
Search: TypeAlias = Literal["grid", "random"]

_PADDING = {"black": "zeros", "edge": "border"}


class SpatialRobustness(NamedTuple):
    """What becomes of N images that may be turned and shifted.

    robust: (N,) bool, right at the worst place searched; angle: (N,) in degrees, counter-clockwise, and shift: (N, 2),
    right and down as shares of width and height: that place.
    """

    robust: Tensor
    angle: Tensor
    shift: Tensor


@dataclass(frozen=True)
class SpatialThreat:
    """All turns of up to `degrees` and shifts of up to the share `shift` of width and height.

    A point alone does not show its place, so the attack vouches for that; here only the box is checked.
    """

    degrees: float
    shift: float

    @property
    def norm(self) -> str:
        """A word, as there is no norm."""
        return "spatial"

    @property
    def eps(self) -> float:
        """0: there is no ball."""
        return 0.0

    def __str__(self) -> str:
        return f"spatial:{self.degrees:g} degrees, {self.shift:.0%}"

    def violates(self, x_adv: Tensor, x: Tensor, tolerance: float = 1e-6) -> Tensor:
        """Return where x_adv: (N, C, H, W) leaves the box, or is not a number: (N,) bool."""
        del x
        return leaves_box(x_adv, tolerance)


@dataclass(frozen=True, kw_only=True)
class Spatial:
    """Turns an image by up to `degrees` either way and shifts it by up to `shift` of its width and height.

    search: grid, `angles` x `shifts` x `shifts` places (odd counts hold the image as it is), or random, the worst of
    `tries` places drawn uniformly. Kept is the place of the largest margin, the image as it is among them. Pixels are
    bilinear; what comes in from outside is black, or the edge's colour. The defaults are the paper's: 30 degrees,
    10 % (3 of 32 pixels), 31 x 5 x 5 places.

    Such a point lies outside of any norm ball. It is judged by its place: `search_places` gives (angle, right, down)
    for each image, `admits` says whether a place is allowed, `apply` makes the point. Raises ConfigError for
    impossible fields.
    """

    degrees: float = 30.0
    shift: float = 0.1
    fill: Fill = "black"
    search: Search = "grid"
    angles: int = 31
    shifts: int = 5
    tries: int = 10

    def __post_init__(self) -> None:
        for name in ("angles", "shifts", "tries"):
            check_count(f"attack {name}", getattr(self, name))
        _check_range("attack degrees", self.degrees, 180.0)
        _check_range("attack shift", self.shift, 1.0)
        for name, value, known in (("fill", self.fill, Fill), ("search", self.search, Search)):
            if value not in get_args(known):
                names = " or ".join(get_args(known))
                raise ConfigError(f"attack {name}", expected=names, got=repr(value), remedy="check its spelling")

    @property
    def threat(self) -> SpatialThreat:
        """What the attacker may do."""
        return SpatialThreat(self.degrees, self.shift)

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return x_adv for x: (N, C, H, W) in [0, 1] and labels y: (N,)."""
        return self.apply(x, self.search_places(model, x, y, draws=draws))

    @torch.no_grad()
    def search_places(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return the worst place found for every image: (N, 3), degrees, share right and share down."""
        worst = x.new_zeros((len(x), 3))
        highest = margin(model(x), y)
        for places in self._candidates(x, draws):
            value = margin(model(self.apply(x, places)), y)
            worse = value > highest
            worst = torch.where(worse[:, None], places, worst)
            highest = torch.where(worse, value, highest)
        return worst

    def apply(self, x: Tensor, places: Tensor) -> Tensor:
        """Return x: (N, C, H, W) turned and shifted to places: (N, 3)."""
        return move(x, places, fill=self.fill)

    def admits(self, places: Tensor) -> Tensor:
        """Return which places: (N, 3) the attacker may choose: (N,) bool."""
        limits = places.new_tensor([self.degrees, self.shift, self.shift])
        return (places.abs() <= limits + 1e-6).all(dim=1)

    def _candidates(self, x: Tensor, draws: Draws) -> Iterator[Tensor]:
        if self.search == "random":
            limits = x.new_tensor([self.degrees, self.shift, self.shift])
            for number in range(self.tries):
                drawn = draws.at("place", number).uniform((len(x), 3), device=x.device).to(x)
                yield (2 * drawn - 1) * limits
            return
        angles, shares = _spread(self.degrees, self.angles), _spread(self.shift, self.shifts)
        for place in itertools.product(angles, shares, shares):
            yield x.new_tensor(place).expand(len(x), 3)


def spatial_robustness(
    model: Model, x: Tensor, y: Tensor, attack: Spatial, *, draws: Draws = SEED_ZERO
) -> SpatialRobustness:
    """Return whether each image of x: (N, C, H, W), labels y: (N,), stays right, and its worst place."""
    places = attack.search_places(model, x, y, draws=draws)
    with torch.no_grad():
        robust = model(attack.apply(x, places)).argmax(dim=1) == y
    return SpatialRobustness(robust, places[:, 0], places[:, 1:])


def move(x: Tensor, places: Tensor, *, fill: Fill = "black") -> Tensor:
    """Return x: (N, C, H, W) turned about its centre, then shifted: places: (N, 3), degrees counter-clockwise, then
    shares of width to the right and of height down. Bilinear; where nothing moves, x to the bit.
    """
    height, width = x.shape[2:]
    cosine, sine = torch.cos(places[:, 0].deg2rad()), torch.sin(places[:, 0].deg2rad())
    # In coordinates from -1 to 1 the pixel to read for (u, v) is A ((u, v) - 2 share); A turns back.
    across = torch.stack([cosine, -sine * height / width], dim=1)
    along = torch.stack([sine * width / height, cosine], dim=1)
    back = torch.stack([across, along], dim=1)
    offset = -2 * (back @ places[:, 1:, None])
    grid = torch.nn.functional.affine_grid(torch.cat([back, offset], dim=2), list(x.shape), align_corners=False)
    moved = torch.nn.functional.grid_sample(x, grid, padding_mode=_PADDING[fill], align_corners=False).clamp(0, 1)
    return torch.where(per_image((places == 0).all(dim=1), x), x, moved)


def _spread(limit: float, count: int) -> list[float]:
    if count == 1:
        return [0.0]
    return [limit * (2 * place / (count - 1) - 1) for place in range(count)]


def _check_range(subject: str, value: float, largest: float) -> None:
    if math.isfinite(value) and 0 <= value <= largest:
        return
    raise ConfigError(
        subject, expected=f"a number in [0, {largest:g}]", got=value, remedy="leave it out for the paper's"
    )
