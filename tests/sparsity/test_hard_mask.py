from collections.abc import Callable

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.sparsity import HardMask, Masks, NoSparsifier, targets


def dense(weights: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(len(weights[0]), len(weights), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights))
    return layer


def two_layers() -> nn.Sequential:
    return nn.Sequential(dense([[4.0, -3.0], [0.5, 0.1]]), dense([[-2.0, 1.0]]))


def test_the_largest_of_all_layers_together_are_kept() -> None:
    model = two_layers()
    mask = HardMask(density=0.5, scope="global")
    mask.attach(model, Draws())
    assert model[0].weight.tolist() == [[4.0, -3.0], [0.0, 0.0]]
    assert model[1].weight.tolist() == [[-2.0, 0.0]]
    assert mask.masks().kept_per_layer == {"0.weight": 2, "1.weight": 1}


def test_relative_magnitudes_compare_layers_of_different_size() -> None:
    # Means of 8.5 and 1.5: 1.18, 1.06, 0.94, 0.82 against 1.33, 0.67.
    model = nn.Sequential(dense([[10.0, -9.0], [8.0, 7.0]]), dense([[2.0, -1.0]]))
    HardMask(density=0.5, score="relative").attach(model, Draws())
    assert model[0].weight.tolist() == [[10.0, -9.0], [0.0, 0.0]]
    assert model[1].weight.tolist() == [[2.0, 0.0]]


def test_the_largest_of_each_layer_are_kept() -> None:
    model = two_layers()
    HardMask(density=0.5, scope="layer").attach(model, Draws())
    assert model[0].weight.tolist() == [[4.0, -3.0], [0.0, 0.0]]
    assert model[1].weight.tolist() == [[-2.0, 0.0]]
    model = two_layers()
    HardMask(density=0.74, scope="layer").attach(model, Draws())
    assert [int(torch.count_nonzero(layer.weight)) for layer in model] == [2, 1]


@given(
    sizes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 9)), min_size=1, max_size=4),
    density=st.floats(0.01, 1.0),
    scope=st.sampled_from(["global", "layer"]),
    score=st.sampled_from(["magnitude", "random"]),
    tied=st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_counts_are_exact_also_where_scores_tie(
    sizes: list[tuple[int, int]], density: float, scope: str, score: str, tied: bool
) -> None:
    assume(scope == "global" or density * min(ins * outs for ins, outs in sizes) >= 1.0)
    model = nn.Sequential(*(nn.Linear(ins, outs, bias=False) for ins, outs in sizes))
    if tied:
        for layer in model:
            nn.init.ones_(layer.weight)  # type: ignore[arg-type]
    mask = HardMask(density=density, scope=scope, score=score)
    mask.attach(model, Draws())
    counts = [ins * outs for ins, outs in sizes]
    if scope == "global":
        assert mask.masks().kept == int(density * sum(counts))
    else:
        assert list(mask.masks().kept_per_layer.values()) == [int(density * count) for count in counts]
    kept = mask.masks()
    assert all(torch.equal(target.weight != 0, kept[target.name]) for target in targets(model))


def test_random_masks_differ_by_seed_and_by_layer_but_not_by_call() -> None:
    def masks(seed: int) -> Masks:
        model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
        mask = HardMask(density=0.5, score="random", scope="layer")
        mask.attach(model, Draws(seed))
        return mask.masks()

    assert all(torch.equal(masks(0)[name], masks(0)[name]) for name in masks(0))
    assert not torch.equal(masks(0)["0.weight"], masks(1)["0.weight"])
    assert not torch.equal(masks(0)["0.weight"], masks(0)["1.weight"])


def test_gradient_and_momentum_of_dropped_weights_are_zeroed() -> None:
    model = dense([[4.0, 1.0, -3.0, 0.5]])
    mask = HardMask(density=0.5)
    mask.attach(model, Draws())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    model.weight.grad = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    mask.before_step(0, optimizer)
    assert model.weight.grad.tolist() == [[1.0, 0.0, 3.0, 0.0]]
    optimizer.state[model.weight]["momentum_buffer"] = torch.ones(1, 4)
    optimizer.step()
    mask.after_step(0, optimizer)
    momentum = optimizer.state[model.weight]["momentum_buffer"]
    torch.testing.assert_close(momentum, torch.tensor([[0.9 + 1.0 + 0.4, 0.0, 0.9 + 3.0 - 0.3, 0.0]]))
    torch.testing.assert_close(model.weight.detach(), torch.tensor([[4.0 - 0.23, 0.0, -3.0 - 0.36, 0.0]]))


