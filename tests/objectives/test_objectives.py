import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gossamer.attacks.crafting import crafting
from gossamer.attacks.pgd import PGD
from gossamer.attacks.starts import GaussianStart, RandomStart
from gossamer.attacks.steps import Absolute
from gossamer.errors import ConfigError
from gossamer.objectives.adversarial import Adversarial
from gossamer.objectives.mart import Mart, boosted_cross_entropy
from gossamer.objectives.mixed_batch import MixedBatch
from gossamer.objectives.natural import Natural
from gossamer.objectives.registry import OBJECTIVES, build, default_attack
from gossamer.objectives.several import Several
from gossamer.objectives.trades import Trades
from gossamer.objectives.weighted import Weighted
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.types import Batch, Objective, WithState

THREAT = ThreatModel("linf", 8 / 255)
LOG3 = math.log(3.0)


class Unchanged:
    def apply(self, images: Tensor) -> Tensor:
        return images

    def inverse(self, images: Tensor) -> Tensor:
        return images


def batch_of(x: Tensor, y: Tensor) -> Batch:
    count = len(y)
    return Batch(x=x, y=y, index=torch.arange(count), labelled=torch.ones(count, dtype=torch.bool), view=Unchanged())


class Pixels(nn.Module):
    """Logits = scale * pixels: an image is its own logits."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return self.scale * x.flatten(1)


def logits(*rows: list[float]) -> Tensor:
    return torch.tensor(rows)[:, :, None, None]


# Clean: p = (3/4, 1/4) and (1/2, 1/2); adversarial: (1/2, 1/2) and (1/4, 3/4); the label is 0.
CLEAN, ATTACKED = logits([LOG3, 0.0], [0.0, 0.0]), logits([0.0, 0.0], [0.0, LOG3])
TWO = batch_of(CLEAN, torch.tensor([0, 0]))
KL_FIRST = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
KL_SECOND = 0.5 * math.log(2.0) + 0.5 * math.log(2 / 3)


def test_natural_by_hand() -> None:
    loss = Natural().loss(Pixels(), TWO, CLEAN, draws=Draws())
    assert loss.total.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    assert loss.parts["natural"].item() == pytest.approx(loss.total.item())
    assert torch.equal(loss.logits["natural"], CLEAN.flatten(1))


def test_adversarial_by_hand() -> None:
    model = Pixels()
    loss = Adversarial().loss(model, TWO, ATTACKED, draws=Draws())
    assert loss.total.item() == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert set(loss.parts) == set(loss.logits) == {"adversarial"}
    assert len(model.seen) == 1


def test_smoothed_labels_by_hand() -> None:
    # A tenth of the label on two classes: 0.95 on class 0, 0.05 on class 1.
    clean = Natural(label_smoothing=0.1).loss(Pixels(), TWO, CLEAN, draws=Draws()).total.item()
    assert clean == pytest.approx((0.95 * math.log(4 / 3) + 0.05 * math.log(4) + math.log(2)) / 2)
    attacked = Adversarial(label_smoothing=0.1).loss(Pixels(), TWO, ATTACKED, draws=Draws()).total.item()
    assert attacked == pytest.approx((math.log(2) + 0.95 * math.log(4) + 0.05 * math.log(4 / 3)) / 2)


@pytest.mark.parametrize("name", ["natural", "adversarial"])
@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, math.nan])
def test_an_impossible_smoothing_of_labels_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=r"objective\.label_smoothing"):
        build(name, label_smoothing=value)


def test_trades_by_hand() -> None:
    model = Pixels()
    loss = Trades(beta=6.0).loss(model, TWO, ATTACKED, draws=Draws())
    natural, robust = (math.log(4 / 3) + math.log(2)) / 2, (KL_FIRST + KL_SECOND) / 2
    assert loss.total.item() == pytest.approx(natural + 6 * robust)
    assert loss.parts["natural"].item() == pytest.approx(natural)
    assert loss.parts["consistency"].item() == pytest.approx(robust)
    assert loss.parts["adversarial"].item() == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert len(model.seen) == 2


def test_mart_by_hand() -> None:
    loss = Mart(beta=6.0).loss(Pixels(), TWO, ATTACKED, draws=Draws())
    # p_adv of the rival class: 1/2 and 3/4; p of the label on the clean image: 3/4 and 1/2.
    boosted = (math.log(2) - math.log(1.0001 - 0.5) + math.log(4) - math.log(1.0001 - 0.75)) / 2
    consistency = (KL_FIRST * 0.2500001 + KL_SECOND * 0.5000001) / 2
    assert loss.total.item() == pytest.approx(boosted + 6 * consistency, rel=1e-6)
    assert loss.parts["adversarial"].item() == pytest.approx(boosted, rel=1e-6)
    assert loss.parts["consistency"].item() == pytest.approx(consistency, rel=1e-5)


def test_mart_is_finite_where_the_rival_is_certain() -> None:
    certain = torch.tensor([[0.0, 200.0, 0.0], [200.0, 0.0, 0.0]], requires_grad=True)
    value = boosted_cross_entropy(certain, torch.tensor([0, 0]))
    torch.testing.assert_close(value[0].item(), 200 - math.log(1.0001 - 1.0), rtol=1e-3, atol=0)
    assert value[1].item() == pytest.approx(-math.log(1.0001), abs=1e-6)
    value.sum().backward()
    assert certain.grad is not None
    assert certain.grad.isfinite().all()


def test_trades_term_is_zero_at_the_clean_image_in_eval_mode() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    x = torch.rand(6, 3, 8, 8)
    loss = Trades().loss(model, batch_of(x, torch.arange(6) % 3), x, draws=Draws())
    assert loss.parts["consistency"].item() == pytest.approx(0, abs=1e-7)
    assert loss.total.item() == pytest.approx(loss.parts["natural"].item(), abs=1e-6)


@pytest.mark.parametrize("objective", [Trades(), Mart()])
def test_the_gradient_flows_through_both_predictions(objective: Objective) -> None:
    clean, attacked = CLEAN.clone().requires_grad_(), ATTACKED.clone().requires_grad_()
    labels = torch.tensor([0, 0])
    objective.loss(Pixels(), batch_of(clean, labels), attacked, draws=Draws()).total.backward()
    assert clean.grad is not None
    assert attacked.grad is not None
    # TRADES' cross-entropy alone gives p - 1[y] on the clean side; more must be there.
    alone = torch.autograd.grad(Natural().loss(Pixels(), TWO, clean, draws=Draws()).total, clean)[0]
    assert (clean.grad - alone).abs().max() > 1e-3
    assert attacked.grad.abs().max() > 1e-3


def test_trades_gradient_by_finite_differences() -> None:
    clean, attacked = CLEAN.double().requires_grad_(), ATTACKED.double().requires_grad_()
    model = Pixels().double()

    def total(a: Tensor, b: Tensor) -> Tensor:
        return Trades().loss(model, batch_of(a, TWO.y), b, draws=Draws()).total

    assert torch.autograd.gradcheck(total, (clean, attacked))


@pytest.mark.parametrize("count", [1, 4, 5])
def test_mixed_batch_attacks_the_first_half(count: int) -> None:
    x, y = torch.rand(count, 3, 1, 1), torch.arange(count) % 3
    seen: list[Tensor] = []

    def attack(model: Any, images: Tensor, labels: Tensor, *, draws: Draws = Draws()) -> Tensor:  # noqa: B008
        seen.append(labels)
        return images + 1

    x_adv = MixedBatch().craft(Pixels(), batch_of(x, y), attack, {}, draws=Draws())
    half = (count + 1) // 2
    assert torch.equal(x_adv[:half], x[:half] + 1)
    assert torch.equal(x_adv[half:], x[half:])
    assert torch.equal(seen[0], y[:half])


def test_mixed_batch_by_hand() -> None:
    model = Pixels()
    mixed = torch.cat([ATTACKED[1:], CLEAN[:1]])
    loss = MixedBatch().loss(model, TWO, mixed, draws=Draws())
    assert loss.total.item() == pytest.approx((math.log(4) + math.log(4 / 3)) / 2)
    assert loss.parts["adversarial"].item() == pytest.approx(math.log(4))
    assert loss.parts["natural"].item() == pytest.approx(math.log(4 / 3))
    assert loss.rows["adversarial"].tolist() == [0]
    assert loss.rows["natural"].tolist() == [1]
    assert all(loss.logits[name].shape[0] == 1 for name in ("adversarial", "natural"))
    assert len(model.seen) == 1


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_crafts_inside_the_ball_and_trains(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))
    objective = build(name, threat=THREAT)
    assert isinstance(objective, Objective)
    x = torch.rand(6, 3, 8, 8)
    state = {}
    if isinstance(objective, WithState):
        state = objective.initial_state(6, (3, 8, 8), draws=Draws(), device=torch.device("cpu"))
    batch = batch_of(x, torch.arange(6) % 5)
    attack = default_attack(objective, THREAT, steps=2, step="2/255")
    with crafting(model, "eval"):
        x_adv = objective.craft(model, batch, attack, state, draws=Draws(1))
    threat = objective.union if isinstance(objective, Several) else THREAT
    assert name == "gaussian" or not threat.violates(x_adv, x).any()
    # Free training begins with a perturbation of 0.
    assert torch.equal(x_adv, x) == (name in ("natural", "free-at"))
    loss = objective.loss(model, batch, x_adv, draws=Draws(1))
    loss.total.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    assert not any(value.requires_grad for value in [*loss.parts.values(), *loss.logits.values()])
    for part, value in loss.logits.items():
        assert value.shape == (len(loss.rows.get(part, batch.y)), 5)


def test_published_training_attacks() -> None:
    standard = Adversarial().default_attack(THREAT)
    assert (standard.steps, standard.loss, standard.start) == (10, "ce", RandomStart())
    assert standard.size == pytest.approx(2 / 255)
    assert MixedBatch().default_attack(THREAT) == standard
    trades = Trades().default_attack(THREAT)
    assert (trades.steps, trades.loss, trades.start) == (10, "kl", GaussianStart(0.001))
    mart = Mart().default_attack(THREAT, steps=7, step=Absolute(0.007))
    assert mart == PGD(threat=THREAT, steps=7, step=Absolute(0.007), start=GaussianStart(0.001))
    assert default_attack(Trades(), THREAT) == trades
    assert default_attack(Natural(), THREAT) is None


NOTHING_ATTACKED = ("natural", "gaussian", "free-at")


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in NOTHING_ATTACKED])
def test_robust_objectives_need_an_attack(name: str) -> None:
    objective, state = build(name, threat=THREAT), {}
    if isinstance(objective, WithState):
        state = objective.initial_state(2, (2, 1, 1), draws=Draws(), device=torch.device("cpu"))
    with pytest.raises(ConfigError, match=f"objective {'adversarial' if name == 'several' else name}"):
        objective.craft(Pixels(), TWO, None, state, draws=Draws())


def test_weighted_by_hand() -> None:
    model = Pixels()
    loss = Weighted(adversarial_weight=0.9).loss(model, TWO, ATTACKED, draws=Draws())
    natural, adversarial = (math.log(4 / 3) + math.log(2)) / 2, (math.log(2) + math.log(4)) / 2
    assert loss.total.item() == pytest.approx(0.9 * adversarial + 0.1 * natural)
    assert loss.parts["natural"].item() == pytest.approx(natural)
    assert loss.parts["adversarial"].item() == pytest.approx(adversarial)
    assert [torch.equal(seen, x) for seen, x in zip(model.seen, (CLEAN, ATTACKED), strict=True)] == [True, True]
    with pytest.raises(ConfigError, match=r"objective\.adversarial_weight: expected a share"):
        build("weighted", adversarial_weight=9)


@pytest.mark.parametrize("kind", [Adversarial, Trades, Mart])
def test_a_clean_pass_moves_batch_norm_and_nothing_else(kind: Any) -> None:
    def trained(objective: Objective) -> tuple[nn.BatchNorm2d, Any]:
        torch.manual_seed(0)
        norm = nn.BatchNorm2d(2, momentum=0.5)
        model = nn.Sequential(norm, nn.Flatten())
        return norm, objective.loss(model, TWO, ATTACKED, draws=Draws())

    plain_norm, plain = trained(kind())
    norm, loss = trained(kind(clean_pass=True))
    assert torch.equal(loss.total, plain.total)
    assert int(norm.num_batches_tracked) == int(plain_norm.num_batches_tracked) + 1
    assert not torch.equal(norm.running_mean, plain_norm.running_mean)
    assert "natural" in loss.logits


def test_registry_refuses() -> None:
    with pytest.raises(ConfigError, match="natural, adversarial"):
        build("trade")
    with pytest.raises(ConfigError, match=r"objective\.gamma: expected one of beta, clean_pass"):
        build("trades", gamma=1)
    with pytest.raises(ConfigError, match=r"objective\.beta: expected a finite number >= 0, got -1\.0; write 6"):
        build("trades", beta=-1.0)
    with pytest.raises(ConfigError, match=r"objective\.beta: expected a valid number.*'six'"):
        build("mart", beta="six")
    with pytest.raises(ConfigError, match=r"objective\.sigma: .*write 0\.25"):
        build("gaussian", sigma=-1.0)
    with pytest.raises(ConfigError, match="no options"):
        build("mixed-batch", beta=6.0)
    assert build("trades", beta=1) == Trades(beta=1)


def test_an_objective_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_objective_module.py").write_text(
        "from gossamer.objectives.trades import Trades\n"
        "def gentle(*, share):\n"
        "    return Trades(beta=6 * share)\n"
        "def nothing():\n"
        "    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    assert build("my_objective_module:gentle", share=0.5) == Trades(beta=3.0)
    with pytest.raises(ConfigError, match="craft and loss"):
        build("my_objective_module:nothing")
