"""PwoA's phases: clean images, a teacher that is the pretrained network, rates that fall in each cycle, and budgets."""

from pathlib import Path
from typing import Any

import pytest
import torch

import pairs
import phases_on_digits as small
from gossamer.errors import ConfigError
from gossamer.methods.pwoa import PwoA
from gossamer.objectives.distillation import Distillation
from gossamer.sparsity import targets
from gossamer.training.loop import begin


def test_both_later_phases_are_clean_and_taught_by_the_first() -> None:
    base = small.phase(epochs=100)
    pretrain, admm, finetune = PwoA(density=0.25).phases(base, "wideresnet28")
    assert [phase.name for phase in (pretrain, admm, finetune)] == ["pretrain", "admm", "finetune"]
    assert [phase.epochs for phase in (pretrain, admm, finetune)] == [100, 50, 100]
    assert (pretrain.objective, pretrain.attack) == (base.objective, base.attack)
    assert admm.attack is finetune.attack is None
    assert admm.objective == Distillation()
    assert finetune.objective == Distillation(lambda_x=2e-5, lambda_y=1e-4)
    assert [phase.optimizer.lr for phase in (admm, finetune)] == pytest.approx([0.01, 0.005])
    assert [admm.schedule(epoch * 390, 50 * 390, 390) for epoch in range(4)] == pytest.approx([1.0, 0.1, 0.01, 1.0])
    assert 0.005 * finetune.schedule(39_000, 39_000, 390) == pytest.approx(4e-8)
    mixed = PwoA(density=0.25, mix_ratio=0.2).phases(base, "wideresnet28")
    assert mixed[1].attack is mixed[2].attack is base.attack


def test_the_teacher_is_the_pretrained_network_frozen(tmp_path: Path) -> None:
    _, admm, _ = PwoA(density=0.2).phases(small.phase(), "digits-cnn")
    job = small.job(tmp_path / "run")
    trained = small.network()
    with torch.no_grad():
        trained.fc.bias.fill_(3.0)  # type: ignore[union-attr,operator]
    training = begin(admm, small.network(), small.scene(admm, job, {"pretrain.end": trained.state_dict()}))
    assert isinstance(training.objective, Distillation)
    teacher = training.objective.teacher
    assert teacher is not None
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    for module in (teacher, training.model):
        assert all(torch.equal(module.state_dict()[name], value) for name, value in trained.state_dict().items())


@pytest.mark.parametrize("linear", ["dense", "pruned"])
def test_linear_layers_stay_dense_or_not_within_the_same_budget_and_runs_resume(linear: str, tmp_path: Path) -> None:
    values = pairs.recipe("pwoa", "adversarial")
    values["method"] = {**values["method"], "linear": linear, "update_every": 1, "admm_epochs": 2, "mix_ratio": 0.5}
    seen = pairs.assert_resumes(lambda: values, tmp_path, break_at=9)
    assert seen.phases == ["pretrain", "admm", "finetune"]
    assert seen.finalised is not None
    kept = seen.finalised.masks.kept_per_layer
    assert kept["fc.weight"] == (2_560 if linear == "dense" else 512)
    assert 11_731 - 4 <= sum(kept.values()) <= 11_731
    assert set(kept) == {layer.name for layer in targets(small.network())}


def test_whole_filters_go_and_linear_layers_stay(tmp_path: Path) -> None:
    values = pairs.recipe("pwoa", "adversarial")
    values["method"] = {**values["method"], "density": 0.5, "pattern": "filter", "admm_epochs": 1}
    seen = pairs.run_pair(values, tmp_path)
    assert seen.contract == "at-most"
    assert seen.finalised is not None
    masks = seen.finalised.masks
    filters = {name: mask.flatten(1) for name, mask in masks.items() if name != "fc.weight"}
    assert all(torch.equal(mask.any(dim=1), mask.all(dim=1)) for mask in filters.values())
    assert all(0 < int(mask.any(dim=1).sum()) < len(mask) for mask in filters.values())
    assert bool(masks["fc.weight"].all())
    assert 0.45 * masks.total < masks.kept <= 0.5 * masks.total


def test_batches_cannot_be_attacked_without_an_attack() -> None:
    with pytest.raises(ConfigError, match=r"method\.mix_ratio: expected 0 where the objective has no training attack"):
        PwoA(density=0.1, mix_ratio=0.5).phases(small.phase(attack=None), "digits-cnn")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"density": 0.0}, "method.density"),
        ({"pattern": "rows"}, "method.pattern"),
        ({"rho": 0.0}, "method.rho"),
        ({"update_every": 0}, "method.interval"),
        ({"mix_ratio": 1.5}, "method.mix_ratio"),
        ({"admm_epochs": 0}, "method.admm_epochs"),
        ({"finetune_epochs": 0}, "method.finetune_epochs"),
        ({"admm_lr": 0.0}, "method.admm_lr"),
        ({"finetune_lr": 0.0}, "method.finetune_lr"),
        ({"temperature": 0.0}, "method.temperature"),
        ({"lambda_x": -1.0}, "method.lambda_x"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        PwoA(**{"density": 0.1, **options})
