from dataclasses import dataclass

import pytest

from gossamer.attacks.fgsm import FGSM
from gossamer.attacks.pgd import PGD
from gossamer.errors import ConfigError
from gossamer.evaluation.trials import at_eps, find_parameter, has_eps, parameters, plan_trials
from gossamer.threat import ThreatModel

LINF = ThreatModel("linf", 8 / 255)


@dataclass(frozen=True, kw_only=True)
class Wrapper:
    attack: PGD
    times: float = float("inf")

    def __call__(self, model, x, y, *, draws):
        return self.attack(model, x, y, draws=draws)


def cheat(model, x, y, *, draws):
    return x


def test_a_name_is_built_under_the_threat():
    (trial,) = plan_trials("pgd-50-10", "linf:8/255")
    assert trial.name == "pgd-50-10"
    assert (trial.attack.steps, trial.attack.restarts, trial.attack.threat) == (50, 10, LINF)


def test_a_value_brings_its_threat_and_is_recognised_by_its_fields():
    named = plan_trials([plan_trials("pgd-50-10", LINF)[0].attack, PGD(threat=LINF, steps=3), FGSM(threat=LINF)])
    assert [trial.name for trial in named] == ["pgd-50-10", "pgd", "fgsm"]
    assert {trial.threat for trial in named} == {LINF}


def test_a_mapping_gives_its_own_names():
    trials = plan_trials({"weak": PGD(threat=LINF, steps=1), "strong": "pgd"}, LINF)
    assert [trial.name for trial in trials] == ["weak", "strong"]


def test_a_wrapper_is_judged_by_the_threat_inside():
    assert plan_trials(Wrapper(attack=PGD(threat=LINF)))[0].threat == LINF


@pytest.mark.parametrize(
    ("attacks", "threat", "message"),
    [
        ("pgd", None, "expected a threat"),
        (cheat, None, "threat to judge it by"),
        (PGD(threat=LINF), "linf:4/255", "linf:4/255"),
        ([], LINF, "at least one"),
        ([PGD(threat=LINF, steps=1), PGD(threat=LINF, steps=2)], None, "mapping"),
        ([PGD(threat=LINF), PGD(threat=ThreatModel("l2", 0.5))], None, "one norm"),
        ("autoatack", LINF, "expected one of"),
    ],
)
def test_impossible_plans_are_refused(attacks, threat, message):
    with pytest.raises(ConfigError, match=message):
        plan_trials(attacks, threat)


def test_at_eps_changes_the_radius_alone():
    attack = PGD(threat=LINF, steps=7)
    assert at_eps(attack, 0.5) == PGD(threat=ThreatModel("linf", 0.5), steps=7)
    assert at_eps(Wrapper(attack=attack), 0.5).attack.threat.eps == 0.5
    assert has_eps(Wrapper(attack=attack))
    assert not has_eps(cheat)
    with pytest.raises(ConfigError, match="one attack for each eps"):
        at_eps(cheat, 0.5)


def test_parameters_are_every_field_as_plain_json():
    values = parameters(Wrapper(attack=PGD(threat=LINF, steps=7)))
    assert values["type"].endswith("Wrapper")
    assert values["times"] == "inf"
    assert values["attack"]["threat"] == "linf:8/255"
    assert find_parameter(values, "steps") == 7
    assert find_parameter(values, "queries") is None
    assert parameters(cheat) == {"type": f"{__name__}.cheat"}
