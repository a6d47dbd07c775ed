"""A phase is found again where, and only where, the same numbers are computed."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gossamer.data import from_tensors
from gossamer.errors import ConfigError
from gossamer.methods.registry import METHODS
from gossamer.recipe.build import build_data, build_phases
from gossamer.recipe.description import describe
from gossamer.recipe.identity import phase_keys
from gossamer.recipe.load import load_recipe, validate
from gossamer.recipe.semantics import SEMANTICS, semantics, shared
from gossamer.training.phases import PRETRAIN

MINIMAL: dict[str, Any] = {
    "data": {"name": "digits"},
    "model": {"name": "digits-cnn"},
    "threat": "linf:0.15",
    "objective": {"name": "adversarial"},
    "method": {"name": "rewinding", "density": 0.1, "rewind_epoch": 2},
    "training": {"epochs": 10},
}


def keys(*settings: str, values: Mapping[str, Any] = MINIMAL) -> list[str]:
    recipe = load_recipe(values, settings)
    parts = build_data(recipe)
    return phase_keys(recipe, build_phases(recipe, parts), parts)


@dataclass(frozen=True)
class Held:
    number: float
    more: object = None


class Plain:
    def __init__(self, number: float) -> None:
        self.number = number

    def call(self) -> float:
        return self.number


def scaled(x: float, by: float = 2.0) -> float:
    return x * by


def closing(over: float) -> Any:
    def inner() -> float:
        return over

    return inner


def test_keys_do_not_depend_on_when_they_are_made():
    assert keys() == keys()
    assert len(set(keys())) == 2


@pytest.mark.parametrize(
    "setting",
    [
        "name=another",
        "claim=other words",
        "evaluation=[{attack: fgsm}]",
        "machine.checkpoint_seconds=1",
        "machine.threads=1",
        "training.batch_size=128",  # the default, written out
    ],
)
def test_what_changes_no_number_changes_no_key(setting: str):
    assert keys(setting) == keys()


@pytest.mark.parametrize(
    "setting",
    [
        "seed=1",
        "data.train_n=100",
        "data.augmentation={flip: 0.5}",
        "model={name: digits-cnn, last_batch_norm: true}",
        "threat=linf:0.1",
        "objective={name: trades}",
        "attack.steps=3",
        "attack.batch_norm=train",
        "training.epochs=11",
        "training.batch_size=64",
        "training.optimizer.lr=0.01",
        "training.schedule={name: one-cycle}",
        "training.average={kind: ema, decay: 0.99}",
        "machine.precision=bf16",
    ],
)
def test_what_changes_the_numbers_changes_every_key(setting: str):
    changed = keys(setting)
    assert not set(changed) & set(keys())


@pytest.mark.parametrize(
    "setting", ["method.density=0.2", "method.choose=random", "method.rewind_epoch=3", "method.schedule=continued"]
)
def test_sparse_trainings_share_the_dense_one(setting: str):
    dense, sparse = keys()
    shared, other = keys(setting)
    assert shared == dense
    assert other != sparse


def test_a_later_phase_is_another_one_where_an_earlier_one_is():
    dense, first, second = keys("method.rounds=2", "method.density=0.01")
    again, one, two = keys("method.rounds=2", "method.density=0.01", "method.draw_lr=0.5")
    assert len({dense, first, second, again, one, two}) == 6


def test_pseudo_labels_are_data(monkeypatch: pytest.MonkeyPatch):
    recipe = validate(MINIMAL)
    parts = build_data(recipe)
    phases = build_phases(recipe, parts)
    plain = phase_keys(recipe, phases, parts)
    labelled = phase_keys(recipe, phases, parts, {"unlabelled": "a", "pseudo_labels": "b"})
    assert not set(plain) & set(labelled)
    assert not set(labelled) & set(phase_keys(recipe, phases, parts, {"unlabelled": "a", "pseudo_labels": "c"}))


@pytest.mark.parametrize(
    ("path", "changes"),
    [("gossamer.training.loop", True), ("gossamer.sparsity", True), ("gossamer.methods.bcs", False)],
)
def test_raising_a_version_leaves_no_stale_phase(path: str, changes: bool, monkeypatch: pytest.MonkeyPatch):
    before = keys()
    monkeypatch.setattr("gossamer.recipe.semantics.SEMANTICS", {**SEMANTICS, path: 2})
    after = keys()
    assert (before[1] != after[1]) == changes


@pytest.mark.parametrize("method", ["dense", "random", "magnitude"])
def test_raising_a_method_that_its_phases_do_not_name_makes_new_phases(method: str, monkeypatch: pytest.MonkeyPatch):
    """Else what is stored would be done for a sweep, and of another version for whoever reads it."""
    density = {} if method == "dense" else {"density": 0.5}
    values = {**MINIMAL, "method": {"name": method, **density}}
    before = keys(values=values)
    module = METHODS[method].make.__module__
    monkeypatch.setattr("gossamer.recipe.semantics.SEMANTICS", {**SEMANTICS, module: 2})
    assert keys(values=values)[-1] != before[-1]


# What a recipe says to have a part in it, where that is no method of its own.
WITH = {
    "gossamer.objectives.several": {
        "objective": {"name": "several", "threats": ["linf:0.1", "l2:0.3"]},
        "threat": "linf:0.1",
    },
    "gossamer.objectives.penalties.Parseval": {"training": {"epochs": 4, "penalties": [{"name": "parseval"}]}},
    "gossamer.objectives.trades": {"objective": {"name": "trades"}, "threat": "linf:0.1"},
    "gossamer.sparsity.budgets.Funnel": {"method": {"name": "random", "density": 0.5, "budget": "funnel"}},
    "gossamer.sparsity.thresholding.SoftThreshold": {"method": {"name": "lasso", "proximal": True}},
}


@pytest.mark.parametrize("path", SEMANTICS)
def test_every_version_that_was_raised_makes_new_phases(path: str, monkeypatch: pytest.MonkeyPatch):
    name = path.rpartition(".")[2].replace("_", "-")
    values = {**MINIMAL, **WITH.get(path, {"method": {"name": name, "density": 0.5}})}
    recipe = validate(values)
    phases = build_phases(recipe, build_data(recipe))
    now = keys(values=values)
    monkeypatch.setattr("gossamer.recipe.semantics.SEMANTICS", {k: v for k, v in SEMANTICS.items() if k != path})
    before = keys(values=values)
    assert now[-1] != before[-1]
    if phases[0].name == PRETRAIN and path not in shared():
        # Dense pretraining is what it was.
        assert now[0] == before[0]


def test_the_nearest_version_counts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gossamer.recipe.semantics.SEMANTICS", {"a.b": 3, "a.b.c": 4})
    found = [semantics(path) for path in ("a", "a.b", "a.b.d", "a.b.c.e", "a.bc")]
    assert found == [1, 3, 3, 4, 1]


def same(one: object, other: object) -> bool:
    return describe(one) == describe(other)


def test_values_are_told_apart_by_what_they_hold():
    assert same(Held(1.0), Held(1))
    assert not same(Held(1.0), Held(1.5))
    assert not same(Held(1.0, more=[1, 2]), Held(1.0, more=[2, 1]))
    assert same(Held(1.0, more={"b": 1, "a": 2}), Held(1.0, more={"a": 2, "b": 1}))
    assert same(Plain(1.0), Plain(1.0))
    assert not same(Plain(1.0), Plain(2.0))
    assert same(Plain(1.0).call, Plain(1.0).call)
    assert not same(Plain(1.0).call, Plain(2.0).call)
    assert same(closing(1.0), closing(1.0))
    assert not same(closing(1.0), closing(2.0))
    assert same(functools.partial(scaled, by=3.0), functools.partial(scaled, by=3.0))
    assert not same(functools.partial(scaled, by=3.0), functools.partial(scaled, by=4.0))
    assert not same(scaled, closing)
    assert not same(lambda x: x + 1, lambda x: x + 2)
    assert not same(lambda x: [y + 1 for y in x], lambda x: [y + 2 for y in x])


def test_a_network_counts_with_its_defaults_and_one_of_your_own_with_its_weights():
    assert keys("model={name: digits-cnn, last_batch_norm: false}") == keys()
    own = {**MINIMAL, "model": {"name": "test_identity:small", "wide": 4}}
    assert keys(values=own) == keys(values=own)
    assert not set(keys(values=own)) & set(keys(values={**own, "seed": 1}))
    assert not set(keys(values=own)) & set(keys("model.wide=5", values=own))


def small(wide: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, wide), nn.ReLU(), nn.Linear(wide, 10))


def test_tensors_and_data_count_by_their_bytes():
    assert same(torch.ones(2, 3), torch.ones(2, 3))
    assert not same(torch.ones(2, 3), torch.ones(3, 2))
    assert not same(torch.zeros(2), torch.zeros(2, dtype=torch.int32))
    images = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)

    def data(images: Tensor) -> object:
        return from_tensors(images, torch.tensor([0, 1, 0, 1]))

    assert same(data(images), data(images.clone()))
    assert not same(data(images), data(images + 1))


def test_a_value_that_cannot_be_written_down_is_refused():
    with pytest.raises(ConfigError, match="a value that says what it computes"):
        describe(torch.Generator())


def test_keys_are_short_enough_for_file_names():
    assert all(len(key) == 24 and key.isalnum() for key in keys())
