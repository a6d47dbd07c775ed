from collections.abc import Mapping

import bcs_reference as reference
import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.sparsity import ConnectivitySampling, targets
from gossamer.sparsity.signed import draw_dormant, draw_layers
from gossamer.training.optimizers import DecayFirstSGD


def attached(model: nn.Module, *, density: float, sigma: float = 0.0, seed: int = 0, **options: object) -> object:
    sampling = ConnectivitySampling(density=density, sigma=sigma, **options)  # type: ignore[arg-type]
    sampling.attach(model, Draws(seed))
    return sampling


def put(model: nn.Module, *, theta: list[float], sign: list[float]) -> Tensor:
    parametrization = model.parametrizations["weight"]  # type: ignore[index]
    with torch.no_grad():
        parametrization.original.copy_(torch.tensor([theta]))
        parametrization[0].sign.copy_(torch.tensor([sign]))
    return parametrization.original


def take_step(
    model: nn.Module, sampling: object, optimizer: torch.optim.Optimizer, loss: Tensor, step: int = 0
) -> None:
    optimizer.zero_grad()
    loss.backward()
    sampling.before_step(step, optimizer)  # type: ignore[attr-defined]
    optimizer.step()
    sampling.after_step(step, optimizer)  # type: ignore[attr-defined]


def four_weights(density: float, **options: object) -> tuple[nn.Module, ConnectivitySampling, DecayFirstSGD, Tensor]:
    """Four weights, the velocities of an earlier step at the same rate, and a learning rate of 0.1."""
    model = nn.Linear(4, 1, bias=False)
    sampling = attached(model, density=density, **options)
    theta = put(model, theta=[0.5, 0.0, -0.2, 0.1], sign=[1.0, -1.0, 1.0, -1.0])
    optimizer = DecayFirstSGD(model.parameters(), lr=0.1, weight_decay=0.01)
    optimizer.state[theta]["momentum_buffer"] = torch.tensor([[0.0, 0.3, 0.05, -0.5]])
    return model, sampling, optimizer, theta  # type: ignore[return-value]


# dL/dw; the slope of theta is S times it where theta > 0: [2, 0, 0, 1].
SLOPES = torch.tensor([[2.0, 7.0, 7.0, -1.0]])
# theta * 0.99 + v with v = 0.9 v - 0.1 slope: 0.495 - 0.2, 0 + 0.27, -0.198 + 0.045, 0.099 - 0.45 - 0.1.
AFTER = [0.295, 0.27, -0.153, -0.451]
VELOCITY = [-0.2, 0.27, 0.045, -0.55]


def test_one_step_by_hand_without_a_draw() -> None:
    model, sampling, optimizer, theta = four_weights(density=0.5)
    take_step(model, sampling, optimizer, (model.weight * SLOPES).sum())
    torch.testing.assert_close(theta.detach(), torch.tensor([AFTER]))
    torch.testing.assert_close(optimizer.state[theta]["momentum_buffer"], torch.tensor([VELOCITY]))
    torch.testing.assert_close(model.weight.detach(), torch.tensor([[0.295, -0.27, 0.0, 0.0]]))
    assert sampling.measures() == {"revived": 0, "self_revived": 1, "died": 1}
    assert sampling.measures() == {"revived": 0, "self_revived": 0, "died": 0}


@pytest.mark.parametrize("reset", [False, True])
def test_one_step_by_hand_with_a_draw(reset: bool) -> None:
    model, sampling, optimizer, theta = four_weights(density=0.75, reset_velocity=reset)
    take_step(model, sampling, optimizer, (model.weight * SLOPES).sum())
    drawn = [position for position in (2, 3) if theta[0, position] == np.float32(1e-12)]
    assert len(drawn) == 1
    kept = [position for position in range(4) if position not in drawn]
    torch.testing.assert_close(theta.detach()[0, kept], torch.tensor(AFTER)[kept])
    expected = torch.tensor(VELOCITY)
    if reset:
        expected[drawn] = 0.0
    torch.testing.assert_close(optimizer.state[theta]["momentum_buffer"][0], expected)
    assert model.parametrizations["weight"][0].sign.tolist() == [[1.0, -1.0, 1.0, -1.0]]
    assert sampling.measures() == {"revived": 1, "self_revived": 1, "died": 1}


