"""Trainable weight noise: moments, gradients and one step by hand, survivors alone, what ships and is built again."""

from typing import Any

import pytest
import torch
from torch import nn

from gossamer.errors import ConfigError
from gossamer.evaluation.stochastic import noise_off
from gossamer.models.folding import build_surrogate
from gossamer.models.registry import build
from gossamer.objectives.penalties import L1
from gossamer.seeding import Draws
from gossamer.sparsity import HeldMask, NoSparsifier, targets
from gossamer.sparsity.forms import form
from gossamer.sparsity.noisy_weights import NoisyWeights, WeightNoise, noise_of
from gossamer.training.averages import Average, AverageSpec
from gossamer.training.optimizers import OptimizerSpec

WEIGHTS = [[2.0, -3.0, 0.5], [1.0, 4.0, -1.5]]


def noisy(inner: Any = None, weights: list[list[float]] = WEIGHTS, **options: Any) -> tuple[nn.Linear, NoisyWeights]:
    layer = nn.Linear(len(weights[0]), len(weights), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights))
    sparsifier = NoisyWeights(inner or NoSparsifier(), **options)
    sparsifier.attach(layer, Draws())
    return layer, sparsifier


def noise(model: nn.Module) -> WeightNoise:
    found = noise_of(targets(model)[0])
    assert found is not None
    return found


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build("digits-cnn").eval()


def drawn(seed: int = 0) -> torch.Tensor:
    """Return eta of the toy layer: the generator's first draws, with the deviation of its weights."""
    torch.manual_seed(seed)
    return torch.randn(2, 3) * torch.tensor(WEIGHTS).std()


def test_a_read_is_the_weight_plus_alpha_times_a_draw_of_its_own_deviation() -> None:
    model, _ = noisy()
    expected = torch.tensor(WEIGHTS) + 0.25 * drawn()
    torch.manual_seed(0)
    torch.testing.assert_close(model.weight.detach(), expected)
    assert not torch.equal(model.weight, model.weight)


def test_the_mean_of_many_reads_is_the_weight_and_their_deviation_alpha_times_its_own() -> None:
    model, _ = noisy()
    torch.manual_seed(0)
    reads = torch.stack([model.weight.detach() for _ in range(4000)])
    scale = float(torch.tensor(WEIGHTS).std())
    torch.testing.assert_close(reads.mean(0), torch.tensor(WEIGHTS), rtol=0, atol=4 * 0.25 * scale / 4000**0.5)
    torch.testing.assert_close(reads.std(0), torch.full((2, 3), 0.25 * scale), rtol=0.06, atol=0)


@pytest.mark.parametrize(("grain", "shape"), [("layer", (1, 1)), ("channel", (2, 1)), ("element", (2, 3))], ids=str)
def test_gradients_reach_the_weight_unchanged_and_alpha_through_the_draw_alone(
    grain: Any, shape: tuple[int, ...]
) -> None:
    model, _ = noisy(grain=grain)
    eta = drawn()
    slopes = torch.tensor([[1.0, 10.0, 100.0], [-1.0, 2.0, 0.5]])
    torch.manual_seed(0)
    (model.weight * slopes).sum().backward()
    (layer,) = targets(model)
    assert layer.parameter.grad is not None
    assert torch.equal(layer.parameter.grad, slopes)
    alpha = noise(model).alpha
    assert alpha.shape == shape
    assert alpha.grad is not None
    shared = [axis for axis in (0, 1) if shape[axis] == 1]
    expected = (slopes * eta).sum(shared, keepdim=True) if shared else slopes * eta
    torch.testing.assert_close(alpha.grad, expected)


def test_one_step_by_hand_decays_weights_and_leaves_alpha_alone() -> None:
    model, sparsifier = noisy(grain="layer")
    optimizer = OptimizerSpec(lr=0.1, momentum=0.0, weight_decay=0.5).build(model, sparsifier.undecayed())
    eta = drawn()
    torch.manual_seed(0)
    model.weight.sum().backward()
    optimizer.step()
    (layer,) = targets(model)
    torch.testing.assert_close(layer.parameter.detach(), torch.tensor(WEIGHTS) * 0.95 - 0.1)
    torch.testing.assert_close(noise(model).alpha.detach(), 0.25 - 0.1 * eta.sum().reshape(1, 1))


def test_pruned_weights_get_no_noise_and_count_in_the_deviation_unless_left_out() -> None:
    weights = [[2.0, 0.0, 1.0], [0.0, 4.0, -1.0]]
    torch.manual_seed(0)
    normal = torch.randn(2, 3)
    for spread, values in (("all", [2.0, 0.0, 1.0, 0.0, 4.0, -1.0]), ("kept", [2.0, 1.0, 4.0, -1.0])):
        model, _ = noisy(weights=weights, spread=spread)
        kept = torch.tensor(weights) != 0
        torch.manual_seed(0)
        read = model.weight.detach()
        assert (read[~kept] == 0).all()
        expected = torch.tensor(weights) + 0.25 * torch.tensor(values).std() * normal
        torch.testing.assert_close(read[kept], expected[kept])


