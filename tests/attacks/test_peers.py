"""Do torchattacks, foolbox and ART find what ours finds, at n = 64? `docs/attacks/agreement.md` says who is right.

    .venv-bench/bin/python -m pytest -m long tests/attacks/test_peers.py    # all libraries (make bench-env)
    .venv/bin/python -m pytest -m long tests/attacks/test_peers.py          # foolbox and the authors' release alone
    .venv-bench/bin/python tests/attacks/test_peers.py                      # prints the page's table

Where an attack draws nothing, or its draws can be given to ours, points are close or outcomes equal, sample by
sample. Where draws differ, the samples on which two attacks disagree must look like luck: of d such samples, each
attack should win about half (exact two-sided sign test at 1 %). All seeds are 0.
"""

import copy
import logging
import math
import random
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from injection import Tape, listen, positions_in
from torch import Tensor, nn

from gossamer.attacks.apgd import APGD
from gossamer.attacks.fmn import LinfFMN
from gossamer.attacks.minimal import minimal_norms
from gossamer.attacks.pgd import PGD
from gossamer.attacks.registry import build
from gossamer.attacks.spatial import Spatial, move
from gossamer.attacks.starts import NoStart
from gossamer.attacks.steps import Absolute
from gossamer.attacks.stepwise import attack_batch
from gossamer.seeding import Draws
from gossamer.threat import Norm, ThreatModel

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]

LINF, L2 = ThreatModel("linf", 0.12), ThreatModel("l2", 0.6)
BOTH = pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
NAMES: Mapping[Norm, str] = {"linf": "Linf", "l2": "L2"}
ORDERS: Mapping[Norm, float] = {"linf": np.inf, "l2": 2}
CLASSES = 10


class Precise(nn.Module):
    """Computes in float64 between float32 images and logits, so that logits do not depend on the batch's company."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.double()).float()


class Shifted(nn.Module):
    """The same classifier: a constant is added to all of its logits."""

    def __init__(self, net: nn.Module, constant: float) -> None:
        super().__init__()
        self.net = net
        self.constant = constant

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + self.constant


@dataclass(frozen=True)
class Scene:
    """A convnet trained for some seconds on eight-by-eight digits, and 64 that it has not seen."""

    model: nn.Module
    x: Tensor
    y: Tensor

    def errs(self, points: Tensor) -> Tensor:
        with torch.no_grad():
            return self.model(points).argmax(dim=1) != self.y

    @property
    def right(self) -> Tensor:
        return ~self.errs(self.x)

    def stands(self, points: Tensor, threat: ThreatModel) -> Tensor:
        """Return which images stay right, a point outside of the ball not counting: (64,) bool."""
        points = points.detach().float()
        return self.right & (~self.errs(points) | threat.violates(points, self.x, tolerance=1e-5))


@cache
def _digits() -> Scene:
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
            nn.Linear(24 * 16, CLASSES),
        )
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(120):
            chosen = torch.randint(0, 1500, (128,))
            optimizer.zero_grad()
            F.cross_entropy(net(x[chosen]), y[chosen]).backward()
            optimizer.step()
    return Scene(Precise(net).eval().requires_grad_(False), x[1500:1564].clone(), y[1500:1564].clone())


@pytest.fixture
def scene() -> Scene:
    """Libraries may leave a model in another mode: each test has its own."""
    trained = _digits()
    return Scene(copy.deepcopy(trained.model), trained.x, trained.y)


def _seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


def _release(kind: str, scene: Scene, threat: ThreatModel, **options: Any) -> Tensor:
    """Return the points of the AutoAttack authors' release, at its own settings."""
    name = NAMES[threat.norm]
    if kind == "autoattack":
        library = pytest.importorskip("pyautoattack")
        attack = library.AutoAttack(scene.model, norm=name, eps=threat.eps, device="cpu", seed=0)
        return attack.run_standard_evaluation(scene.x.clone(), scene.y.clone(), batch_size=64)[0]
    module, made = {
        "apgd": ("autopgd_base", "APGDAttack"),
        "apgd-t": ("autopgd_base", "APGDAttack_targeted"),
        "fab": ("fab_pt", "FABAttack_PT"),
        "square": ("square", "SquareAttack"),
    }[kind]
    library = pytest.importorskip(f"pyautoattack.{module}")
    attack = getattr(library, made)(scene.model, norm=name, eps=threat.eps, device="cpu", seed=0, **options)
    return attack.perturb(scene.x.clone(), scene.y.clone())