def test_the_old_velocity_keeps_the_old_rate_when_the_rate_drops() -> None:
    model = nn.Linear(1, 1, bias=False)
    attached(model, density=1.0)
    theta = put(model, theta=[1.0], sign=[1.0])
    optimizer = DecayFirstSGD(model.parameters(), lr=0.1)
    model.weight.sum().backward()
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.01
    optimizer.step()
    # v1 = -0.1; v2 = 0.9 * -0.1 - 0.01 * 1 = -0.1, whereas torch's SGD would move by 0.01 * (0.9 + 1) = 0.019.
    assert theta.item() == pytest.approx(1.0 - 0.1 - 0.1)


def test_decay_is_not_multiplied_by_the_learning_rate_and_reaches_dormant_weights() -> None:
    model = nn.Linear(2, 1, bias=False)
    attached(model, density=0.5)
    theta = put(model, theta=[1.0, -2.0], sign=[1.0, 1.0])
    optimizer = DecayFirstSGD(model.parameters(), lr=0.001, weight_decay=0.25)
    (model.weight * 0.0).sum().backward()
    optimizer.step()
    assert theta.tolist() == [[0.75, -1.5]]


class Toy(nn.Module):
    """A convolution and a dense layer with biases."""

    def __init__(self, memory_format: torch.memory_format) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.fc = nn.Linear(20, 6)
        self.to(memory_format=memory_format)  # type: ignore[call-overload]


def kernels(model: nn.Module) -> list[Tensor]:
    return [target.parameter for target in targets(model)]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_many_steps_agree_with_an_implementation_of_its_own(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    model = Toy(memory_format)
    sampling: ConnectivitySampling = attached(model, density=0.3, seed=3)  # type: ignore[assignment]
    model.to(memory_format=memory_format)  # type: ignore[call-overload]
    optimizer = DecayFirstSGD(model.parameters(), lr=0.1, weight_decay=0.02)
    layers = [
        reference.Weights(
            target.parameter.detach().numpy().copy(), target.module.parametrizations["weight"][0].sign.numpy()
        )  # type: ignore[index,union-attr]
        for target in targets(model)
    ]
    quiet = [np.zeros_like(layer.theta) for layer in layers]
    drawn_in_all = 0
    for step in range(40):
        lr, decay = (0.1, 0.02) if step < 20 else (0.01, 0.002)
        optimizer.param_groups[0].update(lr=lr, weight_decay=decay)
        gradients = [torch.randn_like(kernel) for kernel in kernels(model)]
        weights = [target.weight for target in targets(model)]
        for weight, layer in zip(weights, layers, strict=True):
            np.testing.assert_allclose(weight.detach().numpy(), layer.effective, atol=1e-5)
        loss = torch.stack([(w * g).sum() for w, g in zip(weights, gradients, strict=True)]).sum()
        take_step(model, sampling, optimizer, loss, step)
        reference.step(layers, [g.numpy() for g in gradients], lr=lr, decay=decay, noise=quiet)
        revived = [(k.detach().numpy() == np.float32(1e-12)) for k in kernels(model)]
        assert sum(int(mask.sum()) for mask in revived) == reference.missing(layers, sampling.budget)
        for layer, mask, kernel in zip(layers, revived, kernels(model), strict=True):
            reference.revive(layer, mask)
            np.testing.assert_allclose(kernel.detach().numpy(), layer.theta, atol=1e-5)
            velocity = optimizer.state[kernel]["momentum_buffer"].numpy()
            np.testing.assert_allclose(velocity, layer.velocity, atol=1e-5)
        drawn_in_all += sum(int(mask.sum()) for mask in revived)
    assert drawn_in_all > 50
    assert sampling.measures()["revived"] == drawn_in_all


def test_noise_of_lr_times_sigma_moves_weights_active_before_the_update_and_no_others() -> None:
    model = nn.Linear(40_000, 1, bias=False)
    sampling = attached(model, density=0.1, sigma=0.01)
    start = [0.5] * 15_000 + [1e-3] * 15_000 + [-0.5] * 10_000
    theta = put(model, theta=start, sign=[1.0] * 40_000)
    optimizer = DecayFirstSGD(model.parameters(), lr=0.2, momentum=0.0)
    slopes = torch.tensor([[0.0] * 15_000 + [5.0] * 25_000])
    take_step(model, sampling, optimizer, (model.weight * slopes).sum())
    moved = theta.detach()[0] - torch.tensor(start)
    stayed_alive, crossed, dormant = moved[:15_000], moved[15_000:30_000] + 1.0, moved[30_000:]
    for noisy in (stayed_alive, crossed):
        assert noisy.std().item() == pytest.approx(0.2 * 0.01, rel=0.02)
        assert abs(noisy.mean().item()) < 4 * 0.002 / 15_000**0.5
    assert torch.count_nonzero(dormant) == 0


def test_noise_is_a_function_of_the_step() -> None:
    def noise(step: int) -> Tensor:
        model = nn.Linear(64, 1, bias=False)
        sampling = attached(model, density=0.1, sigma=1.0)
        theta = put(model, theta=[9.0] * 64, sign=[1.0] * 64)
        optimizer = DecayFirstSGD(model.parameters(), lr=0.1)
        take_step(model, sampling, optimizer, (model.weight * 0.0).sum(), step)
        return theta.detach() - 9.0

    assert torch.equal(noise(0), noise(0))
    assert not torch.allclose(noise(0), noise(1))


def test_signs_are_even_and_magnitudes_those_of_a_truncated_he_normal() -> None:
    model = nn.Conv2d(16, 256, 3)
    sampling = attached(model, density=0.5, initial={"weight": 0.25})
    theta, sign = model.parametrizations["weight"].original.detach(), model.parametrizations["weight"][0].sign  # type: ignore[index]
    n = theta.numel()
    assert sampling.active == int(0.25 * n)  # type: ignore[attr-defined]
    assert torch.count_nonzero(theta) == int(0.25 * n)
    assert set(sign.unique().tolist()) == {-1.0, 1.0}
    assert abs(sign.mean().item()) < 4 / n**0.5
    live = theta[theta > 0] * sign[theta > 0]
    # Variance 2 / fan_in after the cut at two standard deviations of the uncut normal.
    assert live.std().item() == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.03)
    assert live.abs().max().item() <= 2 * (2 / (16 * 9)) ** 0.5 / 0.87962566 + 1e-6
    assert live.abs().max().item() > 1.9 * (2 / (16 * 9)) ** 0.5 / 0.87962566


