"""Does the audit catch every planted fault by its name, and trust what is sound?"""

import json

import pytest
import torch
from evaluation_toys import convnet, gen
from torch import nn

import audit_cases
import gossamer
from audit_cases import CASES, LEVELS, THREAT, Rounded, Steep, Thermometer
from gossamer.errors import ConfigError, DataError, RunError
from gossamer.evaluation.audit import Budget, bounds
from gossamer.evaluation.audit.behaviour import watch
from gossamer.evaluation.audit.gradients import slopes
from gossamer.evaluation.audit.noise import RandomNoise
from gossamer.evaluation.audit.shattered import find_shattered, named_layers
from gossamer.evaluation.audit.stairs import StraightThrough, Unsquashed, count_stairs
from gossamer.evaluation.audit.twins import Accompanied, Averaged, Fresh, Graphed, Rescaled
from gossamer.runs.audits import Audit, read_audit
from gossamer.threat import ThreatModel

SMALL = Budget(steps=15, more_steps=25, restarts=2, noise=10, queries=60, passes=6, doublings=1)
PLANTED = [case for case in CASES if case.sign is not None]
SOUND = [case for case in CASES if case.sign is None]
SIGNS = (
    *("single-step", "black-box", "noise", "effort", "large-eps", "gradients"),
    *("saturation", "randomness", "softmax", "adaptation", "transfer"),
)


@pytest.fixture(scope="session")
def audited():
    """Audits of all cases, each made when it is first asked for."""
    train, test = audit_cases.digits()
    networks, made = {}, {}

    def audit(case, **changes):
        if case.base not in networks:
            networks[case.base] = audit_cases.train(case.base, train)
        if changes:
            return gossamer.audit(case.make(networks[case.base]), test, threat=THREAT, n=50, budget=SMALL, **changes)
        if case.name not in made:
            model = case.make(networks[case.base])
            made[case.name] = gossamer.audit(model, test, threat=THREAT, n=50, budget=SMALL)
        return made[case.name]

    return audit


@pytest.mark.parametrize("case", SOUND, ids=lambda case: case.name)
def test_a_sound_model_is_trusted(case, audited):
    found = audited(case)
    assert found.verdict == "trust"
    assert found.fired == ()
    assert found.judge == "the model"


def test_a_sound_model_may_have_no_robustness_at_all(audited):
    natural, robust = (audited(case) for case in SOUND)
    assert natural.clean_accuracy > 0.9
    assert natural.settled_robust_accuracy < 0.1
    assert robust.settled_robust_accuracy > natural.settled_robust_accuracy + 0.2


@pytest.mark.parametrize("case", PLANTED, ids=lambda case: case.name)
def test_a_planted_fault_is_caught_by_its_name(case, audited):
    found = audited(case)
    assert found.verdict == "reject"
    assert case.sign in found.fired
    assert found.settled_robust_accuracy < found.claimed_robust_accuracy - 0.2
    assert f"docs/audit/{case.sign}.md" in str(found)


@pytest.mark.parametrize(
    ("name", "follow_up"),
    [
        ("rounded input", "straight-through"),
        ("thermometer", "bpda"),
        ("steep sigmoids", "bpda"),
        ("8-bit weights and activations", "straight-through"),
        ("randomised rounding", "bpda"),
        ("softmax outputs", "log"),
        ("logits times 1e6", "rescaled"),
        ("logits times 1e6", "margin"),
    ],
)
def test_the_follow_up_of_a_fault_is_what_breaks_the_model(name, follow_up, audited):
    found = audited(next(case for case in CASES if case.name == name))
    attack = next(each for each in found.attacks if each.attack == follow_up and each.threat == found.threat)
    assert bounds.at_least(sum(attack.broken), found.n) > bounds.REFUTED


def test_expectation_over_transformation_breaks_more_than_single_draws(audited):
    found = audited(next(case for case in CASES if case.name == "random ripples"))
    assert found.judge == "the mean log-probabilities of 6 calls"
    expected = [each for each in found.attacks if each.attack.startswith("eot")]
    assert max(sum(each.broken) for each in expected) > 0.1 * found.n


