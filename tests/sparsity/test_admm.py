"""ADMM: one update by hand, scaled and unscaled duals, the sets it projects onto, and what tightens."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.sparsity import Horizon
from gossamer.sparsity.admm import ADMM, Interval, Splitting
from gossamer.sparsity.budgets import Explicit, Funnel, Uniform
from gossamer.sparsity.quantise import levels, quantise
from gossamer.sparsity.sets import Quantised, Redundant, Sparse
from gossamer.sparsity.tightening import Plan, Setting, TightenedADMM

HORIZON = Horizon(epochs=4, steps_per_epoch=2, image_shape=(1, 1, 1))


def line(*weights: float) -> nn.Linear:
    model = nn.Linear(len(weights), 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([weights]))
    return model


def largest(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return Sparse()(weights, 0.5)


def test_the_penalty_and_one_update_by_hand() -> None:
    split = Splitting(0.5, rho_factor=2.0)
    weights = {"w": torch.tensor([3.0, 1.0])}
    split.start(largest(weights))
    assert split.copy["w"].tolist() == [3, 0]
    # Half of rho, times the square of the one weight that was cut.
    assert float(split.penalty(weights)) == 0.25
    split.update(weights, largest)
    assert (split.rho, split.copy["w"].tolist(), split.dual["w"].tolist()) == (1.0, [3, 0], [0, 1])
    # W + U = [1, 3]: the other one is kept now, and U = [0, 1] + [1, 2] - [0, 3].
    weights = {"w": torch.tensor([1.0, 2.0])}
    assert float(split.penalty(weights)) == 0.5 * (4 + 9)
    split.update(weights, largest)
    assert (split.copy["w"].tolist(), split.dual["w"].tolist()) == ([0, 3], [1, 0])


def test_with_the_dual_first_it_takes_in_the_gap_to_the_old_copy() -> None:
    split = Splitting(1.0, dual_first=True)
    split.start(largest({"w": torch.tensor([3.0, 1.0])}))
    split.update({"w": torch.tensor([2.0, 4.0])}, largest)
    # U = W - old Z = [-1, 4]; W + U = [1, 8].
    assert split.dual["w"].tolist() == [-1, 4]
    assert split.copy["w"].tolist() == [0, 8]


@given(st.integers(0, 999), st.floats(0.05, 3.0))
@settings(deadline=None, max_examples=15)
def test_scaled_and_unscaled_duals_give_the_same_iterates(seed: int, rho: float) -> None:
    """Marshall's theta' = P(theta + u / rho) and u += rho (theta - theta'), against ours with U = u / rho."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(8, generator=generator, dtype=torch.float64)
    theta, u = torch.randn(8, generator=generator, dtype=torch.float64), torch.zeros(8, dtype=torch.float64)
    weight, split = theta.clone().requires_grad_(), Splitting(rho, dual_first=True)
    split.start(largest({"w": weight}))
    for _ in range(12):
        sparse = largest({"w": theta + u / rho})["w"]
        theta = theta - 0.1 * ((theta - target) + u + rho * (theta - sparse))
        u = u + rho * (theta - sparse)
        loss = (weight - target).square().sum() / 2 + split.penalty({"w": weight})
        (gradient,) = torch.autograd.grad(loss, weight)
        weight = (weight - 0.1 * gradient).detach().requires_grad_()
        split.update({"w": weight}, largest)
        torch.testing.assert_close(weight.detach(), theta)
        torch.testing.assert_close(rho * split.dual["w"], u)


def made(model: nn.Module, **options: Any) -> ADMM:
    values: dict[str, Any] = {"density": 0.5, "constraint": Sparse(), "rho": 1.0, "interval": Interval(1)}
    admm = ADMM(**{**values, **options})
    admm.attach(model, Draws(), HORIZON)
    return admm


def test_the_sparsifier_updates_at_the_end_of_each_interval_and_ships_the_projection() -> None:
    model = line(4.0, 3.0, 2.0, 1.0)
    admm = made(model, rho_factor=1.3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    admm.after_step(0, optimizer)
    assert admm.splitting.rho == 1.0
    admm.after_step(1, optimizer)
    assert admm.splitting.rho == 1.3
    assert admm.splitting.dual["weight"].tolist() == [[0, 0, 2, 1]]
    assert admm.masks().kept == 2
    assert admm.measures()["gap"] == pytest.approx(math.sqrt(5 / 30))
    shipped = admm.finalize(model)
    assert shipped.module.weight.tolist() == [[4, 3, 0, 0]]
    assert model.weight.tolist() == [[4, 3, 2, 1]]
    assert (shipped.kind, shipped.density) == ("same-keys", 0.5)


def test_the_weights_themselves_are_projected_by_the_last_step_where_they_ship() -> None:
    model = line(4.0, 3.0, 2.0, 1.0)
    admm = made(model, ships=True)
    for step in range(8):
        assert model.weight.tolist() == [[4, 3, 2, 1]]
        admm.after_step(step, torch.optim.SGD(model.parameters(), lr=0.1))
    assert model.weight.tolist() == [[4, 3, 0, 0]]


def test_copies_duals_and_rho_come_back_from_a_checkpoint() -> None:
    first, second = line(4.0, 3.0, 2.0, 1.0), line(0.0, 0.0, 0.0, 9.0)
    admm, other = made(first, rho_factor=1.3), made(second)
    admm.splitting.update({"weight": first.weight}, largest)
    other.load_state_dict(admm.state_dict())
    assert other.splitting.rho == 1.3
    assert other.state_dict().keys() == admm.state_dict().keys()
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in admm.state_dict().items())


def test_training_under_the_penalty_closes_the_gap() -> None:
    torch.manual_seed(0)
    model = nn.Linear(16, 1, bias=False)
    admm = made(model, density=0.25)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = admm.measures()["gap"]
    for step in range(80):
        optimizer.zero_grad()
        admm.penalty(model).backward()
        optimizer.step()
        admm.after_step(step, optimizer)
    assert admm.measures()["gap"] < before / 10


def test_nothing_draws_a_layer_that_the_set_keeps_whole() -> None:
    torch.manual_seed(0)
    first, last = nn.Linear(4, 2, bias=False), nn.Linear(2, 1, bias=False)
    model = nn.Sequential(first, last)
    budget = Explicit(densities={"0.weight": 0.25, "1.weight": 1.0})
    admm = made(model, density=0.4, constraint=Sparse(budget=budget))
    kept = admm.masks()["0.weight"]
    with torch.no_grad():
        # What is kept moves by 1, and so does all of the layer that stays whole.
        first.weight += kept.float()
        last.weight += 1.0
    cut = float(torch.where(kept, 0.0, first.weight.detach()).square().sum())
    assert float(admm.penalty(model).detach()) == pytest.approx(0.5 * (int(kept.sum()) + cut))
    admm.penalty(model).backward()
    assert last.weight.grad is None
    assert admm.splitting.copy.keys() == {"0.weight"}
    assert (admm.masks()["1.weight"].sum(), admm.masks().kept) == (2, 4)
    admm.after_step(1, torch.optim.SGD(model.parameters(), lr=0.1))
    assert admm.finalize(model).masks.kept == 4


def test_a_network_that_is_kept_whole_is_trained_without_a_penalty() -> None:
    model = line(1.0, 2.0)
    admm = made(model, density=1.0)
    assert float(admm.penalty(model)) == admm.measures()["gap"] == 0.0
    assert admm.finalize(model).density == 1.0


def test_no_two_filters_are_near_each_other_in_the_redundant_set() -> None:
    kernel = torch.tensor([[1.0, 0.0], [1.05, 0.0], [0.0, 2.0], [1.1, 0.0], [0.01, 0.0]])
    found = Redundant(within=Sparse(), phi=0.08)({"w": kernel}, 1.0)["w"]
    # The second is near the first; the fourth is near the second alone, which is gone; zeros are no filter.
    assert found.tolist() == [[1, 0], [0, 0], [0, 2], pytest.approx([1.1, 0]), pytest.approx([0.01, 0])]


def test_funnel_makes_every_layer_denser_than_the_next() -> None:
    weights = {str(layer): torch.randn(10, 20) for layer in range(4)}
    found = Sparse(budget=Funnel(ratio=0.7))(weights, 0.3)
    densities = [float((each != 0).float().mean()) for each in found.values()]
    assert densities == sorted(densities, reverse=True)
    assert len(set(densities)) == 4
    assert sum(densities) / 4 == pytest.approx(0.3, abs=0.01)


sets = [
    Sparse(),
    Sparse(budget=Uniform()),
    Sparse(budget=Funnel()),
    Redundant(within=Sparse(), phi=0.7),
    Quantised(within=Sparse(), bits=2),
    Quantised(within=Sparse(budget=Uniform()), bits=1),
]


@given(st.sampled_from(sets), st.integers(0, 999), st.floats(0.1, 1.0))
@settings(deadline=None, max_examples=20)
def test_every_set_is_projected_onto_idempotently_within_its_budget(constraint: Any, seed: int, density: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = {"a": torch.randn(6, 3, 2, 2, generator=generator), "b": torch.randn(5, 6, generator=generator)}
    once = constraint(weights, density)
    twice = constraint(once, density)
    assert all(torch.equal(once[name], twice[name]) for name in once)
    assert sum(int((each != 0).sum()) for each in once.values()) <= int(density * (72 + 30))


def test_two_means_of_one_bit_by_hand() -> None:
    weight = torch.tensor([-3.0, 0.0, -1.0, 2.0, 0.0, 4.0, 6.0])
    assert quantise(weight, levels(1)).tolist() == [-2, 0, -2, 4, 0, 4, 4]
    assert quantise(weight, levels(1, zero_among=True)).tolist() == pytest.approx([1.6, 0, 1.6, 1.6, 0, 1.6, 1.6])
    assert quantise(weight, levels(3)).tolist() == weight.tolist()
    assert quantise(torch.zeros(3), 2).tolist() == [0, 0, 0]


@given(st.integers(1, 4), st.integers(1, 200), st.integers(0, 999))
@settings(deadline=None, max_examples=20)
def test_quantising_keeps_zeros_and_few_values(bits: int, n: int, seed: int) -> None:
    weight = torch.randn(n, generator=torch.Generator().manual_seed(seed)).mul(3).trunc().mul(0.37)
    once = quantise(weight, levels(bits))
    assert once[once != 0].unique().numel() <= 2**bits
    assert (once[weight == 0] == 0).all()
    assert torch.equal(quantise(once, levels(bits)), once)


def half(share: float) -> float:
    return 1.0 - share / 2


def test_the_plan_raises_eps_in_stages_and_begins_the_steps_anew_in_each() -> None:
    plan = Plan(epochs=9, eps=(0.1, 0.2, 0.3), steps=(7, 14), hold=1, density=half)
    settings_ = [plan.at(position) for position in range(10)]
    assert [each.eps for each in settings_] == [0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.3, 0.3, 0.3, 0.3]
    assert [each.steps for each in settings_] == [7, 14, 14] * 3 + [14]
    assert [each.density for each in settings_] == pytest.approx([1 - i / 16 for i in range(9)] + [0.5])


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 4), st.integers(1, 5))
@settings(deadline=None, max_examples=15)
def test_every_stage_of_a_plan_begins_with_the_fewest_steps(epochs: int, stages: int, kinds: int, hold: int) -> None:
    radii, steps = tuple(0.1 * (i + 1) for i in range(stages)), tuple(range(3, 3 + kinds))
    found = [Plan(epochs=epochs, eps=radii, steps=steps, hold=hold, density=half).at(i) for i in range(epochs)]
    eps, counts = [each.eps or 0.0 for each in found], [each.steps or 0 for each in found]
    assert eps == sorted(eps)
    for i in range(epochs):
        new = i == 0 or eps[i] != eps[i - 1]
        assert counts[i] == 3 if new else counts[i] >= counts[i - 1]


