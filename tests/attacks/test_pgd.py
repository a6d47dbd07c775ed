import warnings
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gossamer.attacks.fgsm import FGSM
from gossamer.attacks.pgd import PGD
from gossamer.attacks.starts import GaussianStart, NoStart, RandomStart
from gossamer.attacks.steps import Absolute, OfEps, OverSteps
from gossamer.attacks.targets import LEAST_LIKELY, Given, Ranked
from gossamer.errors import ConfigError
from gossamer.losses import cross_entropy
from gossamer.seeding import Draws
from gossamer.threat import NORMS, Norm, ThreatModel

WEAK = {"linf": ThreatModel("linf", 4 / 255), "l2": ThreatModel("l2", 0.2), "l1": ThreatModel("l1", 1.5)}
LINF = WEAK["linf"]


def broken(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x_adv).argmax(dim=1) != y


class Counted(nn.Module):
    """Counts forwards and backwards of the network inside."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.forwards, self.backwards, self.images = inner, 0, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        self.images += len(x)
        if x.requires_grad:
            x = x.clone()
            x.register_hook(self._count)
        return self.inner(x)

    def _count(self, gradient: Tensor) -> None:
        self.backwards += 1


settings.register_profile("attacks", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(settings.get_profile("attacks"), max_examples=60)
@given(
    norm=st.sampled_from(NORMS),
    steps=st.integers(1, 4),
    step=st.sampled_from([Absolute(0.3), OfEps(2.0), OverSteps(2.5)]),
    start=st.sampled_from([NoStart(), RandomStart(), GaussianStart(0.001), GaussianStart(0.5)]),
    restarts=st.integers(1, 2),
    loss=st.sampled_from(["ce", "kl", "dlr", "margin"]),
    returns=st.sampled_from(["last", "best", "first"]),
    labels=st.sampled_from(["true", "predicted"]),
    target=st.sampled_from([None, LEAST_LIKELY, Ranked(1)]),
    early_drop=st.booleans(),
    eps=st.sampled_from([0.0, 0.01, 0.5, 1.0]),
)
def test_never_outside_and_state_untouched(convnet: nn.Module, images: Tensor, **options: Any) -> None:
    options["threat"] = ThreatModel(options.pop("norm"), options.pop("eps"))
    if options["loss"] == "kl":
        options["target"] = None
    x = images.round(decimals=1)
    y = torch.arange(len(x)) % 5
    before = {name: value.clone() for name, value in convnet.state_dict().items()}
    x_adv = PGD(**options)(convnet, x, y, draws=Draws(1))
    assert not options["threat"].violates(x_adv, x).any()
    assert not x_adv.requires_grad
    assert torch.equal(x, images.round(decimals=1))
    assert all(torch.equal(value, before[name]) for name, value in convnet.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in convnet.parameters())
    assert not any(module.training for module in convnet.modules())


@pytest.mark.parametrize("frozen", [False, True])
def test_works_alike_on_frozen_parameters_and_keeps_a_gradient_that_is_there(
    convnet: nn.Module, images: Tensor, labels: Tensor, frozen: bool
) -> None:
    expected = PGD(threat=LINF)(convnet, images, labels)
    for parameter in convnet.parameters():
        parameter.grad = torch.ones_like(parameter)
        parameter.requires_grad_(not frozen)
    assert torch.equal(PGD(threat=LINF)(convnet, images, labels), expected)
    assert all(p.requires_grad != frozen and bool((p.grad == 1).all()) for p in convnet.parameters())  # pyright: ignore


def test_attacks_under_no_grad(convnet: nn.Module, images: Tensor, labels: Tensor) -> None:
    expected = PGD(threat=LINF)(convnet, images, labels)
    with torch.no_grad():
        assert torch.equal(PGD(threat=LINF)(convnet, images, labels), expected)


@pytest.mark.parametrize(
    ("options", "extra_forwards"),
    [
        ({}, 0),
        ({"returns": "first"}, 0),
        ({"returns": "best", "judge_final": False}, 0),
        ({"returns": "best"}, 1),
        ({"loss": "kl", "start": GaussianStart()}, 1),
        ({"labels": "predicted"}, 1),
        ({"labels": "predicted", "loss": "kl"}, 1),
        ({"target": LEAST_LIKELY}, 1),
    ],
)
def test_a_step_costs_one_forward_and_one_backward(
    convnet: nn.Module, images: Tensor, labels: Tensor, options: dict[str, Any], extra_forwards: int
) -> None:
    counted = Counted(convnet)
    PGD(threat=LINF, steps=7, **options)(counted, images, labels)
    assert (counted.forwards, counted.backwards) == (7 + extra_forwards, 7)


def test_restarts_cost_their_steps_and_one_judgement_each(convnet: nn.Module, images: Tensor, labels: Tensor) -> None:
    counted = Counted(convnet)
    PGD(threat=LINF, steps=4, restarts=3)(counted, images, labels)
    assert (counted.forwards, counted.backwards) == (3 * 5, 12)


@pytest.mark.parametrize("norm", NORMS)
def test_fgsm_is_one_step_of_eps(convnet: nn.Module, images: Tensor, labels: Tensor, norm: Norm) -> None:
    threat = WEAK[norm]
    one = PGD(threat=threat, steps=1, step=Absolute(threat.eps), start=NoStart())
    assert torch.equal(FGSM(threat=threat)(convnet, images, labels), one(convnet, images, labels))


@pytest.mark.parametrize("norm", NORMS)
def test_reaches_the_closed_form_of_a_linear_model(linear: Any, norm: Norm) -> None:
    x = 0.4 + 0.2 * torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    w = (linear.weight[:, 1] - linear.weight[:, 0]).detach()
    eps = {"linf": 0.1, "l2": 0.3, "l1": 0.35}[norm]
    single = torch.zeros_like(w)
    single[w.abs().argmax()] = w[w.abs().argmax()].sign()
    ascent = {"linf": w.sign(), "l2": w / w.norm(), "l1": single}[norm]
    y = torch.zeros(6, dtype=torch.int64)
    # On the l2-sphere the angle shrinks by a factor per step; in l1, what the box leaves bounds a useful step.
    step = OfEps(1.0) if norm == "l2" else OverSteps(2.5)
    attack = PGD(threat=ThreatModel(norm, eps), steps=100, step=step)
    expected = x + eps * ascent.view(1, 3, 2, 2)
    torch.testing.assert_close(attack(linear, x, y, draws=Draws(1)), expected, atol=1e-6, rtol=0)


def test_linf_closed_form_is_clipped_by_the_box(linear: Any) -> None:
    x = torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    w = (linear.weight[:, 1] - linear.weight[:, 0]).detach()
    expected = (x + 0.3 * w.sign().view(1, 3, 2, 2)).clamp(0, 1)
    attack = PGD(threat=ThreatModel("linf", 0.3), steps=10, step=OverSteps(2.5))
    torch.testing.assert_close(attack(linear, x, torch.zeros(6, dtype=torch.int64)), expected)


def test_l1_fills_saturated_coordinates_to_the_optimum(linear: Any) -> None:
    x = torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    w = (linear.weight[:, 1] - linear.weight[:, 0]).detach()
    threat = ThreatModel("l1", 2.0)
    optimum = x + threat.steepest(w.view(1, 3, 2, 2).expand_as(x), x, size=2.0)
    y = torch.zeros(6, dtype=torch.int64)
    found = PGD(threat=threat, steps=100, step=OverSteps(2.5), returns="best")(linear, x, y)
    lost = (optimum - found).flatten(1) @ w
    gained = (optimum - x).flatten(1) @ w
    assert (lost >= -1e-9).all()
    assert (lost <= 0.02 * gained).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("returns", ["last", "best", "first"])
def test_nested_restarts_never_raise_accuracy(
    convnet: nn.Module, images: Tensor, labels: Tensor, norm: Norm, returns: Any
) -> None:
    draws = Draws(4).per_sample(torch.arange(16))
    attack = PGD(threat=replace(WEAK[norm], eps=WEAK[norm].eps / 4), steps=3, step=OverSteps(1.0), returns=returns)
    flags = [
        broken(convnet, replace(attack, restarts=restarts)(convnet, images, labels, draws=draws), labels)
        for restarts in range(1, 6)
    ]
    assert all(bool((more | ~fewer).all()) for fewer, more in pairwise(flags))
    assert not flags[-1].all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("returns", ["last", "first"])
def test_early_drop_changes_no_outcome_and_saves_images(
    convnet: nn.Module, images: Tensor, labels: Tensor, norm: Norm, returns: Any
) -> None:
    draws = Draws(4).per_sample(torch.arange(100, 116))
    kept = PGD(threat=WEAK[norm], steps=3, restarts=4, returns=returns)
    full, dropping = Counted(convnet), Counted(convnet)
    expected = broken(convnet, kept(full, images, labels, draws=draws), labels)
    found = replace(kept, early_drop=True)(dropping, images, labels, draws=draws)
    assert torch.equal(broken(convnet, found, labels), expected)
    assert expected.any()
    assert dropping.images < full.images


def test_first_returns_a_reached_iterate_as_it_was(convnet: nn.Module, images: Tensor, labels: Tensor) -> None:
    attack = PGD(threat=LINF, steps=5, returns="first", start=NoStart())
    x_adv = attack(convnet, images, labels)
    wrong_from_the_start = broken(convnet, images, labels)
    assert wrong_from_the_start.any()
    assert torch.equal(x_adv[wrong_from_the_start], images[wrong_from_the_start])


def test_best_is_at_least_as_high_as_last(convnet: nn.Module, images: Tensor, labels: Tensor) -> None:
    attack = PGD(threat=LINF, steps=5, step=OfEps(2.0))
    with torch.no_grad():
        last = cross_entropy(convnet(attack(convnet, images, labels)), labels)
        best = cross_entropy(convnet(replace(attack, returns="best")(convnet, images, labels)), labels)
    assert (best >= last).all()
    assert (best > last).any()


@pytest.mark.parametrize("norm", NORMS)
def test_outcomes_do_not_depend_on_the_batch_size(
    convnet: nn.Module, images: Tensor, labels: Tensor, norm: Norm
) -> None:
    attack = PGD(threat=WEAK[norm], steps=4, restarts=2)
    index = torch.arange(16)
    whole = attack(convnet, images, labels, draws=Draws(7).per_sample(index))
    parts = [
        attack(convnet, images[part], labels[part], draws=Draws(7).per_sample(part)) for part in index.split([1, 6, 9])
    ]
    assert torch.equal(broken(convnet, torch.cat(parts), labels), broken(convnet, whole, labels))


def test_deterministic_for_a_seed(convnet: nn.Module, images: Tensor, labels: Tensor) -> None:
    attack = PGD(threat=LINF, steps=2, restarts=2)
    first = attack(convnet, images, labels, draws=Draws(1))
    assert torch.equal(first, attack(convnet, images, labels, draws=Draws(1)))
    assert not torch.equal(first, attack(convnet, images, labels, draws=Draws(2)))


@pytest.mark.parametrize("loss", ["ce", "margin", "dlr"])
def test_targets_are_reached_on_a_linear_model(loss: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(48, 5, generator=generator)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 5, bias=False))
    model[1].weight = nn.Parameter(weight.T.contiguous())
    x = 0.3 + 0.4 * torch.rand(10, 3, 4, 4, generator=generator)
    y = model(x).argmax(dim=1)
    target = (y + torch.arange(10) % 4 + 1) % 5
    attack = PGD(threat=ThreatModel("linf", 0.3), steps=20, loss=loss, target=Given(target), restarts=2)
    assert torch.equal(model(attack(model, x, y)).argmax(dim=1), target)
    least = PGD(threat=ThreatModel("linf", 0.3), steps=20, target=LEAST_LIKELY)
    assert torch.equal(model(least(model, x, y)).argmax(dim=1), model(x).argmin(dim=1))


def test_given_targets_survive_dropping(convnet: nn.Module, images: Tensor, labels: Tensor) -> None:
    draws = Draws(1).per_sample(torch.arange(16))
    target = (labels + 1) % 5
    attack = PGD(threat=ThreatModel("linf", 0.1), target=Given(target), restarts=3, steps=3)
    kept = attack(convnet, images, labels, draws=draws)
    dropped = replace(attack, early_drop=True)(convnet, images, labels, draws=draws)
    assert torch.equal(broken(convnet, kept, target), broken(convnet, dropped, target))


def test_predicted_labels_differ_where_the_model_is_wrong(convnet: nn.Module, images: Tensor, labels: Tensor) -> None:
    attack = PGD(threat=LINF, steps=3, start=NoStart())
    true = attack(convnet, images, labels)
    predicted = replace(attack, labels="predicted")(convnet, images, labels)
    changed = (true != predicted).flatten(1).any(dim=1)
    assert torch.equal(changed, broken(convnet, images, labels))


def test_agrees_with_foolbox(convnet: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import foolbox  # noqa: PLC0415 - its import warns on recent SciPy
    x = torch.rand(32, 3, 8, 8, generator=torch.Generator().manual_seed(9))
    y = torch.arange(32) % 5
    theirs = foolbox.attacks.LinfPGD(abs_stepsize=2 / 255, steps=10, random_start=False)
    expected = theirs.run(
        foolbox.PyTorchModel(convnet, bounds=(0, 1), device="cpu"),
        x,
        foolbox.criteria.Misclassification(y),
        epsilon=8 / 255,
    )
    ours = PGD(threat=ThreatModel("linf", 8 / 255), steps=10, step=Absolute(2 / 255), start=NoStart())
    torch.testing.assert_close(ours(convnet, x, y), expected, atol=1e-6, rtol=0)


def test_half_precision_logits_are_judged_in_float32(convnet: nn.Module, images: Tensor, labels: Tensor) -> None:
    class Rounded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return convnet(x).bfloat16()

    for loss in ("ce", "kl", "dlr", "margin"):
        x_adv = PGD(threat=LINF, steps=2, loss=loss, restarts=2)(Rounded(), images, labels)
        assert x_adv.dtype == torch.float32


@pytest.fixture
def _no_data_dependent_code() -> Iterator[None]:
    forbidden = ["item", "__bool__", "tolist", "nonzero", "__int__", "__float__", "cpu", "numpy"]
    patched = pytest.MonkeyPatch()

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("the inner loop waited for the device")

    for name in forbidden:
        patched.setattr(Tensor, name, refuse)
    yield
    patched.undo()


@pytest.mark.usefixtures("_no_data_dependent_code")
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("returns", ["last", "best", "first"])
def test_the_inner_loop_never_waits_for_the_device(norm: Norm, returns: Any) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    x, y = torch.rand(4, 3, 2, 2), torch.zeros(4, dtype=torch.int64)
    attack = PGD(threat=WEAK[norm], steps=2, restarts=2, returns=returns, start=NoStart(), loss="kl")
    assert attack(model, x, y).shape == x.shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "attack steps"),
        ({"steps": 2.5}, "attack steps"),
        ({"restarts": True}, "attack restarts"),
        ({"loss": "mse"}, "ce, kl, dlr, margin"),
        ({"loss": "kl", "target": LEAST_LIKELY}, "with a target: ce, dlr, margin"),
        ({"returns": "middle"}, "last, best, first"),
        ({"labels": "wrong"}, "true or predicted"),
    ],
)
def test_impossible_fields(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PGD(threat=LINF, **options)


def test_fgsm_refuses_a_loss_without_gradient_at_x() -> None:
    with pytest.raises(ConfigError, match="gradient is 0 at the clean image"):
        FGSM(threat=LINF, loss="kl")
