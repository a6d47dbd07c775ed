"""Gradual magnitude pruning: the cubic fall by hand, and that what is cut stays cut."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.sparsity import Horizon, Masks
from gossamer.sparsity.gradual import GradualPruning


def attached(model: nn.Module, steps: int, **options: object) -> GradualPruning:
    pruning = GradualPruning(density=0.1, **options)  # type: ignore[arg-type]
    pruning.attach(model, Draws(), Horizon(epochs=1, steps_per_epoch=steps, image_shape=(1, 8, 8)))
    return pruning


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 30, bias=False), nn.Linear(30, 10, bias=False))


def test_the_density_falls_as_a_cube_and_stays() -> None:
    pruning = attached(two_layers(), 100, begin=0.1, end=0.5, every=10)
    assert [done for done in range(1, 101) if pruning.due(done)] == [20, 30, 40, 50]
    fall = [0.1 + 0.9 * (1 - share) ** 3 for share in (0.25, 0.5, 0.75, 1.0)]
    assert [pruning.density_after(done) for done in (20, 30, 40, 50)] == pytest.approx(fall)


def test_the_last_cut_falls_on_the_end_whatever_the_interval() -> None:
    pruning = attached(two_layers(), 6, every=100)
    assert [done for done in range(1, 7) if pruning.due(done)] == [4]
    assert [done for done in range(1, 7) if attached(two_layers(), 6, begin=0.0, end=0.0).due(done)] == [1]
    assert [done for done in range(1, 101) if attached(two_layers(), 100, begin=0.09, end=0.09).due(done)] == [9]


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_every_cut_leaves_its_count_of_the_largest_and_what_is_cut_stays_cut(scope: str) -> None:
    model = two_layers()
    pruning = attached(model, 40, scope=scope, begin=0.0, end=0.75, every=5)
    assert pruning.masks().density == 1.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    before: Masks = pruning.masks()
    for step in range(40):
        optimizer.zero_grad()
        model(torch.rand(8, 20)).square().mean().backward()
        pruning.before_step(step, optimizer)
        optimizer.step()
        pruning.after_step(step, optimizer)
        now = pruning.masks()
        assert all(not (now[name] & ~before[name]).any() for name in now)
        if pruning.due(step + 1):
            kept = now.kept_per_layer
            density = pruning.density_after(step + 1)
            if scope == "global":
                assert sum(kept.values()) == int(density * 900)
            else:
                way = (density - 0.1) / 0.9
                assert list(kept.values()) == [60 + int(way * 540), 30 + int(way * 270)]
        for layer, mask in zip(model, now.values(), strict=True):
            assert torch.count_nonzero(layer.weight[~mask]) == 0  # type: ignore[index,arg-type]
        before = now
    assert pruning.masks().kept == 90
    assert pruning.finalize(model).masks.kept == 90


def test_what_is_finalised_on_the_way_has_the_final_density_and_the_largest_weights() -> None:
    model = nn.Linear(10, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.arange(10.0)[None])
    pruning = attached(model, 100)
    shipped = pruning.finalize(model)
    assert shipped.masks["weight"].tolist() == [[False] * 9 + [True]]
    assert pruning.masks().density == 1.0
    assert model.weight.tolist() == [list(range(10))]


def test_zeros_that_were_never_cut_are_kept_before_zeros_that_were() -> None:
    model = nn.Linear(10, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0]]))
    pruning = attached(model, 2, begin=0.0, end=1.0, every=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruning.after_step(0, optimizer)
    # int(10 * (0.1 + 0.9 / 8)) = 2 of equal weights: the first.
    assert pruning.masks()["weight"].nonzero()[:, 1].tolist() == [5, 6]
    with torch.no_grad():
        model.weight.zero_()
    pruning.after_step(1, optimizer)
    assert pruning.masks()["weight"].nonzero()[:, 1].tolist() == [5]


def test_the_layer_scope_ends_in_its_budget() -> None:
    model = two_layers()
    pruning = attached(model, 1, scope="layer", budget="erk")
    pruning.after_step(0, torch.optim.SGD(model.parameters(), lr=0.1))
    kept = pruning.masks().kept_per_layer
    # ERK's shares are proportional to (20 + 30) / 600 and (30 + 10) / 300: counts to 50 and 40 of 90.
    assert list(kept.values()) == [50, 40]


def trained(model: nn.Module, pruning: GradualPruning, steps: int) -> list[Masks]:
    """Return the masks before training and after each step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    masks = [pruning.masks()]
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.rand(8, 20)).square().mean().backward()
        pruning.before_step(step, optimizer)
        optimizer.step()
        pruning.after_step(step, optimizer)
        masks.append(pruning.masks())
    return masks


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_dense_network_comes_to_2_of_4_weight_by_weight_and_fills_it(scope: str) -> None:
    model = two_layers()
    pruning = GradualPruning(density=0.5, scope=scope, pattern="2:4", begin=0.0, end=1.0, every=4)
    pruning.attach(model, Draws(), Horizon(epochs=1, steps_per_epoch=20, image_shape=(1, 8, 8)))
    masks = trained(model, pruning, 20)
    for before, now in pairwise(masks):
        assert all(not (now[name] & ~before[name]).any() for name in now)
    for done in (4, 8):
        assert masks[done].kept == pytest.approx(900 * pruning.density_after(done), abs=2)
    assert masks[-1].kept == 450
    assert masks[-1]["0.weight"].reshape(30, 5, 4).sum(-1).le(2).all()
    # Of the 30 inputs of the second layer, two fill a group of their own.
    assert masks[-1]["1.weight"][:, :28].reshape(10, 7, 4).sum(-1).le(2).all()


def test_blocks_are_cut_whole() -> None:
    model = two_layers()
    pruning = GradualPruning(density=0.2, pattern={"name": "block", "height": 2, "width": 5}, begin=0.0, every=3)
    assert pruning.contract == "at-most"
    pruning.attach(model, Draws(), Horizon(epochs=1, steps_per_epoch=20, image_shape=(1, 8, 8)))
    masks = trained(model, pruning, 20)
    for mask in masks:
        shares = mask["0.weight"].reshape(15, 2, 4, 5).float().mean((1, 3))
        assert ((shares == 0.0) | (shares == 1.0)).all()
    assert masks[6].kept == int(900 * pruning.density_after(6)) // 10 * 10
    assert masks[-1].kept == 180


def test_a_pattern_that_cannot_be_is_told_at_the_beginning() -> None:
    pruning = GradualPruning(density=0.6, pattern="2:4")
    with pytest.raises(ConfigError, match=r"at most 0\.5"):
        pruning.attach(two_layers(), Draws(), Horizon(epochs=1, steps_per_epoch=20, image_shape=(1, 8, 8)))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"scope": "channel"}, "scope"),
        ({"schedule": "quadratic"}, "schedule"),
        ({"begin": 0.8, "end": 0.5}, "begin"),
        ({"end": 1.5}, "end"),
        ({"every": 0}, "every"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError, match=rf"method\.{field}"):
        GradualPruning(density=0.1, **options)  # type: ignore[arg-type]


def test_a_training_of_unknown_length_is_refused() -> None:
    with pytest.raises(ConfigError, match="epochs: expected the length of training"):
        GradualPruning(density=0.1).attach(two_layers(), Draws())