def test_initial_places_are_uniform_within_a_layer() -> None:
    counts = torch.zeros(20)
    for seed in range(400):
        model = nn.Linear(20, 1, bias=False)
        attached(model, density=0.5, initial={"weight": 0.25}, seed=seed)
        counts += (model.parametrizations["weight"].original.detach()[0] > 0).float()  # type: ignore[index,union-attr]
    assert counts.sum() == 400 * 5
    assert chisquare(counts.numpy()).pvalue > 1e-3


def test_layers_are_drawn_in_proportion_to_size_not_to_free_slots() -> None:
    sizes, free = [100, 300, 600], [100_000, 1_000_000, 20_000]
    drawn = np.zeros(3)
    for attempt in range(200):
        drawn += draw_layers(sizes, free, 50, Draws(attempt))
    assert drawn.sum() == 200 * 50
    assert chisquare(drawn, 200 * 50 * np.array([0.1, 0.3, 0.6])).pvalue > 1e-3
    by_free_slots = 200 * 50 * np.array(free) / sum(free)
    assert chisquare(drawn, by_free_slots).pvalue < 1e-9


def test_a_layer_without_room_gives_its_draws_to_the_others() -> None:
    for seed in range(20):
        assert draw_layers([1000, 10, 10], [3, 10, 10], 23, Draws(seed)) == [3, 10, 10]
        shares = draw_layers([1000, 10, 30], [3, 10, 30], 13, Draws(seed))
        assert sum(shares) == 13
        assert shares[0] == 3
    overflow = np.zeros(2)
    for seed in range(300):
        overflow += draw_layers([100_000, 10, 30], [0, 10, 30], 4, Draws(seed))[1:]
    assert chisquare(overflow, overflow.sum() * np.array([0.25, 0.75])).pvalue > 1e-3


