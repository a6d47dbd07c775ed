import itertools
import math

import pytest

from gossamer.errors import ConfigError
from gossamer.training.schedules import Constant, Cosine, OneCycle, Restarted, Steps, Warmup, build


def test_steps_drop_at_the_floor_of_their_share_of_all_steps() -> None:
    # 390 steps an epoch, 200 epochs: epochs 100 and 150.
    steps = Steps()
    total = 390 * 200
    assert [steps(at, total, 390) for at in (0, 38_999, 39_000, 58_499, 58_500, total - 1)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )
    # floor(7 * 0.5) = 3, floor(7 * 0.75) = 5.
    assert [steps(at, 7, 1) for at in range(7)] == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert Steps(milestones=(), factor=0.5)(99, 100, 1) == 1


def test_cosine_runs_from_one_to_its_floor() -> None:
    cosine = Cosine(floor=0.2)
    assert cosine(0, 100, 10) == 1
    assert cosine(50, 100, 10) == pytest.approx(0.6)
    assert cosine(100, 100, 10) == pytest.approx(0.2)
    assert cosine(25, 100, 10) == pytest.approx(0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2)
    moving = [Cosine(per_epoch=True)(at, 100, 10) for at in (20, 29, 30)]
    assert moving[0] == moving[1] == pytest.approx((1 + math.cos(0.2 * math.pi)) / 2)
    assert moving[2] < moving[1]


def test_a_lagging_cosine_is_that_of_the_epoch_before() -> None:
    late, plain = Cosine(per_epoch=True, lag=1), Cosine(per_epoch=True)
    assert [late(at, 100, 10) for at in (10, 55, 90)] == pytest.approx([plain(at, 100, 10) for at in (0, 45, 80)])
    assert late(0, 100, 10) == pytest.approx((1 + math.cos(-math.pi / 10)) / 2)


def test_a_restarted_schedule_begins_anew_in_each_part() -> None:
    # 10 steps in 3 parts that begin at steps 0, 4 and 7.
    restarted = Restarted(schedule=Steps(milestones=(0.5,), factor=0.1), stages=3)
    assert [restarted(at, 10, 5) for at in range(10)] == pytest.approx([1, 1, 0.1, 0.1, 1, 0.1, 0.1, 1, 0.1, 0.1])


def test_one_cycle_is_a_triangle() -> None:
    cycle = OneCycle(peak=0.4)
    heights = [cycle(at, 100, 10) for at in range(100)]
    assert heights[0] == pytest.approx(0.5 / 40)
    assert heights[39] == pytest.approx(39.5 / 40)
    assert heights[40] == pytest.approx(59.5 / 60)
    assert heights[99] == pytest.approx(0.5 / 60)
    assert all(0 < height <= 1 for height in heights)
    rises = [b - a for a, b in itertools.pairwise(heights)]
    assert rises[:39] == pytest.approx([1 / 40] * 39)
    assert rises[40:] == pytest.approx([-1 / 60] * 59)


def test_warm_up_is_a_line_before_the_other_schedule_counted_from_its_end() -> None:
    warm = Warmup(epochs=2, then=Steps(milestones=(0.5,)))
    values = [warm(at, 50, 5) for at in range(50)]
    assert values[:10] == pytest.approx([(at + 1) / 10 for at in range(10)])
    assert values[10:30] == [1.0] * 20
    assert values[30:] == pytest.approx([0.1] * 20)
    assert Warmup(epochs=10, then=Constant())(4, 5, 1) == 0.5


def test_schedules_by_name() -> None:
    assert build("steps") == Steps()
    assert build("steps", milestones=[0.25], factor=0.5) == Steps(milestones=[0.25], factor=0.5)
    assert build("constant")(3, 10, 1) == 1
    assert build("one-cycle", peak=0.3) == OneCycle(peak=0.3)
    assert build("cosine", warmup_epochs=5) == Warmup(epochs=5, then=Cosine())


@pytest.mark.parametrize(
    ("name", "options", "field", "expected"),
    [
        ("step", {}, "training.schedule.name", "one of constant, steps, cosine, one-cycle"),
        ("steps", {"milestones": [100, 150]}, "training.schedule.milestones", "shares of the whole training in [0, 1]"),
        ("steps", {"milestone": [0.5]}, "training.schedule.milestone", "one of milestones, factor"),
        ("cosine", {"floor": "low"}, "training.schedule.floor", "a valid number, unable to parse string as a number"),
        ("cosine", {"lag": -1}, "training.schedule.lag", "a number of epochs >= 0"),
        ("cosine", {"warmup_epochs": -1}, "training.schedule.warmup_epochs", "a number of epochs >= 0"),
        ("one-cycle", {"peak": 1.0}, "training.schedule.peak", "a share of the training in (0, 1)"),
    ],
)
def test_impossible_schedules_are_refused(name: str, options: dict[str, object], field: str, expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        build(name, **options)
    assert (refused.value.subject, refused.value.expected) == (field, expected)