def _torchattacks(name: str, scene: Scene, **options: Any) -> Tensor:
    library = pytest.importorskip("torchattacks")
    attack = getattr(library, name)(scene.model, **options)
    _seed()
    return attack(scene.x, scene.y).detach()


def _foolbox(name: str, scene: Scene, eps: float | None, **options: Any) -> Tensor:
    library = pytest.importorskip("foolbox")
    attack = getattr(library.attacks, name)(**options)
    seen = library.PyTorchModel(scene.model, bounds=(0, 1), device="cpu")
    _seed()
    if isinstance(attack, library.attacks.SpatialAttack):
        return attack(seen, scene.x, scene.y)[0]
    raw, clipped, _ = attack(seen, scene.x, scene.y, epsilons=eps)
    return raw if eps is None else clipped


def _art(name: str, scene: Scene, **options: Any) -> Tensor:
    pytest.importorskip("art")
    from art.attacks import evasion  # noqa: PLC0415

    attack = getattr(evasion, name)(_art_classifier(scene.model), **options)
    _seed()
    return torch.from_numpy(attack.generate(x=scene.x.numpy().copy(), y=scene.y.numpy()))


def _art_classifier(model: nn.Module) -> Any:
    from art.estimators.classification import PyTorchClassifier  # noqa: PLC0415

    return PyTorchClassifier(
        model=model,
        loss=nn.CrossEntropyLoss(),
        input_shape=(1, 8, 8),
        nb_classes=CLASSES,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


def _ours(name: str, scene: Scene, threat: ThreatModel, **options: Any) -> Tensor:
    attack = build(name, threat, **options)
    if name in ("deepfool", "fmn", "cw-l2"):
        return minimal_norms(scene.model, scene.x, scene.y, attack).points  # type: ignore[arg-type]
    return attack(scene.model, scene.x, scene.y, draws=Draws(0))


def _is_luck(one: Tensor, other: Tensor) -> bool:
    """Return whether the samples on which two outcomes disagree split as coins do: two-sided p of at least 1 %."""
    first, second = int((one & ~other).sum()), int((other & ~one).sum())
    total = first + second
    tail = sum(math.comb(total, k) for k in range(min(first, second) + 1)) / 2**total
    return min(1.0, 2 * tail) >= 0.01


@dataclass(frozen=True)
class At:
    """A start that is given: whatever a library drew."""

    points: Tensor

    def __call__(self, threat: ThreatModel, x: Tensor, draws: Draws) -> Tensor:
        return self.points


def _pgd(scene: Scene, threat: ThreatModel, start: Any = None) -> Tensor:
    attack = PGD(threat=threat, steps=20, step=Absolute(threat.eps / 8), start=start or NoStart())
    return attack(scene.model, scene.x, scene.y)


def _pgd_by(library: str, scene: Scene, threat: ThreatModel, *, drawn: bool = False) -> Tensor:
    step, linf = threat.eps / 8, threat.norm == "linf"
    if library == "torchattacks":
        name = "PGD" if linf else "PGDL2"
        return _torchattacks(name, scene, eps=threat.eps, alpha=step, steps=20, random_start=drawn)
    if library == "foolbox":
        name = "LinfPGD" if linf else "L2PGD"
        return _foolbox(name, scene, threat.eps, abs_stepsize=step, steps=20, random_start=drawn)
    options = {"norm": ORDERS[threat.norm], "eps": threat.eps, "eps_step": step, "max_iter": 20, "batch_size": 64}
    return _art("ProjectedGradientDescentPyTorch", scene, num_random_init=int(drawn), verbose=False, **options)


LIBRARIES = pytest.mark.parametrize("library", ["torchattacks", "foolbox", "art"])


@LIBRARIES
def test_fgsm_gives_the_same_points(scene: Scene, library: str) -> None:
    ours = _ours("fgsm", scene, LINF)
    if library == "torchattacks":
        theirs = _torchattacks("FGSM", scene, eps=LINF.eps)
    elif library == "foolbox":
        theirs = _foolbox("LinfFastGradientAttack", scene, LINF.eps)
    else:
        theirs = _art("FastGradientMethod", scene, eps=LINF.eps, batch_size=64)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-6)
    assert 0.2 <= scene.stands(ours, LINF).double().mean() <= 0.8


