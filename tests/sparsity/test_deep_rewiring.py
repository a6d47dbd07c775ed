"""Deep Rewiring: one step by hand, counts held, and the equilibrium of its soft form."""

import pytest
import torch
from torch import Tensor, nn

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.sparsity import ConnectivitySampling, targets
from gossamer.sparsity.deep_rewiring import DeepRewiring, SoftDeepRewiring
from gossamer.sparsity.signed import SignedWeights
from gossamer.training.optimizers import DecayFirstSGD


def put(model: nn.Module, theta: list[float], sign: list[float]) -> nn.Parameter:
    (target,) = targets(model)
    with torch.no_grad():
        target.parameter.copy_(torch.tensor([theta]))
        target.module.parametrizations["weight"][0].sign.copy_(torch.tensor([sign]))  # type: ignore[index,union-attr,operator]
    return target.parameter


def take_step(sparsifier: SignedWeights, optimizer: torch.optim.Optimizer, loss: Tensor, step: int = 0) -> None:
    optimizer.zero_grad()
    loss.backward()
    sparsifier.before_step(step, optimizer)
    optimizer.step()
    sparsifier.after_step(step, optimizer)


@pytest.mark.parametrize("scope", ["global", "local"])
def test_one_step_by_hand(scope: str) -> None:
    model = nn.Linear(4, 1, bias=False)
    rewiring = DeepRewiring(density=0.5, scope=scope, l1=0.5, sigma=0.0)  # type: ignore[arg-type]
    rewiring.attach(model, Draws())
    assert rewiring.active == rewiring.budget == 2
    theta = put(model, [0.5, 0.1, 0.0, -0.2], [1.0, -1.0, 1.0, 1.0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    # Slopes of theta: 2 and 1 where active, none elsewhere. 0.5 - 0.2 - 0.05 lives, 0.1 - 0.1 - 0 dies.
    take_step(rewiring, optimizer, (model.weight * torch.tensor([[2.0, -1.0, 9.0, 9.0]])).sum())
    assert theta[0, 0].item() == pytest.approx(0.25)
    drawn = (theta.detach() == 1e-12).nonzero()[:, 1].tolist()
    assert len(drawn) == 1
    assert drawn[0] in (1, 2, 3)
    assert rewiring.active == 2
    assert rewiring.measures() == {"revived": 1, "self_revived": 0, "died": 1}


def test_noise_moves_what_is_active_by_the_rate_times_sigma_and_nothing_else() -> None:
    model = nn.Linear(20_000, 1, bias=False)
    rewiring = DeepRewiring(density=0.5, l1=0.0, sigma=0.01)
    rewiring.attach(model, Draws())
    theta = put(model, [5.0] * 10_000 + [-0.5] * 10_000, [1.0] * 20_000)
    take_step(rewiring, torch.optim.SGD(model.parameters(), lr=0.2), (model.weight * 0.0).sum())
    moved = theta.detach()[0, :10_000] - 5.0
    assert moved.std().item() == pytest.approx(0.2 * 0.01, rel=0.03)
    assert torch.equal(theta.detach()[0, 10_000:], torch.full((10_000,), -0.5))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))


@pytest.mark.parametrize("scope", ["global", "local"])
def test_the_number_of_connections_is_held_at_every_step(scope: str) -> None:
    model = network()
    rewiring = DeepRewiring(density=0.2, budget="erk", scope=scope, l1=1e-2, sigma=1e-2)  # type: ignore[arg-type]
    rewiring.attach(model, Draws())
    first = rewiring.masks().kept_per_layer
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for step in range(20):
        x, y = torch.rand(16, 1, 8, 8), torch.randint(10, (16,))
        take_step(rewiring, optimizer, nn.functional.cross_entropy(model(x), y), step)
        assert rewiring.active == rewiring.budget == sum(first.values())
        if scope == "local":
            assert rewiring.masks().kept_per_layer == first
    assert rewiring.measures()["died"] > 0
    shipped = rewiring.finalize(model)
    assert shipped.masks.kept == rewiring.budget
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(shipped.module(x), model.eval()(x))


def test_the_surplus_that_a_momentum_revives_does_not_ship() -> None:
    model = nn.Linear(4, 1, bias=False)
    rewiring = DeepRewiring(density=0.5, scope="local", l1=0.0, sigma=0.0)
    rewiring.attach(model, Draws())
    put(model, [0.5, 0.1, 0.3, -0.2], [1.0] * 4)
    assert rewiring.active == 3
    assert rewiring.finalize(model).module.weight.tolist() == [[0.5, 0.0, pytest.approx(0.3), 0.0]]  # type: ignore[operator,union-attr]