def test_only_outcomes_of_the_audited_threat_count(audited):
    found = audited(SOUND[1])
    same = [each for each in found.attacks if each.threat == found.threat]
    assert len(same) < len(found.attacks)
    for sample in range(found.n):
        broken = any(each.broken[sample] for each in same)
        assert found.settled_robust[sample] == (found.claimed_robust[sample] and not broken)


def test_every_sign_is_reported_with_its_numbers_and_its_page(audited):
    found = audited(SOUND[1])
    assert tuple(sign.name for sign in found.signs) == SIGNS
    for sign in found.signs:
        assert sign.measured
        assert sign.page == f"docs/audit/{sign.name}.md"
        for measurement in sign.measured:
            if measurement.n:
                low, high = measurement.interval
                assert low <= measurement.value == measurement.count / measurement.n <= high


def test_an_audit_is_the_same_again(audited):
    first, again = audited(SOUND[1]), audited(SOUND[1], batch_size=17)
    assert again.claimed_robust == first.claimed_robust
    assert again.settled_robust == first.settled_robust


def test_a_record_is_read_as_it_was_written(audited, tmp_path):
    found = audited(SOUND[0])
    found.save(tmp_path / "audit.json")
    assert read_audit(tmp_path / "audit.json") == found
    written = json.loads((tmp_path / "audit.json").read_text())
    assert written["schema"] == "gossamer/audit/1"
    with pytest.raises(RunError, match="schema"):
        Audit.from_json({**written, "schema": "gossamer/audit/0"})
    with pytest.raises(RunError, match="outcomes everywhere"):
        Audit.from_json({**written, "settled_robust": [1] * found.n, "claimed_robust": [0] * found.n})


def test_a_twin_is_tried_and_named(audited):
    train, _ = audit_cases.digits()
    twin = audit_cases.train("natural", train, epochs=2)
    rounded = next(case for case in CASES if case.name == "rounded input")
    found = audited(rounded, twin=twin)
    assert any(each.attack == "transfer from the twin" for each in found.attacks)
    assert "black-box" in found.fired
    assert "transfer" in found.fired


def test_the_model_and_the_global_draws_are_left_alone():
    model = convnet().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x, y = torch.rand(40, 2, 6, 6, generator=gen(3)), torch.arange(40) % 3
    state = torch.random.get_rng_state()
    gossamer.audit(model, (x, y), threat="l2:0.2", n=None, budget=Budget(**dict.fromkeys(SMALL.__dict__, 1)))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_what_cannot_be_audited_is_refused():
    x, y = torch.rand(40, 2, 6, 6, generator=gen(3)), torch.arange(40) % 3
    with pytest.raises(ConfigError, match="at least 30 samples"):
        gossamer.audit(convnet(), (x, y), threat=THREAT, n=20)
    with pytest.raises(ConfigError, match="quick, standard, thorough"):
        gossamer.audit(convnet(), (x, y), threat=THREAT, budget="large")
    with pytest.raises(ConfigError, match="audit steps"):
        Budget(steps=0)
    with pytest.raises(ConfigError, match="one tensor in and one out"):
        gossamer.audit(convnet(), (x, y), threat=THREAT, layers=("front",))
    model = convnet()
    model.kept = torch.rand(3, requires_grad=True) * 2
    with pytest.raises(ConfigError, match=r"copy\.deepcopy"):
        gossamer.audit(model, (x, y), threat=THREAT)


# Bounds.


@pytest.mark.parametrize(
    ("count", "n", "lower"),
    [(0, 50, 0.0), (1, 1, 0.01), (50, 50, 0.01 ** (1 / 50)), (1, 100, 1 - 0.99 ** (1 / 100))],
)
def test_the_lower_bound_has_its_closed_forms(count, n, lower):
    assert bounds.at_least(count, n) == pytest.approx(lower, rel=1e-9)


