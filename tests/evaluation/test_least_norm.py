from dataclasses import replace

import pytest
import torch
from protocol_toys import Constant, KilledError, gen, images, labels, plane

from gossamer.attacks.fmn import LinfFMN
from gossamer.attacks.minimal import minimal_norms
from gossamer.errors import ConfigError, DataError
from gossamer.evaluation import least_norm
from gossamer.evaluation.least_norm import Search, second_opinion
from gossamer.evaluation.setting import Setting

SEARCH = Search(trials=3, samples=8, steps=10, final_steps=40, loss="margin")


def published(model, n=2176):
    x = torch.rand(n, 1, 2, 2, generator=gen(3))
    with torch.no_grad():
        return x, model(x).argmax(dim=1)


def test_distances_of_a_plane_are_its_radii():
    model = plane()
    x = images(30)
    found = minimal_norms(model, x, labels(model, x), LinfFMN(lr=0.1, steps=300, loss="margin"))
    radius = model.radius(x).double()
    assert found.found.all()
    assert (found.distances >= radius - 1e-6).all()
    assert (found.distances <= 1.05 * radius + 1e-3).all()


def test_a_model_that_errs_when_clean_has_distance_zero():
    model = plane()
    x = images(6)
    found = minimal_norms(model, x, 1 - labels(model, x), LinfFMN(steps=5, loss="margin"))
    assert found.distances.tolist() == [0.0] * 6


def test_momentum_decay_and_dampening_are_those_of_sgd():
    """One coordinate, a model that never errs: the path is that of torch.optim.SGD on the gradient's sign."""
    seen = []

    def model(x):
        seen.append(x.detach().flatten().clone())
        return torch.cat([x.flatten(1) * 0 + 9, x.flatten(1)], dim=1)

    attack = LinfFMN(steps=6, lr=0.02, momentum=0.7, weight_decay=0.5, dampening=0.1, loss="margin")
    attack.smallest(model, torch.full((1, 1, 1, 1), 0.4), torch.zeros(1, dtype=torch.int64))
    delta = torch.zeros(1, requires_grad=True)
    sgd = torch.optim.SGD([delta], lr=0.02, momentum=0.7, weight_decay=0.5, dampening=0.1)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=6, eta_min=0)
    for point in seen:
        assert torch.allclose(point, 0.4 + delta.detach(), atol=1e-6)
        delta.grad = -torch.ones(1)
        sgd.step()
        falling.step()
    assert len(seen) == 7


def test_what_is_not_found_stands_and_as_published_falls():
    model = Constant()
    x, y = published(model)
    search = replace(SEARCH, trials=1)
    here = Setting(data=(x, y), n=20)
    mended = second_opinion("constant", model, here, search=search)
    assert (mended.robust.value, mended.robust.n, mended.not_found) == (1.0, 20, 20)
    assert set(mended.distance) == {None}
    assert mended.tuned_to is None
    original = second_opinion("constant", model, here, search=search, as_published=True)
    assert (original.robust.value, original.robust.n, original.not_found) == (0.0, 128, 128)
    assert original.index == tuple(range(2048, 2176))
    assert original.settings["judge_final"] is False


def test_robust_means_farther_than_eps():
    model = plane()
    x = images(40)
    y = labels(model, x)
    y[:5] = 1 - y[:5]
    radius = model.radius(x)
    eps = 0.03
    made = second_opinion("plane", model, Setting(data=(x, y)), eps=eps, search=replace(SEARCH, final_steps=200))
    assert made.distance[:5] == (0.0,) * 5
    for known, distance in zip(radius[5:].tolist(), made.distance[5:], strict=True):
        assert distance >= known - 1e-6
    surely = int((radius[5:] > eps + 1e-4).sum())
    assert surely <= made.robust.value * 40 <= int((radius[5:] > eps * 0.9).sum())
    assert made.not_found == 0


def test_tuning_keeps_away_from_what_is_judged_and_follows_the_seed():
    model = plane()
    x = images(60)
    data = (x, labels(model, x))
    sets = []
    for seed in (0, 1):
        here = Setting(data=data, n=20, seed=seed)
        judged, tuning = least_norm._samples(here, SEARCH, as_published=False)
        assert not set(judged.index.tolist()) & set(tuning.index.tolist())
        assert len(tuning) == 8
        sets.append(tuning.index.tolist())
    assert sets[0] != sets[1]
    assert sets[0] != sorted(sets[0])[:8]


def test_settings_stay_in_the_search_space():
    drawn = [least_norm._drawn(0, trial) for trial in range(50)]
    assert all(8 / 255 <= each["lr"] <= 10 and 0 <= each["momentum"] <= 0.9 for each in drawn)
    assert all(0.01 <= each["weight_decay"] <= 1 and 0 <= each["dampening"] <= 0.2 for each in drawn)
    assert min(each["lr"] for each in drawn) < 0.1
    assert max(each["lr"] for each in drawn) > 2


def test_trials_and_distances_are_kept(tmp_path):
    model = plane()
    x = images(30)
    here = Setting(data=(x, labels(model, x)), n=10, folder=tmp_path)
    forward = model.forward
    calls = 0

    def dying(images):
        nonlocal calls
        calls += 1
        if calls == 25:
            raise KilledError
        return forward(images)

    model.forward = dying
    with pytest.raises(KilledError):
        second_opinion("plane", model, here, search=SEARCH)
    assert len(list(tmp_path.glob("plane-tuning-*.json"))) == 1
    del model.forward
    resumed = second_opinion("plane", model, here, search=SEARCH)
    assert resumed == second_opinion("plane", plane(), replace(here, folder=None), search=SEARCH)
    before = model.calls
    assert second_opinion("plane", model, here, search=SEARCH) == resumed
    assert model.calls == before


def test_impossible_searches_are_refused():
    with pytest.raises(ConfigError, match="trials"):
        Search(trials=0)
    with pytest.raises(ConfigError, match="momentum"):
        LinfFMN(momentum=1.0)
    with pytest.raises(ConfigError, match="lr"):
        LinfFMN(lr=0)
    with pytest.raises(ConfigError, match="attack loss"):
        LinfFMN(loss="hinge")
    x = images(8)
    with pytest.raises(DataError, match="2176"):
        second_opinion("plane", plane(), Setting(data=(x, labels(plane(), x))), as_published=True)
