"""Budgets, patterns, scores, schedules and sets of another package: named as package.module:factory, nothing else."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pairs
import phases_on_digits as small
from gossamer.errors import ConfigError
from gossamer.methods.registry import build, check_pair
from gossamer.recipe.build import check, has_own_code
from gossamer.recipe.effective import effective
from gossamer.recipe.load import load_recipe
from gossamer.recipe.open import open_run
from gossamer.seeding import Draws
from gossamer.sparsity import Horizon, Masks
from gossamer.sparsity.budgets import Budget, Shapes
from gossamer.sparsity.protocol import BudgetContract
from gossamer.sparsity.targets import Target

HERE = __name__
HORIZON = Horizon(epochs=2, steps_per_epoch=3, image_shape=(1, 8, 8))


@dataclass(frozen=True, kw_only=True)
class Same:
    """A budget: so many weights in every layer."""

    count: int = 100

    def __call__(self, shapes: Shapes, density: float) -> dict[str, int]:
        return dict.fromkeys(shapes, self.count)


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """A pattern: the first outputs of every layer."""

    share: float = 0.5
    flat: bool = False

    def __call__(self, scores: Mapping[str, Tensor], density: float, budget: Budget | None) -> Masks:
        masks = {name: torch.zeros_like(score, dtype=torch.bool) for name, score in scores.items()}
        for mask in masks.values():
            mask[: max(1, int(self.share * len(mask)))] = True
        return Masks({name: mask.flatten() if self.flat else mask for name, mask in masks.items()})


@dataclass(frozen=True, kw_only=True)
class Least:
    """A score: small weights are worth most."""

    sign: float = 1.0

    def __call__(self, layers: Sequence[Target], draws: Draws) -> dict[str, Tensor]:
        return {layer.name: self.sign / (1.0 + layer.weight.detach().abs()) for layer in layers}


@dataclass(frozen=True, kw_only=True)
class Clipped:
    """A constraint set: no weight beyond a bound, and nothing on how many."""

    bound: float = 0.01
    contract: BudgetContract = "reported"

    def __call__(self, weights: Mapping[str, Tensor], density: float) -> dict[str, Tensor]:
        return {name: weight.clamp(-self.bound, self.bound) for name, weight in weights.items()}


def minus() -> Least:
    return Least(sign=-1.0)


def sudden() -> Callable[[float, float, float], float]:
    return lambda progress, start, end: end if progress > 0.5 else start


def kept(name: str, **options: Any) -> list[int]:
    """Return what each layer keeps in the phase of a method that cuts."""
    *_, phase = build(name, density=0.2, **options).phases(small.phase(), "digits-cnn")
    sparsifier, model = phase.sparsifier(), small.network()
    sparsifier.attach(model, Draws(), HORIZON)
    return list(sparsifier.finalize(model).masks.kept_per_layer.values())


def test_a_budget_divides() -> None:
    assert kept("random", budget=f"{HERE}:Same") == [100] * 4
    assert kept("edge-popup", budget={"name": f"{HERE}:Same", "count": 70}) == [70] * 4


def test_a_pattern_shapes_the_masks() -> None:
    quarter, all_of_it = ({"name": f"{HERE}:Outputs", "share": share} for share in (0.25, 1.0))
    *convolutions, last = zip(kept("random", pattern=quarter), kept("random", pattern=all_of_it), strict=True)
    assert all(4 * found == size for found, size in convolutions)
    # Two of ten classes.
    assert 5 * last[0] == last[1]
    with pytest.raises(ConfigError, match=r"method\.pattern: expected masks of"):
        kept("magnitude", pattern={"name": f"{HERE}:Outputs", "flat": True})


def test_a_score_chooses() -> None:
    (_, phase) = build("magnitude", density=0.5, score=f"{HERE}:Least").phases(small.phase(), "digits-cnn")
    sparsifier, model = phase.sparsifier(), small.network()
    before = torch.cat([layer.flatten().abs() for name, layer in model.named_parameters() if layer.dim() > 1])
    sparsifier.attach(model, Draws(), HORIZON)
    masks = torch.cat([mask.flatten() for mask in sparsifier.masks().values()])
    assert before[masks].max() <= before[~masks].min()
    with pytest.raises(ConfigError, match="expected numbers >= 0"):
        kept("magnitude", score=f"{HERE}:minus")


def test_a_schedule_and_a_set() -> None:
    build("gradual", density=0.2, schedule=f"{HERE}:sudden")
    made = build(
        "one-shot-admm", density=0.2, set={"name": f"{HERE}:Clipped", "bound": 0.5}, tightening=f"{HERE}:sudden"
    )
    (phase,) = made.phases(small.phase(), "digits-cnn")
    sparsifier, model = phase.sparsifier(), small.network()
    sparsifier.attach(model, Draws(), HORIZON)
    assert sparsifier.contract == "reported"
    shipped = sparsifier.finalize(model).module.state_dict()
    assert max(float(value.abs().max()) for name, value in shipped.items() if value.dim() > 1) == 0.5
    with pytest.raises(ConfigError, match="without scope and budget"):
        build("one-shot-admm", density=0.2, set=f"{HERE}:Clipped", pattern="2:4")


@pytest.mark.parametrize(
    ("method", "options", "told"),
    [
        ("random", {"budget": f"{HERE}:Nothing"}, "to define Nothing"),
        ("random", {"budget": {"name": f"{HERE}:Same", "number": 3}}, "count"),
        ("random", {"budget": f"{HERE}:HERE"}, r"budget\(shapes, density\)"),
        ("random", {"pattern": "no_such_module_here:Pattern"}, "importable module"),
        ("random", {"budget": {"name": f"{HERE}:Same", "count": 10**6}}, "between 0 and"),
        ("random", {"budget": {"name": f"{HERE}:Same", "count": 2.5}}, "between 0 and"),
        ("one-shot-admm", {"set": f"{HERE}:Same"}, "contract"),
        ("one-shot-admm", {"set": "no-such-set"}, "irregular, funnel, redundant, quantised, or package"),
        ("early-mask", {"score": "magnitude"}, "snip, grasp, synflow, or package"),
        ("gradual", {"schedule": f"{HERE}:HERE"}, r"schedule\(progress, start, end\)"),
    ],
)
def test_what_is_no_such_part_is_refused(method: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        kept(method, **options)


def test_a_run_with_parts_of_another_package_resumes_and_opens(tmp_path: Path) -> None:
    values = pairs.recipe("gradual", "adversarial")
    parts = {"scope": "layer", "budget": {"name": f"{HERE}:Same", "count": 100}, "schedule": f"{HERE}:sudden"}
    values["method"] = {**values["method"], **parts, "density": 400 / 58_656}
    pairs.assert_resumes(lambda: values, tmp_path, break_at=3)
    assert open_run(tmp_path / "whole").recipe.method.options["schedule"] == f"{HERE}:sudden"


class Attacked:
    """A method that needs an attack, and says so."""

    refuses: Mapping[str, str] = {"natural": "it looks at attacked images: choose an objective that has an attack"}


class Wrong:
    """One whose refusals are no reasons."""

    refuses = ("natural",)


def test_a_method_of_another_package_may_refuse_objectives() -> None:
    check_pair(f"{HERE}:Attacked", "trades")
    check_pair(f"{HERE}:Same", "natural")
    with pytest.raises(ConfigError, match="it looks at attacked images"):
        check_pair(f"{HERE}:Attacked", "natural")
    with pytest.raises(ConfigError, match="expected a reason for each objective"):
        check_pair(f"{HERE}:Wrong", "trades")


def test_looking_at_a_recipe_imports_no_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_parts_module.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.chdir(tmp_path)
    values = pairs.recipe("random", "adversarial")
    values["method"]["budget"] = {"name": "my_parts_module:Mine"}
    recipe = load_recipe(values)
    assert has_own_code(recipe)
    assert effective(recipe)["method.budget.name"] == "my_parts_module:Mine"
    assert "my_parts_module" not in sys.modules
    with pytest.raises(AssertionError, match="imported"):
        check(recipe)


def test_a_pattern_such_as_2_of_4_is_no_code_of_anybodys() -> None:
    values = pairs.recipe("random", "adversarial")
    values["method"]["pattern"] = "2:4"
    assert not has_own_code(load_recipe(values))