def test_an_infinite_gradient_of_a_dropped_weight_does_not_reach_it() -> None:
    model = dense([[4.0, 1.0]])
    mask = HardMask(density=0.5)
    mask.attach(model, Draws())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.weight.grad = torch.tensor([[1.0, float("inf")]])
    mask.before_step(0, optimizer)
    assert model.weight.grad.tolist() == [[1.0, 0.0]]


class Times(nn.Module):
    """w * m for a constant mask m."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 10)
    )


def trained(model: nn.Module, before: Callable[..., None], after: Callable[..., None]) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-3)
    generator = torch.Generator().manual_seed(1)
    for step in range(30):
        x = torch.rand(16, 1, 8, 8, generator=generator)
        y = torch.randint(10, (16,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        before(step, optimizer)
        optimizer.step()
        after(step, optimizer)


def test_a_hard_mask_and_a_parametrization_train_the_same_bits() -> None:
    hard, soft = small_network(), small_network()
    mask = HardMask(density=0.3)
    mask.attach(hard, Draws())
    for target in targets(soft):
        parametrize.register_parametrization(target.module, "weight", Times(mask.masks()[target.name]))
    trained(hard, mask.before_step, mask.after_step)
    trained(soft, lambda *_: None, lambda *_: None)
    assert any(
        not torch.equal(one.weight, other.weight)
        for one, other in zip(targets(small_network()), targets(hard), strict=True)
    )
    for one, other in zip(targets(hard), targets(soft), strict=True):
        keep = mask.masks()[one.name]
        assert torch.equal(one.weight[keep], other.weight[keep])
        assert torch.count_nonzero(one.weight[~keep]) == 0
    assert torch.equal(hard[1].running_var, soft[1].running_var)  # type: ignore[arg-type]


def test_masks_come_back_from_a_checkpoint() -> None:
    first, second = two_layers(), two_layers()
    mask, other = HardMask(density=0.5, score="random"), HardMask(density=0.5)
    mask.attach(first, Draws(5))
    other.attach(second, Draws())
    other.load_state_dict(mask.state_dict())
    assert all(torch.equal(mask.masks()[name], other.masks()[name]) for name in mask.masks())


def test_what_ships_has_positive_zeros_and_the_dense_keys() -> None:
    model = small_network()
    mask = HardMask(density=0.2)
    mask.attach(model, Draws())
    shipped = mask.finalize(model)
    assert shipped.kind == "same-keys"
    assert shipped.dense_weights == 72 + 288 + 640
    assert shipped.density == pytest.approx(0.2)
    assert not any(torch.signbit(target.weight[target.weight == 0]).any() for target in targets(shipped.module))
    small_network().load_state_dict(shipped.module.state_dict(), strict=True)
    assert shipped.module is not model
    assert not shipped.module.training
    assert model.training


def test_without_a_sparsifier_every_weight_is_kept() -> None:
    model = small_network()
    none = NoSparsifier()
    none.attach(model, Draws())
    assert none.masks().density == 1.0
    assert none.masks().kept == 1000
    assert none.penalty(model) is None
    assert none.state_dict() == {}
    assert none.measures() == {}
    shipped = none.finalize(model)
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(shipped.module(x), model.eval()(x))


def test_an_unknown_scope_or_score_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.scope"):
        HardMask(density=0.5, scope="channel")
    with pytest.raises(ConfigError, match=r"score: expected one of magnitude, relative, random, or .*, got 'taylor'"):
        HardMask(density=0.5, score="taylor").attach(two_layers(), Draws())


def test_a_pattern_keeps_two_of_every_four() -> None:
    model = nn.Sequential(nn.Linear(8, 4, bias=False))
    mask = HardMask(density=0.5, pattern="2:4")
    mask.attach(model, Draws())
    kept = mask.masks()["0.weight"].reshape(-1, 4).sum(dim=1)
    assert kept.tolist() == [2] * 8
    assert mask.contract == "at-most"


def test_a_layer_too_small_for_its_share_is_named() -> None:
    with pytest.raises(ConfigError, match=r"method\.density for weight"):
        HardMask(density=0.1, scope="layer").attach(nn.Linear(2, 2), Draws())