def tightened(model: nn.Module, **options: Any) -> TightenedADMM:
    plan = Plan(epochs=4, eps=(0.1, 0.2), steps=(), hold=1, density=lambda share: 1.0 - 0.75 * share)
    values: dict[str, Any] = {
        "density": 0.25,
        "constraint": Sparse(),
        "rho": 1.0,
        "interval": Interval(1),
        "plan": plan,
    }
    admm = TightenedADMM(**{**values, **options})
    admm.attach(model, Draws(), HORIZON)
    return admm


def test_fixed_sequences_move_on_every_epoch_and_are_told() -> None:
    model = line(4.0, 3.0, 2.0, 1.0)
    admm = tightened(model)
    assert admm.masks().kept == 4
    for epoch, kept in enumerate([3, 2, 1, 1]):
        admm.after_epoch(epoch, {"adversarial_loss": 9.0 * (epoch + 1), "natural_loss": 0.5, "loss": 1.0})
        assert admm.masks().kept == kept
    told = admm.measures()
    assert {name: told[name] for name in ("eps", "density", "adversarial_loss", "natural_loss")} == {
        "eps": 0.2,
        "density": 0.25,
        "adversarial_loss": 36.0,
        "natural_loss": 0.5,
    }
    assert "steps" not in told


def test_with_a_bound_it_tightens_only_where_the_loss_hardly_worsens() -> None:
    admm = tightened(line(4.0, 3.0, 2.0, 1.0), bound=0.1)
    places = []
    for epoch, loss in enumerate([1.0, 1.2, 1.3, 1.5, 1.0]):
        admm.after_epoch(epoch, {"adversarial_loss": loss})
        places.append(round(admm.setting.density, 2))
    # 1.2 and 1.5 are more than a tenth above the loss before them.
    assert places == [0.75, 0.75, 0.5, 0.5, 0.25]
    again = tightened(line(4.0, 3.0, 2.0, 1.0), bound=0.1)
    again.load_state_dict(admm.state_dict())
    assert again.setting == admm.setting == Setting(eps=0.2, steps=None, density=0.25)


def test_it_tightens_by_the_whole_loss_where_nothing_is_attacked() -> None:
    admm = tightened(line(4.0, 3.0, 2.0, 1.0), bound=0.0)
    for epoch, loss in enumerate([1.0, 2.0]):
        admm.after_epoch(epoch, {"loss": loss, "adversarial_loss": None})
    assert admm.setting.density == 0.75


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"rho": 0.0}, r"method\.rho: expected a finite number above 0"),
        ({"rho_factor": math.inf}, r"method\.rho_factor"),
        ({"density": 10.0}, r"method\.density.*write 0\.1 for 10 %"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        made(line(1.0, 2.0), **options)


def test_sets_and_intervals_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.bits: expected between 1 and 8 bits a weight, got 0"):
        Quantised(within=Sparse(), bits=0)
    with pytest.raises(ConfigError, match=r"method\.phi"):
        Redundant(within=Sparse(), phi=-1.0)
    with pytest.raises(ConfigError, match=r"method\.interval: expected at least 1, got 0"):
        Interval(0)
    with pytest.raises(ConfigError, match="a horizon"):
        ADMM(density=0.5, constraint=Sparse(), rho=1.0, interval=Interval(1)).attach(line(1.0), Draws())
