import json

import pytest
import torch
from protocol_toys import images, labels, plane

from gossamer.attacks.fgsm import FGSM
from gossamer.errors import ConfigError
from gossamer.evaluation.classes import by_class
from gossamer.evaluation.evaluate import evaluate
from gossamer.evaluation.tables import tell
from gossamer.runs import records
from gossamer.runs.protocols import ClassTable
from gossamer.threat import ThreatModel


def measured():
    model = plane()
    x = images(60)
    y = labels(model, x)
    y[:3] = 1 - y[:3]
    return model, x, y, evaluate(model, (x, y), [FGSM(threat=ThreatModel("linf", eps)) for eps in (0.01, 0.03)])


def test_classes_are_counted_apart_and_add_up():
    model, x, y, made = measured()
    table = by_class(made, ["cat", "dog"])
    right = labels(model, x) == y
    standing = right & (model.radius(x) > 0.03)
    for each in table.classes:
        own = y == each.label
        assert each.clean.n == int(own.sum())
        assert each.clean.value == pytest.approx(float(right[own].float().mean()))
        assert each.robust.value == pytest.approx(float(standing[own].float().mean()))
    worst = torch.tensor([float(standing[y == label].float().mean()) for label in (0, 1)]).argmin()
    assert table.worst_robust == ["cat", "dog"][worst]
    assert sum(each.robust.value * each.robust.n for each in table.classes) == pytest.approx(made.robust_accuracy * 60)
    assert f"worst class: {table.worst_robust} under attack" in tell(table)
    read = records.from_json(ClassTable, json.loads(json.dumps(records.to_json(table))), subject="classes")
    assert read == table


def test_classes_without_names_are_numbered_and_too_few_refused():
    *_, made = measured()
    assert [each.name for each in by_class(made).classes] == ["0", "1"]
    with pytest.raises(ConfigError, match="at least 2"):
        by_class(made, ["cat"])
