import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gossamer.attacks.queries import QueryAttack
from gossamer.attacks.targets import Given, Ranked
from gossamer.attacks.zoo import ZOO, next_const
from gossamer.attacks.zoo_coordinates import SPACES, move, newton_step, probe
from gossamer.errors import ConfigError
from gossamer.seeding import Draws

BOX = ZOO(space="box", scores="logits", coordinates=4, iterations=60, lr=0.02, const=10.0)


def _linear(x: Tensor) -> Tensor:
    """Two classes told apart by the mean over the first 6 pixels less 0.5: class 1 above, in float64."""
    assert not torch.is_grad_enabled()
    rise = 4 * (x.double().flatten(1)[:, :6].mean(dim=1) - 0.5)
    return torch.stack([-rise, rise], dim=1)


def _images(n: int = 6) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, 3, 2, 2, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2
    with torch.no_grad():
        return x, _linear(x).argmax(dim=1)


def _counted(model: Callable[[Tensor], Tensor]) -> tuple[Callable[[Tensor], Tensor], list[int]]:
    asked: list[int] = []

    def counting(x: Tensor) -> Tensor:
        asked.append(len(x))
        return model(x)

    return counting, asked


@pytest.mark.parametrize("name", ["tanh", "box"])
def test_probes_are_the_image_and_its_neighbours(name: Any) -> None:
    space, h = SPACES[name], 0.01
    x = torch.rand(2, 5, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1
    w = space.enter(x)
    torch.testing.assert_close(space.image(w), x.double(), atol=1e-6, rtol=0)
    coordinates = torch.tensor([[3, 1], [0, 4]])
    seen: list[Tensor] = []

    def model(points: Tensor) -> Tensor:
        seen.append(points.double())
        return torch.zeros(len(points), 2)

    probes = probe(space, w, coordinates, h)
    # Batches of 3 cut through the images.
    assert probes.logits(model, x, 3).shape == (2, 5, 2)
    points = torch.cat(seen).view(2, 5, 5)
    expected = w.clone()[:, None].repeat(1, 5, 1)
    for i in range(2):
        for j in range(2):
            expected[i, 1 + 2 * j, coordinates[i, j]] += h
            expected[i, 2 + 2 * j, coordinates[i, j]] -= h
    torch.testing.assert_close(points, space.image(expected), atol=1e-6, rtol=0)
    origin = x.double() - 0.05
    torch.testing.assert_close(
        probes.squared_distance(origin), ((space.image(expected) - origin[:, None]) ** 2).sum(dim=2)
    )


def test_slopes_and_curvatures_of_a_quadratic() -> None:
    """Loss sum a_i w_i^2 has slope 2 a w and curvature 2 a exactly; a Newton step of lr 1 goes to its minimum."""
    a = torch.tensor([[1.0, 3.0, 0.5]], dtype=torch.float64)
    w = torch.tensor([[0.4, 0.2, 0.9]], dtype=torch.float64)
    coordinates, h = torch.tensor([[2, 0]]), 1e-3
    probes = probe(SPACES["box"], w, coordinates, h)
    points = probes.base[:, None].repeat(1, 5, 1).scatter(2, probes.where[..., None], probes.value[..., None])
    loss = (a * points**2).sum(dim=2)
    rows = {"w": w, "first": torch.zeros_like(w), "second": torch.zeros_like(w), "count": torch.zeros_like(w)}
    newton = move(rows, coordinates, loss, solver="newton", space=SPACES["box"], lr=1.0, h=h)
    torch.testing.assert_close(newton["w"], torch.tensor([[0.0, 0.2, 0.0]], dtype=torch.float64), atol=1e-8, rtol=0)
    adam = move(rows, coordinates, loss, solver="adam", space=SPACES["box"], lr=0.1, h=h)
    torch.testing.assert_close(
        adam["first"], 0.1 * torch.tensor([[0.8, 0.0, 0.9]], dtype=torch.float64), atol=1e-9, rtol=0
    )
    # The first step of Adam has length lr, whatever the slope.
    torch.testing.assert_close(adam["w"], torch.tensor([[0.3, 0.2, 0.8]], dtype=torch.float64), atol=1e-6, rtol=0)


def test_adam_counts_the_steps_of_each_coordinate() -> None:
    """Slopes 1 then 2 on coordinate 0, and its neighbour's first step between them."""
    rows = {name: torch.zeros(1, 2, dtype=torch.float64) for name in ("first", "second", "count")}
    rows["w"] = torch.full((1, 2), 0.5, dtype=torch.float64)
    h = 0.5

    def step(rows: dict[str, Tensor], coordinate: int, slope: float) -> dict[str, Tensor]:
        loss = torch.tensor([[0.0, slope * h, -slope * h]], dtype=torch.float64)
        return move(rows, torch.tensor([[coordinate]]), loss, solver="adam", space=SPACES["box"], lr=0.01, h=h)

    rows = step(step(step(rows, 0, 1.0), 1, 5.0), 0, 2.0)
    assert rows["count"].tolist() == [[2.0, 1.0]]
    first, second = 0.9 * 0.1 + 0.1 * 2, 0.999 * 0.001 + 0.001 * 4
    second_step = 0.01 * math.sqrt(1 - 0.999**2) / (1 - 0.9**2) * first / (math.sqrt(second) + 1e-8)
    assert rows["w"][0, 0].item() == pytest.approx(0.5 - 0.01 - second_step, abs=1e-7)
    assert rows["w"][0, 1].item() == pytest.approx(0.49, abs=1e-7)


def test_the_box_clips_and_newton_guards_its_curvature() -> None:
    rows = {"w": torch.tensor([[0.005]], dtype=torch.float64)}
    rows |= {name: torch.zeros(1, 1, dtype=torch.float64) for name in ("first", "second", "count")}
    loss = torch.tensor([[0.0, 1.0, -1.0]], dtype=torch.float64)
    moved = move(rows, torch.tensor([[0]]), loss, solver="adam", space=SPACES["box"], lr=0.01, h=1e-4)
    assert moved["w"].item() == 0
    steps = newton_step(torch.ones(4), torch.tensor([-3.0, 0.01, 0.1, 4.0]), 0.2)
    torch.testing.assert_close(steps, torch.tensor([0.2, 2.0, 2.0, 0.05]))


def test_the_search_over_const() -> None:
    def follow(*outcomes: bool) -> list[float]:
        const = torch.tensor([0.01], dtype=torch.float64)
        lower, upper, seen = torch.zeros_like(const), torch.full_like(const, 1e10), []
        for outcome in outcomes:
            lower, upper, const = next_const(lower, upper, const, torch.tensor([outcome]))
            seen.append(const.item())
        return seen

    assert follow(False, False, True, False, True) == pytest.approx([0.1, 1.0, 0.55, 0.775, 0.6625])
    assert follow(True, True) == pytest.approx([0.005, 0.0025])


def test_a_search_over_const_finds_nearer_points() -> None:
    x, y = _images()
    one = replace(BOX, abort_every=0, iterations=80).search(_linear, x, y)
    three = replace(BOX, abort_every=0, iterations=80, searches=3).search(_linear, x, y)
    assert bool(one.found.all())
    assert bool((three.distance <= one.distance).all())
    assert three.distance.sum() < one.distance.sum()
    assert torch.equal(three.spent, one.spent * 3)
    assert torch.equal(three.queries, one.queries)


@pytest.mark.parametrize("space", ["tanh", "box"])
def test_points_are_adversarial_near_and_in_the_box(space: Any) -> None:
    """The boundary of the linear model is 6 pixels of mean 0.5: sqrt(6) |mean - 0.5| away in l2."""
    x, y = _images()
    attack = replace(BOX, space=space, scores="probabilities", iterations=150, lr=0.02 if space == "box" else 0.08)
    searched = attack.search(_linear, x, y)
    nearest = math.sqrt(6) * (x.flatten(1)[:, :6].mean(dim=1) - 0.5).abs().double()
    assert bool(searched.found.all())
    with torch.no_grad():
        assert bool((_linear(searched.points) != _linear(x)).any(dim=1).all())
        assert bool((_linear(searched.points).argmax(dim=1) != y).all())
    assert bool((searched.distance >= nearest - 1e-6).all())
    assert bool((searched.distance < 1.5 * nearest + 0.1).all())
    assert 0 <= float(searched.points.min()) <= float(searched.points.max()) <= 1
    assert torch.equal(attack(_linear, x, y), searched.points)


def test_queries_are_counted_exactly_and_in_small_batches() -> None:
    x, y = _images()
    draws = Draws(3).per_sample(torch.arange(len(x)))
    attack = replace(BOX, batch_size=5, abort_every=20)
    for i in range(len(x)):
        model, asked = _counted(_linear)
        alone = attack.search(model, x[i : i + 1], y[i : i + 1], draws=draws.select(torch.tensor([i])))
        assert sum(asked) == int(alone.spent)
        assert max(asked) <= 5
    whole = replace(attack, batch_size=40).search(_linear, x, y, draws=draws)
    again = attack.search(_linear, x, y, draws=draws)
    assert torch.equal(whole.points, again.points)
    assert torch.equal(whole.spent, again.spent)
    assert bool((whole.spent % 9 == 0).all())
    assert bool((whole.queries <= whole.spent).all())


def test_stopping_at_the_first_success_spends_what_it_took() -> None:
    x, y = _images()
    whole = replace(BOX, searches=2).search(_linear, x, y)
    first = replace(BOX, searches=2, stop_at_first=True).search(_linear, x, y)
    assert torch.equal(first.found, whole.found)
    assert torch.equal(first.queries, whole.queries)
    assert torch.equal(first.spent, first.queries)
    assert bool((first.distance >= whole.distance).all())


def test_an_image_that_is_already_wrong_costs_one_iteration() -> None:
    x, y = _images()
    searched = replace(BOX, stop_at_first=True).search(_linear, x, 1 - y)
    assert bool((searched.queries == 9).all())
    torch.testing.assert_close(searched.points, x)


def test_more_iterations_only_break_more() -> None:
    x, y = _images()
    found = [replace(BOX, iterations=n, abort_every=0).search(_linear, x, y).found for n in (1, 8, 60)]
    assert [int(each.sum()) for each in found] == sorted(int(each.sum()) for each in found)
    assert not (found[0] & ~found[1]).any()
    assert not (found[1] & ~found[2]).any()
    assert int(found[0].sum()) < int(found[2].sum())


def test_a_descent_stops_where_the_loss_no_longer_falls() -> None:
    """A flat model: the loss at x is const * 1 and stays; the check at 10 sees no fall since the one at 0."""

    def flat(x: Tensor) -> Tensor:
        return torch.tensor([1.0, 0.0], dtype=torch.float64).expand(len(x), 2)

    x, y = _images()
    y = torch.zeros_like(y)
    searched = replace(BOX, abort_every=10, searches=2).search(flat, x, y)
    assert not searched.found.any()
    assert bool((searched.spent == 2 * 11 * 9).all())
    assert bool((searched.queries == searched.spent).all())
    assert bool(searched.distance.isinf().all())
    assert torch.equal(searched.points, x)
    assert bool((replace(BOX, abort_every=0).search(flat, x, y).spent == 60 * 9).all())


def test_the_tenth_search_repeats_the_smallest_const_that_succeeded(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def descend(attack: ZOO, model: Any, x: Any, goal: Any, rows: Any, record: Any, draws: Any) -> Any:
        seen.append(rows["const"].item())
        return record, torch.tensor([seen[-1] >= 0.3])

    monkeypatch.setattr(ZOO, "_descend", descend)
    x, y = _images(1)
    replace(BOX, searches=10, const=0.1).search(_linear, x, y)
    assert seen[:3] == pytest.approx([0.1, 1.0, 0.55])
    assert len(seen) == 10
    assert seen[9] == min(const for const in seen[:9] if const >= 0.3)


def test_probabilities_are_logits_but_for_the_floor() -> None:
    """log p_y - log p_i = z_y - z_i as long as both are far above 1e-30."""
    x, y = _images()
    for const in (1.0, 10.0):
        logits, probabilities = (
            replace(BOX, const=const, scores=scores, iterations=30).search(_linear, x, y)
            for scores in ("logits", "probabilities")
        )
        torch.testing.assert_close(logits.points, probabilities.points, atol=1e-5, rtol=0)

    def extreme(x: Tensor) -> Tensor:
        return 1e4 * _linear(x)

    out_of_reach = replace(BOX, scores="probabilities", stop_at_first=True, iterations=20).search(extreme, x, y)
    assert int(out_of_reach.found.sum()) < int(
        replace(BOX, stop_at_first=True, iterations=20).search(extreme, x, y).found.sum()
    )


def test_targets_are_reached_and_their_forward_is_counted() -> None:
    def three(x: Tensor) -> Tensor:
        return torch.cat([_linear(x), x.double().flatten(1)[:, 6:].mean(dim=1, keepdim=True) - 0.6], dim=1)

    x, _ = _images()
    with torch.no_grad():
        y = three(x).argmax(dim=1)
    target = (y + 1) % 3
    searched = replace(BOX, target=Given(target), iterations=150).search(three, x, y)
    with torch.no_grad():
        assert torch.equal(three(searched.points).argmax(dim=1) == target, searched.found)
    assert searched.found.any()
    assert bool((searched.spent % 9 == 1).all())
    assert replace(BOX, target=Ranked(1), iterations=2).search(three, x, y).spent.tolist() == [19] * 6


def test_what_becomes_of_an_image_does_not_depend_on_its_company() -> None:
    x, y = _images()
    draws = Draws(2).per_sample(torch.arange(len(x)))
    whole = replace(BOX, batch_size=200).search(_linear, x, y, draws=draws)
    part = BOX.search(_linear, x[3:], y[3:], draws=draws.select(torch.arange(3, 6)))
    assert torch.equal(whole.points[3:], part.points)
    assert torch.equal(whole.queries[3:], part.queries)
    other = BOX.search(_linear, x, y, draws=Draws(9).per_sample(torch.arange(len(x))))
    assert not torch.equal(whole.points, other.points)
    assert BOX.search(_linear, x[:0], y[:0]).points.shape == (0, 3, 2, 2)


def test_more_coordinates_than_pixels_are_all_pixels() -> None:
    x, y = _images(2)
    assert replace(BOX, coordinates=99, iterations=1).search(_linear, x, y).spent.tolist() == [25, 25]


def test_newtons_method_breaks_a_quadratic_model() -> None:
    def bowl(x: Tensor) -> Tensor:
        rise = (x.double().flatten(1) ** 2).mean(dim=1) - 0.26
        return torch.stack([-rise, rise], dim=1)

    x, _ = _images()
    with torch.no_grad():
        y = bowl(x).argmax(dim=1)
    searched = replace(BOX, solver="newton", lr=0.3, const=50.0, h=1e-3, iterations=80).search(bowl, x, y)
    assert int(searched.found.sum()) >= 5


def test_fields_and_protocol() -> None:
    assert isinstance(BOX, QueryAttack)
    wrong: list[dict[str, Any]] = [
        {"iterations": 0},
        {"coordinates": 0},
        {"lr": 0.0},
        {"h": math.inf},
        {"const": -1.0},
        {"abort_every": -1},
        {"solver": "sgd"},
        {"space": "ball"},
        {"scores": "log"},
    ]
    for options in wrong:
        with pytest.raises(ConfigError):
            replace(BOX, **options)
