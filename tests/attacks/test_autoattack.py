import pytest
import torch
from torch import Tensor, nn

from gossamer.attacks.apgd import APGD
from gossamer.attacks.autoattack import AutoAttack
from gossamer.attacks.cascade import Cascade, Ensemble
from gossamer.attacks.fab import FAB
from gossamer.attacks.registry import build
from gossamer.attacks.square import Square
from gossamer.errors import ConfigError
from gossamer.evaluation.trials import at_eps, members, plan_trials
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel

LINF = ThreatModel("linf", 0.1)

# Members of each version: attempts of each at 10 classes, as the authors' release runs them.
PUBLISHED = {
    ("standard", "linf"): {"apgd-ce": 1, "apgd-t": 9, "fab-t": 9, "square": 1},
    ("standard", "l2"): {"apgd-ce": 1, "apgd-t": 9, "fab-t": 9, "square": 1},
    ("standard", "l1"): {"apgd-ce": 5, "apgd-t": 5, "fab-t": 9, "square": 1},
    ("plus", "linf"): {"apgd-ce": 5, "apgd-dlr": 5, "fab": 5, "square": 1, "apgd-t": 9, "fab-t": 9},
    ("rand", "linf"): {"apgd-ce": 1, "apgd-dlr": 1},
    ("early", "linf"): {"apgd-ce": 5, "apgd-dlr": 5, "fab": 5, "square": 1},
}


@pytest.mark.parametrize(("version", "norm"), PUBLISHED)
def test_the_versions_are_the_published_ones(version, norm):
    attack = AutoAttack(threat=ThreatModel(norm, 0.1), version=version)
    assert isinstance(attack, Ensemble)
    assert {name: member.attempts(10) for name, member in attack.members} == PUBLISHED[version, norm]
    for _, member in attack.members:
        assert member.threat == attack.threat
        match member:
            case APGD() | FAB():
                assert member.steps == 100
            case Square():
                assert member.queries == 5000
        assert getattr(member, "eot", 1) == (20 if version == "rand" else 1)


def test_names_mean_versions():
    for name, version in (("", "standard"), ("-plus", "plus"), ("-rand", "rand"), ("-early", "early")):
        assert build(f"autoattack{name}", LINF) == AutoAttack(threat=LINF, version=version)


@pytest.mark.parametrize("wrong", [{"version": "fast"}, {"steps": 0}, {"queries": 0}, {"eot": 0}])
def test_impossible_fields_are_refused(wrong):
    with pytest.raises(ConfigError):
        AutoAttack(threat=LINF, **wrong)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_on_a_linear_model_it_breaks_what_can_be_broken(norm):
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(12, 5, generator=generator)
    x = 0.4 + 0.2 * torch.rand(40, 3, 2, 2, generator=generator)

    def model(images: Tensor) -> Tensor:
        return images.flatten(1) @ weights

    logits = model(x)
    y = logits.argmax(dim=1)
    # The smallest distance to another class's region: the margin over the dual norm of the difference of weights.
    dual = {"linf": 1, "l2": 2, "l1": float("inf")}[norm]
    apart = torch.linalg.vector_norm(weights[:, y, None] - weights[:, None, :], ord=dual, dim=0)
    gaps = (logits.gather(1, y[:, None]) - logits) / apart.clamp(min=1e-9)
    nearest = gaps.scatter(1, y[:, None], torch.inf).amin(dim=1)
    eps = float(nearest.median())
    clear = (nearest / eps - 1).abs() > 0.05
    attack = AutoAttack(threat=ThreatModel(norm, eps), steps=20, queries=30)
    broken = model(attack(model, x, y, draws=Draws(1))).argmax(dim=1) != y
    assert torch.equal(broken[clear], (nearest < eps)[clear])


def test_the_plain_call_and_the_members_break_the_same():
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(12, 5, generator=generator)
    x = torch.rand(30, 3, 2, 2, generator=generator)

    def model(images: Tensor) -> Tensor:
        return torch.tanh(images.flatten(1) @ weights)

    y = model(x).argmax(dim=1)
    attack = AutoAttack(threat=LINF, steps=5, queries=10)
    draws = Draws(2).per_sample(torch.arange(len(x)))
    whole = model(attack(model, x, y, draws=draws)).argmax(dim=1) != y
    each = [model(one(model, x, y, draws=draws.at(name))).argmax(dim=1) != y for name, one in attack.members]
    assert torch.equal(whole, torch.stack(each).any(dim=0))


def test_another_radius_reaches_every_member():
    moved = at_eps(AutoAttack(threat=LINF), 0.2)
    assert {member.threat.eps for _, member in moved.members} == {0.2}
    cascade = at_eps(Cascade(threat=LINF, members=(("square", Square(threat=LINF)),)), 0.2)
    assert (cascade.threat.eps, cascade.members[0][1].threat.eps) == (0.2, 0.2)


def test_a_trial_knows_its_members():
    (trial,) = plan_trials("autoattack", LINF)
    assert trial.name == "autoattack"
    assert [name for name, _ in members(trial)] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    (single,) = plan_trials("square", LINF)
    assert [name for name, _ in members(single)] == ["square"]


def test_a_cascade_needs_members_of_their_own_names():
    with pytest.raises(ConfigError, match="at least one attack"):
        Cascade(threat=LINF, members=())
    with pytest.raises(ConfigError, match="its own name"):
        Cascade(threat=LINF, members=(("a", Square(threat=LINF)), ("a", Square(threat=LINF))))


@pytest.mark.parametrize(
    ("classes", "left"),
    [
        (2, ("apgd-ce", "fab", "square", "fab-t")),
        (3, ("apgd-ce", "apgd-dlr", "fab", "square", "fab-t")),
        (4, ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t")),
    ],
)
def test_few_classes_leave_the_attacks_whose_loss_they_define(classes: int, left: tuple[str, ...]):
    attack = AutoAttack(threat=ThreatModel("linf", 0.1), version="plus", steps=2, queries=3).among(classes)
    assert tuple(name for name, _ in attack.members) == left
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, classes))
    x = torch.rand(4, 3, 2, 2)
    found = attack(network, x, network(x).argmax(dim=1))
    assert (found - x).abs().max() <= 0.1 + 1e-6
