"""HARP's phases: published proportions, masks that do not move while fine-tuning, and what a recipe asked for."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import pairs
import phases_on_digits as small
from gossamer.errors import ConfigError
from gossamer.methods.harp import HARP
from gossamer.recipe.open import open_run
from gossamer.sparsity import targets
from gossamer.sparsity.budgets import budget
from gossamer.sparsity.harp import RateSearch
from gossamer.training.averages import AverageSpec
from gossamer.training.interruption import Watch
from gossamer.training.loop import begin, finalised, train_phase


def test_phases_have_the_published_proportions_and_rates() -> None:
    base = small.phase(epochs=100, average=AverageSpec(), select="held_out/pgd")
    pretrain, prune, finetune = HARP(density=0.01).phases(base, "resnet18")
    assert [phase.name for phase in (pretrain, prune, finetune)] == ["pretrain", "prune", "finetune"]
    assert [phase.epochs for phase in (pretrain, prune, finetune)] == [100, 20, 100]
    assert [phase.optimizer.lr for phase in (pretrain, prune, finetune)] == pytest.approx([0.1, 0.1, 0.01])
    assert (prune.average, prune.select) == (None, None)
    assert (finetune.average, finetune.select) == (base.average, base.select)
    spec = HARP(density=0.01).default_optimizer("adversarial")
    assert (spec.kind, spec.lr, spec.momentum, spec.weight_decay) == ("sgd", 0.1, 0.9, 5e-4)


def test_masks_are_the_searchs_to_the_bit_through_fine_tuning(tmp_path: Path) -> None:
    base = small.phase(epochs=1)
    _, prune, finetune = HARP(density=0.2, prune_epochs=1, finetune_epochs=2).phases(base, "digits-cnn")
    job = small.job(tmp_path / "run")
    states: dict[str, Any] = {"pretrain.end": small.network().state_dict()}
    for phase in (prune, finetune):
        training = begin(phase, small.network(), small.scene(phase, job, states))
        with Watch() as watch:
            train_phase(phase, training, job, watch)
        states[f"{phase.name}.end"] = finalised(training, job).module.state_dict()
    zeros = [
        {layer.name: states[f"{name}.end"][layer.name] == 0 for layer in targets(small.network())}
        for name in ("prune", "finetune")
    ]
    assert all(torch.equal(zeros[0][name], zeros[1][name]) for name in zeros[0])
    initial = small.network().state_dict()
    for name, zero in zeros[0].items():
        kept = states["prune.end"][name][~zero]
        assert torch.equal(kept, initial[name][~zero])
        assert not torch.equal(states["finetune.end"][name][~zero], kept)


def test_a_run_logs_the_rate_of_every_layer_and_keeps_to_its_budget(tmp_path: Path) -> None:
    pairs.run_pair(pairs.recipe("harp", "adversarial"), tmp_path / "run")
    lines = [line for line in small_metrics(tmp_path / "run") if line["phase"] == "prune"]
    assert {name for name in lines[0] if "rate/" in name} == {
        f"sparsifier/rate/{layer.name}" for layer in targets(small.network())
    }
    kept = sum(int((layer.weight != 0).sum()) for layer in targets(open_run(tmp_path / "run").model()))
    assert 0.2 * 58_656 - 5 <= kept <= 0.2 * 58_656


def small_metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    "options", [{"learn": "scores", "score_sharpness": 0.1, "sharpness_warmup": 0}, {"learn": "rates"}]
)
def test_the_ablations_run_and_resume_to_the_bit(options: dict[str, Any], tmp_path: Path) -> None:
    values = pairs.recipe("harp", "adversarial")
    values["method"] = {**values["method"], **options}
    pairs.assert_resumes(lambda: values, tmp_path, break_at=8)


def test_options_reach_the_search() -> None:
    search = HARP(density=0.05, floor=0.2, gamma=0.3, initial_density=0.5, budget="erk", learn="rates")._search()
    assert isinstance(search, RateSearch)
    assert (search.density, search._floor, search._gamma, search._initial) == (0.05, 0.2 * 0.05, 0.3, 0.5)
    assert (search._budget, search._learn) == (budget("erk"), "rates")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"density": 1.5}, "method.density: .* write 0.015 for 1.5 %"),
        ({"floor": 0.0}, "method.floor"),
        ({"prune_epochs": 0}, "method.prune_epochs"),
        ({"finetune_epochs": 0}, "method.finetune_epochs"),
        ({"prune_lr": 0.0}, "method.prune_lr"),
        ({"finetune_lr": -1.0}, "method.finetune_lr"),
        ({"learn": "rates", "score_sharpness": 0.1}, "method.score_sharpness"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        HARP(**{"density": 0.1, **options})
