from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from gossamer.attacks.stepwise import Pool, Rows, StepwiseAttack, attack_batch
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel, per_image
from gossamer.types import Model


@dataclass(frozen=True, kw_only=True)
class Guess:
    """Tries `steps` random points of the ball in each of `tries` attempts."""

    threat: ThreatModel
    steps: int = 4
    tries: int = 2

    def attempts(self, classes: int) -> int:
        return self.tries

    def begin(self, x: Tensor, y: Tensor, clean: Tensor, attempt: Tensor, draws: Draws) -> Rows:
        nothing = torch.zeros_like(y, dtype=torch.bool)
        return {"best": x.clone(), "hit": nothing, "over": nothing, "step": torch.zeros_like(y)}

    def advance(self, model: Model, x: Tensor, y: Tensor, rows: Rows, draws: Draws) -> Rows:
        point = self.threat.random_start(x, draws.at_each("step", rows["step"]))
        hit = model(point).argmax(dim=1) != y
        step = rows["step"] + 1
        best = torch.where(per_image(hit, x), point, rows["best"])
        return {"best": best, "hit": hit, "over": step == self.steps, "step": step}

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = Draws()) -> Tensor:  # noqa: B008
        return attack_batch(self, model, x, y, draws)


GUESS = Guess(threat=ThreatModel("linf", 0.3))


def _model(x: Tensor) -> Tensor:
    """Classify by the mean of the image: logits (N, 2)."""
    mean = x.flatten(1).mean(dim=1)
    return torch.stack([0.5 - mean, mean - 0.5], dim=1)


def _images(n: int) -> tuple[Tensor, Tensor, Tensor]:
    x = 0.2 + 0.6 * torch.linspace(0, 1, n).view(n, 1, 1, 1).expand(n, 1, 1, 2).clone()
    clean = _model(x)
    return x, clean.argmax(dim=1), clean


