import json
from dataclasses import dataclass, replace

import pytest
import torch
from protocol_toys import KilledError, Plane, images, labels, plane

from gossamer.attacks.fgsm import FGSM
from gossamer.attacks.pgd import PGD
from gossamer.attacks.starts import NoStart
from gossamer.attacks.steps import Absolute
from gossamer.errors import ConfigError, RunError
from gossamer.evaluation.adapters import TorchFunction
from gossamer.evaluation.effort import effort
from gossamer.evaluation.setting import Setting
from gossamer.evaluation.tables import tell
from gossamer.runs import records
from gossamer.runs.protocols import EffortTable
from gossamer.threat import ThreatModel

EPS = 0.05
LINF = ThreatModel("linf", EPS)
CREEP = PGD(threat=LINF, step=Absolute(EPS / 4), start=NoStart())


def setting(folder=None, n=40):
    model = plane()
    x = images(n)
    return model, x, Setting(data=(x, labels(model, x)), folder=folder)


def test_a_creeping_attack_breaks_what_lies_within_its_way():
    model, x, here = setting()
    made = effort({"plane": model}, here, threat=LINF, attack=CREEP, steps=[1, 2, 4, 8], restarts=[1])
    (row,) = made.rows
    for point in row.points:
        reach = min(point.steps / 4, 1) * EPS
        assert point.robust == tuple((model.radius(x) > reach).int().tolist())
        assert point.raw == point.cumulative
    assert row.clean.value == 1
    assert row.points[0].raw.value > row.points[2].raw.value == row.points[3].raw.value


@dataclass(frozen=True, kw_only=True)
class Odd:
    """Breaks the samples whose number leaves no rest by its steps: more steps, other samples."""

    threat: ThreatModel
    steps: int
    restarts: int

    def __call__(self, model, x, y, *, draws):
        rows = torch.tensor([row[1] % self.steps == 0 for row in draws.rows])
        return torch.where(rows.view(-1, 1, 1, 1), x - self.threat.eps, x)


def test_cumulative_counts_what_less_effort_broke():
    w = torch.ones(12)
    model, x = Plane(w, b=5.9), torch.full((30, 1, 3, 4), 0.5)
    here = Setting(data=(x, torch.ones(30, dtype=torch.int64)))
    odd = Odd(threat=ThreatModel("linf", 0.2), steps=1, restarts=1)
    made = effort({"plane": model}, here, threat=odd.threat, attack=odd, steps=[2, 3], restarts=[1, 4])
    points = {(point.steps, point.restarts): point for point in made.rows[0].points}
    assert points[2, 1].raw.value == pytest.approx(15 / 30)
    assert points[3, 1].raw.value == pytest.approx(20 / 30)
    assert points[3, 1].cumulative.value == pytest.approx(10 / 30)
    assert points[2, 4].cumulative.value == pytest.approx(15 / 30)


def test_finished_cells_are_not_measured_again_and_a_killed_one_is(tmp_path):
    model, _, here = setting(tmp_path / "cells")
    _, _, elsewhere = setting()
    asked = {"threat": LINF, "attack": CREEP, "steps": [1, 2, 4], "restarts": [1]}
    whole = effort({"plane": plane()}, elsewhere, **asked)

    def dying(standing):
        if standing.what != "clean" and len(list((tmp_path / "cells").glob("*.json"))) == 1:
            raise KilledError

    with pytest.raises(KilledError):
        effort({"plane": model}, replace(here, progress=dying), **asked)
    assert len(list((tmp_path / "cells").glob("*.json"))) == 1
    resumed = effort({"plane": model}, here, **asked)
    assert resumed.rows == whole.rows
    before = model.calls
    assert effort({"plane": model}, here, **asked) == resumed
    assert model.calls == before
    assert not list((tmp_path / "cells").glob("*.partial"))
    effort({"plane": model}, here, **{**asked, "steps": [1, 2, 4, 8]})
    assert len(list((tmp_path / "cells").glob("*.json"))) == 4


def test_other_weights_are_other_cells(tmp_path):
    here = setting(tmp_path)[2]
    asked = {"threat": LINF, "attack": CREEP, "steps": [4], "restarts": [1]}
    first = effort({"plane": plane()}, here, **asked)
    other = effort({"plane": plane(seed=5)}, here, **asked)
    assert first.rows[0].points != other.rows[0].points


def test_it_survives_json_and_tells_n(tmp_path):
    model, _, here = setting()
    made = effort({"plane": model}, here, threat=LINF, attack=CREEP, steps=[1, 2], restarts=[1])
    records.write(tmp_path / "effort.json", made)
    assert records.read(EffortTable, tmp_path / "effort.json") == replace(
        made, environment=json.loads(json.dumps(made.environment)), attack=json.loads(json.dumps(made.attack))
    )
    assert "n = 40" in tell(made)
    value = records.to_json(made)
    value["rows"][0]["points"] = value["rows"][0]["points"][:1]
    with pytest.raises(RunError, match="2 points"):
        records.from_json(EffortTable, value, subject="effort")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"steps": []}, "steps"),
        ({"steps": [20, 10]}, "steps"),
        ({"restarts": [0]}, "restarts"),
        ({"attack": FGSM(threat=LINF)}, r"attack FGSM\.steps: .*an unknown option"),
    ],
)
def test_impossible_efforts_are_refused(asked, told):
    model, _, here = setting()
    with pytest.raises(ConfigError, match=told):
        effort({"plane": model}, here, threat=LINF, **asked)
    with pytest.raises(ConfigError, match="models"):
        effort({}, here, threat=LINF)


def test_models_without_tensors_are_told_apart_by_their_logits(tmp_path):
    model, _x, here = setting(tmp_path)
    other = plane(seed=5)
    asked = {"threat": LINF, "attack": CREEP, "steps": [4], "restarts": [1]}
    first = effort({"f": TorchFunction(model.forward, "f")}, here, **asked)
    assert first.rows[0].clean.value == 1
    second = effort({"f": TorchFunction(other.forward, "f")}, here, **asked)
    assert second.rows[0].clean.value < 1
