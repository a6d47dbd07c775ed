"""One method with one objective on a few digits: trained whole, trained with a break in it, and looked at."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gossamer.methods.registry import METHODS
from gossamer.recipe.open import OpenRun, open_run
from gossamer.recipe.train import train
from gossamer.sparsity import Finalised, targets
from gossamer.sparsity.protocol import Kind
from gossamer.training import loop, run
from gossamer.training.checkpointing import Training
from gossamer.training.job import Job

DENSITY = 0.2

# What a method needs beyond its density to end within a few steps, or at all.
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "rigl": {"every": 2},
    "gradual": {"every": 1},
    "rewinding": {"rewind_epoch": 1},
}
# What a method ships where it is not the dense network with zeros, under the dense network's names.
KINDS: Mapping[str, Kind] = {
    "atmc": "restructured",
    "channels": "restructured",
    "pni": "stochastic",
    "rsr": "stochastic",
}
# Sections of the recipe that a method or objective needs.
SECTIONS: Mapping[str, Mapping[str, Any]] = {}


@dataclass
class Seen:
    """What was caught while a pair trained."""

    steps: int = 0
    logits: Tensor | None = None
    finalised: Finalised | None = None
    contract: str = ""
    phases: list[str] = field(default_factory=list[str])


class BrokenOffError(Exception):
    """The kill in the middle of a run."""


def recipe(method: str, objective: str) -> dict[str, Any]:
    """Return a recipe of a few steps of the digits network."""
    density = {"density": DENSITY} if "density" in METHODS[method].options else {}
    base: dict[str, Any] = {
        "name": f"{method}-{objective}",
        "data": {"name": "digits", "train_n": 60, "augmentation": {"shift": 0.1}},
        "model": {"name": "digits-cnn"},
        "threat": "linf:0.15",
        "objective": {"name": objective},
        "method": {"name": method, **density, **OPTIONS.get(method, {})},
        "training": {"epochs": 2, "batch_size": 20},
        "machine": {"device": "cpu", "threads": 1, "checkpoint_seconds": 0},
        "evaluation": [],
    }
    if objective not in ("natural", "gaussian", "free-at"):
        base["attack"] = {"steps": 2}
    for name in (method, objective):
        for section, values in SECTIONS.get(name, {}).items():
            base[section] = {**base.get(section, {}), **values}
    return base


def run_pair(values: Mapping[str, Any], out: Path, *, break_at: int | None = None) -> Seen:
    """Train a recipe in this process; break_at: raise `BrokenOffError` before that step, counted from 0."""
    seen = Seen()
    images = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def stepping(*args: Any, **kwargs: Any) -> None:
        if seen.steps == break_at:
            raise BrokenOffError
        seen.steps += 1
        real_step(*args, **kwargs)

    def ending(phase: Any, training: Training, job: Job) -> None:
        seen.phases.append(phase.name)
        # An average ships in the place of the network that trains.
        seen.logits = None if training.average is not None else eval_logits(training.model, images)
        seen.contract = training.sparsifier.contract
        seen.finalised = training.sparsifier.finalize(training.model)
        real_end(phase, training, job)

    real_step, real_end = loop.train_step, run._store_end
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", stepping)
        patch.setattr(run, "_store_end", ending)
        try:
            train(dict(values), out=out)
        except BrokenOffError:
            return seen
    opened = open_run(out)
    assert_what_ships(opened, seen, images)
    return seen


def eval_logits(model: nn.Module, images: Tensor) -> Tensor:
    """Return eval-mode logits under draws that are equal at every call."""
    training = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return model.eval()(images)
    finally:
        for module, mode in training.items():
            module.training = mode


def assert_what_ships(opened: OpenRun, seen: Seen, images: Tensor) -> None:
    """Assert that the stored network is the trained one, of the declared kind, within the declared budget."""
    final, shipped = seen.finalised, opened.model()
    assert final is not None
    assert seen.logits is not None or opened.recipe.training.average is not None
    if seen.logits is not None:
        # A small logit is a difference of large ones, and as uncertain as they are.
        rounding = 1e-6 * max(10.0, float(seen.logits.abs().max()))
        torch.testing.assert_close(eval_logits(shipped, images), seen.logits, rtol=1e-4, atol=rounding)
    dense = {layer.name: layer.size for layer in targets(opened_dense(opened))}
    total = sum(dense.values())
    assert final.dense_weights == total == opened.dense_weights()
    with torch.no_grad():
        twin = opened.twin()
        assert torch.equal(twin(images), twin(images)), "the noise-free twin draws noise"
    assert final.kind == KINDS.get(opened.recipe.method.name, "same-keys")
    if final.kind == "same-keys":
        kept = sum(int((layer.weight != 0).sum()) for layer in targets(shipped))
        assert kept == final.masks.kept
        opened_dense(opened).load_state_dict(shipped.state_dict())
    asked = opened.recipe.method.options.get("density")
    if asked is not None:
        assert_contract(seen.contract, final, asked, total, layers=len(dense))


def opened_dense(opened: OpenRun) -> nn.Module:
    """Return the dense network of a run, untrained."""
    from gossamer.recipe.build import build_model  # noqa: PLC0415

    return build_model(opened.recipe, opened.parts.test)


def assert_contract(contract: str, final: Finalised, density: float, total: int, *, layers: int) -> None:
    """Assert what a budget contract promises; rounding may cost a weight a layer."""
    kept, budget = final.masks.kept, density * total
    if contract == "exact":
        assert budget - layers - 1 <= kept <= budget + layers + 1
    elif contract == "at-most":
        assert kept <= budget + layers + 1
    else:
        assert contract == "reported"
    assert 0 < kept <= total


def assert_resumes(make: Callable[[], Mapping[str, Any]], folder: Path, *, break_at: int) -> Seen:
    """Assert that a run broken at a step and resumed ends in the bits of one never broken; returns the latter's."""
    whole = run_pair(make(), folder / "whole")
    # A run that breaks before its first step has nothing to go on from.
    assert whole.steps > 1
    broken = run_pair(make(), folder / "broken", break_at=1 + break_at % (whole.steps - 1))
    assert broken.steps > 0
    resumed = run_pair(make(), folder / "broken")
    assert broken.steps + resumed.steps == whole.steps
    states = sorted(path.name for path in (folder / "whole" / "states").glob("*.safetensors"))
    assert states == sorted(path.name for path in (folder / "broken" / "states").glob("*.safetensors"))
    for name in states:
        expected, got = (load_file(folder / run / "states" / name) for run in ("whole", "broken"))
        assert expected.keys() == got.keys()
        assert [key for key in expected if expected[key].numpy().tobytes() != got[key].numpy().tobytes()] == [], name
    return whole
