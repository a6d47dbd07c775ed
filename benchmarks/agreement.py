"""Do the contestants do the same? One attack and one update from shared weights and a shared start, compared."""


from collections.abc import Mapping, Sequence
from typing import Any

import contestants
import torch
from contestants import CONTESTANTS, Contestant, Setting
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

LOSS_TOLERANCE, ACCURACY_TOLERANCE, WEIGHTS_TOLERANCE = 1e-2, 0.05, 1e-4


def agreement(names: Sequence[str], setting: Setting) -> dict[str, dict[str, Any]]:
    """Return each contestant's outcome beside that of the first of its mode.

    adversarial_loss and robust_accuracy: of the attacked images, on one eval-mode network for all; equal_pixels: the
    share within 1e-6; weights_relative: |w - w'| / |w'| over all parameters after one step. Signs of gradients near
    zero differ with rounding, so images do not agree everywhere; what is learnt from them does.
    """
    weights = contestants.initial_weights(setting)
    x, y = contestants.images(setting.batch)
    judge = contestants.network(weights, setting).eval()
    outcomes = {name: _outcome(contestants.make(name, weights, setting), weights, x, y) for name in names}
    found: dict[str, dict[str, Any]] = {}
    for name, (x_adv, after) in outcomes.items():
        reference = next(other for other in names if CONTESTANTS[other].mode == CONTESTANTS[name].mode)
        expected, expected_after = outcomes[reference]
        loss, accuracy = _judged(judge, x_adv, y)
        wanted_loss, wanted_accuracy = _judged(judge, expected, y)
        apart = float((after - expected_after).norm() / expected_after.norm())
        found[name] = {
            "with": reference,
            "adversarial_loss": loss,
            "clean_loss": _judged(judge, x, y)[0],
            "robust_accuracy": accuracy,
            "equal_pixels": float(((x_adv - expected).abs() < 1e-6).float().mean()),
            "weights_relative": apart,
            "agrees": abs(loss - wanted_loss) <= LOSS_TOLERANCE * abs(wanted_loss)
            and abs(accuracy - wanted_accuracy) <= ACCURACY_TOLERANCE
            and apart <= WEIGHTS_TOLERANCE,
        }
    return found


def _outcome(one: Contestant, weights: Mapping[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x_adv = one.craft(x, y).detach().clone()
    one.model.load_state_dict(dict(weights))
    one.step(x, y)
    after = torch.cat([parameter.detach().double().flatten() for parameter in one.model.parameters()])
    return x_adv, after


@torch.no_grad()
def _judged(judge: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    logits = judge(x)
    return float(cross_entropy(logits, y)), float((logits.argmax(1) == y).float().mean())
