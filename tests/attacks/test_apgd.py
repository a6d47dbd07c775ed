from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gossamer.attacks import apgd_halving, apgd_l1
from gossamer.attacks.apgd import APGD
from gossamer.attacks.apgd_halving import checkpoints
from gossamer.attacks.apgd_l1 import Stage
from gossamer.attacks.registry import build
from gossamer.attacks.stepwise import Pool, StepwiseAttack
from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.threat import NORMS, Norm, ThreatModel
from gossamer.types import Model

RADIUS: dict[Norm, float] = {"linf": 0.005, "l2": 0.03, "l1": 0.3}
"""Radii at which the untrained network of five classes stands on some images and falls on others."""

GOALS: list[dict[str, Any]] = [{"loss": "ce"}, {"loss": "dlr"}, {"loss": "dlr", "targets": 4}, {"targets": 2}]


@pytest.fixture
def model(convnet: nn.Module) -> Model:
    """Return the network computed in float64, so that logits do not depend on the batch's company."""
    precise = convnet.double()
    return lambda x: precise(x.double()).float()


@pytest.fixture
def predicted(model: Model, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images).argmax(dim=1)


def _standing(attack: APGD, model: Model, x: Tensor, y: Tensor, **options: Any) -> Tensor:
    x_adv = attack(model, x, y, **options)
    assert not attack.threat.violates(x_adv, x).any()
    with torch.no_grad():
        return model(x_adv).argmax(dim=1) == y


def _run(attack: APGD, model: Model, x: Tensor, y: Tensor, capacity: int, **options: Any) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        clean = model(x)
    pool = Pool(attack, model, Draws(1).per_sample, **options)
    found, best, waiting = torch.zeros(len(x), dtype=torch.bool), x.clone(), torch.arange(len(x))
    while len(pool) or len(waiting):
        free = capacity - len(pool)
        take, waiting = waiting[:free], waiting[free:]
        if len(take):
            pool.enter(take, x[take], y[take], clean[take])
        finished = pool.advance()
        found[finished.sample], best[finished.sample] = finished.found, finished.best
    return found, best


def _best_gain(threat: ThreatModel, slope: Tensor, x: Tensor) -> Tensor:
    """Return the largest rise of <slope, x> in ball and box: (n,); in l2 for balls inside the box."""
    slope = slope.expand_as(x)
    if threat.norm == "linf":
        step = slope.sign() * threat.eps
        return (((x + step).clamp(0, 1) - x) * slope).flatten(1).sum(dim=1)
    return (threat.steepest(slope, x, size=threat.eps) * slope).flatten(1).sum(dim=1)


@pytest.mark.parametrize("threat", [ThreatModel("linf", 0.2), ThreatModel("l2", 0.29), ThreatModel("l1", 0.9)])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_a_linear_model_falls_exactly_where_the_dual_norm_says_it_can(threat: ThreatModel, loss: Any) -> None:
    made = torch.Generator().manual_seed(3)
    x = torch.rand(64, 3, 2, 2, generator=made, dtype=torch.float64)
    x = x * 0.4 + 0.3 if threat.norm == "l2" else x
    slope = torch.randn(3, 2, 2, generator=made, dtype=torch.float64)
    start, gain = (x * slope).flatten(1).sum(dim=1), _best_gain(threat, slope, x)
    level = (start + gain).median()
    needed = level - start
    kept = (needed > 0) & ((needed / gain - 1).abs() > 0.05)
    x, possible = x[kept], (gain > needed)[kept]
    assert 10 < int(possible.sum()) < len(x) - 10

    def linear(points: Tensor) -> Tensor:
        rise = (points * slope).flatten(1).sum(dim=1) - level
        return torch.stack([torch.zeros_like(rise), rise, torch.full_like(rise, -9)], dim=1)

    attack = APGD(threat=threat, steps=60, loss=loss)
    standing = _standing(attack, linear, x, torch.zeros(len(x), dtype=torch.int64))
    assert torch.equal(~standing, possible)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("goal", GOALS)
def test_it_breaks_some_inside_the_threat_and_repeats_itself(
    model: Model, images: Tensor, predicted: Tensor, norm: Norm, goal: dict[str, Any]
) -> None:
    attack = APGD(threat=ThreatModel(norm, RADIUS[norm]), steps=10, **goal)
    assert isinstance(attack, StepwiseAttack)
    standing = _standing(attack, model, images, predicted)
    assert 0 < int(standing.sum()) < len(images)
    assert torch.equal(attack(model, images, predicted), attack(model, images, predicted))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("goal", [{"loss": "ce", "restarts": 2}, {"loss": "dlr", "targets": 2}])
