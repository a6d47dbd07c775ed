from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gossamer.attacks.apgd import APGD
from gossamer.attacks.bpda import BPDA
from gossamer.attacks.eot import Expectation
from gossamer.attacks.fgsm import FGSM
from gossamer.attacks.pgd import PGD
from gossamer.attacks.predicted import PredictedLabels
from gossamer.attacks.repeats import Restarts
from gossamer.attacks.starts import NoStart
from gossamer.attacks.stepwise import Pool, Rows, StepwiseAttack, attack_batch
from gossamer.attacks.targets import Given, Ranked
from gossamer.attacks.towards import Only, Towards
from gossamer.attacks.transfer import Transfer
from gossamer.attacks.worst import ThreatUnion, WorstOf
from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel, per_image
from gossamer.types import Attack, Model

LINF = ThreatModel("linf", 0.05)
PLAIN = PGD(threat=LINF, steps=4)


@dataclass(frozen=True, kw_only=True)
class Wander:
    """A stepwise attack: steps of the gradient's sign, from a random start, until the label is left."""

    threat: ThreatModel = LINF
    steps: int = 4
    tries: int = 1

    def attempts(self, classes: int) -> int:
        return self.tries

    def begin(self, x: Tensor, y: Tensor, clean: Tensor, attempt: Tensor, draws: Draws) -> Rows:
        none = torch.zeros_like(y, dtype=torch.bool)
        start = self.threat.random_start(x, draws)
        return {"best": start, "hit": none, "over": none, "step": torch.zeros_like(y)}

    def advance(self, model: Model, x: Tensor, y: Tensor, rows: Rows, draws: Draws) -> Rows:
        leaf = rows["best"].clone().requires_grad_(True)
        with torch.enable_grad():
            logits = model(leaf)
            (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits, y, reduction="sum"), leaf)
        hit, step = logits.argmax(dim=1) != y, rows["step"] + 1
        moved = self.threat.project(leaf.detach() + 0.02 * gradient.sign(), x)
        best = torch.where(per_image(hit, x), leaf.detach(), moved)
        return {"best": best, "hit": hit, "over": step >= self.steps, "step": step}

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = Draws()) -> Tensor:  # noqa: B008
        return attack_batch(self, model, x, y, draws)