def test_the_lower_bound_is_where_the_count_becomes_unlikely():
    share = bounds.at_least(7, 200)
    tail = torch.distributions.Binomial(200, torch.tensor(share, dtype=torch.float64))
    likely = tail.log_prob(torch.arange(7, 201, dtype=torch.float64)).exp().sum()
    assert float(likely) == pytest.approx(0.01, rel=1e-6)


def test_a_stray_sample_is_no_sign_and_a_count_must_be_possible():
    flags = bounds.nobody(200)
    flags[:6] = True
    assert not bounds.exceeds(flags, bounds.STRAY)
    flags[:7] = True
    assert bounds.exceeds(flags, bounds.STRAY)
    assert not bounds.exceeds(bounds.nobody(0), bounds.STRAY)
    with pytest.raises(DataError, match="count"):
        bounds.at_least(3, 2)


# Twins.


def test_stairs_keep_their_values_and_get_slopes():
    x = torch.rand(4, 1, 3, 3, generator=gen(0)).requires_grad_(True)
    front = nn.Sequential(Rounded())
    out = StraightThrough(front)(x)
    assert torch.equal(out, front(x))
    assert count_stairs(front, x) == 1
    (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient, torch.ones_like(x))


def test_comparisons_that_become_numbers_get_slopes():
    x = torch.rand(4, 1, 3, 3, generator=gen(0)).requires_grad_(True)
    front = Thermometer()
    assert not front(x).requires_grad
    out = StraightThrough(front)(x)
    assert torch.equal(out, front(x))
    (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient, torch.full_like(x, LEVELS))


class _Ops(nn.Module):
    def __init__(self, work):
        super().__init__()
        self.work = work

    def forward(self, x):
        return self.work(x)


