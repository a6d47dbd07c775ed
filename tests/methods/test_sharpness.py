"""Sharpness of scores: the published length, scores put back to the bit, warm-up, and nothing at gamma 0."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import phases_on_digits as small
from gossamer.errors import ConfigError
from gossamer.methods.harp import HARP
from gossamer.methods.registry import build
from gossamer.methods.sharpness import score_tensors, with_sharpness
from gossamer.seeding import Draws
from gossamer.sparsity import Horizon, targets
from gossamer.sparsity.harp import RateSearch
from gossamer.sparsity.score_mask import ScoreMask
from gossamer.training.run import run_phases
from gossamer.training.weight_perturbation import WeightPerturbation

HORIZON = Horizon(epochs=4, steps_per_epoch=2, image_shape=(1, 8, 8))


def searched(sparsifier: Any) -> nn.Module:
    model = small.network()
    sparsifier.attach(model, Draws(), HORIZON)
    return model


@pytest.mark.parametrize("make", [lambda: RateSearch(density=0.2), lambda: ScoreMask(density=0.2)])
def test_scores_move_by_gamma_of_their_norm_masks_with_them_and_both_come_back(make: Any) -> None:
    sparsifier = make()
    model = searched(sparsifier)
    perturbation = with_sharpness(small.phase(), 0.3, 0).perturbation
    assert perturbation is not None
    scores = score_tensors(model)
    assert [id(each) for each in scores] == [id(layer.parameter) for layer in targets(model)]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    masks = dict(sparsifier.masks())
    images, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 10

    def loss() -> torch.Tensor:
        return nn.functional.cross_entropy(model(images), labels)

    with perturbation.around(model, sparsifier, 0, loss):
        for layer in targets(model):
            old = before[f"{layer.name.removesuffix('.weight')}.parametrizations.weight.original"]
            moved = layer.parameter.detach() - old
            assert float(moved.norm()) == pytest.approx(0.3 * float(old.norm()), rel=1e-4)
        changed = [name for name, mask in sparsifier.masks().items() if not torch.equal(mask, masks[name])]
        assert changed
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(mask, masks[name]) for name, mask in sparsifier.masks().items())


def test_it_acts_in_the_search_alone_after_a_quarter_of_it_or_as_asked() -> None:
    base = small.phase(epochs=20, perturbation=WeightPerturbation(gamma=0.005))
    pretrain, prune, finetune = HARP(density=0.1, prune_epochs=8, score_sharpness=0.02).phases(base, "digits-cnn")
    assert prune.perturbation == WeightPerturbation(gamma=0.02, start=2, which=score_tensors)
    assert pretrain.perturbation is finetune.perturbation is base.perturbation
    assert with_sharpness(base, 0.02, 5).perturbation == WeightPerturbation(gamma=0.02, start=5, which=score_tensors)


def test_gamma_zero_is_the_plain_search() -> None:
    base = small.phase()
    assert with_sharpness(base, 0.0) == base
    assert with_sharpness(replace(base, perturbation=WeightPerturbation(gamma=0.005)), 0.0) == base
    assert HARP(density=0.1).phases(base, "digits-cnn")[1].perturbation is None


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"score_sharpness": 1.0}, "score_sharpness"),
        ({"score_sharpness": 0.1, "sharpness_warmup": -1}, "sharpness_warmup"),
        ({"sharpness_warmup": 5}, "sharpness_warmup: expected nothing without"),
    ],
)
@pytest.mark.parametrize("name", ["hydra", "harp", "edge-popup", "scratch-ticket", "robust-subnet"])
def test_impossible_options_are_refused(name: str, options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=rf"method\.{field}"):
        build(name, density=0.1, **options)


SEARCHES: dict[str, dict[str, Any]] = {
    "edge-popup": {},
    "robust-subnet": {"stages": 2},
    "scratch-ticket": {"switch": [0.2]},
}


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_of_a_frozen_network_takes_it(name: str) -> None:
    base = small.phase(epochs=8)
    found = build(name, density=0.1, score_sharpness=0.02, **SEARCHES[name]).phases(base, "digits-cnn")
    expected = WeightPerturbation(gamma=0.02, start=2, which=score_tensors)
    searches = [phase for phase in found if phase.epochs]
    assert searches
    assert all(phase.perturbation == expected for phase in searches)


def test_where_scores_are_not_perturbed_a_search_keeps_the_perturbation_of_its_recipe() -> None:
    awp = WeightPerturbation(gamma=0.005)
    base = small.phase(perturbation=awp)
    assert build("edge-popup", density=0.1).phases(base, "digits-cnn")[0].perturbation == awp
    search, finetune = build("scratch-ticket", density=0.1, finetune="inherit", score_sharpness=0.02).phases(base, "")
    assert search.perturbation == WeightPerturbation(gamma=0.02, start=0, which=score_tensors)
    assert finetune.perturbation == awp


@pytest.mark.parametrize("name", SEARCHES)
def test_scores_and_weights_are_not_perturbed_in_one_phase(name: str) -> None:
    base = small.phase(perturbation=WeightPerturbation(gamma=0.005))
    with pytest.raises(ConfigError, match=r"method\.score_sharpness: expected 0 beside training\.weight_perturbation"):
        build(name, density=0.1, score_sharpness=0.02, **SEARCHES[name]).phases(base, "digits-cnn")


def test_a_subnetwork_found_at_perturbed_scores_is_another_one(tmp_path: Path) -> None:
    def found(name: str, **options: Any) -> torch.Tensor:
        job = small.job(tmp_path / name)
        phases = build("edge-popup", density=0.2, **options).phases(small.phase(epochs=1), "digits-cnn")
        run_phases(phases, small.network, job)
        (final,) = job.run.states.glob("final.safetensors")
        return load_file(final)["conv2.weight"]

    options = {"score_sharpness": 0.3, "sharpness_warmup": 0}
    plain, sharp, again = found("plain"), found("sharp", **options), found("again", **options)
    assert torch.equal(sharp, again)
    assert not torch.equal(plain, sharp)
    assert int((plain != 0).sum()) == int((sharp != 0).sum())