def test_what_becomes_of_an_image_does_not_depend_on_its_company(
    model: Model, images: Tensor, predicted: Tensor, norm: Norm, goal: dict[str, Any]
) -> None:
    attack = APGD(threat=ThreatModel(norm, RADIUS[norm]), steps=5, **goal)
    results = [_run(attack, model, images[:6], predicted[:6], capacity) for capacity in (1, 3, 6)]
    for found, best in results[1:]:
        assert torch.equal(found, results[0][0])
        assert torch.equal(best, results[0][1])


@pytest.mark.parametrize("norm", NORMS)
def test_more_restarts_and_targets_only_break_more(model: Model, images: Tensor, predicted: Tensor, norm: Norm) -> None:
    threat = ThreatModel(norm, RADIUS[norm])
    chains = [
        [APGD(threat=threat, steps=3, restarts=restarts) for restarts in (1, 2, 4)],
        [APGD(threat=threat, steps=3, loss="dlr", targets=targets) for targets in (1, 2, 4, 9)],
    ]
    for chain in chains:
        standing = [_standing(attack, model, images, predicted) for attack in chain]
        for fewer, more in pairwise(standing):
            assert not (more & ~fewer).any()


@pytest.mark.parametrize("norm", NORMS)
def test_accuracy_never_rises_with_steps(model: Model, images: Tensor, predicted: Tensor, norm: Norm) -> None:
    threat = ThreatModel(norm, RADIUS[norm])
    standing = [int(_standing(APGD(threat=threat, steps=n), model, images, predicted).sum()) for n in (3, 10, 40)]
    assert standing == sorted(standing, reverse=True)


@pytest.mark.parametrize("norm", NORMS)
def test_refused_hits_end_at_the_point_of_highest_loss(
    model: Model, images: Tensor, predicted: Tensor, norm: Norm
) -> None:
    attack = APGD(threat=ThreatModel(norm, 3 * RADIUS[norm]), steps=5)
    seen: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return model(x)

    refuse: Callable[[Tensor, Tensor], Tensor] = lambda sample, best: torch.zeros_like(sample, dtype=torch.bool)  # noqa: E731
    found, best = _run(attack, watched, images[:1], predicted[:1], 1, confirm=refuse)
    assert not found.any()
    last = seen[1:][-(attack.plan[-1].steps + 1) :]
    with torch.no_grad():
        losses = [nn.functional.cross_entropy(model(x), predicted[:1]).item() for x in last]
    assert torch.equal(best, last[losses.index(max(losses))])


@pytest.mark.parametrize("norm", NORMS)
def test_the_network_is_left_as_it_was(convnet: nn.Module, images: Tensor, labels: Tensor, norm: Norm) -> None:
    before = {name: value.clone() for name, value in convnet.state_dict().items()}
    APGD(threat=ThreatModel(norm, RADIUS[norm]), steps=4)(convnet, images, labels)
    assert not convnet.training
    assert all(torch.equal(value, before[name]) for name, value in convnet.state_dict().items())
    assert all(each.grad is None and each.requires_grad for each in convnet.parameters())


@pytest.mark.parametrize("threat", [ThreatModel("linf", 8 / 255), ThreatModel("l2", 20.0), ThreatModel("l1", 12.0)])
def test_rounding_leads_no_large_image_outside(threat: ThreatModel) -> None:
    made = torch.Generator().manual_seed(4)
    x = torch.rand(4, 3, 32, 32, generator=made).round(decimals=2)
    weight = torch.randn(3 * 32 * 32, 3, generator=made) / 55
    seen: list[Tensor] = []

    def linear(points: Tensor) -> Tensor:
        seen.append(points.detach())
        return points.flatten(1) @ weight

    attack = APGD(threat=threat, steps=20, largereps=False)
    _standing(attack, linear, x, linear(x).argmax(dim=1))
    full = [points for points in seen if len(points) == 4]
    assert not any(threat.violates(points, x).any() for points in full)


def test_checkpoints_of_a_hundred_steps() -> None:
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    assert checkpoints(20) == (4, 7, 9, *range(10, 21))
    assert checkpoints(1) == (1,)