@BOTH
@LIBRARIES
def test_pgd_from_the_image_gives_the_same_points(scene: Scene, library: str, threat: ThreatModel) -> None:
    ours, theirs = _pgd(scene, threat), _pgd_by(library, scene, threat)
    assert torch.equal(scene.stands(theirs, threat), scene.stands(ours, threat))
    if (library, threat.norm) != ("art", "l2"):
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)


@BOTH
@LIBRARIES
def test_pgd_from_the_librarys_own_start_gives_the_same_outcomes(
    scene: Scene, library: str, threat: ThreatModel
) -> None:
    theirs = _pgd_by(library, scene, threat, drawn=True)
    _seed()
    start = _START[library](scene.x, threat).clamp(0, 1)
    assert not threat.violates(start, scene.x).any()
    assert torch.equal(scene.stands(theirs, threat), scene.stands(_pgd(scene, threat, At(start)), threat))


def _start_torchattacks(x: Tensor, threat: ThreatModel) -> Tensor:
    if threat.norm == "linf":
        return x + torch.empty_like(x).uniform_(-threat.eps, threat.eps)
    direction = torch.empty_like(x).normal_()
    length = direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return x + direction * (torch.zeros_like(length).uniform_(0, 1) / length * threat.eps)


def _start_foolbox(x: Tensor, threat: ThreatModel) -> Tensor:
    if threat.norm == "linf":
        return x + (2 * torch.rand(x.shape) - 1) * threat.eps
    normal = torch.randn(len(x), x[0].numel() + 2)
    on_sphere = normal / normal.norm(dim=1, keepdim=True)
    return x + threat.eps * on_sphere[:, :-2].view_as(x)


def _start_art(x: Tensor, threat: ThreatModel) -> Tensor:
    from art.utils import random_sphere  # noqa: PLC0415

    drawn = random_sphere(len(x), x[0].numel(), threat.eps, ORDERS[threat.norm])
    return x + torch.from_numpy(drawn.astype(np.float32)).view_as(x)


_START: Mapping[str, Callable[[Tensor, ThreatModel], Tensor]] = {
    "torchattacks": _start_torchattacks,
    "foolbox": _start_foolbox,
    "art": _start_art,
}


def test_the_random_start_of_torchattacks_in_l2_lies_near_the_image(scene: Scene) -> None:
    """A radius uniform in [0, eps] is not a point uniform in the ball: half of them within eps / 2."""
    grey = torch.full((4000, 1, 8, 8), 0.5)
    _seed()
    theirs = L2.distance(_start_torchattacks(grey, L2), grey) / L2.eps
    ours = L2.distance(L2.random_start(grey, Draws(0)), grey) / L2.eps
    assert theirs.median() == pytest.approx(0.5, abs=0.03)
    assert ours.median() == pytest.approx(0.5 ** (1 / 64), abs=0.01)


def _apgd_of_torchattacks(
    monkeypatch: pytest.MonkeyPatch, scene: Scene, threat: ThreatModel, loss: str
) -> tuple[Tensor, Tape]:
    """Return the points of torchattacks' Auto-PGD of 100 steps, and the starts it drew."""
    library = pytest.importorskip("torchattacks")
    options: dict[str, Any] = {"norm": NAMES[threat.norm], "eps": threat.eps, "steps": 100}
    attack = library.APGDT(scene.model, **options) if loss == "t" else library.APGD(scene.model, loss=loss, **options)
    tape, sample, run = Tape(), list[Tensor](), attack.attack_single_run

    def heard_run(images: Tensor, labels: Tensor) -> Any:
        sample.append(positions_in(scene.x, images))
        return run(images, labels)

    def note(drawn: Tensor) -> None:
        tape.record("start", drawn, sample=sample[-1], attempt=len(sample) - 1)

    monkeypatch.setattr(attack, "attack_single_run", heard_run)
    listen(monkeypatch, "rand" if threat.norm == "linf" else "randn", note)
    with torch.random.fork_rng():
        points = attack(scene.x, scene.y)
    monkeypatch.undo()
    return points, tape


