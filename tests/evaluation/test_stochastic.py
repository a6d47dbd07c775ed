import json
from dataclasses import replace

import pytest
import torch
from protocol_toys import KilledError, images, labels, plane
from torch import nn

from gossamer.attacks.fgsm import FGSM
from gossamer.errors import ConfigError
from gossamer.evaluation.evaluate import evaluate
from gossamer.evaluation.setting import Setting
from gossamer.evaluation.stochastic import NoiseSwitch, noise_off, spread, stochastic
from gossamer.evaluation.tables import tell
from gossamer.runs import records
from gossamer.runs.protocols import StochasticTable
from gossamer.threat import ThreatModel

ATTACK = FGSM(threat=ThreatModel("linf", 0.03))


class Noise(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size = size
        self.noisy = True

    def forward(self, x):
        return x + self.size * torch.randn_like(x) if self.noisy else x


def noisy(size=0.3):
    return nn.Sequential(Noise(size), plane())


def data(n=50):
    x = images(n)
    return x, labels(plane(), x)


def test_noise_is_off_inside_and_on_again_after_an_error():
    model = noisy()
    x, _ = data(4)
    with noise_off(model):
        assert torch.equal(model(x), model(x))
        assert torch.equal(model(x), plane()(x))
    assert not torch.equal(model(x), model(x))
    with pytest.raises(KilledError), noise_off(model):
        raise KilledError
    assert model[0].noisy
    assert isinstance(model[0], NoiseSwitch)
    with pytest.raises(ConfigError, match="`noisy` is true"), noise_off(plane()):
        pass


def test_without_noise_it_is_the_plain_model_in_every_trial(tmp_path):
    here = Setting(data=data(), folder=tmp_path)
    made = stochastic({"noisy": noisy()}, here, ATTACK, passes=4, trials=3)
    eot, plain, quiet = made.rows[0].modes
    known = evaluate(plane(), data(), ATTACK)
    assert quiet.robust.values == (known.robust_accuracy,) * 3
    assert quiet.robust.deviation == 0
    assert (eot.passes, plain.passes, quiet.passes) == (4, 1, 1)
    assert (eot.noise, plain.noise, quiet.noise) == (True, True, False)
    assert len(set(eot.clean.values)) > 1
    assert eot.clean.mean < 1 == quiet.clean.mean
    assert made.seeds == (0, 1, 2)
    assert stochastic({"noisy": noisy()}, here, ATTACK, passes=4, trials=3) == made
    read = records.from_json(StochasticTable, json.loads(json.dumps(records.to_json(made))), subject="stochastic")
    assert read.rows == made.rows
    assert "over 3 trials" in tell(made)


def test_a_killed_protocol_ends_as_one_never_killed(tmp_path):
    here = Setting(data=data())
    whole = stochastic({"noisy": noisy()}, here, ATTACK, passes=3, trials=2)

    def dying(standing):
        if len(list(tmp_path.glob("*.json"))) == 3:
            raise KilledError

    with pytest.raises(KilledError):
        stochastic({"noisy": noisy()}, replace(here, folder=tmp_path, progress=dying), ATTACK, passes=3, trials=2)
    assert len(list(tmp_path.glob("*.json"))) == 3
    assert stochastic({"noisy": noisy()}, replace(here, folder=tmp_path), ATTACK, passes=3, trials=2).rows == whole.rows


def test_a_twin_stands_for_noise_that_cannot_be_switched_off():
    class Always(nn.Module):
        def forward(self, x):
            return x + 0.1 * torch.randn_like(x)

    model = nn.Sequential(Always(), plane())
    here = Setting(data=data(20))
    made = stochastic({"a": model}, here, ATTACK, twins={"a": plane()}, passes=2, trials=1)
    assert made.rows[0].modes[2].clean.mean == 1
    assert made.rows[0].modes[0].robust.deviation is None
    with pytest.raises(ConfigError, match="stochastic model"):
        stochastic({"a": model}, here, ATTACK, passes=2, trials=1)


def test_a_spread_is_a_mean_and_a_sample_deviation():
    found = spread([0.1, 0.2, 0.3])
    assert found.mean == pytest.approx(0.2)
    assert found.deviation == pytest.approx(0.1)


def test_impossible_numbers_are_refused():
    here = Setting(data=data(8))
    with pytest.raises(ConfigError, match="trials"):
        stochastic({"a": noisy()}, here, ATTACK, trials=0)
    with pytest.raises(ConfigError, match="passes"):
        stochastic({"a": noisy()}, here, ATTACK, passes=0)