def test_magnitudes_start_normal_over_the_root_of_the_fan_in() -> None:
    model = nn.Conv2d(16, 256, 3, bias=False)
    rewiring = DeepRewiring(density=0.25)
    rewiring.attach(model, Draws())
    live = model.weight.detach()[model.weight != 0]
    assert live.numel() == int(0.25 * 256 * 144)
    assert live.std().item() == pytest.approx(1 / 12, rel=0.03)
    assert abs((live > 0).float().mean().item() - 0.5) < 4 * 0.5 / live.numel() ** 0.5


def soft(model: nn.Module, **options: float) -> SoftDeepRewiring:
    rewiring = SoftDeepRewiring(density=0.25, **{"rate": 0.1, "l1": 0.001, "sigma": 0.01, **options})  # type: ignore[arg-type]
    rewiring.attach(model, Draws())
    return rewiring


def test_the_floor_follows_from_share_drift_and_temperature() -> None:
    # T = 0.1 * 0.01^2 / 2 = 5e-6, b = 0.001 / T = 200, floor = -(0.75 / 0.25) / 200.
    assert soft(nn.Linear(8, 1, bias=False)).floor("weight") == pytest.approx(-0.015)


def test_nothing_falls_below_the_floor_and_dormant_weights_wander() -> None:
    model = nn.Linear(10_000, 1, bias=False)
    rewiring = soft(model)
    theta = put(model, [2.0] * 5000 + [-0.007] * 4999 + [-1.0], [1.0] * 10_000)
    take_step(rewiring, torch.optim.SGD(model.parameters(), lr=0.1), (model.weight * 0.0).sum())
    moved = theta.detach()[0]
    assert moved[:5000].mean().item() == pytest.approx(2.0 - 0.1 * 0.001, abs=5e-5)
    assert moved[5000:9999].mean().item() == pytest.approx(-0.007, abs=5e-5)
    assert moved[5000:9999].std().item() == pytest.approx(0.001, rel=0.05)
    assert moved[9999].item() == pytest.approx(-0.015)
    assert rewiring.measures()["revived"] == 0


def test_without_a_gradient_the_share_of_the_prior_is_active() -> None:
    model = nn.Linear(4000, 1, bias=False)
    rewiring = soft(model)
    put(model, [-0.01] * 4000, [1.0] * 4000)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    shares = []
    for step in range(1500):
        rewiring.before_step(step, optimizer)
        rewiring.after_step(step, optimizer)
        shares.append(rewiring.active / 4000)
    assert sum(shares[700:]) / 800 == pytest.approx(0.25, abs=0.03)


def test_the_l1_variant_of_bcs_adds_lambda_to_the_slopes_of_active_weights() -> None:
    model = nn.Linear(4, 1, bias=False)
    sampling = ConnectivitySampling(density=0.5, sigma=0.0, l1=0.5)
    sampling.attach(model, Draws())
    theta = put(model, [0.5, 0.4, 0.0, -0.2], [1.0, -1.0, 1.0, 1.0])
    optimizer = DecayFirstSGD(model.parameters(), lr=0.1)
    take_step(sampling, optimizer, (model.weight * torch.tensor([[2.0, -1.0, 9.0, 9.0]])).sum())
    # Slopes 2 + 0.5 and 1 + 0.5; the velocity carries them on.
    torch.testing.assert_close(theta.detach(), torch.tensor([[0.25, 0.25, 0.0, -0.2]]))
    torch.testing.assert_close(optimizer.state[theta]["momentum_buffer"], torch.tensor([[-0.25, -0.15, 0.0, 0.0]]))


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.l1"):
        DeepRewiring(density=0.1, l1=-1.0)
    with pytest.raises(ConfigError, match=r"method\.sigma"):
        DeepRewiring(density=0.1, sigma=float("nan"))
    with pytest.raises(ConfigError, match=r"method\.scope"):
        DeepRewiring(density=0.1, scope="layer")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"method\.l1: expected a number above 0"):
        SoftDeepRewiring(density=0.1, l1=0.0)
    with pytest.raises(ConfigError, match=r"write 0\.1 for 10 %"):
        SoftDeepRewiring(density=10)