def test_a_layer_of_one_weight_has_no_deviation() -> None:
    model, _ = noisy(weights=[[3.0]])
    assert model.weight.item() == 3.0


def test_without_alpha_the_network_is_the_plain_one_and_with_it_two_passes_differ() -> None:
    x = torch.rand(4, 1, 8, 8)
    plain = network()(x)
    silent, loud = network(), network()
    NoisyWeights(NoSparsifier(), start=0.0).attach(silent, Draws())
    NoisyWeights(NoSparsifier()).attach(loud, Draws())
    assert torch.equal(silent(x), plain)
    assert not torch.equal(loud(x), loud(x))
    with noise_off(loud):
        assert torch.equal(loud(x), plain)
    assert build_surrogate(loud) is None


def test_the_memory_format_does_not_change_the_draws() -> None:
    model, other = network(), network()
    for each in (model, other):
        NoisyWeights(NoSparsifier()).attach(each, Draws())
    other.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue,reportArgumentType]
    reads = []
    for each in (model, other):
        torch.manual_seed(0)
        reads.append(each.conv2.weight.detach())
    assert torch.equal(*reads)


def test_registering_shipping_and_building_again_draw_nothing() -> None:
    model, other = network(), network()
    before = torch.get_rng_state()
    sparsifier = NoisyWeights(NoSparsifier())
    sparsifier.attach(model, Draws())
    final = sparsifier.finalize(model)
    form(final.form).twin(form(final.form).rebuild(other, final.module.state_dict()))
    assert torch.equal(torch.get_rng_state(), before)


def test_what_ships_draws_as_the_trained_network_does_and_its_twin_not_at_all() -> None:
    model = network()
    inner = HeldMask()
    with torch.no_grad():
        for layer in targets(model):
            layer.parameter[layer.parameter.abs() < 0.05] = 0.0
    sparsifier = NoisyWeights(inner, grain="channel", spread="kept")
    sparsifier.attach(model, Draws())
    with torch.no_grad():
        noise(model).alpha.mul_(2.0)
    final = sparsifier.finalize(model)
    x = torch.rand(4, 1, 8, 8)
    rebuilt = form(final.form).rebuild(network(), final.module.state_dict())
    for shipped in (final.module, rebuilt):
        torch.manual_seed(3)
        expected = model(x)
        torch.manual_seed(3)
        assert torch.equal(shipped(x), expected)
        assert not torch.equal(shipped(x), shipped(x))
        assert all((each.weight != 0).equal(inner.masks()[each.name]) for each in targets(shipped))
    twin = form(final.form).twin(rebuilt)
    assert torch.equal(twin(x), final.twin(x))
    network().load_state_dict(twin.state_dict())
    assert (final.kind, final.dense_weights, final.masks.kept) == ("stochastic", 58_656, inner.masks().kept)


def test_an_average_takes_in_weights_and_alphas_and_not_the_draws() -> None:
    model, sparsifier = noisy()
    average = Average(AverageSpec(decay=0.5), sparsifier.averaged)
    average.after_step(0, model)
    with torch.no_grad():
        targets(model)[0].parameter.add_(2.0)
        noise(model).alpha.add_(1.0)
    average.after_step(0, model)
    final = average.finalise(model, sparsifier, list)
    torch.testing.assert_close(final.twin.weight.detach(), torch.tensor(WEIGHTS) + 1.0)
    torch.testing.assert_close(noise(final.module).alpha.detach(), torch.full((2, 1), 0.75))
    torch.testing.assert_close(noise(model).alpha.detach(), torch.full((2, 1), 1.25))


def test_noise_that_is_there_already_goes_on() -> None:
    model, _ = noisy()
    with torch.no_grad():
        noise(model).alpha.fill_(0.6)
    NoisyWeights(HeldMask()).attach(model, Draws())
    assert len(model.parametrizations["weight"]) == 1  # type: ignore[index,arg-type]
    assert (noise(model).alpha == 0.6).all()


def test_the_lasso_acts_on_the_stored_weights() -> None:
    model, _ = noisy()
    assert L1(strength=0.5)(model).item() == pytest.approx(0.5 * 12.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"grain": "row"}, r"method\.noise: expected one of layer, channel, element"),
        ({"start": -0.1}, r"method\.alpha: expected a number of at least 0"),
        ({"spread": "some"}, r"method\.spread: expected one of all, kept"),
    ],
)
def test_impossible_noise_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        NoisyWeights(NoSparsifier(), **options)
