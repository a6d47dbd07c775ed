"""MAD's phases: what each trains with, the cut that is stored, and the objective of fine-tuning."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import pairs
import phases_on_digits as small
from gossamer.attacks.pgd import PGD
from gossamer.attacks.starts import GaussianStart
from gossamer.errors import ConfigError
from gossamer.methods.mad import MAD
from gossamer.methods.registry import check_pair
from gossamer.objectives.mart import Mart
from gossamer.objectives.natural import Natural
from gossamer.training.monitors import EarlyStop


def test_phases_are_clean_robust_cut_and_mart() -> None:
    base = small.phase(epochs=60)
    pretrain, adversarial, cut, finetune = MAD(density=0.1).phases(base, "vgg16")
    assert [phase.name for phase in (pretrain, adversarial, cut, finetune)] == [
        "pretrain",
        "adversarial",
        "cut",
        "finetune",
    ]
    assert [phase.epochs for phase in (pretrain, adversarial, cut, finetune)] == [200, 60, 0, 60]
    assert (pretrain.objective, pretrain.attack) == (Natural(), None)
    assert (adversarial.objective, adversarial.attack) == (base.objective, base.attack)
    assert finetune.objective == Mart(beta=0.5)
    assert isinstance(finetune.attack, PGD)
    assert isinstance(base.attack, PGD)
    assert (finetune.attack.start, finetune.attack.steps) == (GaussianStart(0.001), base.attack.steps)
    kept = MAD(density=0.1, finetune="recipe").phases(base, "vgg16")[-1]
    assert (kept.objective, kept.attack) == (base.objective, base.attack)


def test_clean_pretraining_is_not_judged_by_its_robustness() -> None:
    base = replace(small.phase(epochs=60), select="held_out/pgd", monitors=lambda: [EarlyStop("held_out/pgd", 3)])
    pretrain, adversarial, *_ = MAD(density=0.1).phases(base, "vgg16")
    assert (pretrain.select, list(pretrain.monitors())) == (None, [])
    assert adversarial.select == "held_out/pgd"


def test_the_cut_is_stored_and_held_to_the_end(tmp_path: Path) -> None:
    values = pairs.recipe("mad", "adversarial")
    values["method"] = {**values["method"], "mask_steps": 3, "pretrain_epochs": 1}
    pairs.run_pair(values, tmp_path / "run")
    cut, end = (load_file(tmp_path / "run" / "states" / f"{name}.end.safetensors") for name in ("cut", "finetune"))
    kernels = ["conv1.weight", "conv2.weight", "conv3.weight"]
    assert sum(int((cut[name] == 0).sum()) for name in kernels) == int(0.8 * 56_096)
    head = torch.cat([cut["fc.weight"], cut["fc.bias"][:, None]], dim=1)
    assert (head == 0).sum(dim=1).tolist() == [int(0.8 * 257)] * 10
    for name in (*kernels, "fc.weight", "fc.bias"):
        assert torch.equal(cut[name] == 0, end[name] == 0)


@pytest.mark.parametrize("removes", ["most", "random"])
def test_the_controls_run_and_resume_to_the_bit(removes: str, tmp_path: Path) -> None:
    values = pairs.recipe("mad", "adversarial")
    options = {"removes": removes, "mask_steps": 2, "scoring_batches": 1, "pretrain_epochs": 1, "finetune_epochs": 1}
    values["method"] = {**values["method"], **options}
    pairs.assert_resumes(lambda: values, tmp_path, break_at=10)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"density": 0.0}, "method.density"),
        ({"mart_beta": -1.0}, "method.mart_beta"),
        ({"pretrain_epochs": 0}, "method.pretrain_epochs"),
        ({"finetune_epochs": 0}, "method.finetune_epochs"),
        ({"finetune_lr": 0.0}, "method.finetune_lr"),
        ({"scoring_batches": 0}, "method.scoring_batches"),
        ({"mask_steps": 0}, "method.mask_steps"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        MAD(**{"density": 0.1, **options})


def test_without_an_attack_there_is_nothing_to_score_on() -> None:
    with pytest.raises(ConfigError, match="attack: expected a training attack"):
        MAD(density=0.1).phases(small.phase(attack=None), "digits-cnn")
    with pytest.raises(ConfigError, match="MAD scores weights on attacked images"):
        check_pair("mad", "natural")
