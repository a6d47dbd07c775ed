from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from gossamer.attacks.fgsm import FGSM
from gossamer.attacks.pgd import PGD
from gossamer.attacks.registry import ATTACKS, adjust, build
from gossamer.attacks.starts import GaussianStart
from gossamer.attacks.steps import Absolute, OverSteps
from gossamer.attacks.targets import Ranked
from gossamer.errors import ConfigError
from gossamer.threat import ThreatModel
from gossamer.types import Attack

THREAT = ThreatModel("linf", 8 / 255)


@pytest.mark.parametrize("name", ATTACKS)
def test_every_name_builds_and_describes_itself(name: str) -> None:
    assert isinstance(build(name, THREAT), Attack)
    assert ATTACKS[name].summary


def test_options_are_read_from_texts() -> None:
    built = build("pgd", THREAT, steps=7, step="2/255", start="gaussian(0.01)", target="rank:2", loss="margin")
    expected = PGD(
        threat=THREAT, steps=7, step=Absolute(2 / 255), start=GaussianStart(0.01), target=Ranked(2), loss="margin"
    )
    assert built == expected
    assert build("fgsm", THREAT) == FGSM(threat=THREAT)


def test_the_evaluation_preset_and_an_option_over_it() -> None:
    preset = build("pgd-50-10", THREAT)
    assert preset == PGD(threat=THREAT, steps=50, restarts=10, step=OverSteps(2.5), early_drop=True)
    assert isinstance(preset, PGD)
    assert preset.size == pytest.approx(2.5 * 8 / 255 / 50)
    assert build("pgd-50-10", THREAT, steps=100, early_drop=False) == PGD(
        threat=THREAT, steps=100, restarts=10, step=OverSteps(2.5)
    )


def test_unknown_names_and_options() -> None:
    with pytest.raises(ConfigError, match=r"fgsm, .*pgd"):
        build("pgdd", THREAT)
    with pytest.raises(ConfigError, match=r"attack pgd\.stepz: .*did you mean step\?"):
        build("pgd", THREAT, stepz=3)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"steps": "many"}, r"attack pgd\.steps: expected a valid integer.*got 'many'"),
        ({"steps": True}, r"attack pgd\.steps: expected a number, got True"),
        ({"loss": "cee"}, r"attack pgd\.loss: expected 'ce', .*got 'cee'"),
        ({"early_drop": "perhaps"}, r"attack pgd\.early_drop: expected a valid boolean"),
        ({"start": 5}, "attack start: expected none, random or gaussian"),
        ({"target": [1]}, "attack target: expected none, least-likely or rank"),
        ({"threat": "linf:1"}, r"attack pgd\.threat: expected"),
    ],
)
def test_values_of_another_type_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        build("pgd", THREAT, **options)
    with pytest.raises(ConfigError, match=told.replace("attack pgd", "attack PGD")):
        adjust(PGD(threat=THREAT), **options)


def test_an_attack_of_the_users_own_is_adjusted_in_whatever_it_declares() -> None:
    @dataclass(frozen=True)
    class Own:
        image: torch.Tensor
        later: "NowhereToBeFound"  # type: ignore[name-defined] # noqa: F821
        steps: int = 1

        def __call__(self, model: object, x: torch.Tensor, y: torch.Tensor, *, draws: object = None) -> torch.Tensor:
            return x

    own = Own(torch.zeros(1), None)
    assert adjust(own, steps=3, later="x") == Own(own.image, "x", 3)


def test_a_factory_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_attack_module.py").write_text(
        "def shift(*, threat, share):\n"
        "    return lambda model, x, y, *, draws=None: (x + share * threat.eps).clamp(max=1)\n"
        "def nothing(*, threat):\n"
        "    return None\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    attack = build("my_attack_module:shift", THREAT, share=0.5)
    x = torch.full((1, 1, 1, 1), 0.5)
    assert attack(lambda images: images, x, torch.tensor([0])).item() == pytest.approx(0.5 + 4 / 255)
    for name in ("nothing", "number"):
        with pytest.raises(ConfigError, match="a factory that returns attack"):
            build(f"my_attack_module:{name}", THREAT)
