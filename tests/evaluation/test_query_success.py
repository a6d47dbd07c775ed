import json
from dataclasses import replace

import pytest
from protocol_toys import Constant, KilledError, images, labels, plane

from gossamer.attacks.fgsm import FGSM
from gossamer.attacks.zoo import ZOO
from gossamer.errors import ConfigError, DataError
from gossamer.evaluation import query_success as module
from gossamer.evaluation.query_success import query_success, zoo_success
from gossamer.evaluation.setting import Setting
from gossamer.evaluation.tables import tell
from gossamer.runs import records
from gossamer.runs.protocols import BlackBoxTable
from gossamer.threat import ThreatModel

QUICK = ZOO(iterations=60, coordinates=4, lr=0.05, const=10.0, scores="logits", stop_at_first=True)


def test_only_samples_that_are_right_count_in_one_random_order(tmp_path):
    model = plane()
    x = images(60)
    y = labels(model, x)
    y[::3] = 1 - y[::3]
    made = query_success({"plane": model}, Setting(data=(x, y), folder=tmp_path), QUICK, n=25)
    (row,) = made.rows
    asked = [sample.index for sample in row.samples]
    assert len(set(asked)) == row.success.n == 25
    assert not any(index % 3 == 0 for index in asked)
    assert asked != sorted(asked)
    assert 25 <= row.asked <= 60
    assert row.success.value == sum(sample.success for sample in row.samples) / 25 > 0.5
    assert row.median_queries > 1
    assert all((sample.distance is None) == (not sample.success) for sample in row.samples)
    assert "n" in tell(made)
    read = records.from_json(BlackBoxTable, json.loads(json.dumps(records.to_json(made))), subject="black box")
    assert read.rows == made.rows


def test_a_constant_model_is_never_broken():
    x = images(8)
    made = query_success(
        {"constant": Constant()}, Setting(data=(x, labels(plane(), x) * 0)), replace(QUICK, iterations=3), n=4
    )
    (row,) = made.rows
    assert (row.success.value, row.median_queries, row.mean_queries) == (0, None, None)
    assert made.attack["iterations"] == 3


def test_the_zoo_protocol_runs_the_authors_settings(monkeypatch):
    seen = []
    monkeypatch.setattr(module, "query_success", lambda models, setting, attack, n: seen.append((attack, n)))
    zoo_success({}, Setting(data=(images(2), labels(plane(), images(2)))))
    assert seen == [(ZOO(), 200)]


def test_a_killed_protocol_goes_on(tmp_path, monkeypatch):
    x = images(40)
    y = labels(plane(), x)
    monkeypatch.setattr(module, "PART", 5)
    whole = query_success({"plane": plane()}, Setting(data=(x, y)), QUICK, n=15)
    real, parts = module.success_rate, 0

    def dying(*args, **kwargs):
        nonlocal parts
        parts += 1
        if parts == 3:
            raise KilledError
        return real(*args, **kwargs)

    here = Setting(data=(x, y), folder=tmp_path)
    monkeypatch.setattr(module, "success_rate", dying)
    with pytest.raises(KilledError):
        query_success({"plane": plane()}, here, QUICK, n=15)
    assert len(list(tmp_path.glob("*.json"))) == 2
    assert query_success({"plane": plane()}, here, QUICK, n=15) == whole
    assert parts == 4


def test_impossible_requests_are_refused():
    x = images(8)
    here = Setting(data=(x, labels(plane(), x)))
    with pytest.raises(DataError, match="9 that the model classifies correctly"):
        query_success({"plane": plane()}, here, QUICK, n=9)
    with pytest.raises(ConfigError, match="counts its queries"):
        query_success({"plane": plane()}, here, FGSM(threat=ThreatModel("linf", 0.1)), n=2)
    with pytest.raises(ConfigError, match="samples"):
        query_success({"plane": plane()}, here, QUICK, n=0)
