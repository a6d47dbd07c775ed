"""Do the contestants do the same? One attack and one update from shared weights and a shared start, compared.

In float32 signs of gradients near zero turn with rounding, and ten steps of PGD carry that on: images differ in some
pixels, while their losses agree. In float64 the same code leaves the same weights; a peer that computes in float32
alone is held to the weights of float32.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import contestants
from contestants import CONTESTANTS, Contestant, Setting

LOSS_TOLERANCE, ACCURACY_TOLERANCE = 1e-2, 0.05
WEIGHTS_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}

Outcome = tuple[Tensor, Tensor]


def agreement(names: Sequence[str], setting: Setting) -> dict[str, dict[str, Any]]:
    """Return each contestant's outcome beside that of the first of its mode.

    adversarial_loss and robust_accuracy: of the attacked images, on one eval-mode network for all; equal_pixels: the
    share within 1e-6; weights_float32 and weights_float64: |w - w'| / |w'| over all parameters after one step.
    """
    weights = contestants.initial_weights(setting)
    x, y = contestants.images(setting.batch)
    judge = contestants.network(weights, setting).eval()
    single = {name: _outcome(name, weights, setting, x, y) for name in names}
    doubled = {name: value.double() if value.is_floating_point() else value for name, value in weights.items()}
    double = {name: _outcome(name, doubled, setting, x.double(), y) for name in names if CONTESTANTS[name].double}
    beside = {name: next(other for other in names if _same_mode(name, other)) for name in names}
    return {name: _compared(name, other, single, double, judge, y) for name, other in beside.items()}


def _same_mode(one: str, other: str) -> bool:
    return CONTESTANTS[one].mode == CONTESTANTS[other].mode


def _outcome(name: str, weights: Mapping[str, Tensor], setting: Setting, x: Tensor, y: Tensor) -> Outcome:
    one: Contestant = contestants.make(name, weights, setting)
    x_adv = one.craft(x, y).detach().clone()
    one.model.load_state_dict(dict(weights))
    one.step(x, y)
    return x_adv, torch.cat([parameter.detach().double().flatten() for parameter in one.model.parameters()])


def _compared(
    name: str, other: str, single: Mapping[str, Outcome], double: Mapping[str, Outcome], judge: nn.Module, y: Tensor
) -> dict[str, Any]:
    loss, accuracy = _judged(judge, single[name][0], y)
    wanted_loss, wanted_accuracy = _judged(judge, single[other][0], y)
    apart = {
        dtype: float((outcomes[name][1] - outcomes[other][1]).norm() / outcomes[other][1].norm())
        for dtype, outcomes in ((torch.float32, single), (torch.float64, double))
        if name in outcomes and other in outcomes
    }
    sharpest = torch.float64 if torch.float64 in apart else torch.float32
    return {
        "with": other,
        "adversarial_loss": loss,
        "robust_accuracy": accuracy,
        "equal_pixels": float(((single[name][0] - single[other][0]).abs() < 1e-6).float().mean()),
        "weights_float32": apart[torch.float32],
        "weights_float64": apart.get(torch.float64),
        "agrees": abs(loss - wanted_loss) <= LOSS_TOLERANCE * abs(wanted_loss)
        and abs(accuracy - wanted_accuracy) <= ACCURACY_TOLERANCE
        and apart[sharpest] <= WEIGHTS_TOLERANCE[sharpest],
    }


@torch.no_grad()
def _judged(judge: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    logits = judge(x)
    return float(cross_entropy(logits, y)), float((logits.argmax(1) == y).float().mean())