@pytest.mark.parametrize(
    ("work", "slope"),
    [
        (torch.floor, 1.0),
        (lambda x: x.sign(), 1.0),
        (lambda x: x // 0.25, 4.0),
        (lambda x: torch.div(x, 0.5, rounding_mode="floor"), 2.0),
        (lambda x: (x < 0.5).float(), -1.0),
        (lambda x: (x > 0.5).type_as(x), 1.0),
        (lambda x: 3 * x, 3.0),
    ],
)
def test_each_stair_has_the_slope_of_what_it_rounds(work, slope):
    x = torch.rand(4, 3, generator=gen(0)).requires_grad_(True)
    out = StraightThrough(_Ops(work))(x)
    assert torch.equal(out, work(x))
    (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient, torch.full_like(x, slope))


@pytest.mark.parametrize("softmax", [nn.Softmax(dim=1), _Ops(lambda x: x.softmax(1)), _Ops(lambda x: x.exp() / 7)])
def test_a_softmax_is_undone_without_underflow(softmax):
    logits = torch.tensor([[1.0, 0.5, -200.0]]) if not isinstance(softmax, _Ops) else torch.tensor([[1.0, 0.5, -1.0]])
    logs = Unsquashed(softmax)(logits)
    torch.testing.assert_close(logs - logs[:, :1], logits - logits[:, :1])


def test_what_stands_in_for_a_model():
    x = torch.rand(3, 1, 2, 2, generator=gen(0))
    mean = _Ops(lambda images: (images - images.mean(dim=0)).flatten(1))
    company = torch.zeros(1, 1, 2, 2)
    torch.testing.assert_close(Accompanied(mean, company)(x), x.flatten(1) / 2)
    torch.testing.assert_close(Rescaled(mean, 4.0)(x), mean(x) / 4)
    flat = _Ops(lambda images: images.flatten(1))
    torch.testing.assert_close(Averaged(flat, 3)(x), x.flatten(1).log_softmax(dim=1))
    blind = Graphed(_Ops(lambda images: images.detach().flatten(1)))
    leaf = x.clone().requires_grad_(True)
    assert torch.equal(blind(leaf), x.flatten(1))
    assert not torch.autograd.grad(blind(leaf).sum(), leaf)[0].any()


class _Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x.flatten(1) * self.calls


def test_a_fresh_model_always_gives_its_first_answer():
    x = torch.rand(3, 1, 2, 2, generator=gen(0))
    fresh = Fresh(_Counts())
    assert torch.equal(fresh(x), x.flatten(1))
    assert torch.equal(fresh(x), x.flatten(1))


# Behaviour, gradients, layers.


@pytest.mark.parametrize(
    ("work", "seen"),
    [
        (_Ops(lambda x: x.flatten(1)), None),
        (_Ops(lambda x: (x + 0.3 * torch.rand_like(x)).flatten(1)), "random"),
        (_Ops(lambda x: (x - x.mean(dim=0)).flatten(1)), "company"),
        (_Ops(lambda x: x.flatten(1).softmax(1)), "probabilities"),
        (_Counts(), "adapts"),
    ],
)
def test_a_model_is_watched_for_what_it_does(work, seen):
    x = torch.rand(40, 1, 2, 2, generator=gen(0))
    found = watch(work, x, ThreatModel("linf", 0.1), 0)
    for name in ("random", "adapts", "company", "probabilities"):
        assert bool(getattr(found, name).all()) == (name == seen)
        assert bool(getattr(found, name).any()) == (name == seen)


@pytest.mark.parametrize(
    ("work", "seen"),
    [
        (lambda x: x.flatten(1), None),
        (lambda x: 1e6 * x.flatten(1), "saturated"),
        (lambda x: x.flatten(1).round(), "zero"),
        (lambda x: x.detach().flatten(1), "missing"),
        (lambda x: x.flatten(1) // 0.01, "missing"),
        (lambda x: torch.sqrt(x - x).flatten(1) + x.flatten(1), "broken"),
    ],
)
def test_gradients_are_looked_at_image_by_image(work, seen):
    x = torch.rand(10, 1, 2, 2, generator=gen(0))
    y = x.flatten(1).argmax(dim=1)
    found = slopes(_Ops(work), x, y)
    for name in ("saturated", "zero", "missing", "broken"):
        assert bool(getattr(found, name).all()) == (name == seen)
        assert bool(getattr(found, name).any()) == (name == seen)
    assert bool(found.useless.any()) == (seen in ("zero", "missing", "broken"))


def test_layers_that_stop_the_gradient_are_found_and_given_slopes():
    x = torch.rand(8, 1, 6, 6, generator=gen(0))
    model = nn.Sequential(nn.Sequential(Rounded(), nn.ReLU()), Steep(), nn.Conv2d(LEVELS, 3, 3), nn.Flatten())
    model.requires_grad_(False)
    found = find_shattered(model, x)
    assert [layer.name for layer in found] == ["0.0", "1"]
    assert found[0].backward is None
    fitted = found[1].backward
    assert (fitted.weight > 0).any(dim=0).all()
    assert fitted(x).shape == (8, LEVELS, 6, 6)


def test_named_layers_are_taken_as_they_are():
    x = torch.rand(8, 1, 6, 6, generator=gen(0))
    model = nn.Sequential(nn.ReLU(), nn.Flatten()).requires_grad_(False)
    first, second = named_layers(model, x, ("0", "1"))
    assert first.replaceable
    assert not second.replaceable


def test_noise_stays_in_the_ball_and_stops_at_the_first_error():
    x, y = torch.full((6, 1, 2, 2), 0.5), torch.zeros(6, dtype=torch.int64)
    for threat in (ThreatModel("linf", 0.2), ThreatModel("l2", 0.5), ThreatModel("l1", 1.0)):
        never = RandomNoise(threat=threat, tries=4)(lambda images: images.new_tensor([[1.0, 0.0]] * len(images)), x, y)
        assert not threat.violates(never, x).any()
        sees = lambda images: torch.stack([images[:, 0, 0, 0] * 0 + 0.45, images[:, 0, 0, 0]], dim=1)  # noqa: E731
        found = RandomNoise(threat=threat, tries=200)(sees, x, torch.ones_like(y))
        assert bool((found[:, 0, 0, 0] < 0.45).all())