@pytest.mark.parametrize("dormant", [4, 60])
def test_connections_are_drawn_uniformly_among_the_dormant_and_never_twice(dormant: int) -> None:
    active = torch.ones(64, dtype=torch.bool)
    places = torch.arange(64)[torch.randperm(64, generator=torch.Generator().manual_seed(1))[:dormant]]
    active[places] = False
    counts = torch.zeros(64)
    for seed in range(1500):
        found = draw_dormant(active, 3, Draws(seed).generator())
        assert found.unique().numel() == 3
        assert not active[found].any()
        counts[found] += 1
    assert torch.count_nonzero(counts[active]) == 0
    assert chisquare(counts[places].numpy()).pvalue > 1e-3


def test_every_dormant_connection_can_be_drawn_at_once() -> None:
    active = torch.tensor([True, False, True, False, False])
    assert sorted(draw_dormant(active, 3, Draws().generator()).tolist()) == [1, 3, 4]


def initial_model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 100, bias=False))


def initial_counts(**options: object) -> Mapping[str, int]:
    model = initial_model()
    sampling = attached(model, **options)  # type: ignore[arg-type]
    return sampling.masks().kept_per_layer  # type: ignore[attr-defined]


def test_layers_without_a_share_of_their_own_start_with_half_the_density() -> None:
    assert initial_counts(density=0.1) == {"0.weight": 5, "1.weight": 50}
    assert initial_counts(density=0.1, initial={"0.*": 0.6}) == {"0.weight": 60, "1.weight": 50}


def test_the_first_pattern_that_matches_wins() -> None:
    assert initial_counts(density=0.1, initial={"0.weight": 0.3, "*": 0.6}) == {"0.weight": 30, "1.weight": 600}


def test_an_initial_surplus_only_shrinks_by_attrition_unless_strict() -> None:
    # K = int(0.1 * 1100) = 110 below 60 + 600.
    shares = {"0.*": 0.6, "1.*": 0.6}
    assert sum(initial_counts(density=0.1, initial=shares).values()) == 660
    strict = initial_counts(density=0.1, initial=shares, strict=True)
    assert strict == {"0.weight": 10, "1.weight": 100}


def test_strict_mode_trims_what_revived_itself_when_it_finalises() -> None:
    model, sampling, optimizer, _ = four_weights(density=0.25, strict=True)
    take_step(model, sampling, optimizer, (model.weight * SLOPES).sum())
    assert sampling.active == 2
    shipped = sampling.finalize(model)
    assert shipped.masks.kept == sampling.budget == 1
    torch.testing.assert_close(shipped.module.weight.detach(), torch.tensor([[0.295, 0.0, 0.0, 0.0]]))  # type: ignore[operator,union-attr]
    assert sampling.active == 2


def test_the_gradient_is_exactly_zero_at_theta_not_above_zero() -> None:
    model = nn.Linear(5, 1, bias=False)
    attached(model, density=0.5)
    theta = put(model, theta=[1.0, 0.0, -1.0, -1e-30, 1e-12], sign=[-1.0, -1.0, 1.0, 1.0, -1.0])
    assert (model.weight == torch.tensor([[-1.0, 0.0, 0.0, 0.0, -1e-12]])).all()
    (model.weight * 3.0).sum().backward()
    assert theta.grad is not None
    assert (theta.grad == torch.tensor([[-3.0, 0.0, 0.0, 0.0, -3.0]])).all()


def test_an_initial_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.initial.*got stem\.\*.*0\.weight, 1\.weight"):
        initial_counts(density=0.1, initial={"stem.*": 0.6})


@pytest.mark.parametrize(("density", "remedy"), [(1.5, "write 0.015 for 1.5 %"), (0.0, "write 0.1"), (-1, "write 0.1")])
def test_an_impossible_density_is_refused(density: float, remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        ConnectivitySampling(density=density)


def test_counters_survive_a_checkpoint() -> None:
    model, sampling, optimizer, _ = four_weights(density=0.75)
    take_step(model, sampling, optimizer, (model.weight * SLOPES).sum())
    other = attached(nn.Linear(4, 1, bias=False), density=0.75)
    other.load_state_dict(sampling.state_dict())  # type: ignore[attr-defined]
    assert other.measures() == sampling.measures()  # type: ignore[attr-defined]