def _sizes(losses: list[float], steps: int, rho: float) -> list[float]:
    """Return the step length after each look at losses: one image, eps 0.5."""
    threat, x, value = ThreatModel("linf", 0.5), torch.zeros(1, 1, 1, 1), torch.zeros(1)
    rows = apgd_halving.begin(threat, x, value, Draws())
    sizes: list[float] = []
    for step, loss in enumerate(losses):
        at: dict[str, Tensor] = {"step": torch.tensor([step]), "peak_loss": torch.tensor([max(losses[: step + 1])])}
        rows, back = apgd_halving.adapt({**rows, **at}, torch.tensor([loss]), steps, rho)
        size = rows["size"].item()
        assert bool(back) == bool(sizes and size < sizes[-1])
        sizes.append(size)
    return sizes


def test_steps_halve_as_counted_by_hand() -> None:
    # 20 steps are checked after 4, 7, 9 and 10: with rho 1/2, up to 2, 1.5, 1 and 0.5 rises halve.
    # After 4: 3 rises (the first against 0). After 7: 3 rises, but the best is still 9. After 9: 2 rises, and
    # standing still does not count just after a halving. After 10: 1 rise, standing still.
    losses = [5.0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 8.5]
    assert _sizes(losses, 20, 0.5) == [1.0] * 7 + [0.5] * 3 + [0.25]


def test_the_first_step_rises_above_zero_whatever_the_start_was() -> None:
    falling = [-1.0, -5, -4, -3, -6]
    assert _sizes(falling, 20, 0.5)[-1] == 0.5
    assert _sizes([9.0, 5, 4, 6, 7], 20, 0.5)[-1] == 1.0


@pytest.mark.parametrize(
    ("steps", "plan"),
    [
        (100, [(3.0, 30), (2.0, 30), (1.0, 40)]),
        (12, [(3.0, 4), (2.0, 4), (1.0, 4)]),
        (4, [(3.0, 2), (2.0, 2), (1.0, 0)]),
    ],
)
def test_the_radii_of_l1(steps: int, plan: list[tuple[float, int]]) -> None:
    assert APGD(threat=ThreatModel("l1", 1.0), steps=steps).plan == tuple(Stage(*each) for each in plan)
    assert APGD(threat=ThreatModel("l1", 1.0), steps=steps, largereps=False).plan == (Stage(1.0, steps),)
    assert APGD(threat=ThreatModel("linf", 1.0), steps=steps).plan == (Stage(1.0, steps),)


@given(seed=st.integers(0, 2**20), eps=st.floats(0.01, 6), spread=st.floats(0.01, 2))
@settings(max_examples=60, deadline=None)
def test_the_way_into_the_l1_ball_is_the_shortest(seed: int, eps: float, spread: float) -> None:
    made = torch.Generator().manual_seed(seed)
    x = torch.rand(3, 2, 3, 3, generator=made, dtype=torch.float64).round(decimals=1)
    delta = spread * torch.randn(3, 2, 3, 3, generator=made, dtype=torch.float64)
    way = apgd_l1.shortest_way_in(x, delta, torch.full((3,), eps, dtype=torch.float64))
    torch.testing.assert_close(x + delta + way, ThreatModel("l1", eps).project(x + delta, x), rtol=0, atol=1e-9)


def test_a_sparse_step_by_hand() -> None:
    x = torch.full((1, 1, 1, 5), 0.5)
    gradient = torch.tensor([3.0, -4.0, 1.0, 0.0, 2.0]).view_as(x)
    rows = {"stage": torch.tensor([0]), "size": torch.tensor([0.4]), "topk": torch.tensor([0.4])}
    moved = apgd_l1.move(x, x, gradient, rows, (Stage(1.0, 10),))
    torch.testing.assert_close(moved.flatten(), torch.tensor([0.7, 0.3, 0.5, 0.5, 0.5]))


def test_sparsity_adapts_as_counted_by_hand() -> None:
    # 100 steps in one ball are checked every 4; the best point differs from x in 3 of 10 coordinates.
    x = torch.zeros(1, 1, 1, 10)
    peak = torch.tensor([0.1, 0.2, 0.3, *[0.0] * 7]).view_as(x)
    plan = (Stage(1.5, 100),)
    rows = {
        "stage": torch.tensor([0]),
        "step": torch.tensor([4]),
        "peak": peak,
        "size": torch.tensor([0.3]),
        "topk": torch.tensor([0.2]),
        "support": torch.tensor([10]),
    }
    sparser, back = apgd_l1.adapt(x, rows, plan)
    assert back.tolist() == [True]
    assert sparser["size"].item() == 1.5
    assert sparser["topk"].item() == pytest.approx(0.2)
    assert sparser["support"].item() == 3
    shorter, back = apgd_l1.adapt(x, {**sparser, "step": torch.tensor([8])}, plan)
    assert back.tolist() == [False]
    assert shorter["size"].item() == 1.0
    least, _ = apgd_l1.adapt(x, {**shorter, "size": torch.tensor([0.2])}, plan)
    assert least["size"].item() == pytest.approx(0.15)
    between, back = apgd_l1.adapt(x, {**rows, "step": torch.tensor([5])}, plan)
    assert between["size"].item() == pytest.approx(0.3)
    assert back.tolist() == [False]