class Quantised(nn.Module):
    """An image rounded to a few levels, then a network: its gradient at the image is zero nearly everywhere."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.levels = Levels()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.levels(x))


class Levels(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.round(16 * x) / 16


class Noisy(nn.Module):
    """A network behind noise that a single gradient mostly follows."""

    def __init__(self, network: nn.Module, deviation: float) -> None:
        super().__init__()
        self.network = network
        self.deviation = deviation

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x + self.deviation * torch.randn_like(x))


def _wrapped(inner: Attack, convnet: nn.Module) -> dict[str, Attack]:
    return {
        "expectation": Expectation(attack=inner, passes=2),
        "bpda": BPDA(attack=inner, layer="2"),
        "predicted": PredictedLabels(attack=inner),
        "restarts": Restarts(attack=inner, restarts=2),
        "towards": Towards(attack=inner, target=Ranked(1)),
        "transfer": Transfer(attack=inner, source=convnet),
        "worst": WorstOf(attacks=(inner, FGSM(threat=LINF))),
    }


NAMES = ["expectation", "bpda", "predicted", "restarts", "towards", "transfer", "worst"]


@pytest.mark.parametrize("inner", [PLAIN, Wander()], ids=["batch", "stepwise"])
@pytest.mark.parametrize("name", NAMES)
def test_model_untouched_points_admissible_result_determined(
    convnet: nn.Module, images: Tensor, labels: Tensor, name: str, inner: Attack
) -> None:
    attack = _wrapped(inner, convnet)[name]
    state = {key: value.clone() for key, value in convnet.state_dict().items()}
    modes = [module.training for module in convnet.modules()]
    x_adv = attack(convnet, images, labels, draws=Draws(1))
    assert torch.equal(x_adv, attack(convnet, images, labels, draws=Draws(1)))
    assert not attack.threat.violates(x_adv, images).any()  # pyright: ignore
    assert not x_adv.requires_grad
    assert ((x_adv >= 0) & (x_adv <= 1)).all()
    assert all(torch.equal(value, state[key]) for key, value in convnet.state_dict().items())
    assert [module.training for module in convnet.modules()] == modes
    assert all(parameter.grad is None and parameter.requires_grad for parameter in convnet.parameters())
    assert not any(module._forward_hooks for module in convnet.modules())
    assert attack(convnet, images[:0], labels[:0]).shape == images[:0].shape


@pytest.mark.parametrize("name", ["expectation", "bpda", "predicted", "restarts", "towards"])
def test_wrappers_stay_stepwise_and_rows_independent(
    convnet: nn.Module, images: Tensor, labels: Tensor, name: str
) -> None:
    net, x = convnet.double(), images.double()
    clean = net(x).detach()
    for inner in (Wander(tries=2), PLAIN):
        attack = _wrapped(inner, convnet)[name]
        assert isinstance(attack, StepwiseAttack)
        assert attack.threat == LINF
        results = []
        for capacity in (3, 16):
            pool = Pool(attack, net, Draws(1).per_sample)
            waiting, found = torch.arange(16), torch.zeros(16, dtype=torch.bool)
            while len(pool) or len(waiting):
                take = waiting[: capacity - len(pool)]
                waiting = waiting[len(take) :]
                if len(take):
                    pool.enter(take, x[take], labels[take], clean[take])
                finished = pool.advance()
                found[finished.sample] = finished.found
            results.append(found)
        assert torch.equal(*results)
        assert results[0].any()


def test_the_wrapper_names_its_need_of_the_module(convnet: nn.Module) -> None:
    bpda = BPDA(attack=PLAIN, layer="2")
    for attack in (bpda, Restarts(attack=bpda), PredictedLabels(attack=bpda), WorstOf(attacks=(PLAIN, bpda))):
        assert attack.needs_module
    assert not Restarts(attack=PLAIN).needs_module
    assert not WorstOf(attacks=(PLAIN,)).needs_module


# Expectation


def test_expectation_raises_success_on_a_noisy_model(convnet: nn.Module, images: Tensor, labels: Tensor) -> None:
    noisy = Noisy(convnet, 0.3)
    right = (convnet(images).argmax(dim=1) == labels).nonzero().flatten()
    x, y = images[right], labels[right]
    attack = PGD(threat=ThreatModel("linf", 0.04), steps=6, start=NoStart())
    success = {}
    for passes in (1, 32):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            x_adv = Expectation(attack=attack, passes=passes)(noisy, x, y)
        success[passes] = int((convnet(x_adv).argmax(dim=1) != y).sum())
    assert 0 < success[1] < success[32]


def test_expectation_is_the_mean_of_the_passes() -> None:
    outputs = iter([torch.tensor([[0.0, 2.0]]), torch.tensor([[2.0, 0.0]])] * 2)

    def model(x: Tensor) -> Tensor:
        return next(outputs)

    seen: list[Tensor] = []

    def attack(inside: Model, x: Tensor, y: Tensor, *, draws: Draws = Draws()) -> Tensor:  # noqa: B008
        seen.append(inside(x))
        return x

    for mean_of in ("logits", "log-probabilities"):
        wrapped = Expectation(attack=attack, passes=2, mean_of=mean_of)  # pyright: ignore
        averaged = wrapped._averaged(model)
        attack(averaged, torch.zeros(1, 1, 1, 1), torch.tensor([0]))
    assert seen[0].tolist() == [[1.0, 1.0]]
    by_hand = torch.tensor([[0.0, 2.0], [2.0, 0.0]]).log_softmax(dim=1).mean(dim=0)
    assert torch.allclose(seen[1][0], by_hand)
    with pytest.raises(ConfigError):
        Expectation(attack=attack, passes=0)
    with pytest.raises(ConfigError):
        Expectation(attack=attack, mean_of="probabilities")  # pyright: ignore


# BPDA


def test_bpda_breaks_what_has_no_gradient(convnet: nn.Module, images: Tensor) -> None:
    model = Quantised(convnet)
    y = model(images).argmax(dim=1)
    attack = PGD(threat=ThreatModel("linf", 0.1), steps=5, start=NoStart())
    masked = attack(model, images, y)
    assert torch.equal(masked, images)
    for backward in (None, nn.Identity(), nn.AvgPool2d(3, stride=1, padding=1)):
        x_adv = BPDA(attack=attack, layer="levels", backward=backward)(model, images, y)
        assert (model(x_adv).argmax(dim=1) != y).float().mean() > 0.4


def test_bpda_forward_values_are_the_layers_own_to_the_bit(convnet: nn.Module, images: Tensor) -> None:
    model = Quantised(convnet)
    y = model(images).argmax(dim=1)
    expected = model(images)
    seen: list[Tensor] = []

    def attack(inside: Model, x: Tensor, y: Tensor, *, draws: Draws = Draws()) -> Tensor:  # noqa: B008
        leaf = x.clone().requires_grad_(True)
        logits = inside(leaf)
        (gradient,) = torch.autograd.grad(logits.sum(), leaf)
        with torch.no_grad():
            seen.extend([logits.detach(), inside(x), gradient])
        return x

    BPDA(attack=attack, layer="levels")(model, images, y)
    leaf = Levels()(images).requires_grad_(True)
    (straight,) = torch.autograd.grad(convnet(leaf).sum(), leaf)
    assert torch.equal(seen[0], expected)
    assert torch.equal(seen[1], expected)
    assert torch.equal(seen[2], straight)


def test_bpda_restores_after_an_error_and_says_what_is_wrong(
    convnet: nn.Module, images: Tensor, labels: Tensor
) -> None:
    for wrapped, model, message in [
        (BPDA(attack=PLAIN, layer="missing"), convnet, "BPDA layer"),
        (BPDA(attack=PLAIN, layer="3"), convnet, "a stand-in that gives"),
        (BPDA(attack=PLAIN, layer="2"), convnet.forward, "outside of wrappers"),
    ]:
        with pytest.raises(ConfigError, match=message):
            wrapped(model, images, labels)
    assert not any(module._forward_hooks for module in convnet.modules())


def test_bpda_nests(convnet: nn.Module, images: Tensor) -> None:
    model = nn.Sequential(Levels(), Levels(), convnet)
    y = model(images).argmax(dim=1)
    attack = PGD(threat=ThreatModel("linf", 0.1), steps=5, start=NoStart())
    one = BPDA(attack=attack, layer="0")
    assert torch.equal(one(model, images, y), images)
    assert (model(BPDA(attack=one, layer="1")(model, images, y)).argmax(dim=1) != y).any()


# Restarts and labels


def test_restarts_keep_the_worst_and_only_add(convnet: nn.Module, images: Tensor, labels: Tensor) -> None:
    single = PGD(threat=ThreatModel("linf", 0.02), steps=1)
    keyed = Draws(1).per_sample(torch.arange(16))
    broken = []
    for restarts in (1, 8):
        x_adv = Restarts(attack=single, restarts=restarts)(convnet, images, labels, draws=keyed)
        broken.append(convnet(x_adv).argmax(dim=1) != labels)
    assert (broken[0] <= broken[1]).all()
    own = replace(single, restarts=8, loss="margin", early_drop=True)
    around = Restarts(attack=replace(single, loss="margin"), restarts=8)
    by_itself = own(convnet, images, labels, draws=keyed)
    inside = around(convnet, images, labels, draws=keyed)
    # The same rule, with the draws of the one level more.
    assert (convnet(by_itself).argmax(dim=1) != labels).sum() == (convnet(inside).argmax(dim=1) != labels).sum()
    with pytest.raises(ConfigError):
        Restarts(attack=single, restarts=0)


def test_restarts_multiply_attempts_and_number_them_inside() -> None:
    seen: list[list[int]] = []

    class Counting(Wander):
        def begin(self, x: Tensor, y: Tensor, clean: Tensor, attempt: Tensor, draws: Draws) -> Rows:
            seen.append(attempt.tolist())
            return super().begin(x, y, clean, attempt, draws)

    attack = Restarts(attack=Counting(tries=3), restarts=4)
    assert attack.attempts(10) == 12
    x, y = torch.rand(2, 1, 2, 2), torch.tensor([0, 0])
    attack.begin(x, y, torch.zeros(2, 5), torch.tensor([2, 7]), Draws().per_sample(torch.arange(2)))
    assert seen == [[2, 1]]


def test_predicted_labels_do_not_leak(convnet: nn.Module, images: Tensor, labels: Tensor) -> None:
    attack = PredictedLabels(attack=PLAIN)
    predicted = convnet(images).argmax(dim=1)
    wrong = (labels + 1) % 5
    assert not torch.equal(predicted, labels)
    assert torch.equal(attack(convnet, images, wrong), attack(convnet, images, labels))
    by_pgd = replace(PLAIN, labels="predicted")
    direct = by_pgd(convnet, images, wrong, draws=Draws().per_sample(torch.arange(16)).at_each("attempt", 0 * labels))
    assert torch.equal(attack(convnet, images, wrong), direct)


# Towards


@pytest.mark.parametrize(
    "inner",
    [
        PGD(threat=ThreatModel("linf", 0.2), steps=8),
        Wander(threat=ThreatModel("linf", 0.2), steps=12),
        BPDA(attack=PGD(threat=ThreatModel("linf", 0.2), steps=8), layer="2"),
        APGD(threat=ThreatModel("linf", 0.2), steps=12),
    ],
    ids=["a target field", "stepwise, no field", "a field inside a wrapper", "auto-pgd"],
)
def test_towards_counts_only_targets_reached(convnet: nn.Module, images: Tensor, inner: Attack) -> None:
    logits = convnet(images).detach()
    y = logits.argmax(dim=1)
    target = Ranked(2)(logits, y)
    x_adv = Towards(attack=inner, target=Ranked(2))(convnet, images, y)
    found = convnet(x_adv).argmax(dim=1)
    reached = found == target
    assert torch.equal(found != y, reached)
    assert torch.equal(x_adv[~reached], images[~reached])
    assert int(reached.sum()) > 0
    untargeted = convnet(inner(convnet, images, y)).argmax(dim=1) != y
    assert reached.sum() <= untargeted.sum()


def test_towards_one_class_and_towards_given_classes(convnet: nn.Module, images: Tensor) -> None:
    y = convnet(images).argmax(dim=1)
    attack = Towards(attack=PGD(threat=ThreatModel("linf", 0.3), steps=8), target=Only(3))
    found = convnet(attack(convnet, images, y)).argmax(dim=1)
    assert set(found[found != y].tolist()) == {3}
    classes = (y + 1 + torch.arange(16) % 4) % 5
    given = replace(attack, target=Given(classes))
    found = convnet(given(convnet, images, y)).argmax(dim=1)
    assert torch.equal(found != y, found == classes)
    assert (found == classes).sum() >= 4
    # A target that is the label is never reached.
    own = convnet(replace(attack, target=Given(y))(convnet, images, y)).argmax(dim=1)
    assert torch.equal(own, y)
    with pytest.raises(ConfigError, match="one class for each of 2 images"):
        given(convnet, images[:2], y[:2])
    with pytest.raises(ConfigError, match="a rank or one class for all"):
        given.begin(images, y, convnet(images), torch.zeros_like(y), Draws())
    with pytest.raises(ConfigError, match=r"a class in \[0, 5\)"):
        replace(attack, target=Only(5))(convnet, images, y)


# Transfer


class Untouchable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError("the target was asked")


def test_transfer_asks_the_source_alone(convnet: nn.Module, images: Tensor, labels: Tensor) -> None:
    convnet.train()
    before = {key: value.clone() for key, value in convnet.state_dict().items()}
    modes = [module.training for module in convnet.modules()]
    x_adv = Transfer(attack=PLAIN, source=convnet)(Untouchable(), images, labels, draws=Draws(1))
    assert all(torch.equal(value, before[key]) for key, value in convnet.state_dict().items())
    assert [module.training for module in convnet.modules()] == modes
    convnet.eval()
    assert torch.equal(x_adv, PLAIN(convnet, images, labels, draws=Draws(1)))
    assert not torch.equal((x_adv * 255).round() / 255, x_adv)


# The worst of several


def test_the_union_of_three_norms_is_the_and_of_the_flags(convnet: nn.Module, images: Tensor, labels: Tensor) -> None:
    threats = (ThreatModel("linf", 0.012), ThreatModel("l2", 0.12), ThreatModel("l1", 1.2))
    union = WorstOf(attacks=tuple(PGD(threat=threat, steps=5) for threat in threats))
    keyed = Draws(1).per_sample(torch.arange(16))
    flags = union.survives(convnet, images, labels, draws=keyed)
    assert flags.shape == (3, 16)
    assert len({tuple(each.tolist()) for each in flags}) > 1
    assert 0 < int(flags.all(dim=0).sum()) < 14
    x_adv = union(convnet, images, labels, draws=keyed)
    assert torch.equal(convnet(x_adv).argmax(dim=1) == labels, flags.all(dim=0))
    assert union.threat == ThreatUnion(threats)
    assert not union.threat.violates(x_adv, images).any()
    assert str(union.threat) == "linf:0.012 or l2:0.12 or l1:306/255"


def test_a_point_counts_inside_its_own_threat_only(images: Tensor) -> None:
    x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])

    def model(points: Tensor) -> Tensor:
        moved = (points - 0.5).abs().flatten(1).sum(dim=1) - 0.1
        return torch.stack([-moved, moved], dim=1)

    @dataclass(frozen=True, kw_only=True)
    class Leap:
        threat: ThreatModel

        def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Any = None) -> Tensor:
            return x + 0.4

    small = Leap(threat=ThreatModel("linf", 0.1))
    assert WorstOf(attacks=(small,)).survives(model, x, y).tolist() == [[True]]
    assert torch.equal(WorstOf(attacks=(small,))(model, x, y), x)
    both = WorstOf(attacks=(small, Leap(threat=ThreatModel("linf", 0.4))))
    assert both.survives(model, x, y).tolist() == [[True], [False]]
    assert both(model, x, y).flatten().tolist() == pytest.approx([0.9] * 4)


def test_the_worst_needs_attacks_that_name_threats() -> None:
    assert WorstOf(attacks=(PLAIN, replace(PLAIN, steps=2))).threat == LINF
    for attacks in ((), (lambda model, x, y, *, draws=None: x,)):
        with pytest.raises(ConfigError, match="attacks of WorstOf"):
            WorstOf(attacks=attacks)  # pyright: ignore
