"""HARP's search: rates, floor, budget loss and its weight, straight-through gradients, and what it ends with."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gossamer.errors import ConfigError, RunError
from gossamer.seeding import Draws
from gossamer.sparsity import Horizon, targets
from gossamer.sparsity.harp import Rated, RateSearch
from gossamer.sparsity.score_mask import ScoreMask

HORIZON = Horizon(epochs=3, steps_per_epoch=2, image_shape=(1, 8, 8))


def network(sizes: tuple[int, ...] = (10, 20, 10)) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise(sizes)))


def attached(model: nn.Module, **options: Any) -> RateSearch:
    search = RateSearch(**options)
    search.attach(model, Draws(), HORIZON)
    return search


def rated(model: nn.Module) -> list[Rated]:
    return [layer.module.parametrizations["weight"][0] for layer in targets(model)]  # type: ignore[union-attr,index,misc]


def test_at_one_percent_the_published_start_is_nine_budgets_too_many() -> None:
    model = network()
    search = attached(model, density=0.01)
    assert search.excess().item() == pytest.approx(9.0, abs=1e-4)
    assert [each.logit.item() for each in rated(model)] == pytest.approx([-2.2073] * 2, abs=1e-4)
    penalty = search.penalty(model)
    assert penalty is not None
    assert penalty.item() == pytest.approx(0.09, abs=1e-5)
    assert all(count in (20, 21) for count in search.counts().values())


def test_at_ten_percent_it_starts_at_the_budget_and_nothing_pulls() -> None:
    model = network()
    search = attached(model, density=0.1)
    assert [each.logit.item() for each in rated(model)] == pytest.approx([-2.3026] * 2, abs=1e-4)
    with torch.no_grad():
        rated(model)[0].logit -= 0.1
    search.excess().backward()
    assert search.excess().item() == 0.0
    assert [each.logit.grad.item() for each in rated(model)] == [0.0, 0.0]  # type: ignore[union-attr]


def test_over_the_budget_the_pull_on_a_logit_is_the_derived_one() -> None:
    model = network((10, 20, 30))
    search = attached(model, density=0.1, initial_density=0.5)
    search.excess().backward()
    share = 1 / (1 + math.exp(-rated(model)[0].logit.item()))
    expected = [size / (0.1 * 800) * (1 - 0.01) * share * (1 - share) for size in (200, 600)]
    assert [each.logit.grad.item() for each in rated(model)] == pytest.approx(expected)  # type: ignore[union-attr]


def test_no_rate_falls_below_the_floor() -> None:
    model = network()
    search = attached(model, density=0.1, floor=0.2)
    with torch.no_grad():
        for each in rated(model):
            each.logit.fill_(-1e4)
    assert search.rates() == pytest.approx([0.02, 0.02])
    assert search.counts() == {"0.weight": 200 - int(0.98 * 200), "1.weight": 200 - int(0.98 * 200)}


def test_gradients_pass_straight_through_to_scores_and_rate() -> None:
    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[4.0, -2.0, 1.0, 0.5]]))
    attached(model, density=0.5)
    layer, each = targets(model)[0], rated(model)[0]
    torch.testing.assert_close(model[0].weight.detach(), torch.tensor([[4.0, -2.0, 0.0, 0.0]]))
    model(torch.tensor([[1.0, 3.0, 5.0, 7.0]])).sum().backward()
    # dL/dm = x * w for kept and dropped weights; scores carry the sign of the weights they began from.
    through = torch.tensor([[4.0, -6.0, 5.0, 3.5]])
    assert layer.parameter.grad is not None
    torch.testing.assert_close(layer.parameter.grad, through * torch.tensor([[1.0, -1.0, 1.0, 1.0]]))
    share = float(torch.sigmoid(each.logit.detach()))
    assert each.logit.grad is not None
    assert each.logit.grad.item() == pytest.approx(float(through.sum()) * (1 - 0.05) * share * (1 - share))


@pytest.mark.parametrize(("rate_clip", "expected"), [(1.0, [-1.0, 0.5]), (None, [-300.0, 0.5])])
def test_a_rate_moves_by_no_more_than_the_clip(rate_clip: float | None, expected: list[float]) -> None:
    model = network()
    search = attached(model, density=0.1, rate_clip=rate_clip)
    for each, gradient in zip(rated(model), (-300.0, 0.5), strict=True):
        each.logit.grad = torch.tensor(gradient)
    search.before_step(0, torch.optim.SGD(model.parameters(), lr=0.1))
    assert [each.logit.grad.item() for each in rated(model)] == expected  # type: ignore[union-attr]


def test_gamma_grows_by_itself_every_epoch_and_stays_once_the_budget_was_met() -> None:
    model = network()
    search = RateSearch(density=0.01)
    search.attach(model, Draws(), Horizon(epochs=9, steps_per_epoch=1, image_shape=(1, 8, 8)))
    seen = []
    for epoch in range(5):
        if epoch == 3:
            for each in rated(model):
                with torch.no_grad():
                    each.logit.fill_(-100.0)
        seen.append(search.measures()["gamma"])
        search.after_epoch(epoch, {})
    assert [*seen, search.measures()["gamma"]] == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.04, 0.04])


@pytest.mark.parametrize("rates", [(0.16, 0.082), (0.06, 0.03), (0.5, 0.1)])
def test_at_the_end_all_rates_are_scaled_alike_to_fill_the_budget(rates: tuple[float, float]) -> None:
    model = network((10, 20, 30))
    search = attached(model, density=0.1, tolerance=2.0)
    with torch.no_grad():
        for each, rate in zip(rated(model), rates, strict=True):
            each.logit.fill_(math.log((rate - 0.01) / (1 - rate)))
    search.refresh()
    for epoch in range(3):
        search.after_epoch(epoch, {})
    assert 79 <= search.masks().kept == sum(search.counts().values()) <= 80
    first, second = search.rates()
    assert first / second == pytest.approx(rates[0] / rates[1], rel=0.05)
    assert search.finalize(model).density <= 0.1


@pytest.mark.parametrize("density", [5e-4, 1e-3, 1.0])
def test_rates_at_the_ends_of_their_range_are_scaled_as_others_are(density: float) -> None:
    model = network((100, 200, 100))
    search = attached(model, density=density, **({} if density == 1.0 else {"initial_density": density}))
    with torch.no_grad():
        for each in rated(model):
            each.logit.fill_(20.0 if density == 1.0 else -12.0)
    for epoch in range(3):
        search.after_epoch(epoch, {})
    budget, kept = int(density * 40_000), sum(search.counts().values())
    assert budget - 2 <= kept <= budget


def test_a_budget_that_is_never_met_is_an_error_and_not_a_network() -> None:
    search = attached(network(), density=0.01)
    search.after_epoch(0, {})
    search.after_epoch(1, {})
    with pytest.raises(RunError, match=r"expected at most 0.01, .* got 0.1 after 3 epochs; raise method.gamma"):
        search.after_epoch(2, {})


def steps(model: nn.Module, search: RateSearch | ScoreMask, count: int) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    for step in range(count):
        optimizer.zero_grad()
        x = torch.randn(16, 10, generator=torch.Generator().manual_seed(step))
        loss = nn.functional.cross_entropy(model(x), torch.arange(16) % 10)
        penalty = search.penalty(model)
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        search.after_step(step, optimizer)


def test_scores_alone_are_hydra() -> None:
    ours, theirs = network(), network()
    search, hydra = attached(ours, density=0.15, learn="scores"), ScoreMask(density=0.15)
    hydra.attach(theirs, Draws(), HORIZON)
    for model, sparsifier in ((ours, search), (theirs, hydra)):
        steps(model, sparsifier, 6)
    assert search.penalty(ours) is None
    for one, other in zip(targets(ours), targets(theirs), strict=True):
        assert torch.equal(one.parameter, other.parameter)
        assert torch.equal(search.masks()[one.name], hydra.masks()[other.name])
    assert search.measures() == {"rate/0.weight": 0.15, "rate/1.weight": 0.15}


def test_rates_alone_keep_the_largest_weights() -> None:
    model = network()
    weights = [layer.weight.detach().abs().clone() for layer in targets(model)]
    search = attached(model, density=0.2, learn="rates")
    before = search.rates()
    steps(model, search, 4)
    assert search.rates() != before
    for weight, layer in zip(weights, targets(model), strict=True):
        mask = search.masks()[layer.name]
        assert float(weight[mask].min()) >= float(weight[~mask].max())


def test_only_scores_rates_and_batch_norms_learn_and_the_rates_decay_unless_asked_not_to() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    search = attached(model, density=0.5, decay_rates=False)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {
        "0.parametrizations.weight.original",
        "0.parametrizations.weight.0.logit",
        "1.weight",
        "1.bias",
        "3.parametrizations.weight.original",
        "3.parametrizations.weight.0.logit",
    }
    assert {id(each) for each in search.undecayed()} == {id(each.logit) for each in rated(model)}
    assert attached(network(), density=0.5).undecayed() == ()


def test_a_starting_rate_at_or_below_the_floor_is_finite() -> None:
    model = network((10, 20, 1000))
    search = attached(model, density=0.5, initial_density=0.1, budget={"name": "explicit", "densities": {"0*": 0.0}})
    assert all(math.isfinite(each.logit.item()) for each in rated(model))
    assert search.rates()[0] == pytest.approx(0.05 + 0.95 * 1e-3, abs=1e-4)


def test_the_state_of_gamma_survives() -> None:
    first, second = network(), network()
    search, other = attached(first, density=0.01), attached(second, density=0.01)
    search.after_epoch(0, {})
    steps(first, search, 2)
    second.load_state_dict(first.state_dict())
    other.load_state_dict(search.state_dict())
    assert other.measures() == search.measures()
    assert all(torch.equal(other.masks()[name], mask) for name, mask in search.masks().items())


def test_the_finalised_network_gives_the_outputs_of_the_one_in_training() -> None:
    model = network()
    search = attached(model, density=0.3)
    steps(model, search, 3)
    x: Tensor = torch.randn(5, 10)
    shipped = search.finalize(model).module
    torch.testing.assert_close(shipped(x), model(x))
    assert set(shipped.state_dict()) == set(network().state_dict())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"density": 0.0}, "method.density"),
        ({"density": 0.1, "floor": 1.0}, "method.floor"),
        ({"density": 0.1, "gamma": -1.0}, "method.gamma"),
        ({"density": 0.1, "initial_density": 2.0}, "method.initial_density"),
        ({"density": 0.1, "tolerance": -0.1}, "method.tolerance"),
        ({"density": 0.1, "rate_clip": -1.0}, "method.rate_clip"),
        ({"density": 0.1, "budget": "none"}, "method.budget"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        RateSearch(**options)


def test_a_loop_that_does_not_say_how_long_it_is_is_refused() -> None:
    with pytest.raises(ConfigError, match="horizon"):
        RateSearch(density=0.1).attach(network(), Draws())
