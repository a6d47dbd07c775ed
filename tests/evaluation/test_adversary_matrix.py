import json

import pytest
from protocol_toys import images, labels, plane

from gossamer.attacks.fgsm import FGSM
from gossamer.errors import ConfigError
from gossamer.evaluation.adversary_matrix import adversary_matrix, pgd_adversaries
from gossamer.evaluation.setting import Setting
from gossamer.evaluation.tables import tell
from gossamer.runs import records
from gossamer.runs.protocols import AdversaryMatrix
from gossamer.threat import ThreatModel

WEAK, STRONG = (FGSM(threat=ThreatModel("linf", eps)) for eps in (0.02, 0.08))


def test_every_pair_has_its_own_number(tmp_path):
    models = {"a": plane(0), "b": plane(1)}
    x = images(50)
    y = labels(models["a"], x)
    here = Setting(data=(x, y), folder=tmp_path)
    made = adversary_matrix(models, here, {"weak": WEAK, "strong": STRONG}, trained={"a": "pgd-8"})
    for row, model in zip(made.accuracy, models.values(), strict=True):
        right = labels(model, x) == y
        expected = [float((right & (model.radius(x) > eps)).float().mean()) for eps in (0.02, 0.08)]
        assert [cell.value for cell in row] == pytest.approx(expected)
    assert [model.kind for model in made.models] == ["pgd-8", "b"]
    assert [each.eps for each in made.adversaries] == [0.02, 0.08]
    calls = models["a"].calls
    assert adversary_matrix(models, here, {"weak": WEAK, "strong": STRONG}, trained={"a": "pgd-8"}) == made
    assert models["a"].calls == calls
    read = records.from_json(AdversaryMatrix, json.loads(json.dumps(records.to_json(made))), subject="matrix")
    assert read.accuracy == made.accuracy
    assert "pgd-8" in tell(made)
    assert "n = 50" in tell(made)


def test_the_thesis_adversaries_cross_the_radius_once():
    found = pgd_adversaries()
    assert list(found) == ["pgd-1", "pgd-2", "pgd-4", "pgd-8"]
    assert [attack.size for attack in found.values()] == pytest.approx([0.1, 0.05, 0.025, 0.0125])


def test_no_adversary_is_refused():
    x = images(8)
    with pytest.raises(ConfigError, match="at least one attack"):
        adversary_matrix({"a": plane()}, Setting(data=(x, labels(plane(), x))), {})
