"""PwoA's updates: when they come, how rho grows, and where the copy is between them."""

import pytest
import torch
from torch import nn

from gossamer.seeding import Draws
from gossamer.sparsity import Horizon
from gossamer.sparsity.budgets import budget
from gossamer.sparsity.pwoa import EpochwiseADMM
from gossamer.sparsity.sets import Sparse


def drawn(epochs: int, steps: int = 2, **options: bool) -> tuple[nn.Linear, EpochwiseADMM, torch.optim.Optimizer]:
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[4.0, 3.0, 2.0, 1.0]]))
    admm = EpochwiseADMM(density=0.5, constraint=Sparse(budget=budget("uniform")), **options)
    admm.attach(model, Draws(), Horizon(epochs=epochs, steps_per_epoch=steps, image_shape=(1, 8, 8)))
    return model, admm, torch.optim.SGD(model.parameters(), lr=0.1)


def test_fifty_epochs_make_sixteen_updates_and_rho_reaches_one_at_the_last() -> None:
    _, admm, optimizer = drawn(50)
    seen = [admm.splitting.rho]
    for step in range(100):
        admm.after_step(step, optimizer)
        if admm.splitting.rho != seen[-1]:
            assert (step + 1) % 6 == 0
            seen.append(admm.splitting.rho)
    assert len(seen) == 17
    assert seen[:3] == pytest.approx([0.01, 0.0135, 0.018225])
    assert seen[15] == pytest.approx(0.01 * 1.35**15)
    assert seen[15] < 1
    assert seen[16] == 1.0


@pytest.mark.parametrize(("restart", "between"), [(True, [0.0, 3.0, 5.0, 0.0]), (False, [4.0, 3.0, 0.0, 0.0])])
def test_the_copy_follows_the_weights_at_every_epoch_and_the_dual_only_at_updates(
    restart: bool, between: list[float]
) -> None:
    model, admm, optimizer = drawn(6, restart=restart)
    assert admm.splitting.copy["weight"].tolist() == [[4.0, 3.0, 0.0, 0.0]]
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 3.0, 5.0, 2.0]]))
    admm.after_step(0, optimizer)
    assert admm.splitting.copy["weight"].tolist() == [[4.0, 3.0, 0.0, 0.0]]
    admm.after_step(1, optimizer)
    assert admm.splitting.copy["weight"].tolist() == [between]
    assert not admm.splitting.dual["weight"].any()
    admm.after_step(5, optimizer)
    assert admm.splitting.copy["weight"].tolist() == [[0.0, 3.0, 5.0, 0.0]]
    assert admm.splitting.dual["weight"].tolist() == [[1.0, 0.0, 0.0, 2.0]]
    # rho = 0.0135; W - Z + U = (2, 0, 0, 4).
    assert admm.penalty(model).item() == pytest.approx(0.0135 / 2 * 20)


def test_nothing_moves_after_the_last_epoch() -> None:
    model, admm, optimizer = drawn(3)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 3.0, 5.0, 2.0]]))
    admm.after_step(5, optimizer)
    assert admm.splitting.rho == 0.01
    assert admm.splitting.copy["weight"].tolist() == [[4.0, 3.0, 0.0, 0.0]]
    assert admm.finalize(model).module.weight.tolist() == [[0.0, 3.0, 5.0, 0.0]]