@pytest.mark.parametrize("norm", NORMS)
def test_an_attempt_looks_at_its_start_and_after_every_step(norm: Norm) -> None:
    looks: list[int] = []

    def sure(x: Tensor) -> Tensor:
        looks.append(len(x))
        return torch.stack([x.flatten(1).sum(dim=1) + 9, 0 * x.flatten(1).sum(dim=1)], dim=1)

    attack = APGD(threat=ThreatModel(norm, 0.1), steps=10, restarts=2)
    attack(sure, torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 0]))
    assert len(looks) == 1 + 2 * (10 + len(attack.plan))


def test_the_gradient_is_the_mean_over_the_passes_of_a_noisy_model() -> None:
    x, y = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
    slopes = torch.tensor([[3.0, -1.0], [-1.0, -1.0]]) / 100

    def noisy() -> Model:
        passes: Iterator[Tensor] = iter(slopes)

        def model(images: Tensor) -> Tensor:
            rise = images.flatten(1) @ next(passes)
            return torch.stack([torch.ones_like(rise), rise], dim=1)

        return model

    def first_step(eot: int, model: Model) -> list[float]:
        attack = APGD(threat=ThreatModel("linf", 0.25), steps=1, eot=eot)
        draws = Draws().per_sample(torch.tensor([0]))
        rows = attack.begin(x, y, torch.zeros(1, 2), torch.tensor([0]), draws)
        with torch.no_grad():
            return attack.advance(model, x, y, rows, draws)["point"].flatten().tolist()

    assert first_step(2, noisy()) == [0.75, 0.25]
    skipped = noisy()
    skipped(x)
    assert first_step(1, skipped) == [0.25, 0.25]


def test_targets_follow_the_clean_logits_without_the_label() -> None:
    clean = torch.tensor([[0.0, 5.0, 3.0, 4.0], [9.0, 1.0, 2.0, 3.0]])
    x, y = torch.full((2, 1, 1, 1), 0.5), torch.tensor([1, 1])
    attack = APGD(threat=ThreatModel("linf", 0.1), loss="dlr", targets=9, restarts=2)
    assert attack.attempts(4) == 6
    draws = Draws().per_sample(torch.tensor([0, 1]))
    targets = [
        attack.begin(x, y, clean, torch.tensor([attempt, attempt]), draws)["target"].tolist() for attempt in range(6)
    ]
    assert targets == [[3, 0], [3, 0], [2, 3], [2, 3], [0, 2], [0, 2]]


def test_classes_too_few_for_the_loss() -> None:
    threat = ThreatModel("linf", 0.1)
    assert APGD(threat=threat, loss="dlr").attempts(3) == 1
    assert APGD(threat=threat, targets=9).attempts(2) == 1
    assert APGD(threat=threat, loss="dlr", targets=9).attempts(4) == 3
    for attack, classes in [
        (APGD(threat=threat), 1),
        (APGD(threat=threat, loss="dlr"), 2),
        (APGD(threat=threat, loss="dlr", targets=1), 3),
    ]:
        with pytest.raises(ConfigError, match=f"at least {classes + 1} classes"):
            attack.attempts(classes)


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 0), ("restarts", 0), ("eot", 0), ("targets", 0), ("loss", "kl"), ("rho", 0.0), ("rho", 1.5)],
)
def test_impossible_fields(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field):
        APGD(threat=ThreatModel("linf", 0.1), **{field: value})


def test_three_radii_need_two_steps() -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        APGD(threat=ThreatModel("l1", 1.0), steps=1)
    assert APGD(threat=ThreatModel("l1", 1.0), steps=1, largereps=False).steps == 1


def test_names() -> None:
    threat = ThreatModel("linf", 8 / 255)
    assert build("apgd-ce", threat) == APGD(threat=threat)
    assert build("apgd-dlr", threat, restarts=5) == APGD(threat=threat, loss="dlr", restarts=5)
    assert build("apgd-t", threat) == APGD(threat=threat, loss="dlr", targets=9)
