from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gossamer.attacks.square import Square
from gossamer.attacks.square_proposals import PROPOSALS
from gossamer.attacks.stepwise import Pool, Speculative, StepwiseAttack
from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.threat import NORMS, Norm, ThreatModel

EPS: dict[Norm, float] = {"linf": 0.1, "l2": 1.5, "l1": 8.0}
DUAL: dict[Norm, float] = {"linf": 1, "l2": 2, "l1": torch.inf}


def _classify(slope: Tensor, offset: float = 0.0) -> Callable[[Tensor], Tensor]:
    """Return a model of two classes whose margin of class 0 falls along `slope`: (C, H, W), summed in float64."""

    def model(x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        rise = (x.double() * slope).flatten(1).sum(dim=1) - offset
        return torch.stack([-rise, rise], dim=1)

    return model


def _wave(channels: int, height: int, width: int) -> Tensor:
    """Return a slope that changes slowly enough for square windows to follow: (C, H, W)."""
    coarse = torch.randn(channels, -(-height // 4), -(-width // 4), generator=torch.Generator().manual_seed(3))
    fine = coarse.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    return fine[:, :height, :width].double()


def _images(n: int, *shape: int) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(4))


def _attacked(
    n: int = 8, shape: tuple[int, int, int] = (2, 10, 10)
) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """Return a linear model, images on both sides of its boundary, and what it predicts."""
    slope, x = _wave(*shape), _images(n, *shape)
    offset = float((x * slope).flatten(1).sum(dim=1).median()) + 0.1
    model = _classify(slope, offset)
    with torch.no_grad():
        return model, x, model(x).argmax(dim=1)


@pytest.mark.parametrize("norm", NORMS)
def test_it_breaks_what_a_linear_model_gives_away_and_nothing_beyond_the_dual_norm(norm: Norm) -> None:
    slope = _wave(2, 12, 12)
    reach = float(torch.linalg.vector_norm(slope.flatten(), ord=DUAL[norm])) * EPS[norm]
    x = 0.5 + 0.1 * (_images(8, 2, 12, 12) - 0.5)
    y = torch.zeros(8, dtype=torch.int64)
    share = torch.tensor([0.15, 1.01], dtype=torch.float64).repeat(4)
    # Each image is moved along the slope until its margin is its share of what the ball can change.
    rise = (x.double() * slope).flatten(1).sum(dim=1)
    offset = float(rise.max()) + 1.1 * reach
    x = x.double() + ((offset - share * reach - rise) / (slope**2).sum())[:, None, None, None] * slope
    model = _classify(slope, offset)
    searched = Square(threat=ThreatModel(norm, EPS[norm]), queries=200).search(model, x, y)
    assert torch.equal(searched.found, share < 1)


@pytest.mark.parametrize("norm", NORMS)
def test_queries_are_the_forwards_of_each_image(norm: Norm) -> None:
    model, x, y = _attacked()
    attack = Square(threat=ThreatModel(norm, EPS[norm] / 3), queries=20, restarts=2)
    draws = Draws(5).per_sample(torch.arange(len(x)))
    whole = attack.search(model, x, y, draws=draws)
    asked: list[int] = []

    def counted(points: Tensor) -> Tensor:
        asked.append(len(points))
        return model(points)

    for i in range(len(x)):
        asked.clear()
        alone = attack.search(counted, x[i : i + 1], y[i : i + 1], draws=draws.select(torch.tensor([i])))
        # The clean forward comes on top.
        assert sum(asked) == int(whole.queries[i]) + 1
        assert torch.equal(alone.points[0], whole.points[i])
    assert bool((whole.queries[~whole.found] == 42).all())
    assert 0 < int(whole.found.sum()) < len(x)
    assert int(whole.queries[whole.found].max()) > 1


@pytest.mark.parametrize("norm", NORMS)
def test_more_queries_only_break_more(norm: Norm) -> None:
    model, x, y = _attacked(n=12)
    few, many = (
        Square(threat=ThreatModel(norm, EPS[norm] / 2), queries=queries).search(model, x, y) for queries in (5, 80)
    )
    assert not (few.found & ~many.found).any()
    assert many.found.sum() > few.found.sum()
    assert torch.equal(few.queries[few.found], many.queries[few.found])
    assert torch.equal(few.points[few.found], many.points[few.found])


# In the published code l2 and l1 stop with an error at heights of 4, 12 and 14.
@pytest.mark.parametrize("shape", [(1, 9, 7), (3, 4, 6), (1, 12, 12), (2, 14, 20), (1, 1, 1), (3, 20, 33)])
@pytest.mark.parametrize("norm", NORMS)
def test_points_stay_in_ball_and_box_for_any_shape(norm: Norm, shape: tuple[int, int, int]) -> None:
    x = _images(4, *shape).round(decimals=1).clamp(0, 1)
    x[0], x[1] = 0, 1
    threat = ThreatModel(norm, EPS[norm])
    x_adv = Square(threat=threat, queries=70)(_classify(_wave(*shape), 1e3), x, torch.zeros(4, dtype=torch.int64))
    assert not threat.violates(x_adv, x).any()
    assert not torch.equal(x_adv, x)


@pytest.mark.parametrize("norm", NORMS)
def test_what_becomes_of_an_image_does_not_depend_on_its_company(norm: Norm) -> None:
    model, x, y = _attacked()
    attack = Square(threat=ThreatModel(norm, EPS[norm] / 3), queries=36, restarts=2)
    draws = Draws(6).per_sample(torch.arange(len(x)))
    together = attack(model, x, y, draws=draws)
    assert torch.equal(together, attack(model, x, y, draws=draws))
    assert not torch.equal(together, attack(model, x, y, draws=Draws(7).per_sample(torch.arange(len(x)))))
    with torch.no_grad():
        clean = model(x)
    # Three at a time: rows of many steps, and of both attempts, stand side by side.
    pool, waiting, best = Pool(attack, model, draws.select), torch.arange(len(x)), torch.empty_like(x)
    while len(pool) or len(waiting):
        free = 3 - len(pool)
        take, waiting = waiting[:free], waiting[free:]
        if len(take):
            pool.enter(take, x[take], y[take], clean[take])
        finished = pool.advance()
        best[finished.sample] = finished.best
    assert torch.equal(best, together)


def test_it_is_a_stepwise_attack_and_goes_on_after_a_refusal() -> None:
    model, x, y = _attacked()
    attack = Square(threat=ThreatModel("linf", 0.05), queries=10)
    assert isinstance(attack, StepwiseAttack)
    with torch.no_grad():
        clean = model(x)
    pool = Pool(attack, model, Draws().per_sample, confirm=lambda sample, best: torch.zeros_like(sample).bool())
    pool.enter(torch.arange(len(x)), x, y, clean)
    steps = [pool.advance() for _ in range(11)]
    assert not len(pool)
    assert [len(finished.sample) for finished in steps] == [0] * 10 + [len(x)]
    assert steps[-1].alone.any()


@pytest.mark.parametrize(("norm", "first"), [("linf", [29, 20, 14, 10, 7, 5, 4, 3, 2, 1]), ("l2", [29, 21, 15, 11, 7])])
def test_the_schedule_of_window_sizes(norm: Norm, first: list[int]) -> None:
    """On CIFAR sqrt(0.8 * 32 * 32) = 28.6 rounds to 29, half the share to 20, odd in l2 and l1, and so on."""
    shape = torch.Size((1, 3, 32, 32))
    assert [PROPOSALS[norm].size(0.8 / 2**halving, shape) for halving in range(len(first))] == first
    attack = Square(threat=ThreatModel(norm, 0.1))
    edges = torch.tensor([0, 10, 11, 50, 51, 200, 201])
    sides = [first[halving] for halving in (0, 0, 1, 1, 2, 2, 3)]
    assert attack._sizes(edges, shape).tolist() == sides
    rescaled = Square(threat=ThreatModel(norm, 0.1), queries=100, resc_schedule=True)
    assert rescaled._sizes(torch.tensor([0, 1, 2, 5]), shape).tolist() == [first[halving] for halving in (0, 2, 2, 3)]


def test_windows_of_small_images_fit() -> None:
    assert PROPOSALS["l2"].size(0.8, torch.Size((1, 1, 2, 9))) == 2
    assert PROPOSALS["linf"].size(0.001, torch.Size((1, 1, 9, 9))) == 1


def test_the_first_points_are_stripes_of_plus_and_minus_eps() -> None:
    x = torch.full((3, 2, 5, 4), 0.5)
    delta = PROPOSALS["linf"].start(x, 0.1, Draws().per_sample(torch.arange(3))) - x
    torch.testing.assert_close(delta.abs(), torch.full_like(x, 0.1))
    assert bool((delta == delta[:, :, :1]).all())
    assert len(delta.flatten(1).unique(dim=0)) == 3


def test_an_l2_step_keeps_the_norm() -> None:
    x = torch.full((2, 3, 15, 15), 0.5)
    draws = Draws().per_sample(torch.arange(2))
    start = PROPOSALS["l2"].start(x, 0.7, draws)
    numbers = draws.at("numbers").uniform((2, 8))
    moved = PROPOSALS["l2"].propose(x, start, torch.tensor([3, 7]), numbers, 0.7)
    threat = ThreatModel("l2", 0.7)
    torch.testing.assert_close(threat.distance(start, x), torch.full((2,), 0.7, dtype=torch.float64))
    torch.testing.assert_close(threat.distance(moved, x), torch.full((2,), 0.7, dtype=torch.float64))
    assert not torch.equal(moved, start)


def test_targets_are_the_likeliest_wrong_classes(convnet: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        clean = convnet(images)
    y = clean.argmax(dim=1)
    attack = Square(threat=ThreatModel("linf", 0.03), queries=30, targets=2, restarts=2, loss="ce")
    assert attack.attempts(5) == 4
    order = clean.argsort(dim=1, descending=True)
    draws = Draws().per_sample(torch.arange(len(images)))
    for attempt, rank in ((0, 1), (1, 1), (2, 2), (3, 2)):
        rows = attack.begin(images, y, clean, torch.full_like(y, attempt), draws)
        assert torch.equal(rows["target"], order[:, rank])
        assert bool((rows["queries"] == 31 * attempt).all())
    searched = attack.search(convnet, images, y)
    with torch.no_grad():
        assert torch.equal(convnet(searched.points).argmax(dim=1) != y, searched.found)
    assert 0 < int(searched.found.sum()) < len(images)


def test_distance_is_inf_where_nothing_was_found() -> None:
    model, x, y = _attacked()
    searched = Square(threat=ThreatModel("l2", 0.3), queries=40).search(model, x, y)
    torch.testing.assert_close(
        searched.distance[searched.found], ThreatModel("l2", 1).distance(searched.points, x)[searched.found]
    )
    assert bool(searched.distance[~searched.found].isinf().all())
    assert torch.equal(searched.points[~searched.found], x[~searched.found])


def test_impossible_fields_are_refused() -> None:
    threat = ThreatModel("linf", 0.1)
    for wrong in ({"queries": 0}, {"restarts": 0}, {"p_init": 0.0}, {"p_init": 1.5}, {"loss": "dlr"}, {"targets": 0}):
        with pytest.raises(ConfigError):
            Square(threat=threat, **wrong)
    with pytest.raises(ConfigError, match="2 classes"):
        Square(threat=threat, targets=2).attempts(1)
    assert Square(threat=threat, targets=2, restarts=3).attempts(2) == 3


@pytest.mark.parametrize("norm", NORMS)
def test_proposals_tried_ahead_lead_to_the_same_points_in_fewer_calls(norm: Norm) -> None:
    model, x, y = _attacked()
    attack = Square(threat=ThreatModel(norm, EPS[norm] / 3), queries=70, restarts=2)
    draws = Draws(6).per_sample(torch.arange(len(x)))
    assert isinstance(attack, Speculative)
    with torch.no_grad():
        clean = model(x)
    results: list[tuple[Tensor, Tensor]] = []
    calls: list[int] = []
    for size in (0, 3 * len(x), 100 * len(x)):
        pool, points, found = Pool(attack, model, draws.select), torch.empty_like(x), torch.zeros_like(y)
        pool.enter(torch.arange(len(x)), x, y, clean)
        calls.append(0)
        while len(pool):
            finished = pool.advance(pool.ahead(size))
            points[finished.sample], found[finished.sample] = finished.best, finished.found.long()
            calls[-1] += 1
        results.append((points, found))
    assert 0 < int(results[0][1].sum()) < len(x)
    for points, found in results[1:]:
        assert torch.equal(points, results[0][0])
        assert torch.equal(found, results[0][1])
    assert calls[0] == 2 * 71
    assert calls[2] <= calls[1] < calls[0]


def test_rows_tried_ahead_count_their_proposals_and_stop_at_the_last() -> None:
    model, x, y = _attacked()
    attack = Square(threat=ThreatModel("linf", 1e-9), queries=6)
    with torch.no_grad():
        clean = model(x)
        nothing = torch.zeros_like(y)
        rows = attack.begin(x, y, clean, nothing, Draws().per_sample(y).at_each("attempt", nothing))
        keyed = Draws().per_sample(torch.arange(len(x))).at_each("attempt", nothing)
        # Nothing is accepted once the value is out of reach.
        steps: list[int] = []
        for _ in range(3):
            rows = attack.advance_by(4, model, x, y, {**rows, "value": torch.full_like(rows["value"], 1e9)}, keyed)
            steps.append(int(rows["step"].unique()))
    assert steps == [1, 5, 7]
    assert bool(rows["over"].all())
    assert bool((rows["queries"] == 7).all())
