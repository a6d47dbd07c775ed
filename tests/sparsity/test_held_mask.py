"""A held mask: what is zero at the start stays zero, whatever pulls at it."""

import torch
from torch import nn

from gossamer.seeding import Draws
from gossamer.sparsity import HeldMask


def layer(weights: list[float]) -> nn.Linear:
    made = nn.Linear(len(weights), 1)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([weights]))
    return made


def test_zeros_stay_zero_under_gradient_decay_and_momentum_while_the_rest_learns() -> None:
    model = layer([2.0, 0.0, -1.0, -0.0])
    held = HeldMask()
    held.attach(model, Draws())
    assert held.masks()["weight"].tolist() == [[True, False, True, False]]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    for step in range(2):
        optimizer.zero_grad()
        (model(torch.ones(1, 4)) * 1.0).sum().backward()
        held.before_step(step, optimizer)
        optimizer.step()
        held.after_step(step, optimizer)
    # Gradient 1 at each weight: steps of 0.5 * 1 and 0.5 * 1.9.
    torch.testing.assert_close(model.weight.detach(), torch.tensor([[2.0 - 1.45, 0.0, -1.0 - 1.45, 0.0]]))
    assert not torch.signbit(model.weight.detach()[0, [1, 3]]).any()
    momentum = optimizer.state[model.weight]["momentum_buffer"]
    torch.testing.assert_close(momentum, torch.tensor([[1.9, 0.0, 1.9, 0.0]]))
    assert held.finalize(model).density == 0.5


def test_a_weight_that_passes_through_zero_is_not_forgotten_after_a_kill() -> None:
    first, second = layer([1.0, 0.0]), layer([1.0, 0.0])
    held, other = HeldMask(), HeldMask()
    held.attach(first, Draws())
    with torch.no_grad():
        first.weight[0, 0] = 0.0
        second.weight[0, 0] = 0.0
    other.attach(second, Draws())
    other.load_state_dict(held.state_dict())
    assert other.masks()["weight"].tolist() == [[True, False]]
