"""Budgets that ask the network what a weight costs: in every method that divides, and the same after a break."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import pairs
import phases_on_digits as small
from gossamer.methods.registry import METHODS, build
from gossamer.runs import RunFolder, atomic
from gossamer.seeding import Draws
from gossamer.sparsity import Horizon, Masks, targets, work
from gossamer.training.phases import Phase

HORIZON = Horizon(epochs=2, steps_per_epoch=3, image_shape=(1, 8, 8))
DIVIDING = [name for name, entry in METHODS.items() if "budget" in entry.options]


def by_layer(name: str) -> dict[str, Any]:
    """Return what lets a method divide by layers."""
    return {"scope": "layer"} if "scope" in METHODS[name].options and name != "deep-r" else {}


def first_shipped(name: str, budget: object) -> list[Masks]:
    """Return what each phase of a method would ship at its beginning."""
    phases: list[Phase] = list(
        build(name, density=0.2, budget=budget, **by_layer(name)).phases(small.phase(), "digits-cnn")
    )
    masks: list[Masks] = []
    for phase in phases:
        sparsifier = phase.sparsifier()
        model = small.network()
        sparsifier.attach(model, Draws(), HORIZON)
        masks.append(sparsifier.finalize(model).masks)
    return masks


@pytest.mark.parametrize("name", DIVIDING)
def test_every_method_that_divides_its_weights_can_divide_them_by_least_work(name: str) -> None:
    least, even = first_shipped(name, "least-work"), first_shipped(name, "uniform")
    assert any(one.kept_per_layer != other.kept_per_layer for one, other in zip(least, even, strict=True))


class Uneven:
    """A clock that measures other times whenever it is set to another seed, as a machine does from run to run."""

    def __init__(self) -> None:
        self.draws = random.Random(0)
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 10 ** self.draws.uniform(-9, 9)
        return self.now


def resumed(values: Mapping[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that a run by latency ends in the bits of one never broken, whatever is measured after the break."""
    clock, seeds = Uneven(), iter([0, 0, 1])
    monkeypatch.setattr(work, "time", clock)

    def make() -> Mapping[str, Any]:
        clock.draws = random.Random(next(seeds))
        return values

    # After two steps of the first phase that divides: before it, some train two epochs of three steps.
    pairs.assert_resumes(make, folder, break_at=8)


def recipe(method: str, **options: Any) -> dict[str, Any]:
    made = pairs.recipe(method, "adversarial")
    budget = {"name": "least-work", "by": "latency"}
    return {**made, "method": {**made["method"], **by_layer(method), "budget": budget, **options}}


SHORT = ["hydra", "gradual"]
CASES: dict[str, dict[str, Any]] = {"harp": {"learn": "scores"}, "robust-admm": {}, "pwoa": {}}


@pytest.mark.parametrize("method", SHORT)
def test_what_was_measured_once_divides_after_a_break(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed(recipe(method), tmp_path, monkeypatch)
    kept = atomic.read_json(RunFolder(tmp_path / "broken").measured)["latency"]
    assert list(kept) == [layer.name for layer in targets(small.network())]


@pytest.mark.long
@pytest.mark.parametrize("method", [name for name in DIVIDING if name not in SHORT])
def test_every_method_by_latency_resumes_to_the_bit(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed(recipe(method, **CASES.get(method, {})), tmp_path, monkeypatch)


def test_a_run_measures_once(tmp_path: Path) -> None:
    job = small.job(tmp_path / "run")
    assert job.recall("latency", lambda: {"fc.weight": 0.1}) == {"fc.weight": 0.1}
    assert job.recall("latency", lambda: pytest.fail("measured twice")) == {"fc.weight": 0.1}
    assert job.recall("other", lambda: {"fc.weight": 0.3}) == {"fc.weight": 0.3}
    assert job.recall("latency", dict) == {"fc.weight": 0.1}
