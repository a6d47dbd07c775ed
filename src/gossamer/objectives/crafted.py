"""How does an objective get its adversarial inputs? By the attack it was given, or not at all."""

from torch import Tensor, nn

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.types import Attack


def attack_inputs(
    objective: str, attack: Attack | None, model: nn.Module, x: Tensor, y: Tensor, *, draws: Draws
) -> Tensor:
    """Return attack(model, x, y) without a graph: (N, C, H, W); raises ConfigError where there is no attack."""
    if attack is None:
        raise ConfigError(
            f"objective {objective}",
            expected="a training attack",
            got="none",
            remedy="leave the attack out for the objective's own, or name one such as pgd",
        )
    return attack(model, x, y, draws=draws).detach()
