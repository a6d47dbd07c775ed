"""Does Auto-PGD break what its authors' code breaks, sample by sample, from the same random tensors?"""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from injection import Tape, listen, positions_in
from torch import Tensor, nn

from gossamer.attacks.apgd import APGD
from gossamer.attacks.stepwise import attack_batch
from gossamer.threat import Norm, ThreatModel

peer = pytest.importorskip("pyautoattack.autopgd_base")

pytestmark = pytest.mark.filterwarnings("ignore:there are .* points with zero gradient:Warning")

EPS: dict[Norm, float] = {"linf": 0.12, "l2": 0.6, "l1": 1.5}
PEER_NORMS: dict[Norm, str] = {"linf": "Linf", "l2": "L2", "l1": "L1"}


class Precise(nn.Module):
    """Computes in float64 between float32 images and logits, so that logits do not depend on the batch's company."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.double()).float()


@dataclass
class Heard:
    """What the peer did: by attempt, which samples it attacked, its verdicts and best losses; its random tensors."""

    tape: Tape = field(default_factory=Tape)
    sample: list[Tensor] = field(default_factory=list)
    broken: list[Tensor] = field(default_factory=list)
    best_loss: list[Tensor] = field(default_factory=list)


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    """Return a convnet trained for some seconds on eight-by-eight digits, and 64 it has not seen, of its own choice."""
    from sklearn.datasets import load_digits  # noqa: PLC0415

    data = load_digits()
    x = torch.from_numpy(data.images).float()[:, None] / 16
    y = torch.from_numpy(data.target).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(12, 24, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(24 * 16, 10),
        )
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(120):
            chosen = torch.randint(0, 1500, (128,))
            optimizer.zero_grad()
            F.cross_entropy(net(x[chosen]), y[chosen]).backward()
            optimizer.step()
    return Precise(net).eval().requires_grad_(False), x[1500:1564].clone(), y[1500:1564].clone()


def _attack_by_peer(
    monkeypatch: pytest.MonkeyPatch, ours: APGD, model: nn.Module, x: Tensor, y: Tensor
) -> tuple[Tensor, Heard]:
    """Return the peer's adversarial images, and what it did on the way."""
    staged = len(ours.plan) > 1
    options: dict[str, Any] = {
        "n_iter": ours.steps,
        "norm": PEER_NORMS[ours.threat.norm],
        "n_restarts": ours.restarts,
        "eps": ours.threat.eps,
        "eot_iter": ours.eot,
        "rho": ours.rho,
        "use_largereps": staged,
        "device": "cpu",
    }
    if ours.targets is None:
        theirs = peer.APGDAttack(model, loss=ours.loss, **options)
    else:
        theirs = peer.APGDAttack_targeted(model, n_target_classes=ours.targets, **options)
    heard = Heard()
    run = theirs.decr_eps_pgd if staged else theirs.attack_single_run

    def heard_run(images: Tensor, *arguments: Any) -> Any:
        heard.sample.append(positions_in(x, images))
        found = run(images, *arguments)
        heard.broken.append(found[1] == 0)
        heard.best_loss.append(found[2])
        return found

    def note(drawn: Tensor) -> None:
        heard.tape.record("start", drawn, sample=heard.sample[-1], attempt=len(heard.sample) - 1)

    monkeypatch.setattr(theirs, "decr_eps_pgd" if staged else "attack_single_run", heard_run)
    listen(monkeypatch, "randn_like" if staged else "rand" if ours.threat.norm == "linf" else "randn", note)
    with torch.random.fork_rng():
        adversarial = theirs.perturb(x.clone(), y.clone())
    monkeypatch.undo()
    return adversarial, heard


def _walk(ours: APGD, model: nn.Module, x: Tensor, y: Tensor, attempt: int, draws: Any) -> tuple[Tensor, Tensor]:
    """Return whether one whole attempt, never cut short, hit, and its best loss."""
    number = torch.full_like(y, attempt)
    with torch.no_grad():
        rows = ours.begin(x, y, model(x), number, draws.at_each("attempt", number))
        broken = torch.zeros_like(y, dtype=torch.bool)
        while not rows["over"].all():
            rows = ours.advance(model, x, y, rows, draws)
            broken |= rows["hit"]
    return broken, rows["peak_loss"]


def _assert_agreement(monkeypatch: pytest.MonkeyPatch, ours: APGD, model: nn.Module, x: Tensor, y: Tensor) -> None:
    theirs, heard = _attack_by_peer(monkeypatch, ours, model, x, y)
    for attempt, sample in enumerate(heard.sample):
        draws = heard.tape.draws().per_sample(sample)
        broken, best_loss = _walk(ours, model, x[sample], y[sample], attempt, draws)
        assert torch.equal(broken, heard.broken[attempt])
        torch.testing.assert_close(best_loss, heard.best_loss[attempt], rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        right = model(x).argmax(dim=1) == y
        stands = model(theirs).argmax(dim=1) == y
    samples = right.nonzero().flatten()
    found = attack_batch(ours, model, x[samples], y[samples], heard.tape.draws().per_sample(samples))
    assert torch.equal(model(found).argmax(dim=1) == y[samples], stands[samples])
    assert not ours.threat.violates(found, x[samples]).any()
    assert 0.2 <= stands.float().mean() <= 0.8


ATTACKS: dict[str, dict[str, Any]] = {
    "ce": {"loss": "ce"},
    "dlr": {"loss": "dlr"},
    "t": {"loss": "dlr", "targets": 3},
    "ce-restarts": {"loss": "ce", "restarts": 2},
}


NORMS = ["linf", "l2", "l1", "l1-one-radius"]


def _ours(norm: str, steps: int, **options: Any) -> APGD:
    name: Any = norm.removesuffix("-one-radius")
    return APGD(threat=ThreatModel(name, EPS[name]), steps=steps, largereps=norm == "l1", **options)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ATTACKS)
def test_short_attacks_break_the_same_samples(
    monkeypatch: pytest.MonkeyPatch, digits: tuple[nn.Module, Tensor, Tensor], norm: str, name: str
) -> None:
    model, x, y = digits
    _assert_agreement(monkeypatch, _ours(norm, 12, **ATTACKS[name]), model, x[:32], y[:32])


@pytest.mark.parametrize("norm", NORMS)
def test_other_constants_agree_too(
    monkeypatch: pytest.MonkeyPatch, digits: tuple[nn.Module, Tensor, Tensor], norm: str
) -> None:
    model, x, y = digits
    _assert_agreement(monkeypatch, _ours(norm, 25, rho=0.5, eot=2), model, x[:32], y[:32])


@pytest.mark.long
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "options",
    [
        {"loss": "ce"},
        {"loss": "dlr"},
        {"loss": "dlr", "targets": 9},
        {"loss": "ce", "restarts": 5},
    ],
)
def test_full_attacks_break_the_same_samples(
    monkeypatch: pytest.MonkeyPatch, digits: tuple[nn.Module, Tensor, Tensor], norm: str, options: dict[str, Any]
) -> None:
    model, x, y = digits
    _assert_agreement(monkeypatch, _ours(norm, 100, **options), model, x, y)
