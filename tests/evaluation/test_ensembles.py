import json

import pytest
import torch
from protocol_toys import Plane, images, labels, plane

from gossamer.attacks.pgd import PGD
from gossamer.errors import ConfigError
from gossamer.evaluation.ensembles import SoftmaxMean, ensemble
from gossamer.evaluation.setting import Setting
from gossamer.evaluation.tables import tell
from gossamer.runs import records
from gossamer.runs.protocols import EnsembleTable
from gossamer.threat import ThreatModel

ATTACK = PGD(threat=ThreatModel("linf", 0.1), steps=20)


def halves():
    """Two members that see one half of the image each."""
    first, second = torch.zeros(12), torch.zeros(12)
    first[:6], second[6:] = 5.0, 5.0
    return {"left": Plane(first), "right": Plane(second)}


def test_it_is_the_mean_of_probabilities():
    members = [plane(0), plane(1)]
    x = images(9)
    expected = torch.stack([torch.softmax(member(x), dim=1) for member in members]).mean(dim=0)
    assert torch.allclose(SoftmaxMean(*members)(x).exp(), expected, atol=1e-6)
    assert torch.allclose(SoftmaxMean(members[0])(x), torch.log_softmax(members[0](x), dim=1))
    confident = [Plane(1e4 * torch.ones(12)), Plane(1e4 * torch.ones(12))]
    assert SoftmaxMean(*confident)(x).isfinite().all()
    with pytest.raises(ConfigError, match="at least one member"):
        SoftmaxMean()


def test_the_attack_on_the_whole_sees_through_what_members_hide(tmp_path):
    members = halves()
    x = images(60)
    y = labels(members["left"], x)
    keep = y == labels(members["right"], x)
    x, y = x[keep], y[keep]
    here = Setting(data=(x, y), folder=tmp_path)
    made = ensemble(members, here, ATTACK)
    assert made.clean.value == 1
    assert made.flattery > 0.1
    assert made.as_one.value < made.member_wise.value == pytest.approx(made.as_one.value + made.flattery)
    for member, model in zip(made.members, members.values(), strict=True):
        assert member.robust.value == pytest.approx(float((model.radius(x) > 0.1).float().mean()))
    assert made.model.weights == 48
    assert made.parameters == 2 * 26
    calls = members["left"].calls
    assert ensemble(members, here, ATTACK) == made
    assert members["left"].calls == calls
    read = records.from_json(EnsembleTable, json.loads(json.dumps(records.to_json(made))), subject="ensemble")
    assert read.members == made.members
    assert "52 parameters of all members" in tell(made)


def test_twins_have_nothing_to_hide():
    x = images(40)
    members = {"one": plane(0), "two": plane(0)}
    made = ensemble(members, Setting(data=(x, labels(members["one"], x))), ATTACK)
    assert made.flattery == 0
    assert made.as_one == made.members[0].robust == made.members[1].ensemble


def test_one_member_is_no_ensemble():
    x = images(8)
    with pytest.raises(ConfigError, match="at least 2"):
        ensemble({"one": plane()}, Setting(data=(x, labels(plane(), x))), ATTACK)
