import importlib
import random
import subprocess
import sys
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gossamer.attacks.foreign import ARTAttack, FoolboxAttack
from gossamer.attacks.minimal import minimal_norms
from gossamer.attacks.registry import build
from gossamer.attacks.targets import Ranked
from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel

L2, LINF, L1 = ThreatModel("l2", 0.5), ThreatModel("linf", 0.1), ThreatModel("l1", 2.0)


class Plane(nn.Module):
    """Two classes, divided by w . (x - 0.5) = 0."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(12, generator=torch.Generator().manual_seed(3)))

    def forward(self, x: Tensor) -> Tensor:
        height = (x.flatten(1) - 0.5) @ self.w
        return torch.stack([-height, height], dim=1)


@pytest.fixture(scope="module", autouse=True)
def _library() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pytest.importorskip("foolbox")


@pytest.fixture
def plane() -> Plane:
    return Plane()


@pytest.fixture
def grey() -> Tensor:
    return 0.5 + 0.05 * torch.randn(8, 3, 2, 2, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(
    ("name", "threat", "dual"),
    [("fmn", L2, 2), ("fmn", LINF, 1), ("fmn", L1, torch.inf), ("deepfool", L2, 2), ("deepfool", LINF, 1)],
)
def test_least_norms_of_a_plane(plane: Plane, grey: Tensor, name: str, threat: ThreatModel, dual: float) -> None:
    y = plane(grey).argmax(dim=1)
    # FMN's steps must not be far longer than the way; by default they fit images of thousands of pixels.
    options = {"steps": 300, "max_stepsize": 0.1} if name == "fmn" else {"overshoot": 0.005}
    points, distances, found = minimal_norms(plane, grey, y, FoolboxAttack(attack=name, threat=threat, options=options))
    exact = ((grey.flatten(1) - 0.5) @ plane.w).abs() / torch.linalg.vector_norm(plane.w, ord=dual)
    assert found.all()
    assert (plane(points).argmax(dim=1) != y).all()
    assert (distances >= exact * (1 - 1e-4)).all()
    assert (distances <= exact * 1.02 + 2e-4).all()


def test_the_box_does_not_stop_fmn(plane: Plane) -> None:
    # Half of the pixels are black or white: there the box allows only one direction.
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(12, 3, 2, 2, generator=generator)
    x = torch.where(torch.rand(x.shape, generator=generator) < 0.5, x.round(), x)
    y = plane(x).argmax(dim=1)
    options = {"steps": 300, "max_stepsize": 0.1}
    fmn = minimal_norms(plane, x, y, FoolboxAttack(attack="fmn", threat=L2, options=options))
    deepfool = minimal_norms(plane, x, y, FoolboxAttack(attack="deepfool", threat=L2))
    assert deepfool.found.all()
    assert fmn.found.all()
    assert (fmn.distances <= 1.01 * deepfool.distances).all()


def test_what_fmn_does_not_find_is_infinitely_far(grey: Tensor) -> None:
    def constant(x: Tensor) -> Tensor:
        flat = 0 * x.flatten(1).sum(dim=1)
        return torch.stack([flat + 1, flat], dim=1)

    y = torch.zeros(len(grey), dtype=torch.int64)
    result = minimal_norms(constant, grey, y, FoolboxAttack(attack="fmn", threat=L2, options={"steps": 5}))
    assert not result.found.any()
    assert torch.isinf(result.distances).all()
    assert torch.equal(result.points, grey)


def test_l0_counts_entries(plane: Plane, grey: Tensor) -> None:
    y = plane(grey).argmax(dim=1)
    attack = FoolboxAttack(attack="L0FMNAttack", options={"steps": 100})
    points, distances, found = minimal_norms(plane, grey, y, attack)
    assert attack.norm == "l0"
    assert found.all()
    assert torch.equal(distances, (points != grey).flatten(1).sum(dim=1).double())
    assert (distances >= 1).all()


@pytest.mark.parametrize("name", ["LinfPGD", "fmn", "deepfool"])
def test_the_model_the_generators_and_the_box_are_left_alone(
    convnet: nn.Module, images: Tensor, labels: Tensor, name: str
) -> None:
    convnet.train()
    before = {key: value.clone() for key, value in convnet.state_dict().items()}
    attack = FoolboxAttack(attack=name, threat=LINF, options={"steps": 4})
    convnet.eval()
    states = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())
    first = attack(convnet, images, labels, draws=Draws(1))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]
    assert torch.equal(first, attack(convnet, images, labels, draws=Draws(1)))
    assert not LINF.violates(first, images).any()
    assert not first.requires_grad
    assert all(torch.equal(value, before[key]) for key, value in convnet.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in convnet.parameters())


def test_an_instance_a_callable_model_and_the_seed(convnet: nn.Module, images: Tensor, labels: Tensor) -> None:
    from foolbox.attacks import LinfPGD  # noqa: PLC0415

    instance = FoolboxAttack(attack=LinfPGD(steps=4), threat=LINF)
    named = replace(instance, attack="LinfPGD", options={"steps": 4})
    bare = lambda x: convnet(x)  # noqa: E731, PLW0108
    with torch.no_grad():
        found = instance(bare, images, labels, draws=Draws(1))
    assert torch.equal(found, named(convnet, images, labels, draws=Draws(1)))
    assert not torch.equal(found, named(convnet, images, labels, draws=Draws(2)))
    broken, before = ((convnet(at).argmax(dim=1) != labels).sum() for at in (found, images))
    assert broken > before


def test_alone_no_image_notices_the_others(convnet: nn.Module, images: Tensor, labels: Tensor) -> None:
    attack = FoolboxAttack(attack="LinfPGD", threat=LINF, options={"steps": 1, "rel_stepsize": 1e-6}, alone=True)
    whole = attack(convnet, images, labels, draws=Draws(1))
    keyed = Draws(1).per_sample(torch.arange(16))
    part = attack(convnet, images[5:7], labels[5:7], draws=keyed.select(torch.tensor([5, 6])))
    assert torch.allclose(part, whole[5:7], atol=1e-6)
    assert attack(convnet, images[:0], labels[:0]).shape == images[:0].shape


def test_a_target_is_reached(convnet: nn.Module, images: Tensor) -> None:
    logits = convnet(images).detach()
    y = logits.argmax(dim=1)
    attack = FoolboxAttack(attack="LinfPGD", threat=ThreatModel("linf", 0.4), target=Ranked(2))
    found = convnet(attack(convnet, images, y)).argmax(dim=1)
    assert (found == Ranked(2)(logits, y)).float().mean() > 0.8


def test_errors_say_what_to_do(plane: Plane, grey: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    y = plane(grey).argmax(dim=1)
    for attack, message in [
        (FoolboxAttack(attack="LinfPGDD", threat=LINF), "a class of foolbox.attacks"),
        (FoolboxAttack(attack="deepfool", threat=L1), "a threat in linf or l2"),
        (FoolboxAttack(attack="fmn"), "a threat, which says"),
        (FoolboxAttack(attack="LinfPGD"), "a threat, which says"),
    ]:
        with pytest.raises(ConfigError, match=message):
            attack(plane, grey, y)

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r'pip install "gossamer\[second-opinion\]"'):
        FoolboxAttack(attack="fmn", threat=L2)(plane, grey, y)
    with pytest.raises(ConfigError, match=r'pip install "gossamer\[art\]"'):
        ARTAttack(attack="DeepFool", threat=L2)(plane, grey, y)


def test_names_are_built_without_the_library() -> None:
    assert build("fmn", L2) == FoolboxAttack(attack="fmn", threat=L2)
    code = (
        "import sys, warnings; warnings.simplefilter('error');"
        "from gossamer.attacks.registry import build; from gossamer.threat import ThreatModel as T;"
        "fmn = build('deepfool', T('l1', 1.0)); print('foolbox' in sys.modules);"
        "from gossamer.attacks.foreign import _foolbox; print(_foolbox().__name__)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["False", "foolbox"]


@pytest.mark.parametrize("name", ["ProjectedGradientDescentPyTorch", "FastGradientMethod", "DeepFool"])
def test_attacks_of_the_toolbox(convnet: nn.Module, images: Tensor, labels: Tensor, name: str) -> None:
    pytest.importorskip("art")
    before = {key: value.clone() for key, value in convnet.state_dict().items()}
    options = {"eps_step": 0.02, "max_iter": 5, "num_random_init": 1} if name.startswith("Projected") else {}
    attack = ARTAttack(attack=name, threat=LINF, options=options)
    found = attack(convnet, images, labels, draws=Draws(1))
    assert torch.equal(found, attack(convnet, images, labels, draws=Draws(1)))
    assert not LINF.violates(found, images).any()
    broken, wrong = ((convnet(at).argmax(dim=1) != labels).sum() for at in (found, images))
    assert broken > wrong
    assert all(torch.equal(value, before[key]) for key, value in convnet.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in convnet.parameters())
