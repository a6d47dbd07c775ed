"""Methods that move connections while they train: their defaults, what they refuse, and that runs resume to the bit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import pairs
import phases_on_digits as small
from gossamer.errors import ConfigError
from gossamer.methods.registry import METHODS, build
from gossamer.recipe.build import build_data, build_model, build_phases
from gossamer.recipe.load import load_recipe
from gossamer.seeding import Draws
from gossamer.sparsity import ConnectivitySampling, Horizon
from gossamer.sparsity.budgets import budget
from gossamer.sparsity.deep_rewiring import DeepRewiring, SoftDeepRewiring
from gossamer.sparsity.dynamic_mask import DynamicMask
from gossamer.sparsity.flying_bird import FlyingBird, FlyingBirdPlus
from gossamer.sparsity.gradual import GradualPruning
from gossamer.sparsity.protocol import Sparsifier
from gossamer.training.monitors import Probe
from gossamer.training.rehearsal import rehearse

HORIZON = Horizon(epochs=4, steps_per_epoch=50, image_shape=(1, 8, 8))


def sparsifier_of(name: str, model: torch.nn.Module, base: Any = None, **options: Any) -> Sparsifier:
    (phase,) = build(name, density=0.1, **options).phases(base or small.phase(), "digits-cnn")
    sparsifier = phase.sparsifier()
    sparsifier.attach(model, Draws(), HORIZON)
    return sparsifier


@pytest.mark.parametrize(
    ("name", "kind", "division"),
    [
        ("set", DynamicMask, "erk"),
        ("rigl", DynamicMask, "erk"),
        ("flying-bird", FlyingBird, "igq"),
        ("deep-r", DeepRewiring, "uniform"),
    ],
)
def test_a_network_starts_with_the_budget_of_its_method(name: str, kind: type, division: str) -> None:
    model = small.network()
    sparsifier = sparsifier_of(name, model)
    assert type(sparsifier) is kind
    shapes = {name: tuple(mask.shape) for name, mask in sparsifier.masks().items()}
    assert sparsifier.masks().kept_per_layer == budget(division)(shapes, 0.1)


def test_gradual_pruning_starts_dense_and_soft_deep_r_near_its_density() -> None:
    gradual = sparsifier_of("gradual", small.network())
    assert isinstance(gradual, GradualPruning)
    assert gradual.masks().density == 1.0
    soft = sparsifier_of("soft-deep-r", small.network())
    assert isinstance(soft, SoftDeepRewiring)
    # Half of what starts is negative, so dormant.
    assert soft.masks().density == pytest.approx(0.05, rel=0.1)


def moves(name: str, **options: Any) -> list[int]:
    sparsifier = sparsifier_of(name, small.network(), **options)
    assert isinstance(sparsifier, DynamicMask | GradualPruning)
    return [done for done in range(1, 201) if sparsifier.due(done)]


def test_when_masks_move() -> None:
    assert moves("set") == [50, 100]
    assert moves("rigl") == [100]
    assert moves("rigl", every=40) == [40, 80, 120]
    # 900 of 70,200 steps are 3 of 200, 1,200 are 3.4.
    assert moves("flying-bird") == [*range(3, 198, 3), 198]
    assert moves("gradual") == [120, 150]
    assert moves("gradual", every=50) == [70, 120, 150]


def test_soft_deep_r_takes_its_temperature_from_the_base_rate() -> None:
    base = small.phase(optimizer=METHODS["soft-deep-r"].make(density=0.1).default_optimizer("adversarial"))
    floor = sparsifier_of("soft-deep-r", small.network(), base).floor("fc.weight")  # type: ignore[attr-defined]
    # T = 0.05 * 1e-10 / 2, b = 1e-5 / T = 4e6, -(0.9 / 0.1) / b.
    assert floor == pytest.approx(-9 / 4e6)


@pytest.mark.parametrize(("name", "rate"), [("deep-r", 0.5), ("soft-deep-r", 0.05)])
def test_deep_r_steps_plainly(name: str, rate: float) -> None:
    spec = build(name, density=0.1).default_optimizer("trades")
    assert (spec.kind, spec.lr, spec.momentum, spec.weight_decay) == ("sgd", rate, 0.0, 0.0)


def test_the_l1_variant_of_bcs_has_no_decay() -> None:
    spec = build("bcs", density=0.1, penalty="l1").default_optimizer("trades")
    assert (spec.kind, spec.weight_decay) == ("decay-first-sgd", 0.0)
    sampling = sparsifier_of("bcs", small.network(), penalty="l1", l1=1e-3)
    assert isinstance(sampling, ConnectivitySampling)
    assert sampling._l1 == 1e-3
    assert sparsifier_of("bcs", small.network(), l1=1e-3)._l1 == 0.0  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"method\.l1"):
        build("bcs", density=0.1, penalty="l1", l1=-1.0)


def probe(**attacks: Any) -> Probe:
    return Probe("held_out", small.digits(20), attacks)


def test_flying_bird_plus_wants_its_metric_measured_and_its_images_attacked() -> None:
    phase = small.phase()
    method = build("flying-bird", density=0.1, plus=True)
    with pytest.raises(ConfigError, match=r"method\.validation: .*none does.*got held_out/pgd"):
        method.phases(phase, "digits-cnn")
    measured = small.phase(probes=(probe(pgd=phase.attack),))
    (made,) = method.phases(measured, "digits-cnn")
    assert isinstance(made.sparsifier(), FlyingBirdPlus)
    assert [list(each.attacks) for each in made.probes] == [["pgd", "pgd/loss"]]
    by_error = build("flying-bird", density=0.1, plus=True, watched="error").phases(measured, "digits-cnn")[0]
    assert [list(each.attacks) for each in by_error.probes] == [["pgd"]]
    renamed = build("flying-bird", density=0.1, plus=True, validation="held_out/strong")
    with pytest.raises(ConfigError, match=r"\(held_out/pgd\), got held_out/strong"):
        renamed.phases(measured, "digits-cnn")
    natural = small.phase(probes=(probe(pgd=phase.attack),), attack=None)
    with pytest.raises(ConfigError, match=r"method\.plus"):
        method.phases(natural, "digits-cnn")


@pytest.mark.parametrize(
    ("name", "options", "field"),
    [
        ("set", {"every": 0}, "every"),
        ("rigl", {"until": 2.0}, "until"),
        ("rigl", {"budget": "even"}, "budget"),
        ("flying-bird", {"death_rate": -0.5}, "death_rate"),
        ("flying-bird", {"plus": True, "window": 0}, "window"),
        ("flying-bird", {"growth": "backwards"}, "growth"),
        ("gradual", {"schedule": "quadratic"}, "schedule"),
        ("deep-r", {"scope": "layer"}, "scope"),
        ("soft-deep-r", {"sigma": 0.0}, "sigma"),
    ],
)
def test_impossible_options_are_refused_before_anything_starts(name: str, options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=rf"method\.{field}"):
        build(name, density=0.1, **options)


def plus_recipe() -> dict[str, Any]:
    values = pairs.recipe("flying-bird", "adversarial")
    values["method"] = {"name": "flying-bird", "density": 0.2, "plus": True, "every": 1, "adapt_from": 0.25}
    values["data"] = {**values["data"], "train_n": 40, "split": {"held_out": 20}}
    values["training"] = {
        "epochs": 4,
        "batch_size": 20,
        "probes": [{"attacks": [{"name": "pgd", "steps": 2}], "every": 1}],
    }
    return values


def test_flying_bird_plus_trains_by_what_is_held_out_and_resumes_to_the_bit(tmp_path: Path) -> None:
    seen = pairs.assert_resumes(plus_recipe, tmp_path, break_at=5)
    assert seen.contract == "reported"
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert all(line["held_out/pgd/loss"] > 0.0 for line in lines)


@pytest.mark.parametrize(
    "method",
    [
        {"name": "deep-r", "scope": "local", "l1": 1e-3},
        {"name": "gradual", "scope": "layer", "budget": "erk", "every": 1},
        {"name": "bcs", "penalty": "l1"},
        {"name": "flying-bird", "growth": "gradient", "every": 1},
    ],
)
def test_variants_train_resume_and_ship(method: dict[str, Any], tmp_path: Path) -> None:
    values = pairs.recipe(method["name"], "adversarial")
    values["method"] = {"density": 0.2, **method}
    pairs.assert_resumes(lambda: values, tmp_path, break_at=4)


@pytest.mark.parametrize("name", ["set", "rigl", "flying-bird", "gradual", "deep-r", "soft-deep-r"])
def test_a_smoke_recipe_is_one_of_its_method_and_can_begin(name: str) -> None:
    recipe = load_recipe(f"{name}/digits-90")
    assert (recipe.method.name, recipe.method.options["density"]) == (name, 0.1)
    parts = build_data(recipe)
    rehearse(build_phases(recipe, parts), lambda: build_model(recipe, parts.train), parts.train)
