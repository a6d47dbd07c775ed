import json
import math
from dataclasses import replace
from statistics import NormalDist

import pytest
import torch
from protocol_toys import Constant, KilledError, Plane, gen, images, labels

from gossamer.errors import ConfigError
from gossamer.evaluation.setting import Setting
from gossamer.evaluation.smoothing import Smoothing, certify, guaranteed, lower_bound, radius_of
from gossamer.evaluation.tables import tell
from gossamer.runs import records
from gossamer.runs.protocols import SmoothingTable

SIGMA = 0.25
SMALL = Smoothing(sigma=SIGMA, n0=100, n=2000)


def half_space():
    return Plane(torch.randn(12, generator=gen(0)) / 3)


def distances(model, x):
    """The l2 distance to the plane: for a half-space the smoothed classifier's exact certified radius."""
    return model.signed(x).abs() / (2 * model.layer.weight[1]).norm().detach()


def test_radii_of_a_half_space_are_its_distances_from_below():
    model = half_space()
    x = images(30)
    made = certify({"plane": model}, Setting(data=(x, labels(model, x))), SMALL, radii=[0.0, 0.1])
    exact = distances(model, x)
    for certificate, distance in zip(made.rows[0].samples, exact.tolist(), strict=True):
        p = NormalDist().cdf(distance / SIGMA)
        error = math.sqrt(p * (1 - p) / SMALL.n)
        if certificate.prediction is None:
            assert p < 0.5 + 7 * error
            continue
        assert certificate.prediction == certificate.label
        assert p - 7 * error - 7 / SMALL.n <= certificate.lower <= p + error
        assert certificate.radius == pytest.approx(SIGMA * NormalDist().inv_cdf(certificate.lower))
    assert made.rows[0].abstained == sum(c.prediction is None for c in made.rows[0].samples)
    certified = [c.radius > 0.1 for c in made.rows[0].samples]
    assert made.rows[0].curve[1].accuracy.value == pytest.approx(sum(certified) / 30)
    assert int((exact > 0.12).sum()) * 0.7 <= sum(certified) <= int((exact > 0.1).sum())


def test_a_sample_on_the_plane_gets_no_certificate():
    w = torch.ones(12)
    model = Plane(w, b=6.0)
    x = torch.full((3, 1, 3, 4), 0.5)
    made = certify({"plane": model}, Setting(data=(x, torch.ones(3, dtype=torch.int64))), SMALL)
    assert made.rows[0].abstained == 3
    assert all(each.radius == 0 for each in made.rows[0].samples)
    assert made.rows[0].curve[0].accuracy.value == 0


def test_the_bound_is_clopper_and_pearson():
    assert lower_bound(100, 100, 0.05) == pytest.approx(0.05 ** (1 / 100))
    assert lower_bound(0, 10, 0.001) == 0
    # P(X >= 8 | n = 10, p) = 0.05 at the bound.
    p = lower_bound(8, 10, 0.05)
    tail = sum(math.comb(10, k) * p**k * (1 - p) ** (10 - k) for k in (8, 9, 10))
    assert tail == pytest.approx(0.05)
    assert radius_of(0.5, 1.0) == 0
    assert radius_of(NormalDist().cdf(1.5), 0.5) == pytest.approx(0.75)


def test_the_guarantee_is_below_and_tightens_with_samples():
    few, many = guaranteed(0.6, 100, 0.001), guaranteed(0.6, 10_000, 0.001)
    assert few < many < 0.6
    slack = math.log(1000)
    by_hand = (0.6 - 0.001 - math.sqrt(2 * 0.001 * 0.999 * slack / 100) - slack / 300) / 0.999
    assert few == pytest.approx(by_hand)
    assert guaranteed(0.0, 10, 0.001) == 0


def test_a_wrong_but_certain_model_certifies_nothing_right():
    x = torch.rand(4, 1, 2, 2, generator=gen(2))
    made = certify({"constant": Constant()}, Setting(data=(x, torch.ones(4, dtype=torch.int64))), SMALL)
    assert {each.prediction for each in made.rows[0].samples} == {0}
    assert made.rows[0].curve[0].accuracy.value == 0
    assert made.rows[0].samples[0].lower == pytest.approx(0.001 ** (1 / 2000))


def test_noise_does_not_depend_on_the_batch_and_a_killed_run_goes_on(tmp_path):
    model = half_space()
    x = images(6)
    here = Setting(data=(x, labels(model, x)), folder=tmp_path)
    small = replace(SMALL, n=350)
    whole = certify({"plane": half_space()}, replace(here, folder=None, batch_size=100), small)
    forward, calls = model.forward, 0

    def dying(images):
        nonlocal calls
        calls += 1
        if calls > 12:
            raise KilledError
        return forward(images)

    model.forward = dying
    with pytest.raises(KilledError):
        certify({"plane": model}, replace(here, batch_size=100), small)
    done = len(list(tmp_path.glob("*.json")))
    assert 0 < done < 6
    del model.forward
    resumed = certify({"plane": model}, replace(here, batch_size=400), small)
    assert resumed.rows == whole.rows
    before = model.calls
    assert certify({"plane": model}, here, small) == resumed
    # The one call that counts the classes.
    assert model.calls == before + 1


def test_it_survives_json_and_says_how_sure_it_is():
    model = half_space()
    x = images(4)
    made = certify({"plane": model}, Setting(data=(x, labels(model, x))), replace(SMALL, n=100), radii=[0.0])
    read = records.from_json(SmoothingTable, json.loads(json.dumps(records.to_json(made))), subject="smoothing")
    assert read.rows == made.rows
    assert "each certificate 99.9% sure" in tell(made)


@pytest.mark.parametrize(
    "wrong", [{"sigma": 0.0}, {"sigma": math.inf}, {"n0": 0}, {"n": 0}, {"alpha": 0.0}, {"alpha": 1.0}]
)
def test_impossible_smoothings_are_refused(wrong):
    with pytest.raises(ConfigError):
        replace(SMALL, **wrong)
