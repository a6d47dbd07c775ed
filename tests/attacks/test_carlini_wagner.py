import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gossamer.attacks.carlini_wagner import CarliniWagner
from gossamer.attacks.foreign import FoolboxAttack
from gossamer.attacks.minimal import bring_into, minimal_norms
from gossamer.attacks.pgd import PGD
from gossamer.attacks.registry import build
from gossamer.attacks.steps import OverSteps
from gossamer.attacks.stepwise import StepwiseAttack
from gossamer.attacks.targets import Ranked
from gossamer.errors import ConfigError
from gossamer.threat import ThreatModel

L2 = ThreatModel("l2", 0.5)
BRIEF = CarliniWagner(threat=L2, steps=120, searches=5, first_constant=0.01)


class Planes(nn.Module):
    """Logits of K planes through images whose nearest boundaries lie well inside the box."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        drawn = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(12, classes, generator=drawn))
        self.bias = nn.Parameter(-0.5 * self.weight.detach().sum(dim=0))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight + self.bias


def _grey(n: int = 8) -> Tensor:
    return 0.5 + 0.1 * torch.randn(n, 3, 2, 2, generator=torch.Generator().manual_seed(4))


def _distance_to_planes(model: Planes, x: Tensor, y: Tensor) -> Tensor:
    """min over k of (z_y - z_k) / ||w_y - w_k||: (N,)."""
    logits, weight = model(x).detach(), model.weight.detach()
    gaps = logits.gather(1, y[:, None]) - logits
    slopes = torch.linalg.vector_norm(weight[:, y].T[:, :, None] - weight[None], dim=1)
    return (gaps / slopes.scatter(1, y[:, None], 1.0)).scatter(1, y[:, None], torch.inf).amin(dim=1)


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """Return a convolutional network that has learned to tell three patterns, and images it is right on."""
    drawn = torch.Generator().manual_seed(5)
    y = torch.arange(96) % 3
    patterns = torch.rand(3, 1, 8, 8, generator=drawn)
    x = (0.25 + 0.5 * patterns[y] + 0.1 * torch.randn(96, 1, 8, 8, generator=drawn)).clamp(0, 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 6, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(96, 16),
            nn.ReLU(),
            nn.Linear(16, 3),
        )
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        cross_entropy(net(x), y).backward()
        optimizer.step()
    net.zero_grad()
    right = net(x).argmax(dim=1) == y
    assert right.float().mean() > 0.9
    return net.eval(), x[right][:10], y[right][:10]


def test_finds_the_exact_distance_to_a_plane() -> None:
    model, x = Planes(), _grey()
    y = model(x).argmax(dim=1)
    attack = CarliniWagner(threat=L2, steps=150, searches=6, first_constant=0.01)
    exact = _distance_to_planes(model, x, y)
    points, distances, found = minimal_norms(model, x, y, attack)
    assert found.all()
    assert ((distances / exact - 1) < 0.01).all()
    assert (distances >= exact * (1 - 1e-4)).all()
    assert ((points >= 0) & (points <= 1)).all()


def test_the_confidence_is_exceeded() -> None:
    model, x = Planes(2), _grey()
    y = model(x).argmax(dim=1)
    sure = CarliniWagner(threat=L2, steps=150, searches=6, first_constant=0.01, confidence=0.5)
    points, distances, found = minimal_norms(model, x, y, sure)
    logits = model(points)
    assert found.all()
    assert (logits.gather(1, 1 - y[:, None]) - logits.gather(1, y[:, None]) > 0.5).all()
    slope = torch.linalg.vector_norm(model.weight[:, 0] - model.weight[:, 1])
    exact = _distance_to_planes(model, x, y) + 0.5 / slope
    assert torch.allclose(distances.float(), exact, rtol=0.02)


def test_a_target_is_reached_at_its_own_distance() -> None:
    model, x = Planes(), _grey()
    logits = model(x).detach()
    y = logits.argmax(dim=1)
    points, distances, found = minimal_norms(
        model, x, y, CarliniWagner(threat=L2, steps=120, searches=4, first_constant=0.1, target=Ranked(2))
    )
    assert found.all()
    assert torch.equal(model(points).argmax(dim=1), Ranked(2)(logits, y))
    assert (distances >= _distance_to_planes(model, x, y) * (1 - 1e-4)).all()


def test_what_an_image_gets_does_not_depend_on_its_company() -> None:
    # Sums of one element each: their bits do not depend on the batch.
    weight = torch.tensor([0.7, -1.3])

    def model(x: Tensor) -> Tensor:
        return (x.flatten(1)[:, :1] - 0.4) * weight

    x = torch.linspace(0.1, 0.9, 9).view(9, 1, 1, 1)
    y = model(x).argmax(dim=1)
    whole = minimal_norms(model, x, y, BRIEF)
    halves = [minimal_norms(model, x[part], y[part], BRIEF) for part in (slice(0, 4), slice(4, 9))]
    assert torch.equal(whole.points, torch.cat([half.points for half in halves]))
    assert torch.equal(whole.distances, torch.cat([half.distances for half in halves]))
    assert torch.allclose(whole.distances.float(), (x.flatten() - 0.4).abs(), atol=2e-3)


def test_as_an_attack_it_stops_inside_the_ball_and_never_leaves_it() -> None:
    model, x = Planes(), _grey()
    y = model(x).argmax(dim=1)
    exact = _distance_to_planes(model, x, y).double()
    eps = float(exact.median() * 1.05)
    attack = CarliniWagner(threat=ThreatModel("l2", eps), steps=120, searches=5, first_constant=0.01)
    x_adv = attack(model, x, y)
    assert isinstance(attack, StepwiseAttack)
    assert not attack.threat.violates(x_adv, x).any()
    broken = model(x_adv).argmax(dim=1) != y
    assert torch.equal(broken[(exact / eps - 1).abs() > 0.02], (exact < eps)[(exact / eps - 1).abs() > 0.02])
    assert 0 < int(broken.sum()) < len(x)


def test_early_abort_saves_steps_and_costs_little() -> None:
    model, x = Planes(), _grey()
    y = model(x).argmax(dim=1)
    calls = {True: 0, False: 0}
    found = {}
    for early in calls:

        def counted(images: Tensor, early: bool = early) -> Tensor:
            calls[early] += len(images)
            return model(images)

        attack = CarliniWagner(threat=L2, steps=150, searches=4, first_constant=0.01, abort_early=early)
        found[early] = minimal_norms(counted, x, y, attack).distances
    assert calls[True] < 0.9 * calls[False]
    assert torch.allclose(found[True], found[False], rtol=0.01)


def test_distances_agree_with_foolbox(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    pytest.importorskip("scipy")
    model, x, y = trained
    ours = minimal_norms(model, x, y, BRIEF)
    options = {"steps": BRIEF.steps, "binary_search_steps": BRIEF.searches, "initial_const": BRIEF.first_constant}
    theirs = minimal_norms(model, x, y, FoolboxAttack(attack="L2CarliniWagnerAttack", options=options))
    assert ours.found.all()
    assert theirs.found.all()
    assert (ours.distances <= 1.03 * theirs.distances).all()
    assert torch.allclose(ours.distances, theirs.distances, rtol=0.1)


def test_the_model_stays_as_it_was_and_the_result_is_determined(
    convnet: nn.Module, images: Tensor, labels: Tensor
) -> None:
    before = {name: value.clone() for name, value in convnet.state_dict().items()}
    attack = CarliniWagner(threat=L2, steps=20, searches=2)
    first, second = attack(convnet, images, labels), attack(convnet, images, labels)
    assert torch.equal(first, second)
    assert all(torch.equal(value, before[name]) for name, value in convnet.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in convnet.parameters())
    assert attack(convnet, images[:0], labels[:0]).shape == images[:0].shape


def test_where_nothing_is_found_the_distance_is_infinite() -> None:
    def constant(x: Tensor) -> Tensor:
        return torch.stack([1 + 0 * x.sum(dim=(1, 2, 3)), 0 * x.sum(dim=(1, 2, 3))], dim=1)

    x, y = _grey(4), torch.tensor([0, 0, 0, 1])
    points, distances, found = minimal_norms(constant, x, y, CarliniWagner(threat=L2, steps=5, searches=2))
    assert torch.equal(points, x)
    assert found.tolist() == [False, False, False, True]
    assert distances.tolist() == [torch.inf, torch.inf, torch.inf, 0.0]


def test_what_lies_inside_is_not_touched_and_the_rest_is_brought_in() -> None:
    x = torch.full((3, 1, 1, 2), 0.5)
    points = x + torch.tensor([[0.3, 0.0], [0.6, 0.0], [torch.nan, 0.0]]).view(3, 1, 1, 2)
    brought = bring_into(L2, points, x)
    assert torch.equal(brought[0], points[0])
    assert brought[1].flatten().tolist() == pytest.approx([1.0, 0.5])
    assert not L2.violates(brought, x).any()


def test_names_and_refused_fields() -> None:
    assert build("cw-l2", L2, steps=7) == CarliniWagner(threat=L2, steps=7)
    linf = ThreatModel("linf", 0.1)
    bounded = build("cw-pgd", linf)
    assert bounded == PGD(threat=linf, loss="margin", steps=32, step=OverSteps(2.5), returns="first", early_drop=True)
    for wrong in ({"steps": 0}, {"searches": 0}, {"first_constant": 0.0}, {"rate": -1.0}, {"confidence": -0.1}):
        with pytest.raises(ConfigError):
            CarliniWagner(threat=L2, **wrong)
