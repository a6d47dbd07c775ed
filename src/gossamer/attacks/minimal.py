"""How far away is the nearest adversarial example? What attacks of least norm find, judged by the model itself."""

from typing import Literal, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from gossamer.attacks.goals import SEED_ZERO
from gossamer.seeding import Draws
from gossamer.threat import Norm, ThreatModel, per_image
from gossamer.types import Model

AnyNorm: TypeAlias = Literal["l0"] | Norm

BOX_TOLERANCE = 1e-6
OVERSHOOT = 1e-3


class MinimalNorms(NamedTuple):
    """Upper bounds on the distance to the nearest point at which the model errs.

    points: (N, C, H, W), the clean image where none was found; distances: (N,) float64, in pixel units of [0, 1],
    infinity where none was found and 0 where the model errs on the clean image; found: (N,) bool.
    """

    points: Tensor
    distances: Tensor
    found: Tensor


class MinimalNormAttack(Protocol):
    """An attack that looks for the smallest perturbation instead of one within eps."""

    @property
    def norm(self) -> AnyNorm:
        """What is small."""
        ...

    def smallest(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = ...) -> Tensor:
        """Return the nearest adversarial examples found, of any distance: (N, C, H, W); where none, anything."""
        ...


def minimal_norms(
    model: Model, x: Tensor, y: Tensor, attack: MinimalNormAttack, *, draws: Draws = SEED_ZERO
) -> MinimalNorms:
    """Return what the attack finds for x: (N, C, H, W) in [0, 1] with labels y: (N,), whatever its distance.

    A point counts where the model errs at it and it lies in [0, 1]; where the model errs on x, x itself does. Points
    of least norm lie on the boundary to rounding: where the model does not err, it is asked again a thousandth
    farther out, and that distance counts.
    """
    points = attack.smallest(model, x, y, draws=draws).detach().to(x)
    in_box = ((points >= -BOX_TOLERANCE) & (points <= 1 + BOX_TOLERANCE)).flatten(1).all(dim=1)
    points = torch.where(per_image(in_box, x), points, x)
    wrong_before, wrong = _errs(model, x, y), _errs(model, points, y)
    farther = (x + (1 + OVERSHOOT) * (points - x)).clamp(0, 1)
    points = torch.where(per_image(wrong, x), points, farther)
    found = wrong_before | wrong | _errs(model, points, y)
    points = torch.where(per_image(found & ~wrong_before, x), points, x)
    distances = distance(attack.norm, points, x)
    return MinimalNorms(points, torch.where(found, distances, torch.full_like(distances, torch.inf)), found)


@torch.no_grad()
def _errs(model: Model, x: Tensor, y: Tensor) -> Tensor:
    return model(x).argmax(dim=1) != y


def distance(norm: AnyNorm, x_adv: Tensor, x: Tensor) -> Tensor:
    """Return the norm of x_adv - x: (N,) float64; l0 counts the entries that differ."""
    if norm == "l0":
        return (x_adv != x).flatten(1).sum(dim=1).double()
    return ThreatModel(norm, 0.0).distance(x_adv, x)


def bring_into(threat: ThreatModel, points: Tensor, x: Tensor) -> Tensor:
    """Return points: (N, C, H, W) with those outside the threat's ball or box projected, the others to the bit."""
    outside = threat.violates(points, x, tolerance=0.0)
    return torch.where(per_image(outside, x), threat.project(torch.nan_to_num(points), x), points)
