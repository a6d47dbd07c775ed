"""BinaryConnect: signs, straight-through gradient and one step by hand, masks that hold, latent weights handed on."""

from typing import Any

import pytest
import torch
from torch import nn

from gossamer.errors import ConfigError
from gossamer.models.folding import build_surrogate
from gossamer.models.registry import build
from gossamer.seeding import Draws
from gossamer.sparsity import HeldMask, NoSparsifier, ScoreMask, targets
from gossamer.sparsity.binary_weights import Binary, load_latents
from gossamer.sparsity.forms import form
from gossamer.training.averages import Average, AverageSpec

LATENTS = [[0.5, -0.25, 0.0, 1.5]]


def binary(inner: Any = None, latents: list[list[float]] = LATENTS, **options: Any) -> tuple[nn.Linear, Binary]:
    layer = nn.Linear(len(latents[0]), len(latents), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(latents))
    sparsifier = Binary(inner or NoSparsifier(), **options)
    sparsifier.attach(layer, Draws())
    return layer, sparsifier


def latent(model: nn.Module) -> torch.Tensor:
    return targets(model)[0].parameter.detach()


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build("digits-cnn").eval()


def test_signs_compute_zeros_stay_zeros_and_latents_are_clipped() -> None:
    model, _ = binary()
    assert model.weight.tolist() == [[1.0, -1.0, 0.0, 1.0]]
    assert latent(model).tolist() == [[0.5, -0.25, 0.0, 1.0]]


def test_the_gradient_passes_inside_the_bounds_and_stops_outside() -> None:
    model, _ = binary()
    with torch.no_grad():
        targets(model)[0].parameter[0, 3] = 1.5
    (model.weight * torch.tensor([[1.0, 2.0, 3.0, 4.0]])).sum().backward()
    assert targets(model)[0].parameter.grad.tolist() == [[1.0, 2.0, 3.0, 0.0]]  # type: ignore[union-attr]


def test_one_step_by_hand_flips_a_sign_and_clips() -> None:
    model, sparsifier = binary()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    (model.weight * torch.tensor([[6.0, 1.0, 0.0, -5.0]])).sum().backward()
    sparsifier.before_step(0, optimizer)
    optimizer.step()
    sparsifier.after_step(0, optimizer)
    torch.testing.assert_close(latent(model), torch.tensor([[-0.1, -0.35, 0.0, 1.0]]))
    assert model.weight.tolist() == [[-1.0, -1.0, 0.0, 1.0]]


def test_the_mean_scale_is_that_of_latent_weights_that_are_not_zero() -> None:
    model, sparsifier = binary(scale="mean")
    mean = (0.5 + 0.25 + 1.0) / 3
    torch.testing.assert_close(model.weight.detach(), torch.tensor([[mean, -mean, 0.0, mean]]))
    model.weight.sum().backward()
    torch.testing.assert_close(targets(model)[0].parameter.grad, torch.full((1, 4), mean))
    torch.testing.assert_close(sparsifier.finalize(model).module.weight.detach(), model.weight.detach())


def test_the_mean_scale_follows_the_latent_weights_once_they_are_there() -> None:
    model, sparsifier = binary(scale="mean")
    moved = torch.tensor([[0.5, -0.5, 0.0, 0.25]])

    def move(values: torch.Tensor) -> None:
        with torch.no_grad():
            targets(model)[0].parameter.copy_(values)

    for renew in (
        sparsifier.refresh,
        lambda: sparsifier.load_state_dict(sparsifier.state_dict()),
        lambda: sparsifier.after_step(0, torch.optim.SGD(model.parameters(), lr=0.1)),
        lambda: sparsifier.after_epoch(0, {}),
    ):
        move(torch.tensor(LATENTS))
        sparsifier.refresh()
        move(moved)
        renew()
        torch.testing.assert_close(model.weight.detach(), moved.sign() * (1.25 / 3))
    assert set(model.state_dict()) == {"parametrizations.weight.original", "parametrizations.weight.0.scaled"}


def test_a_held_mask_holds_under_signs() -> None:
    model, sparsifier = binary(HeldMask())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.5)
    for step in range(3):
        optimizer.zero_grad()
        model.weight.sum().backward()
        sparsifier.before_step(step, optimizer)
        optimizer.step()
        sparsifier.after_step(step, optimizer)
    assert latent(model)[0, 2] == 0.0
    final = sparsifier.finalize(model)
    assert final.module.weight.tolist() == [[-1.0, -1.0, 0.0, -1.0]]
    assert (final.kind, final.form, final.masks.kept) == ("same-keys", "dense", 3)


def test_an_average_is_of_latent_weights_and_ships_their_signs() -> None:
    model, sparsifier = binary()
    average = Average(AverageSpec(decay=0.5), sparsifier.averaged)
    average.after_step(0, model)
    with torch.no_grad():
        targets(model)[0].parameter.copy_(torch.tensor([[-1.0, -1.0, 0.0, 0.5]]))
    average.after_step(0, model)
    assert average.finalise(model, sparsifier, list).module.weight.tolist() == [[-1.0, -1.0, 0.0, 1.0]]
    assert model.weight.tolist() == [[-1.0, -1.0, 0.0, 1.0]]
    assert latent(model)[0, 3] == 0.5


def test_scores_choose_among_signs_and_are_not_clipped() -> None:
    model = network()
    weights = {layer.name: layer.weight.detach().clone() for layer in targets(model)}
    sparsifier = Binary(ScoreMask(density=0.1), latent=True)
    sparsifier.attach(model, Draws())
    scores = targets(model)[1].parameter
    with torch.no_grad():
        scores.mul_(100.0)
    sparsifier.after_step(0, torch.optim.SGD([scores], lr=0.1))
    assert scores.abs().max() > 1.0
    for layer in targets(model):
        mask = sparsifier.masks()[layer.name]
        assert torch.equal(layer.weight, torch.where(mask, weights[layer.name].sign(), 0.0))


def test_latent_weights_are_handed_on_by_a_state_that_computes_with_signs() -> None:
    model = network()
    sparsifier = Binary(NoSparsifier(), latent=True, scale="mean")
    sparsifier.attach(model, Draws())
    x = torch.rand(4, 1, 8, 8)
    final = sparsifier.finalize(model)
    tensors = final.module.state_dict()
    rebuilt = form(final.form).rebuild(network(), tensors)
    assert torch.equal(final.module(x), model(x))
    assert torch.equal(rebuilt(x), model(x))
    following = network()
    with torch.no_grad():
        following.conv2.weight.zero_()
    load_latents(following, tensors)
    assert all(torch.equal(a.parameter, b.parameter) for a, b in zip(targets(following), targets(model), strict=True))
    load_latents(following, network().state_dict())
    assert torch.equal(following.conv1.weight, network().conv1.weight)


def test_a_folded_copy_computes_with_signs() -> None:
    model = network()
    Binary(NoSparsifier()).attach(model, Draws())
    surrogate = build_surrogate(model)
    assert surrogate is not None
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(surrogate(x), model(x), rtol=1e-4, atol=1e-3)


def test_an_unknown_scale_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.binary_scale: expected none or mean"):
        Binary(NoSparsifier(), scale="max")  # type: ignore[arg-type]