def _run(pool: Pool, x: Tensor, y: Tensor, clean: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
    found, best = torch.zeros(len(x), dtype=torch.bool), x.clone()
    waiting = torch.arange(len(x))
    while len(pool) or len(waiting):
        free = capacity - len(pool)
        take, waiting = waiting[:free], waiting[free:]
        if len(take):
            pool.enter(take, x[take], y[take], clean[take])
        finished = pool.advance()
        found[finished.sample], best[finished.sample] = finished.found, finished.best
    return found, best


def test_the_toy_is_a_stepwise_attack() -> None:
    assert isinstance(GUESS, StepwiseAttack)


def test_what_becomes_of_an_image_does_not_depend_on_its_company() -> None:
    x, y, clean = _images(40)
    results = [_run(Pool(GUESS, _model, Draws(1).per_sample), x, y, clean, capacity) for capacity in (1, 7, 40)]
    assert 0 < int(results[0][0].sum()) < 40
    for found, best in results[1:]:
        assert torch.equal(found, results[0][0])
        assert torch.equal(best, results[0][1])


def test_a_found_point_fools_the_model_inside_the_ball() -> None:
    x, y, clean = _images(40)
    found, best = _run(Pool(GUESS, _model, Draws(1).per_sample), x, y, clean, 8)
    assert torch.equal(_model(best).argmax(dim=1) != y, found)
    assert not GUESS.threat.violates(best, x).any()


def test_more_attempts_only_break_more() -> None:
    x, y, clean = _images(40)
    few, _ = _run(Pool(GUESS, _model, Draws(1).per_sample), x, y, clean, 8)
    many, _ = _run(Pool(Guess(threat=GUESS.threat, tries=6), _model, Draws(1).per_sample), x, y, clean, 8)
    assert not (few & ~many).any()
    assert many.sum() > few.sum()


def test_the_model_sees_full_batches_until_the_images_run_out() -> None:
    x, y, clean = _images(40)
    sizes: list[int] = []

    def watched(points: Tensor) -> Tensor:
        sizes.append(len(points))
        return _model(points)

    _run(Pool(GUESS, watched, Draws(1).per_sample), x, y, clean, 8)
    tail = sizes.index(next(size for size in sizes if size < 8))
    assert set(sizes[:tail]) == {8}
    assert len(sizes) - tail < GUESS.steps * GUESS.tries


def test_a_refused_hit_goes_on_and_is_reported() -> None:
    x, y, clean = _images(40)
    free, _ = _run(Pool(GUESS, _model, Draws(1).per_sample), x, y, clean, 40)
    pool = Pool(GUESS, _model, Draws(1).per_sample, confirm=lambda sample, best: sample % 2 == 0)
    pool.enter(torch.arange(40), x, y, clean)
    found, alone = torch.zeros(40, dtype=torch.bool), torch.zeros(40, dtype=torch.bool)
    steps = 0
    while len(pool):
        finished = pool.advance()
        found[finished.sample], alone[finished.sample] = finished.found, finished.alone
        steps += 1
    even = torch.arange(40) % 2 == 0
    assert torch.equal(found, free & even)
    assert torch.equal(alone, free & ~even)
    assert steps == GUESS.steps * GUESS.tries


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_a_saved_pool_goes_on_to_the_bit(stop: int) -> None:
    x, y, clean = _images(40)
    pools = [Pool(GUESS, _model, Draws(1).per_sample) for _ in range(2)]
    pools[0].enter(torch.arange(40), x, y, clean)
    for _ in range(stop):
        pools[0].advance()
    pools[1].load({name: value.clone() for name, value in pools[0].tensors().items()})
    while len(pools[0]):
        one, other = pools[0].advance(), pools[1].advance()
        assert torch.equal(one.sample, other.sample)
        assert torch.equal(one.best, other.best)
        assert torch.equal(one.found, other.found)
    assert not len(pools[1])


def test_the_plain_call_takes_draws_with_and_without_rows() -> None:
    x, y, _ = _images(12)
    whole = GUESS(_model, x, y)
    assert torch.equal(whole, GUESS(_model, x, y, draws=Draws().per_sample(torch.arange(12))))
    half = GUESS(_model, x[6:], y[6:], draws=Draws().per_sample(torch.arange(6, 12)))
    assert torch.equal(half, whole[6:])
    assert GUESS(_model, x[:0], y[:0]).shape == x[:0].shape


def test_finished_attempts_count_as_progress() -> None:
    x, y, clean = _images(4)
    never = ThreatModel("linf", 1e-6)
    pool = Pool(Guess(threat=never, steps=1, tries=4), _model, Draws(1).per_sample)
    assert pool.under_way() == 0
    pool.enter(torch.arange(4), x, y, clean)
    told = []
    while len(pool):
        told.append(pool.under_way())
        pool.advance()
    assert told[:2] == [0.0, 1.0]
    assert told == sorted(told)


def _run_wide(pool: Pool, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Run a pool to its end with `size` rows where there are so many; return sample, found and best, in order."""
    gone: list[tuple[Tensor, Tensor, Tensor]] = []
    while len(pool):
        pool.widen(size)
        assert len(pool) <= max(size, 12)
        finished = pool.advance()
        gone.append((finished.sample, finished.found, finished.best))
    sample, found, best = (torch.cat(parts) for parts in zip(*gone, strict=True))
    order = sample.argsort()
    return sample[order], found[order], best[order]


def test_attempts_side_by_side_break_the_same_images_in_fewer_calls() -> None:
    x, y, clean = _images(12)
    many = Guess(threat=ThreatModel("linf", 0.2), tries=9)
    calls: list[int] = []

    def watched(points: Tensor) -> Tensor:
        calls.append(len(points))
        return _model(points)

    results: list[tuple[Tensor, Tensor, Tensor]] = []
    counts: list[int] = []
    for size in (12, 15, 60):
        calls.clear()
        pool = Pool(many, watched, Draws(1).per_sample)
        pool.enter(torch.arange(12), x, y, clean)
        results.append(_run_wide(pool, size))
        counts.append(len(calls))
    assert 0 < int(results[0][1].sum()) < 12
    for sample, found, best in results:
        assert sample.tolist() == list(range(12))
        assert torch.equal(found, results[0][1])
        assert torch.equal(best[~found], results[0][2][~found])
        assert bool((_model(best).argmax(dim=1) != y)[found].all())
    assert counts[0] > counts[1] > 2 * counts[2]


def test_an_attempt_alone_refused_is_told_of_whichever_row_made_it() -> None:
    x, y, clean = _images(12)
    attack = Guess(threat=GUESS.threat, tries=7)
    told: list[list[bool]] = []
    for size in (0, 50):
        pool = Pool(attack, _model, Draws(1).per_sample, confirm=lambda sample, best: torch.zeros_like(sample).bool())
        pool.enter(torch.arange(12), x, y, clean)
        alone = torch.zeros(12, dtype=torch.bool)
        while len(pool):
            pool.widen(size)
            finished = pool.advance()
            alone[finished.sample] = finished.alone
        told.append(alone.tolist())
    assert told[0] == told[1]
    assert 0 < sum(told[0]) < 12


@pytest.mark.parametrize("stop", [5, 7, 10])
def test_a_saved_wide_pool_goes_on_to_the_bit(stop: int) -> None:
    x, y, clean = _images(12)
    attack = Guess(threat=ThreatModel("linf", 0.2), tries=9)
    pools = [Pool(attack, _model, Draws(1).per_sample) for _ in range(2)]
    pools[0].enter(torch.arange(12), x, y, clean)
    for _ in range(stop):
        pools[0].widen(40)
        pools[0].advance()
    pools[1].load({name: value.clone() for name, value in pools[0].tensors().items()})
    whole, resumed = (_run_wide(pool, 40) for pool in pools)
    assert all(torch.equal(one, other) for one, other in zip(whole, resumed, strict=True))


def test_progress_of_images_that_are_split_never_falls_below_that_of_others() -> None:
    x, y, clean = _images(4)
    pool = Pool(Guess(threat=ThreatModel("linf", 1e-6), steps=1, tries=4), _model, Draws(1).per_sample)
    pool.enter(torch.arange(4), x, y, clean)
    told = [pool.under_way()]
    while len(pool):
        pool.widen(8)
        pool.advance()
        told.append(pool.under_way())
    # One attempt of each, then two at a time of each, then the last ones.
    assert told == [0.0, 1.0, 3.0, 0.0]
