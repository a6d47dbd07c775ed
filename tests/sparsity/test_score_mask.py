"""Trainable scores over frozen weights: gradient, one step, budgets and first values by hand; what ships; errors."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gossamer.errors import ConfigError
from gossamer.models.registry import build
from gossamer.seeding import Draws
from gossamer.sparsity import Horizon, ScoreMask, targets
from gossamer.sparsity.budgets import Adaptive
from gossamer.sparsity.score_mask import kept
from gossamer.training.averages import Average, AverageSpec

WEIGHTS = [[2.0, -3.0, 0.5, 1.0]]
SCORES = [[0.1, -0.9, 0.5, -0.2]]


def dense(weights: list[list[float]] = WEIGHTS, **options: Any) -> nn.Linear:
    layer = nn.Linear(len(weights[0]), len(weights), **options)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights))
    return layer


def scored(density: float = 0.5, scores: list[list[float]] = SCORES, **options: Any) -> tuple[nn.Linear, ScoreMask]:
    """Return the layer under given scores."""
    model, mask = dense(bias=False), ScoreMask(density=density, **options)
    mask.attach(model, Draws())
    (layer,) = targets(model)
    with torch.no_grad():
        layer.parameter.copy_(torch.tensor(scores))
    mask.refresh()
    return model, mask


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build("digits-cnn")


def test_the_largest_absolute_scores_keep_their_weights() -> None:
    model, mask = scored()
    assert mask.masks()["weight"].tolist() == [[False, True, True, False]]
    assert model.weight.tolist() == [[0.0, -3.0, 0.5, 0.0]]


def test_the_gradient_at_a_score_is_that_of_the_weight_times_weight_times_sign_also_where_dropped() -> None:
    model, _ = scored()
    x = torch.tensor([[1.0, 10.0, 100.0, 1000.0]])
    model(x).sum().backward()
    (layer,) = targets(model)
    # x * w * sign(s).
    assert layer.parameter.grad is not None
    assert layer.parameter.grad.tolist() == [[2.0, 30.0, 50.0, -1000.0]]


def test_one_step_with_decay_by_hand_lets_a_dropped_weight_in() -> None:
    model, mask = scored()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
    (2.0 * model(torch.tensor([[1.0, 0.0, 1.0, -4.0]]))).sum().backward()
    mask.before_step(0, optimizer)
    optimizer.step()
    mask.after_step(0, optimizer)
    (layer,) = targets(model)
    # g = 2 x w sign(s) = 4, 0, 1, 8; s - 0.1 (g + 0.5 s).
    torch.testing.assert_close(layer.parameter.detach(), torch.tensor([[-0.305, -0.855, 0.375, -0.99]]))
    assert mask.masks()["weight"].tolist() == [[False, True, False, True]]
    assert model.weight.tolist() == [[0.0, -3.0, 0.0, 1.0]]
    assert mask.measures() == {"entered": 1.0}
    assert mask.measures() == {"entered": 0.0}


def test_only_scores_and_batch_norms_learn_and_nothing_else_moves() -> None:
    model = network()
    with torch.no_grad():
        model.fc.bias.fill_(0.25)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    mask = ScoreMask(density=0.1)
    mask.attach(model, Draws())
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    norms = {f"bn{i}.{name}" for i in (1, 2, 3) for name in ("weight", "bias")}
    assert learning == norms | {
        f"{name}.parametrizations.weight.original" for name in ("conv1", "conv2", "conv3", "fc")
    }
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5, momentum=0.9)
    for step in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.rand(8, 1, 8, 8)), torch.arange(8)).backward()
        optimizer.step()
        mask.after_step(step, optimizer)
    for layer in targets(model):
        assert torch.equal(kept(layer).weight, before[layer.name])
    assert torch.equal(model.fc.bias.detach(), before["fc.bias"])
    assert not torch.equal(model.bn1.weight.detach(), before["bn1.weight"])


def test_plain_batch_norms_stay_at_one_and_zero_and_drawn_weights_have_no_bias() -> None:
    model = network()
    with torch.no_grad():
        for module in (model.bn1, model.fc):
            module.bias.fill_(0.5)
            module.weight.fill_(0.5)
    ScoreMask(density=0.1, weights="binary", scores="uniform", batch_norm="plain").attach(model, Draws())
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        f"{name}.parametrizations.weight.original" for name in ("conv1", "conv2", "conv3", "fc")
    }
    assert (model.bn1.weight == 1).all()
    assert (model.bn1.bias == 0).all()
    assert (model.fc.bias == 0).all()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("plain", [2.0, -3.0, 0.5, 1.0]),
        ("binary", [1.0, -1.0, 1.0, 1.0]),
        ("signed-constant", [math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(0.5), math.sqrt(0.5)]),
        ("scaled-signed-constant", [1.0, -1.0, 1.0, 1.0]),
    ],
)
def test_the_weights_that_are_chosen_from(kind: str, expected: list[float]) -> None:
    # fan_in 4: sqrt(2 / 4), and sqrt(2 / (4 * 0.5)) at half the weights.
    model, mask = dense(), ScoreMask(density=0.5, weights=kind)
    mask.attach(model, Draws())
    (layer,) = targets(model)
    torch.testing.assert_close(kept(layer).weight, torch.tensor([expected]))


def test_scores_begin_in_proportion_to_the_weights() -> None:
    model = dense()
    ScoreMask(density=0.5).attach(model, Draws())
    (layer,) = targets(model)
    torch.testing.assert_close(layer.parameter.detach(), math.sqrt(6 / 4) * torch.tensor(WEIGHTS) / 3.0)


def test_scores_of_a_layer_of_zeros_are_zeros() -> None:
    model = dense([[0.0, 0.0]])
    ScoreMask(density=0.5).attach(model, Draws())
    (layer,) = targets(model)
    assert layer.parameter.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(("kind", "bound"), [("uniform", 0.01), ("kaiming-uniform", 1 / math.sqrt(288))])
def test_random_scores_fill_their_interval_and_differ_by_layer_and_seed(kind: str, bound: float) -> None:
    def scores(seed: int) -> list[torch.Tensor]:
        model = network()
        ScoreMask(density=0.1, scores=kind).attach(model, Draws(seed))
        return [layer.parameter.detach() for layer in targets(model)]

    second, third = scores(0)[1:3]
    assert 0.99 * bound < second.abs().max() <= bound
    assert abs(float(second.mean())) < 0.05 * bound
    assert not torch.equal(second, third[:, :32])
    assert torch.equal(second, scores(0)[1])
    assert not torch.equal(second, scores(1)[1])


@given(density=st.floats(0.01, 1.0), p=st.floats(0.0, 1.0), scope=st.sampled_from(["layer", "global"]))
@settings(deadline=None, max_examples=15)
def test_budgets_are_exact(density: float, p: float, scope: str) -> None:
    model = network()
    budget = {"name": "adaptive", "p": p} if scope == "layer" else "uniform"
    mask = ScoreMask(density=density, scope=scope, budget=budget, scores="uniform")
    mask.attach(model, Draws())
    sizes = {layer.name: tuple(layer.weight.shape) for layer in targets(model)}
    if scope == "global":
        assert mask.masks().kept == int(density * 58_656)
    else:
        assert mask.masks().kept_per_layer == Adaptive(p=p)(sizes, density)


def test_density_falls_geometrically_in_stages() -> None:
    model = network()
    mask = ScoreMask(density=0.01, scope="global", stages=2)
    mask.attach(model, Draws(), Horizon(epochs=2, steps_per_epoch=3, image_shape=(1, 8, 8)))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    kept_weights = [mask.masks().kept]
    for step in range(6):
        mask.after_step(step, optimizer)
        kept_weights.append(mask.masks().kept)
    assert kept_weights == [5_865, 5_865, 5_865, 586, 586, 586, 586]
    other = ScoreMask(density=0.01, scope="global", stages=2)
    other.attach(network(), Draws(), Horizon(epochs=2, steps_per_epoch=3, image_shape=(1, 8, 8)))
    other.load_state_dict(mask.state_dict())
    assert other.masks().kept == 586


def test_an_early_stage_ships_at_the_final_density() -> None:
    model = network()
    mask = ScoreMask(density=0.01, weights="binary", scores="uniform", stages=4)
    mask.attach(model, Draws(), Horizon(epochs=4, steps_per_epoch=3, image_shape=(1, 8, 8)))
    assert mask.masks().density > 0.2
    shipped = mask.finalize(model)
    sizes = {layer.name: layer.size for layer in targets(network())}
    assert shipped.masks.kept_per_layer == {name: int(0.01 * size) for name, size in sizes.items()}
    for layer in targets(shipped.module):
        assert int((layer.weight != 0).sum()) == shipped.masks.kept_per_layer[layer.name]


def test_what_ships_is_plain_and_computes_the_same() -> None:
    model, mask = network(), ScoreMask(density=0.1, weights="binary", scores="uniform", batch_norm="plain")
    mask.attach(model, Draws())
    x = torch.rand(4, 1, 8, 8)
    model(x)
    shipped = mask.finalize(model)
    assert shipped.kind == "same-keys"
    assert torch.equal(shipped.module(x), model.eval()(x))
    network().load_state_dict(shipped.module.state_dict())
    weights = torch.cat([layer.weight.detach().flatten() for layer in targets(shipped.module)])
    assert set(weights.tolist()) == {-1.0, 0.0, 1.0}
    assert not torch.signbit(weights[weights == 0]).any()


def test_an_average_of_scores_is_what_chooses_and_the_weights_stay_binary() -> None:
    model, mask = scored(weights="binary")
    average = Average(AverageSpec(kind="ema", decay=0.75), mask.averaged)
    (layer,) = targets(model)
    for scores in (SCORES, [[4.0, 0.0, 0.0, 1.0]]):
        with torch.no_grad():
            layer.parameter.copy_(torch.tensor(scores))
        mask.refresh()
        average.after_step(0, model)
    # 0.75 * s + 0.25 * s': 1.075, -0.675, 0.375, 0.1.
    shipped = average.finalise(model, mask, lambda: iter(()))
    assert shipped.module.weight.tolist() == [[1.0, -1.0, 0.0, 0.0]]  # type: ignore[union-attr,operator]
    assert model.weight.tolist() == [[1.0, 0.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"density": 1.5}, r"method\.density: .*write 0\.015 for 1\.5 %"),
        ({"density": 0.0}, r"method\.density"),
        ({"scope": "channel"}, r"method\.scope: expected global or layer, got 'channel'"),
        ({"weights": "ternary"}, r"method\.weights: expected one of plain, binary"),
        ({"scores": "ones"}, r"method\.scores: expected one of from-weights"),
        ({"batch_norm": "off"}, r"method\.batch_norm: expected one of learn, plain"),
        ({"bound": 0.0}, r"method\.bound: expected a number above 0, got 0"),
        ({"stages": 0}, r"method\.stages: expected at least 1, got 0"),
        ({"budget": {"name": "adaptive", "p": 2.0}}, r"method\.budget\.p"),
    ],
)
def test_impossible_values_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ScoreMask(**{"density": 0.5, **options})


def test_stages_need_to_know_how_long_training_lasts() -> None:
    with pytest.raises(ConfigError, match=r"method\.stages: .*got 3.*leave stages out"):
        ScoreMask(density=0.5, stages=3).attach(network(), Draws())


@pytest.mark.parametrize("stages", [1, 3])
def test_scores_choose_within_a_pattern(stages: int) -> None:
    model = network()
    mask = ScoreMask(density=0.5, pattern="2:4", stages=stages)
    mask.attach(model, Draws(), Horizon(epochs=2, steps_per_epoch=3, image_shape=(1, 8, 8)))
    assert mask.contract == "at-most"
    if stages == 3:
        assert mask.masks().density == pytest.approx(0.5 ** (1 / 3), abs=0.01)
    for name, kept_now in mask.finalize(model).masks.items():
        along = kept_now.movedim(1, -1)
        if along.shape[-1] % 4 == 0:
            assert along.unflatten(-1, (-1, 4)).sum(-1).eq(2).all(), name
