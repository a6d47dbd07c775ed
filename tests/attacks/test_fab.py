import copy
from unittest import mock

import pytest
import torch
from pyautoattack.fab_pt import FABAttack_PT
from sklearn.datasets import load_digits
from torch import Tensor, nn

from gossamer.attacks.fab import FAB, fab_distances
from gossamer.attacks.hyperplane import length_of, move_to_hyperplane
from gossamer.attacks.registry import build
from gossamer.attacks.stepwise import Pool, StepwiseAttack
from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.threat import NORMS, Norm, ThreatModel

REFERENCE_NORM = {"linf": "Linf", "l2": "L2", "l1": "L1"}
THREATS = {norm: ThreatModel(norm, eps) for norm, eps in {"linf": 0.1, "l2": 0.6, "l1": 1.5}.items()}


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    """Return a convnet trained on handwritten digits, 10 classes, and 32 held-out images that it mostly gets right."""
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32).div_(16).clamp_(0, 1)[:, None]
    y = torch.tensor(data.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, 10),
        )
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for step in range(120):
            batch = torch.arange(64) + 64 * (step % 20)
            loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval(), x[1500:1532], y[1500:1532]


class Reference(FABAttack_PT):
    """The authors' attack, its random numbers for sample i in attempt a replaced by those of our draws."""

    def __init__(self, net: nn.Module, attack: FAB, x: Tensor) -> None:
        super().__init__(
            net,
            norm=REFERENCE_NORM[attack.threat.norm],
            n_restarts=attack.restarts,
            n_iter=attack.steps,
            eps=attack.threat.eps,
            targeted=attack.targets is not None,
            n_target_classes=attack.targets or 9,
            device=torch.device("cpu"),
        )
        self.images = x
        self.kind = "uniform" if attack.threat.norm == "linf" else "normal"
        self.attempt = 0

    def attack_single_run(
        self, x: Tensor, y: Tensor, use_rand_start: bool = False, is_targeted: bool = False
    ) -> Tensor:
        sample = torch.tensor([int((self.images == image).flatten(1).all(dim=1).nonzero()) for image in x])
        draws = Draws().per_sample(sample).at_each("attempt", torch.full_like(sample, self.attempt)).at("start")
        drawn = getattr(draws, self.kind)(x.shape)
        self.attempt += 1
        with mock.patch.object(torch, "rand" if self.kind == "uniform" else "randn", return_value=drawn):
            return super().attack_single_run(x, y, use_rand_start, is_targeted)


def _broken(net: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x_adv).argmax(dim=1) != y


def _agrees_with_the_reference(attack: FAB, net: nn.Module, x: Tensor, y: Tensor) -> None:
    theirs = Reference(net, attack, x).perturb(x, y)
    ours = attack(net, x, y)
    broken = _broken(net, theirs, y)
    assert 0.2 <= 1 - broken.double().mean() <= 0.8
    assert torch.equal(_broken(net, ours, y), broken)


def _reference_distances(attack: FAB, net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the smallest distances that the authors' runs find, eps aside."""
    smallest = torch.where(_broken(net, x, y), 0.0, torch.inf).double()
    right = smallest > 0
    reference = Reference(net, attack, x)
    for target in range(attack.targets or 1):
        reference.target_class = target + 2
        for restart in range(attack.restarts):
            found = x.clone()
            found[right] = reference.attack_single_run(x[right], y[right], restart > 0, attack.targets is not None)
            distance = attack.threat.distance(found, x)
            smallest = smallest.where(~_broken(net, found, y), torch.minimum(smallest, distance))
    return smallest


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("restarts", "targets"), [(3, None), (1, 9), (2, 2)])
def test_every_outcome_is_the_authors(
    digits: tuple[nn.Module, Tensor, Tensor], norm: Norm, restarts: int, targets: int | None
) -> None:
    attack = FAB(threat=THREATS[norm], steps=6, restarts=restarts, targets=targets)
    _agrees_with_the_reference(attack, *digits)


