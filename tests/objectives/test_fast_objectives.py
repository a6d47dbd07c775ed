"""Objectives whose perturbations cost one step or less: by hand, step by step."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gossamer.attacks.fast import NoisyFGSM
from gossamer.attacks.fgsm import FGSM
from gossamer.attacks.pgd import PGD
from gossamer.attacks.registry import build as build_attack
from gossamer.attacks.starts import RANDOM, GivenStart, NoStart
from gossamer.attacks.steps import Absolute, OfEps
from gossamer.data.augment import Augmentation, DrawnView
from gossamer.errors import ConfigError
from gossamer.objectives.adversarial import Adversarial
from gossamer.objectives.fast_at import FastAT
from gossamer.objectives.free_at import FreeAT
from gossamer.objectives.gaussian import Gaussian
from gossamer.objectives.registry import build, default_attack
from gossamer.objectives.several import Several
from gossamer.objectives.stored import STORED, VISITS, Stored, _last_of_each
from gossamer.objectives.trades import Trades
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.types import Batch, State

THREAT = ThreatModel("linf", 0.1)
CPU = torch.device("cpu")


class Line(nn.Module):
    """Two classes; the logit of class 1 is the weighted sum of the pixels."""

    def __init__(self, *weights: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weights))

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ self.weight
        return torch.stack([torch.zeros_like(score), score], dim=1)


def batch(x: Tensor, view: Any = None, index: Tensor | None = None) -> Batch:
    n = len(x)
    where = torch.arange(n) if index is None else index
    return Batch(
        x=x,
        y=torch.ones(n, dtype=torch.int64),
        index=where,
        labelled=torch.ones(n, dtype=torch.bool),
        view=view or DrawnView(),
    )


def images(n: int, height: int = 1, width: int = 2) -> Tensor:
    return torch.full((n, 1, height, width), 0.5)


def step(objective: Any, model: nn.Module, given: Batch, state: State, draws: Draws = Draws()) -> Tensor:  # noqa: B008
    """Take the loss of a step and its backward as the loop does; returns x_adv."""
    attack = default_attack(objective, THREAT)
    x_adv = objective.craft(model, given, attack, state, draws=draws)
    loss = objective.loss(model, given, x_adv, draws=draws)
    loss.total.backward()
    if loss.after_backward is not None:
        loss.after_backward(x_adv.grad, state)
    return x_adv.detach()


def test_fast_training_takes_the_published_steps() -> None:
    assert default_attack(FastAT(), THREAT) == PGD(threat=THREAT, steps=1, step=OfEps(1.25), start=RANDOM)
    assert default_attack(FastAT(variant="noise"), THREAT) == NoisyFGSM(threat=THREAT, noise=2.0, step=OfEps(1.0))
    with pytest.raises(ConfigError, match=r"objective\.variant"):
        build("fast-at", variant="fgsm")
    with pytest.raises(ConfigError, match=r"attack\.steps"):
        default_attack(FastAT(variant="noise"), THREAT, steps=2)


def test_fast_training_is_adversarial_training_on_one_step() -> None:
    model, given = Line(1.0, -1.0), batch(images(3))
    x_adv = FastAT().craft(model, given, default_attack(FastAT(), THREAT), {}, draws=Draws(3))
    assert not THREAT.violates(x_adv, given.x).any()
    # A step of 1.25 eps from anywhere in the ball moves every pixel against its weight.
    assert bool(((x_adv - given.x).flatten(1).sign() == torch.tensor([-1.0, 1.0])).all())
    loss, plain = (each.loss(model, given, x_adv, draws=Draws()) for each in (FastAT(), Adversarial()))
    assert torch.equal(loss.total, plain.total)


def test_noise_is_twice_eps_and_the_outcome_is_not_clipped_to_the_ball() -> None:
    model, x = Line(1.0, -1.0), images(4000)
    y = torch.ones(4000, dtype=torch.int64)
    moved = NoisyFGSM(threat=THREAT)(model, x, y, draws=Draws(1)) - x
    # x_n - x is uniform in [-0.2, 0.2]; the step adds -0.1 to the first pixel and 0.1 to the second.
    first, second = moved.flatten(1).T
    assert -0.3 <= float(first.min()) < -0.29
    assert 0.09 < float(first.max()) <= 0.1 + 1e-6
    assert float(first.mean()) == pytest.approx(-0.1, abs=0.01)
    assert float(second.mean()) == pytest.approx(0.1, abs=0.01)
    assert bool(THREAT.violates(x + moved, x).any())
    clipped = NoisyFGSM(threat=THREAT, clip=1.0)(model, x, y, draws=Draws(1))
    assert not THREAT.violates(clipped, x).any()


def test_noise_stays_in_the_box_and_is_refused_where_it_cannot_be() -> None:
    attack = build_attack("n-fgsm", ThreatModel("linf", 0.4))
    x = torch.rand(8, 1, 2, 2)
    moved = attack(Line(1.0, -1.0, 1.0, 0.0), x, torch.zeros(8, dtype=torch.int64), draws=Draws())
    assert 0.0 <= float(moved.min()) <= float(moved.max()) <= 1.0
    with pytest.raises(ConfigError, match="N-FGSM noise"):
        build_attack("n-fgsm", THREAT, noise=0)


def test_free_training_carries_its_perturbation_from_replay_to_replay_and_batch_to_batch() -> None:
    objective, model, state = FreeAT(threat=THREAT, replays=3, step=OfEps(0.75)), Line(1.0, -1.0), {}
    first, second = batch(images(2)), batch(images(2) + 0.25)
    assert torch.equal(step(objective, model, first, state), first.x)
    assert torch.allclose(state["delta"].flatten(1), torch.tensor([[-0.075, 0.075]] * 2))
    assert torch.allclose(step(objective, model, first, state), first.x + torch.tensor([-0.075, 0.075]))
    # The second update is clipped to the ball, and the next batch starts from there.
    assert torch.allclose(step(objective, model, second, state), second.x + torch.tensor([-0.1, 0.1]))


def test_free_training_has_one_forward_and_asks_no_attack() -> None:
    counted: list[int] = []
    model = Line(1.0, -1.0)
    model.register_forward_hook(lambda *_: counted.append(1))
    step(FreeAT(threat=THREAT), model, batch(images(2)), {})
    assert len(counted) == 1
    assert default_attack(FreeAT(threat=THREAT), THREAT) is None
    with pytest.raises(ConfigError, match=r"objective\.replays"):
        FreeAT(threat=THREAT, replays=0)


def begun(objective: Stored, n: int, height: int = 1, width: int = 2) -> State:
    return objective.initial_state(n, (1, height, width), draws=Draws(), device=CPU)


def test_one_pass_training_stores_what_the_training_gradient_says() -> None:
    objective = Stored(threat=THREAT, update="backward", step=Absolute(0.04), start=NoStart())
    model, state = Line(1.0, -1.0), begun(objective, 5)
    given = batch(images(2), index=torch.tensor([4, 1]))
    assert torch.equal(step(objective, model, given, state), given.x)
    expected = torch.zeros(5, 2)
    expected[[4, 1]] = torch.tensor([-0.04, 0.04])
    assert torch.allclose(state[STORED].flatten(1), expected)
    for _ in range(2):
        x_adv = step(objective, model, given, state)
    assert torch.allclose(x_adv - given.x, torch.tensor([-0.08, 0.08]).expand(2, 1, 1, 2))
    assert torch.allclose(state[STORED][4].flatten(), torch.tensor([-0.1, 0.1]))
    assert state[VISITS].tolist() == [0, 3, 0, 0, 3]


def test_one_pass_training_begins_uniformly_and_takes_half_eps() -> None:
    objective, model = Stored(threat=THREAT, update="backward"), Line(1.0, -1.0)
    given, state = batch(images(500)), begun(Stored(threat=THREAT), 500)
    deltas = step(objective, model, given, state) - given.x
    assert float(deltas.abs().max()) <= 0.1 + 1e-6
    assert float(deltas.std()) == pytest.approx(0.2 / 12**0.5, rel=0.1)
    after = (deltas.flatten(1) + torch.tensor([-0.05, 0.05])).clamp(-0.1, 0.1)
    assert torch.allclose(state[STORED].flatten(1), after, atol=1e-6)


def test_the_attack_starts_from_what_is_stored_and_begins_anew_after_its_period() -> None:
    objective = Stored(threat=THREAT, reset_every=3, start=NoStart())
    model, given = Line(1.0, -1.0), batch(images(1))
    state = begun(objective, 1)
    seen = [step(objective, model, given, state)[0, 0, 0, 1].item() - 0.5 for _ in range(5)]
    # One step of eps/2 a visit, clipped at eps; the fourth visit begins at the image again.
    assert seen == pytest.approx([0.05, 0.1, 0.1, 0.05, 0.1], abs=1e-6)
    published = Stored(threat=THREAT)
    assert (published._period, str(published._start)) == (10, "gaussian(0.001)")
    assert replace(published, update="backward")._period == 0


@pytest.mark.parametrize(("storage", "bytes_each"), [("float32", 4), ("float16", 2), ("int8", 1)])
def test_the_next_visit_starts_from_exactly_what_is_stored(storage: Any, bytes_each: int) -> None:
    objective = Stored(threat=THREAT, update="backward", step=Absolute(0.0333), storage=storage)
    model, given, state = Line(1.0, -1.0), batch(images(4)), begun(Stored(threat=THREAT, storage=storage), 4)
    step(objective, model, given, state)
    stored = state[STORED].clone()
    assert stored.element_size() == bytes_each
    decoded = stored.float() * (0.1 / 127) if storage == "int8" else stored.float()
    started = objective.craft(model, given, None, state, draws=Draws())
    assert torch.equal(started.detach(), THREAT.project(given.x + decoded, given.x))
    assert torch.equal(objective._encode(objective._decode(stored)), stored)
    exact = Stored(threat=THREAT, update="backward", step=Absolute(0.0333))
    plain = begun(exact, 4)
    step(exact, model, given, plain)
    assert float((plain[STORED] - decoded).abs().max()) <= (0.1 / 127 / 2 + 1e-7 if storage == "int8" else 1e-4)


@pytest.mark.parametrize("augmentation", [Augmentation(flip=0.5), Augmentation(flip=0.5, crop=1)])
def test_augmentation_is_applied_to_what_is_stored_and_undone(augmentation: Augmentation) -> None:
    objective = Stored(threat=THREAT, update="backward", step=Absolute(0.01), start=NoStart())
    torch.manual_seed(0)
    model, n = Line(*torch.randn(9).tolist()), 16
    state = begun(objective, n, 3, 3)
    state[STORED].uniform_(-0.05, 0.05)
    state[VISITS].fill_(1)
    before = state[STORED].clone()
    x = torch.rand(n, 1, 3, 3) * 0.5 + 0.25
    view = augmentation.draw(n, (1, 3, 3), Draws(2), CPU)
    given = batch(view.apply(x), view)
    x_adv = step(objective, model, given, state)
    inside = view.apply(torch.ones_like(x)) == 1
    assert torch.allclose(x_adv[inside], (given.x + view.apply(before))[inside], atol=1e-6)
    seen = view.inverse(view.apply(torch.ones_like(x))) == 1
    moved = (state[STORED] - before).abs()
    assert torch.allclose(moved[seen], torch.full_like(moved[seen], 0.01), atol=1e-6)
    # What a crop cuts off keeps its value.
    assert not moved[~seen].any()
    assert bool((~seen).any()) == (augmentation.crop > 0)


def test_pooled_perturbations_are_the_means_of_their_squares() -> None:
    objective = Stored(threat=THREAT, update="backward", step=Absolute(0.04), start=NoStart(), pooled=2)
    weights = [1.0, 1.0, -1.0, -1.0, 1.0, -1.0, -1.0, -1.0]
    model, state = Line(*weights), begun(objective, 3, 2, 4)
    assert state[STORED].shape == (3, 1, 1, 2)
    given = batch(torch.full((1, 1, 2, 4), 0.5), index=torch.tensor([2]))
    step(objective, model, given, state)
    # Signs of the first square's gradient: - - - +; of the second's: + + + +.
    assert torch.allclose(state[STORED][2].flatten(), torch.tensor([-0.02, 0.04]))
    seen = step(objective, model, given, state) - given.x
    assert torch.allclose(seen[0, 0], torch.tensor([[-0.02, -0.02, 0.04, 0.04]] * 2))


def test_pooled_perturbations_need_squares_that_fill_the_image() -> None:
    with pytest.raises(ConfigError, match=r"objective\.pooled: expected a divisor of the image's 3 rows and 8 columns"):
        Stored(threat=THREAT, pooled=4).initial_state(2, (1, 3, 8), draws=Draws(), device=CPU)
    with pytest.raises(ConfigError, match=r"objective\.pooled"):
        Stored(threat=THREAT, pooled=0)


def test_an_image_that_is_twice_in_a_batch_is_written_once() -> None:
    assert sorted(_last_of_each(torch.tensor([3, 1, 3, 7, 1])).tolist()) == [2, 3, 4]
    objective = Stored(threat=THREAT, update="backward", start=NoStart())
    state = begun(objective, 2)
    step(objective, Line(1.0, -1.0), batch(images(3), index=torch.tensor([1, 1, 0])), state)
    assert state[VISITS].tolist() == [1, 1]


def test_stored_refuses() -> None:
    with pytest.raises(ConfigError, match=r"objective\.storage"):
        build("stored", threat=THREAT, storage="int4")
    with pytest.raises(ConfigError, match=r"objective\.step: expected nothing with update attack"):
        build("stored", threat=THREAT, step="eps/4")
    with pytest.raises(ConfigError, match=r"objective\.reset_every"):
        build("stored", threat=THREAT, reset_every=-1)
    objective = Stored(threat=THREAT)
    with pytest.raises(ConfigError, match="can start from given images"):
        objective.craft(Line(1.0, 1.0), batch(images(1)), FGSM(threat=THREAT), begun(objective, 1), draws=Draws())
    with pytest.raises(ConfigError, match=r"objective\.base: .*mixed-batch"):
        build("stored", threat=THREAT, base="mixed-batch")
    assert build("stored", threat=THREAT, base={"name": "trades", "beta": 3}) == Stored(
        threat=THREAT, base=Trades(beta=3)
    )
    assert str(GivenStart(images(1))) == "given"


def test_gaussian_noise_is_not_clipped_and_differs_by_its_draws() -> None:
    objective, given = Gaussian(sigma=0.5), batch(images(1000))
    noisy = objective.craft(Line(1.0, 1.0), given, None, {}, draws=Draws(1))
    assert float((noisy - given.x).std()) == pytest.approx(0.5, rel=0.05)
    assert float(noisy.min()) < 0.0
    assert float(noisy.max()) > 1.0
    assert torch.equal(noisy, objective.craft(Line(1.0, 1.0), given, None, {}, draws=Draws(1)))
    assert not torch.equal(noisy, objective.craft(Line(1.0, 1.0), given, None, {}, draws=Draws(2)))
    with pytest.raises(ConfigError, match=r"objective\.sigma"):
        build("gaussian", sigma=-1.0)


TWO_NORMS = (ThreatModel("linf", 0.1), ThreatModel("l2", 0.3))


def test_the_worst_of_several_threats_is_chosen_image_by_image() -> None:
    objective, model = Several(threats=TWO_NORMS), Line(1.0, 0.0)
    attack = PGD(threat=THREAT, steps=1, step=OfEps(1.0), start=NoStart())
    given = batch(torch.tensor([0.5, 0.5, 0.05, 0.5]).view(2, 1, 1, 2))
    x_adv = objective.craft(model, given, attack, {}, draws=Draws())
    # Only the first pixel counts: l2 moves it by 0.3, which the box leaves room for in the first image alone.
    assert torch.allclose(x_adv[:, 0, 0, 0], torch.tensor([0.2, 0.0]), atol=1e-6)
    assert not objective.union.violates(x_adv, given.x).any()
    assert torch.equal(
        objective.loss(model, given, x_adv, draws=Draws()).total,
        Adversarial().loss(model, given, x_adv, draws=Draws()).total,
    )


def test_the_worst_of_several_is_chosen_by_what_the_attack_goes_by() -> None:
    model, given = Line(1.0, 0.0), batch(torch.tensor([0.6, 0.5, 0.4, 0.5]).view(2, 1, 1, 2))
    with torch.no_grad():
        predicted = model(given.x).argmax(dim=1)
    mislabelled, labelled = replace(given, y=1 - predicted), replace(given, y=predicted)
    attack = PGD(threat=THREAT, steps=1, step=OfEps(1.0), start=NoStart())
    told, said = Several(threats=TWO_NORMS), replace(attack, labels="predicted")
    found = told.craft(model, mislabelled, said, {}, draws=Draws())
    assert torch.equal(found, told.craft(model, labelled, attack, {}, draws=Draws()))
    assert not torch.equal(found, told.craft(model, mislabelled, attack, {}, draws=Draws()))


def test_trades_takes_as_many_clean_forwards_as_it_is_told() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(2, affine=False))
    model[1].register_forward_hook(lambda module, given, made: seen.append(given[0].clone()))
    given = batch(images(3))
    for told, count in ((False, 1), (True, 2), (2, 3)):
        seen: list[torch.Tensor] = []
        Trades(clean_pass=told).loss(model.train(), given, given.x + 1, draws=Draws())
        assert [torch.equal(each, given.x.flatten(1)) for each in seen] == [*[True] * count, False]
    with pytest.raises(ConfigError, match=r"objective\.clean_pass"):
        build("trades", clean_pass=-1)


def test_the_average_over_threats_is_the_mean_of_their_losses() -> None:
    objective = Several(threats=TWO_NORMS, combine="average", base=Trades(beta=2.0))
    model, given = Line(1.0, -0.5), batch(images(3))
    attack = default_attack(objective, THREAT, steps=2)
    x_adv = objective.craft(model, given, attack, {}, draws=Draws())
    assert x_adv.shape == (6, 1, 1, 2)
    loss = objective.loss(model, given, x_adv, draws=Draws())
    each = [Trades(beta=2.0).loss(model, given, part, draws=Draws()).total for part in x_adv.split(3)]
    assert loss.total.item() == pytest.approx((each[0].item() + each[1].item()) / 2)
    assert loss.logits["adversarial"].shape == (6, 2)
    assert loss.rows["adversarial"].tolist() == [0, 1, 2, 0, 1, 2]
    assert not TWO_NORMS[0].violates(x_adv[:3], given.x).any()
    assert not TWO_NORMS[1].violates(x_adv[3:], given.x).any()


def test_several_reads_its_threats_and_refuses() -> None:
    built = build("several", threats=["linf:0.1", "l2:0.3"], combine="average", base="trades")
    assert built == Several(threats=TWO_NORMS, combine="average", base=Trades())
    with pytest.raises(ConfigError, match=r"objective\.combine"):
        build("several", combine="sum")
    with pytest.raises(ConfigError, match=r"objective\.threats"):
        build("several", threats=[])
    with pytest.raises(ConfigError, match="a threat to replace"):
        Several().craft(Line(1.0, 1.0), batch(images(1)), lambda *a, **k: a[1], {}, draws=Draws())