@BOTH
@pytest.mark.parametrize("loss", ["ce", "dlr", "t"])
def test_apgd_of_torchattacks_breaks_the_same_samples(
    monkeypatch: pytest.MonkeyPatch, scene: Scene, threat: ThreatModel, loss: str
) -> None:
    theirs, tape = _apgd_of_torchattacks(monkeypatch, scene, threat, loss)
    targeted: dict[str, Any] = {"loss": "dlr", "targets": 9} if loss == "t" else {"loss": loss}
    right = scene.right.nonzero().flatten()
    draws = tape.draws().per_sample(right)
    ours = scene.x.clone()
    ours[right] = attack_batch(APGD(threat=threat, **targeted), scene.model, scene.x[right], scene.y[right], draws)
    assert torch.equal(scene.stands(theirs, threat), scene.stands(ours, threat))


def test_the_targeted_apgd_of_torchattacks_takes_one_samples_step_for_all_in_l2(
    monkeypatch: pytest.MonkeyPatch, scene: Scene
) -> None:
    """The first sample's step moves the whole batch, so what a sample gets depends on which is first."""
    library = pytest.importorskip("torchattacks")
    threat = ThreatModel("l2", 0.3)
    part = scene.right.nonzero().flatten()
    noise = torch.randn(len(part), 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def losses(order: Tensor, kind: str) -> Tensor:
        options = {"norm": "L2", "eps": threat.eps, "steps": 100}
        attack = getattr(library, kind)(scene.model, **options)
        attack.target_class = 2
        monkeypatch.setattr(torch, "randn", lambda shape: noise[order])
        loss = attack.attack_single_run(scene.x[part][order], scene.y[part][order])[2]
        monkeypatch.undo()
        return loss[order.argsort()]

    forward = torch.arange(len(part))
    assert torch.equal(losses(forward, "APGD"), losses(forward.flip(0), "APGD"))
    assert (losses(forward, "APGDT") - losses(forward.flip(0), "APGDT")).abs().max() > 0.05


@BOTH
@pytest.mark.parametrize("targeted", [True, False])
def test_fab_of_torchattacks_breaks_the_same_samples(scene: Scene, threat: ThreatModel, targeted: bool) -> None:
    options = {"norm": NAMES[threat.norm], "eps": threat.eps, "steps": 100, "multi_targeted": targeted}
    theirs = _torchattacks("FAB", scene, n_classes=CLASSES, **options)
    ours = _ours("fab-t" if targeted else "fab", scene, threat, restarts=1)
    assert torch.equal(scene.stands(theirs, threat), scene.stands(ours, threat))


@BOTH
def test_square_of_torchattacks_is_the_authors_but_for_its_schedule(scene: Scene, threat: ThreatModel) -> None:
    options = {"n_queries": 1000, "n_restarts": 1}
    theirs = _torchattacks("Square", scene, norm=NAMES[threat.norm], eps=threat.eps, resc_schedule=False, **options)
    authors = _release("square", scene, threat, resc_schedule=False, **options)
    assert torch.equal(scene.stands(theirs, threat), scene.stands(authors, threat))
    torch.testing.assert_close(theirs, authors, rtol=0, atol=1e-6)
    compressed = _torchattacks("Square", scene, norm=NAMES[threat.norm], eps=threat.eps, **options)
    assert not torch.equal(compressed, authors)


Runs: TypeAlias = Mapping[str, Callable[[Scene], Tensor]]

EVERYWHERE = ThreatModel("l2", 1e6)


def _rows() -> dict[str, tuple[ThreatModel, Runs]]:
    """Return what the page's table measures: by attack and norm, the threat, and runs by library, reference first."""
    rows: dict[str, tuple[ThreatModel, Runs]] = {
        "FGSM, linf": (
            LINF,
            {
                "ours": lambda s: _ours("fgsm", s, LINF),
                "torchattacks": lambda s: _torchattacks("FGSM", s, eps=LINF.eps),
                "foolbox": lambda s: _foolbox("LinfFastGradientAttack", s, LINF.eps),
                "ART": lambda s: _art("FastGradientMethod", s, eps=LINF.eps, batch_size=64),
            },
        )
    }
    for threat in (LINF, L2):
        rows |= _rows_of_the_ball(threat)
    rows |= {
        "DeepFool, l2": (
            L2,
            {
                "ours": lambda s: _ours("deepfool", s, L2),
                "foolbox": lambda s: _foolbox("L2DeepFoolAttack", s, None),
                "torchattacks": lambda s: _torchattacks("DeepFool", s),
                "ART": lambda s: _art("DeepFool", s, batch_size=64, verbose=False),
            },
        ),
        "FMN, linf": (
            LINF,
            {
                "ours": lambda s: minimal_norms(s.model, s.x, s.y, LinfFMN(steps=100)).points,
                "foolbox": lambda s: _foolbox("LInfFMNAttack", s, None),
            },
        ),
        "FMN, l2": (
            L2,
            {
                "ours": lambda s: _ours("fmn", s, L2),
                "foolbox": lambda s: _foolbox("L2FMNAttack", s, None),
            },
        ),
        "CW, l2, 500 steps": (
            L2,
            {
                "ours": lambda s: _ours("cw-l2", s, L2, steps=500),
                "foolbox": lambda s: _foolbox("L2CarliniWagnerAttack", s, None, steps=500),
                "torchattacks": lambda s: _torchattacks("CW", s, steps=500),
                "ART, 100 line searches": lambda s: _art(
                    "CarliniL2Method", s, max_iter=100, batch_size=64, verbose=False
                ),
            },
        ),
        "Spatial, 15 degrees": (
            EVERYWHERE,
            {
                "ours": _turned,
                "foolbox": lambda s: _foolbox(
                    "SpatialAttack", s, None, max_translation=0, max_rotation=15, num_translations=1
                ),
                "ART": lambda s: _art("SpatialTransformation", s, max_rotation=15, num_rotations=5, verbose=False),
            },
        ),
    }
    return rows


def _turned(scene: Scene) -> Tensor:
    return Spatial(degrees=15, angles=5, shifts=1)(scene.model, scene.x, scene.y)


def _rows_of_the_ball(threat: ThreatModel) -> dict[str, tuple[ThreatModel, Runs]]:
    name, eps, order = NAMES[threat.norm], threat.eps, ORDERS[threat.norm]
    same: dict[str, Any] = {"norm": name, "eps": eps}
    art: dict[str, Any] = {"norm": order, "eps": eps, "batch_size": 64}
    rows: dict[str, Runs] = {
        "PGD": {
            "ours": lambda s: _pgd(s, threat),
            "torchattacks": lambda s: _pgd_by("torchattacks", s, threat),
            "foolbox": lambda s: _pgd_by("foolbox", s, threat),
            "ART": lambda s: _pgd_by("art", s, threat),
        }
    }
    for loss, of_art in (("ce", "cross_entropy"), ("dlr", "difference_logits_ratio")):
        rows[f"APGD-{loss.upper()}"] = {
            "release": lambda s, loss=loss: _release("apgd", s, threat, n_iter=100, loss=loss),
            "ours": lambda s, loss=loss: _ours(f"apgd-{loss}", s, threat),
            "torchattacks, 100 steps": lambda s, loss=loss: _torchattacks("APGD", s, steps=100, loss=loss, **same),
            "torchattacks": lambda s, loss=loss: _torchattacks("APGD", s, loss=loss, **same),
            "ART": lambda s, of_art=of_art: _art(
                "AutoProjectedGradientDescent", s, loss_type=of_art, verbose=False, **art
            ),
        }
    rows["APGD-T"] = {
        "release": lambda s: _release("apgd-t", s, threat, n_iter=100),
        "ours": lambda s: _ours("apgd-t", s, threat),
        "torchattacks, 100 steps": lambda s: _torchattacks("APGDT", s, steps=100, **same),
        "torchattacks": lambda s: _torchattacks("APGDT", s, **same),
    }
    rows["FAB-T"] = {
        "release": lambda s: _release("fab", s, threat, n_iter=100, n_restarts=1, targeted=True),
        "ours": lambda s: _ours("fab-t", s, threat),
        "torchattacks, 100 steps": lambda s: _torchattacks("FAB", s, steps=100, multi_targeted=True, **same),
        "torchattacks": lambda s: _torchattacks("FAB", s, multi_targeted=True, **same),
    }
    rows["Square, 5000 queries"] = {
        "release": lambda s: _release("square", s, threat, n_queries=5000, n_restarts=1, resc_schedule=False),
        "ours": lambda s: _ours("square", s, threat),
        "torchattacks": lambda s: _torchattacks("Square", s, n_queries=5000, **same),
        "ART": lambda s: _art("SquareAttack", s, max_iter=5000, verbose=False, **art),
    }
    rows["AutoAttack"] = {
        "release": lambda s: _release("autoattack", s, threat),
        "ours": lambda s: _ours("autoattack", s, threat),
        "torchattacks": lambda s: _torchattacks("AutoAttack", s, seed=0, **same),
        "ART": lambda s: _art("AutoAttack", s, **art),
    }
    return {f"{attack}, {threat.norm}": (threat, runs) for attack, runs in rows.items()}


RANDOM_ROWS = [
    ("APGD-CE", "torchattacks"),
    ("APGD-CE", "ART"),
    ("APGD-DLR", "torchattacks"),
    ("APGD-DLR", "ART"),
    ("APGD-T", "torchattacks"),
    ("Square, 5000 queries", "torchattacks"),
    ("AutoAttack", "torchattacks"),
]


@BOTH
@pytest.mark.parametrize("attack", ["APGD-CE", "APGD-DLR", "APGD-T", "FAB-T", "Square, 5000 queries", "AutoAttack"])
def test_with_draws_of_our_own_the_authors_release_differs_by_luck_alone(
    scene: Scene, threat: ThreatModel, attack: str
) -> None:
    _, runs = _rows()[f"{attack}, {threat.norm}"]
    assert _is_luck(scene.stands(runs["ours"](scene), threat), scene.stands(runs["release"](scene), threat))


@BOTH
@pytest.mark.parametrize(("attack", "library"), RANDOM_ROWS)
def test_libraries_with_draws_of_their_own_differ_by_luck_alone(
    scene: Scene, threat: ThreatModel, attack: str, library: str
) -> None:
    _, runs = _rows()[f"{attack}, {threat.norm}"]
    assert _is_luck(scene.stands(runs["ours"](scene), threat), scene.stands(runs[library](scene), threat))


def test_square_of_art_agrees_in_linf(scene: Scene) -> None:
    _, runs = _rows()["Square, 5000 queries, linf"]
    assert _is_luck(scene.stands(runs["ours"](scene), LINF), scene.stands(runs["ART"](scene), LINF))


def test_square_of_art_is_weaker_in_l2_where_it_divides_by_the_length_it_should_have(scene: Scene) -> None:
    _, runs = _rows()["Square, 5000 queries, l2"]
    ours, theirs = (scene.stands(runs[library](scene), L2) for library in ("ours", "ART"))
    assert theirs.sum() > ours.sum()
    assert not _is_luck(ours, theirs)


@pytest.mark.parametrize(("proposal", "ours", "theirs"), [(40, 2, 4), (150, 4, 8), (1500, 32, 64), (4500, 128, 512)])
def test_square_of_art_stretches_the_schedule_of_windows_to_its_queries(
    scene: Scene, proposal: int, ours: int, theirs: int
) -> None:
    pytest.importorskip("art")
    from art.attacks.evasion import SquareAttack  # noqa: PLC0415
    from pyautoattack.square import SquareAttack as Authors  # noqa: PLC0415

    attack = SquareAttack(_art_classifier(scene.model), max_iter=5000, verbose=False)
    assert attack._get_percentage_of_elements(proposal) == pytest.approx(0.8 / theirs)
    options = {"n_queries": 5000, "eps": 0.1, "p_init": 0.8}
    assert Authors(scene.model, resc_schedule=False, **options).p_selection(proposal) == pytest.approx(0.8 / ours)
    assert Authors(scene.model, resc_schedule=True, **options).p_selection(proposal) == pytest.approx(0.8 / theirs)


def test_deepfool_distances_agree_and_torchattacks_stops_on_the_boundary(scene: Scene) -> None:
    """Where pixels are clipped the steps get ever shorter: without the authors' extra 1e-4 the margin ends at 0."""
    ours = _ours("deepfool", scene, L2)
    theirs = _torchattacks("DeepFool", scene)
    right = scene.right
    one, other = L2.distance(ours, scene.x)[right], L2.distance(theirs, scene.x)[right]
    torch.testing.assert_close(other, one, rtol=0.01, atol=2e-3)
    logits = scene.model(theirs)
    margin = logits.scatter(1, scene.y[:, None], -torch.inf).amax(dim=1) - logits.gather(1, scene.y[:, None])[:, 0]
    unbroken = right & ~scene.errs(theirs)
    assert unbroken.sum() > 0
    assert (margin[unbroken].abs() < 1e-5).all()
    assert scene.errs(ours).all()


def test_deepfool_of_art_agrees(scene: Scene) -> None:
    theirs = _art("DeepFool", scene, batch_size=64, verbose=False)
    one, other = L2.distance(_ours("deepfool", scene, L2), scene.x), L2.distance(theirs, scene.x)
    torch.testing.assert_close(other[scene.right], one[scene.right], rtol=0.05, atol=5e-3)


def test_fmn_in_linf_agrees_with_foolbox(scene: Scene) -> None:
    ours = LINF.distance(minimal_norms(scene.model, scene.x, scene.y, LinfFMN(steps=100)).points, scene.x)
    theirs = LINF.distance(_foolbox("LInfFMNAttack", scene, None), scene.x)
    ratio = (ours / theirs)[scene.right]
    assert ratio.median() == pytest.approx(1, abs=0.03)
    assert (ratio > 0.9).all()


def test_fmn_of_foolbox_never_projects_in_l2(scene: Scene) -> None:
    """Fast minimum norm looks for the least norm: DeepFool, which does not, finds points nearer by a quarter."""
    fmn = L2.distance(_foolbox("L2FMNAttack", scene, None), scene.x)[scene.right]
    deepfool = L2.distance(_ours("deepfool", scene, L2), scene.x)[scene.right]
    assert (fmn / deepfool).median() > 1.25


def test_cw_distances_agree_with_foolbox(scene: Scene) -> None:
    ours = L2.distance(_ours("cw-l2", scene, L2, steps=500), scene.x)[scene.right]
    theirs = L2.distance(_foolbox("L2CarliniWagnerAttack", scene, None, steps=500), scene.x)[scene.right]
    torch.testing.assert_close(theirs, ours, rtol=0.02, atol=2e-3)


def test_cw_of_torchattacks_moves_no_black_and_no_white_pixel(scene: Scene) -> None:
    moved = _torchattacks("CW", scene, steps=100) != scene.x
    at_the_box = (scene.x == 0) | (scene.x == 1)
    assert at_the_box.double().mean() > 0.5
    assert not moved[at_the_box].any()
    assert moved[~at_the_box].any()
    assert (_ours("cw-l2", scene, L2, steps=100) != scene.x)[at_the_box].any()


def test_cw_of_torchattacks_takes_zero_for_a_logit(scene: Scene) -> None:
    """A constant on all logits changes no prediction; below zero, it hides every other class from the attack."""
    lowered = Scene(Shifted(scene.model, -1000.0), scene.x, scene.y)
    before, after = (_torchattacks("CW", each, steps=100) for each in (scene, lowered))
    assert scene.stands(before, L2).sum() < scene.right.sum()
    assert not torch.allclose(before, after, atol=1e-3)
    ours = [_ours("cw-l2", each, L2, steps=50, searches=3) for each in (scene, lowered)]
    assert torch.equal(scene.stands(ours[0], L2), scene.stands(ours[1], L2))


def test_turned_images_of_foolbox_are_ours(scene: Scene) -> None:
    transformations = pytest.importorskip("foolbox.attacks.spatial_attack_transformations")
    import eagerpy  # noqa: PLC0415

    theirs = transformations.rotate_and_shift(eagerpy.astensor(scene.x), rotation=20.0).raw
    ours = move(scene.x, torch.tensor([20.0, 0, 0]).expand(64, 3))
    torch.testing.assert_close(theirs[:, :, 2:-2, 2:-2], ours[:, :, 2:-2, 2:-2], rtol=0, atol=1e-5)


def test_shifts_of_foolbox_are_no_whole_pixels(scene: Scene) -> None:
    """It divides by half the width on a grid whose corners are aligned: 1 of 8 pixels becomes 7/8."""
    transformations = pytest.importorskip("foolbox.attacks.spatial_attack_transformations")
    import eagerpy  # noqa: PLC0415

    theirs = transformations.rotate_and_shift(eagerpy.astensor(scene.x), translation=(1.0, 0.0)).raw[..., 1:-1]
    whole, here = scene.x[..., 2:], scene.x[..., 1:-1]
    torch.testing.assert_close(theirs, 7 / 8 * whole + 1 / 8 * here, rtol=0, atol=1e-5)
    ours = move(scene.x, torch.tensor([0.0, -1 / 8, 0]).expand(64, 3))[..., 1:-1]
    torch.testing.assert_close(ours, whole, rtol=0, atol=1e-5)


def test_rotations_break_the_same_samples_as_foolboxs(scene: Scene) -> None:
    options = {"max_translation": 0, "max_rotation": 15, "num_translations": 1}
    theirs = scene.stands(_foolbox("SpatialAttack", scene, None, **options), EVERYWHERE)
    ours = scene.stands(_turned(scene), EVERYWHERE)
    assert (ours != theirs).sum() <= 1
    assert 0.2 <= ours.double().mean() <= 0.95


def test_the_spatial_attack_of_art_moves_all_images_alike(scene: Scene) -> None:
    """One place for the batch, that of most errors; and with channels first it takes shifts as shares of channels."""
    pytest.importorskip("art")
    from art.attacks.evasion import SpatialTransformation  # noqa: PLC0415

    attack = SpatialTransformation(
        _art_classifier(scene.model),
        max_translation=25,
        num_translations=3,
        max_rotation=15,
        num_rotations=5,
        verbose=False,
    )
    points = torch.from_numpy(attack.generate(x=scene.x.numpy().copy(), y=scene.y.numpy()))
    assert attack.attack_trans_x == 0
    each_its_own = Spatial(degrees=15, angles=5, shift=0.25, shifts=3)(scene.model, scene.x, scene.y)
    assert scene.stands(points, EVERYWHERE).sum() > scene.stands(each_its_own, EVERYWHERE).sum()


@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
def test_autoattack_of_torchattacks_takes_ten_steps(scene: Scene, version: str) -> None:
    library = pytest.importorskip("torchattacks")
    attack = library.AutoAttack(scene.model, version=version, seed=0)
    members = attack._autoattack.attacks
    assert {each.steps for each in members if hasattr(each, "steps")} == {10}
    assert all(each.rescale_schedule for each in members if hasattr(each, "rescale_schedule"))


def test_autoattack_of_art_has_no_targets_and_no_fab(scene: Scene) -> None:
    pytest.importorskip("art")
    from art.attacks.evasion import AutoAttack  # noqa: PLC0415

    members = AutoAttack(_art_classifier(scene.model), eps=LINF.eps).attacks
    names = [type(each).__name__ for each in members]
    assert names == ["AutoProjectedGradientDescent", "AutoProjectedGradientDescent", "DeepFool", "SquareAttack"]
    assert not any(each.targeted for each in members)
    assert [each.eps_step for each in members[:2]] == [0.1, 0.1]


def _table() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    scene = _digits()
    print("| attack | library | robust | differ | median distance |\n|---|---|---|---|---|")
    for attack, (threat, runs) in _rows().items():
        reference: Tensor | None = None
        for library, run in runs.items():
            try:
                points = run(scene).detach().float()
            except pytest.skip.Exception:
                print(f"| {attack} | {library} | not installed | | |", flush=True)
                continue
            stands = scene.stands(points, threat)
            reference = stands if reference is None else reference
            median = threat.distance(points, scene.x)[scene.right].median()
            print(
                f"| {attack} | {library} | {stands.sum()} | {(stands != reference).sum()} | {median:.3f} |", flush=True
            )


if __name__ == "__main__":
    torch.set_num_threads(1)
    _table()