@pytest.mark.long
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("restarts", "targets"), [(5, None), (1, 9)])
def test_every_outcome_is_the_authors_at_full_length(
    digits: tuple[nn.Module, Tensor, Tensor], norm: Norm, restarts: int, targets: int | None
) -> None:
    attack = FAB(threat=THREATS[norm], restarts=restarts, targets=targets)
    _agrees_with_the_reference(attack, *digits)


@pytest.mark.long
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("restarts", "targets"), [(1, None), (1, 2)])
def test_smallest_distances_are_the_authors_at_full_length(
    digits: tuple[nn.Module, Tensor, Tensor], norm: Norm, restarts: int, targets: int | None
) -> None:
    attack = FAB(threat=THREATS[norm], restarts=restarts, targets=targets)
    net, x, y = digits
    _, distances, _ = fab_distances(attack, net, x, y)
    torch.testing.assert_close(distances, _reference_distances(attack, net, x, y), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("restarts", "targets"), [(2, None), (1, 3)])
def test_smallest_distances_are_the_authors(
    digits: tuple[nn.Module, Tensor, Tensor], norm: Norm, restarts: int, targets: int | None
) -> None:
    attack = FAB(threat=THREATS[norm], steps=6, restarts=restarts, targets=targets)
    net, x, y = digits
    points, distances, found = fab_distances(attack, net, x, y)
    expected = _reference_distances(attack, net, x, y)
    torch.testing.assert_close(distances, expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(found, expected < torch.inf)
    assert torch.equal(_broken(net, points, y), found)
    torch.testing.assert_close(attack.threat.distance(points, x)[found], distances[found])


class Plane(nn.Module):
    """Logits (0, <w, x> - b, 2 <w, x> - 4 b): the boundary with class 1 is nearer than that with class 2."""

    def __init__(self, normal: Tensor, offset: float) -> None:
        super().__init__()
        self.normal = nn.Parameter(normal)
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        value = x.flatten(1) @ self.normal
        return torch.stack([torch.zeros_like(value), value - self.offset, 2 * value - 4 * self.offset], dim=1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("targets", [None, 1, 2])
def test_on_a_linear_model_the_distance_is_the_projections(norm: Norm, targets: int | None) -> None:
    draw = torch.Generator().manual_seed(4)
    x = (1.4 * torch.rand(20, 1, 4, 5, generator=draw, dtype=torch.float64) - 0.2).clamp(0, 1)
    model = Plane(torch.randn(20, generator=draw, dtype=torch.float64), 2.5)
    with torch.no_grad():
        gap = model(x)[:, 1]
    x, gap = x[gap < 0], gap[gap < 0]
    y = torch.zeros(len(x), dtype=torch.int64)
    normal = model.normal.detach().expand(len(x), -1)
    exact = length_of(norm, move_to_hyperplane(norm, x.flatten(1), normal, gap))
    attack = FAB(threat=ThreatModel(norm, 0.05), steps=15, restarts=1, targets=targets, eta=1 + 1e-5)
    _, distances, found = fab_distances(attack, model, x, y)
    assert len(x) > 5
    assert found.all()
    assert (distances >= exact - 1e-12).all()
    torch.testing.assert_close(distances, exact, rtol=1e-4, atol=0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("targets", [None, 3])
def test_what_is_handed_in_is_clean_or_wrong_within_eps(
    digits: tuple[nn.Module, Tensor, Tensor], norm: Norm, targets: int | None
) -> None:
    net, x, y = digits
    attack = FAB(threat=THREATS[norm], steps=6, restarts=2, targets=targets)
    seen: list[Tensor] = []

    def watched(points: Tensor) -> Tensor:
        seen.append(points.detach())
        return net(points)

    x_adv = attack(watched, x, y)
    broken, moved = _broken(net, x_adv, y), (x_adv != x).flatten(1).any(dim=1)
    assert all(((points >= 0) & (points <= 1)).all() for points in seen)
    assert (attack.threat.distance(x_adv, x) <= attack.threat.eps).all()
    assert torch.equal(broken, moved | _broken(net, x, y))
    assert 0 < broken.sum() < len(x)


@pytest.mark.parametrize("norm", NORMS)
def test_more_restarts_and_more_targets_only_break_more(digits: tuple[nn.Module, Tensor, Tensor], norm: Norm) -> None:
    net, x, y = digits
    for field, counts, others in [("restarts", (1, 3), {}), ("targets", (1, 5), {"restarts": 1})]:
        before = torch.zeros(len(x), dtype=torch.bool)
        for count in counts:
            attack = FAB(**{"threat": THREATS[norm], "steps": 3, **others, field: count})  # type: ignore[arg-type]
            broken = _broken(net, attack(net, x, y), y)
            assert not (before & ~broken).any()
            before = broken


@pytest.mark.parametrize("norm", NORMS)
def test_later_restarts_start_half_of_eps_away(norm: Norm) -> None:
    attack, draws = FAB(threat=THREATS[norm], restarts=2, targets=2), Draws(5).per_sample(torch.arange(4))
    x, y = torch.full((4, 1, 5, 5), 0.5), torch.zeros(4, dtype=torch.int64)
    clean = torch.tensor([3.0, 1.0, 2.0]).expand(4, 3)
    rows = attack.begin(x, y, clean, torch.tensor([0, 1, 2, 3]), draws)
    start = draws.at("start")
    direction = 2 * start.uniform(x.shape) - 1 if norm == "linf" else start.normal(x.shape)
    expected = x + attack.threat.eps / 2 * direction / length_of(norm, direction).view(4, 1, 1, 1)
    expected[[0, 2]] = x[[0, 2]]
    torch.testing.assert_close(rows["point"], expected)
    assert rows["rivals"].tolist() == [[2], [2], [1], [1]]
    at_the_face = attack.begin(torch.ones_like(x), y, clean, torch.ones(4, dtype=torch.int64), draws)["point"]
    assert 0 <= at_the_face.min() < at_the_face.max() == 1


def test_determined_by_the_draws(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = digits
    attack = FAB(threat=THREATS["l2"], steps=4, restarts=3)
    assert torch.equal(attack(net, x, y, draws=Draws(3)), attack(net, x, y, draws=Draws(3)))
    first, again, other = (fab_distances(attack, net, x, y, Draws(seed))[0] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("targets", [None, 2])
def test_an_image_does_not_depend_on_its_company(
    digits: tuple[nn.Module, Tensor, Tensor], norm: Norm, targets: int | None
) -> None:
    net, x, y = copy.deepcopy(digits[0]).double(), digits[1][:16].double(), digits[2][:16]
    attack = FAB(threat=THREATS[norm], steps=5, restarts=2, targets=targets)
    together = attack(net, x, y)
    best = x.clone()
    pool = Pool(attack, net, Draws().per_sample)
    waiting = torch.arange(len(x))
    while len(pool) or len(waiting):
        take, waiting = waiting[: 7 - len(pool)], waiting[7 - len(pool) :]
        with torch.no_grad():
            pool.enter(take, x[take], y[take], net(x[take]))
        finished = pool.advance()
        best[finished.sample] = finished.best
    torch.testing.assert_close(best, together, rtol=0, atol=1e-8)


def test_a_refused_image_has_all_its_attempts(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = digits
    attack = FAB(threat=THREATS["linf"], steps=4, restarts=2)
    offered: list[Tensor] = []

    def refuse(sample: Tensor, best: Tensor) -> Tensor:
        assert _broken(net, best, y[sample]).all()
        assert (attack.threat.distance(best, x[sample]) <= attack.threat.eps).all()
        offered.append(sample)
        return torch.zeros(len(sample), dtype=torch.bool)

    pool = Pool(attack, net, Draws().per_sample, confirm=refuse)
    with torch.no_grad():
        pool.enter(torch.arange(len(x)), x, y, net(x))
    alone = torch.zeros(len(x), dtype=torch.bool)
    while len(pool):
        finished = pool.advance()
        assert not finished.found.any()
        alone[finished.sample] = finished.alone
    assert torch.equal(alone, _broken(net, attack(net, x, y), y))
    assert torch.equal(torch.cat(offered).unique(), alone.nonzero().flatten())


def test_a_misclassified_image_is_handed_back_at_distance_zero(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = digits
    wrong = _broken(net, x, y)
    assert wrong.any()
    attack = FAB(threat=THREATS["linf"], steps=3)
    points, distances, found = fab_distances(attack, net, x, y)
    for x_adv in (points, attack(net, x, y)):
        assert torch.equal(x_adv[wrong], x[wrong])
    assert found[wrong].all()
    assert torch.equal(distances == 0, wrong)


def test_the_model_is_as_before_to_the_bit(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = digits
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for parameter in net.parameters():
        parameter.grad = None
    image = x.clone()
    FAB(threat=THREATS["l1"], steps=3, restarts=2)(net, x, y)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())
    assert not net.training
    assert torch.equal(x, image)
    assert not x.requires_grad


@pytest.mark.parametrize("steps", [1, 4])
def test_a_step_that_stays_inside_calls_the_model_once(steps: int) -> None:
    calls: list[bool] = []

    def never(points: Tensor) -> Tensor:
        calls.append(torch.is_grad_enabled())
        mean = points.flatten(1).mean(dim=1)
        return torch.stack([torch.ones_like(mean), mean / 2], dim=1)

    x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    FAB(threat=THREATS["linf"], steps=steps, restarts=1)(never, x, y)
    # Without gradient: the clean logits, the first point after the start, and the last one (the same for one step).
    assert sum(calls) == steps
    assert len(calls) - sum(calls) == (2 if steps == 1 else 3)


def test_the_model_is_never_asked_more_often_than_the_reference_asks(
    digits: tuple[nn.Module, Tensor, Tensor],
) -> None:
    net, x, y = digits
    x, y = x[~_broken(net, x, y)], y[~_broken(net, x, y)]
    asked = [0]

    def counted(points: Tensor) -> Tensor:
        asked[0] += len(points)
        return net(points)

    attack = FAB(threat=ThreatModel("l1", 0), steps=12, restarts=1, targets=4)
    fab_distances(attack, counted, x, y)
    assert asked[0] <= len(x) * (1 + 2 * 12 * 4)


def test_attempts_and_names() -> None:
    threat = THREATS["linf"]
    assert build("fab", threat) == FAB(threat=threat)
    assert build("fab-t", threat) == FAB(threat=threat, targets=9, restarts=1)
    assert isinstance(build("fab-t", threat), StepwiseAttack)
    assert FAB(threat=threat).attempts(10) == 5
    assert FAB(threat=threat, targets=4, restarts=2).attempts(5) == 8


@pytest.mark.parametrize(
    "option",
    [{"steps": 0}, {"restarts": 0}, {"targets": 0}, {"alpha_max": 1.5}, {"eta": 0.9}, {"beta": -0.1}, {"eta": "x"}],
)
def test_impossible_fields_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        build("fab", THREATS["linf"], **option)


def test_there_are_no_more_targets_than_wrong_classes() -> None:
    assert FAB(threat=THREATS["linf"], targets=10, restarts=2).attempts(10) == 18
    with pytest.raises(ConfigError, match="2 classes"):
        FAB(threat=THREATS["linf"]).attempts(1)


def test_an_empty_batch(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = digits
    attack = FAB(threat=THREATS["linf"])
    assert attack(net, x[:0], y[:0]).shape == x[:0].shape
    assert [len(part) for part in fab_distances(attack, net, x[:0], y[:0])] == [0, 0, 0]
