"""Robust ADMM, one-shot ADMM and ATMC: their phases as published, what they hold to, what their runs report."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pairs
import phases_on_digits as small
from gossamer.attacks.fgsm import FGSM
from gossamer.attacks.pgd import PGD
from gossamer.errors import ConfigError
from gossamer.methods.one_shot_admm import OneShotADMM, Until, WhileFalling, tighten
from gossamer.methods.registry import build
from gossamer.methods.robust_admm import DenseLinear, Sawtooth
from gossamer.objectives.several import Several
from gossamer.recipe.open import open_run
from gossamer.recipe.train import evaluate_spec, train
from gossamer.runs import atomic, metrics
from gossamer.seeding import Draws
from gossamer.sparsity import HeldMask, Horizon, targets
from gossamer.sparsity.admm import ADMM
from gossamer.sparsity.budgets import Uniform
from gossamer.sparsity.factor_layers import FactorLayer
from gossamer.sparsity.factorised import Factorised
from gossamer.sparsity.projected import Projected
from gossamer.sparsity.tightening import TightenedADMM
from gossamer.threat import ThreatModel
from gossamer.training.phases import Phase
from gossamer.training.schedules import Constant, Steps

HORIZON = Horizon(epochs=4, steps_per_epoch=3, image_shape=(1, 8, 8))


def phases(name: str, *, epochs: int = 200, **options: Any) -> Sequence[Phase]:
    method = build(name, **{"density": 0.1, **options})
    base = small.phase(epochs=epochs, optimizer=method.default_optimizer("adversarial"))
    return method.phases(base, "resnet18")


def attached(phase: Phase, model: nn.Module | None = None) -> Any:
    sparsifier = phase.sparsifier()
    sparsifier.attach(small.network() if model is None else model, Draws(), HORIZON)
    return sparsifier


def test_robust_admm_has_the_published_phases() -> None:
    pretrain, admm, retrain = phases("robust-admm")
    assert [phase.name for phase in (pretrain, admm, retrain)] == ["pretrain", "admm", "retrain"]
    assert [phase.epochs for phase in (pretrain, admm, retrain)] == [200, 200, 200]
    assert [phase.optimizer.lr for phase in (pretrain, admm, retrain)] == pytest.approx([0.1, 0.01, 0.01])
    assert pretrain.optimizer.weight_decay == 1e-4
    assert admm.schedule == Sawtooth(period=20)
    # Tenths at epochs 80 and 150.
    assert [retrain.schedule(epoch * 391, 200 * 391, 391) for epoch in (79, 80, 149, 150)] == pytest.approx(
        [1, 0.1, 0.1, 0.01]
    )
    assert isinstance(admm.sparsifier(), ADMM)
    assert admm.sparsifier().splitting.rho == 1e-3  # type: ignore[attr-defined]
    assert isinstance(retrain.sparsifier(), HeldMask)


def test_the_rate_of_admm_starts_anew_in_each_period_and_drops_in_thirds_of_it() -> None:
    # Offsets below 20 / 3 have the base rate, below 40 / 3 a tenth, the others a hundredth.
    rates = [Sawtooth(period=20)(epoch * 5, 200 * 5, 5) for epoch in (0, 6, 7, 13, 14, 19, 20, 40)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 1, 1])


def test_linear_layers_stay_dense_within_the_density_of_the_whole() -> None:
    shapes = {"conv": (8, 10, 3, 3), "deep": (10, 28, 1, 1), "fc": (10, 20)}
    # 1,200 weights; 600 at density 0.5, of them 200 in the linear layer, so that 0.4 of each convolution is left.
    assert DenseLinear(then=Uniform())(shapes, 0.5) == {"conv": 288, "deep": 112, "fc": 200}
    with pytest.raises(ConfigError, match="room for 200 weights of linear layers, which stay dense"):
        DenseLinear(then=Uniform())(shapes, 0.1)
    assert DenseLinear(then=Uniform())({"fc": (10, 20)}, 1.0) == {"fc": 200}
    with pytest.raises(ConfigError, match="pruned in a network of linear layers alone"):
        DenseLinear(then=Uniform())({"fc": (10, 20)}, 0.5)


@pytest.mark.parametrize("name", ["robust-admm", "pwoa"])
def test_the_draw_ends_with_its_last_epoch_and_the_best_is_chosen_of_what_follows(name: str) -> None:
    base = small.phase(
        attack=PGD(threat=ThreatModel("linf", 0.15)), epochs=20, select="held_out/pgd", monitors=lambda: [1]
    )
    _, draw, last = build(name, density=0.5, linear="pruned").phases(base, "digits-cnn")
    assert (draw.select, list(draw.monitors())) == (None, [])
    assert (last.select, list(last.monitors())) == ("held_out/pgd", [1])


@pytest.mark.parametrize(
    "pattern", ["irregular", "column", "filter", {"name": "block", "height": 4, "width": 4}, "2:4"]
)
def test_robust_admm_projects_onto_every_pattern(pattern: Any) -> None:
    _, admm, _ = phases("robust-admm", pattern=pattern, density=0.25)
    sparsifier = attached(admm)
    kept = sparsifier.masks().kept_per_layer
    assert kept["fc.weight"] == (1_280 if pattern == "2:4" else 2_560)
    assert 0 < sum(kept.values()) <= int(0.25 * 58_656)
    assert sparsifier.contract == ("exact" if pattern == "irregular" else "at-most")
    if pattern == "filter":
        conv = sparsifier.masks()["conv3.weight"].flatten(1)
        assert (conv.all(1) | ~conv.any(1)).all()


def test_atmc_has_the_published_phases() -> None:
    made = phases("atmc", bits=1)
    assert [phase.name for phase in made] == ["pretrain", "project", "factorise", "quantise"]
    assert [phase.epochs for phase in made] == [200, 200, 200, 150]
    assert [phase.optimizer.lr for phase in made] == pytest.approx([0.05, 0.01, 0.005, 0.005])
    assert made[0].optimizer.weight_decay == 1e-4
    assert made[1].schedule == Steps(milestones=(0.15, 0.3, 0.45, 0.6))
    assert made[2].schedule == Steps(milestones=(0.3, 0.4, 0.6))
    assert [type(phase.sparsifier()) for phase in made[1:]] == [Projected, Factorised, Factorised]
    assert [phase.name for phase in phases("atmc")] == ["pretrain", "project", "factorise"]
    adaptive = attached(phases("atmc", scope="layer", budget={"name": "adaptive", "p": 0.1})[1])
    assert list(adaptive.masks().kept_per_layer.values()) != list(attached(made[1]).masks().kept_per_layer.values())


def test_one_shot_admm_tightens_the_attack_as_published() -> None:
    (phase,) = phases("one-shot-admm", epochs=9)
    assert phase.optimizer.lr == 0.05
    assert phase.adapt is tighten
    sparsifier, seen = attached(phase), []
    for epoch in range(9):
        attack = tighten(phase.attack, sparsifier)
        assert isinstance(attack, PGD)
        seen.append((attack.threat.eps, attack.steps))
        sparsifier.after_epoch(epoch, {"adversarial_loss": 1.0})
    radii = [0.05, 0.05, 0.05, 0.1, 0.1, 0.1, 0.15, 0.15, 0.15]
    assert [eps for eps, _ in seen] == pytest.approx(radii)
    assert [steps for _, steps in seen] == [7, 14, 21] * 3
    assert sparsifier.masks().kept == 5_865


@pytest.mark.parametrize(("options", "steps"), [({}, 1), ({"steps": [3]}, 3)])
def test_an_attack_of_one_step_stays_such_unless_more_are_asked_for(options: dict[str, Any], steps: int) -> None:
    attack = PGD(threat=ThreatModel("linf", 0.15), steps=1)
    (phase,) = OneShotADMM(density=0.1, **options).phases(small.phase(attack=attack), "digits-cnn")
    tightened = tighten(attack, attached(phase))
    assert isinstance(tightened, PGD)
    assert (tightened.steps, tightened.threat.eps) == (steps, pytest.approx(0.05))


def test_a_budget_that_names_layers_is_approached_from_dense() -> None:
    name, size = next((layer.name, layer.size) for layer in targets(small.network()))
    budget = {"name": "explicit", "densities": {name: 0.5}}
    (phase,) = phases("one-shot-admm", epochs=4, scope="layer", budget=budget)
    model = small.network()
    sparsifier = attached(phase, model)
    assert sparsifier.masks().kept_per_layer[name] == size
    sparsifier.after_epoch(0, {"adversarial_loss": 1.0})
    assert size // 2 <= sparsifier.masks().kept_per_layer[name] < size
    assert sparsifier.finalize(model).masks.kept_per_layer[name] == size // 2


@pytest.mark.parametrize(
    ("name", "options"), [("irregular", {}), ("funnel", {}), ("redundant", {"phi": 0.5}), ("quantised", {"bits": 2})]
)
def test_one_shot_admm_ships_a_member_of_its_set(name: str, options: dict[str, Any]) -> None:
    (phase,) = phases("one-shot-admm", set=name, start_density=0.5, **options)
    model = small.network()
    sparsifier = attached(phase, model)
    shipped = sparsifier.finalize(model)
    assert shipped.masks.kept <= 5_865
    densities = list(shipped.masks.density_per_layer.values())
    if name == "funnel":
        assert all(before > after for before, after in itertools.pairwise(densities))
    if name == "quantised":
        assert all(layer.weight.unique().numel() <= 5 for layer in targets(shipped.module))
    if name in ("irregular", "quantised"):
        assert shipped.masks.kept == 5_865


def test_the_attack_keeps_what_it_has_no_field_for_unless_it_was_asked() -> None:
    attack = FGSM(threat=ThreatModel("linf", 0.3))
    (phase,) = OneShotADMM(density=0.1).phases(small.phase(attack=attack), "digits-cnn")
    tightened = tighten(attack, attached(phase))
    assert isinstance(tightened, FGSM)
    assert tightened.threat.eps == pytest.approx(0.1)
    (natural,) = OneShotADMM(density=0.1).phases(small.phase(attack=None), "digits-cnn")
    assert natural.adapt is None
    with pytest.raises(ConfigError, match=r"method\.steps: expected a training attack with steps, got FGSM"):
        OneShotADMM(density=0.1, steps=[3]).phases(small.phase(attack=attack), "digits-cnn")
    with pytest.raises(
        ConfigError, match=r"method\.eps: expected a training attack with a threat in one norm, got no attack"
    ):
        OneShotADMM(density=0.1, eps=[1.0]).phases(small.phase(attack=None), "digits-cnn")


def test_it_goes_on_past_the_schedule_only_while_the_adversarial_loss_falls() -> None:
    monitor, actions = WhileFalling(3, 0.1, 0.2), []
    for epoch, loss in enumerate([1.0, 2.0, 1.5, 1.2, 1.15]):
        restored = WhileFalling(3, 0.1, 0.2)
        restored.load_state_dict(json.loads(json.dumps(monitor.state_dict())))
        monitor = restored
        actions.append(monitor(epoch, {"adversarial_loss": loss, "loss": 0.0}).action)
    # Two rises in the schedule do not matter; the last fall is by less than a tenth.
    assert actions == ["go", "go", "go", "go", "stop"]


def test_it_goes_on_past_the_schedule_until_a_plan_that_waited_has_come_to_its_density() -> None:
    monitor = WhileFalling(2, 0.1, 0.2)
    actions = [
        monitor(epoch, {"adversarial_loss": 1.0, "sparsifier/density": density}).action
        for epoch, density in enumerate([0.5, 0.3, 0.3, 0.2])
    ]
    assert actions == ["go", "go", "go", "stop"]


def test_one_shot_admm_starts_as_dense_as_its_pattern_admits() -> None:
    (phase,) = phases("one-shot-admm", pattern="2:4")
    sparsifier = phase.sparsifier()
    assert isinstance(sparsifier, TightenedADMM)
    assert sparsifier.present_density == 0.5
    (explicit,) = phases("one-shot-admm", start_density=1.0)
    assert explicit.sparsifier().present_density == phases("one-shot-admm")[0].sparsifier().present_density == 1.0


def test_the_schedule_of_the_rate_ends_where_it_was_meant_to() -> None:
    (phase,) = phases("one-shot-admm", epochs=10, extra_epochs=5)
    assert phase.epochs == 15
    assert phase.schedule == Until(epochs=10, then=Steps())
    factors = [phase.schedule(epoch * 4, 60, 4) for epoch in (0, 5, 8, 9, 14)]
    assert factors == pytest.approx([1, 0.1, 0.01, 0.01, 0.01])
    assert phases("one-shot-admm", epochs=10)[0].schedule == Steps()
    assert Until(epochs=1, then=Constant())(100, 100, 4) == 1.0


def shortened(name: str, **options: Any) -> dict[str, Any]:
    values = pairs.recipe(name, "weighted")
    return {**values, "method": {**values["method"], **options}}


def test_one_shot_admm_records_every_epoch_and_stops_past_its_schedule(tmp_path: Path) -> None:
    values = shortened("one-shot-admm", steps=[1, 2], extra_epochs=3, least_fall=0.9)
    opened = train(values, out=tmp_path / "run")
    lines = list(metrics.read(opened.folder))
    # No loss falls by nine tenths in an epoch, so that no epoch is added.
    assert len(lines) == 2
    told = [{name: line[f"sparsifier/{name}"] for name in ("eps", "steps", "density")} for line in lines]
    assert told[0] == {"eps": pytest.approx(0.05), "steps": 1, "density": 1.0}
    assert told[1] == {"eps": pytest.approx(0.1), "steps": 1, "density": 0.2}
    for line in lines:
        for loss in ("adversarial_loss", "natural_loss"):
            assert line[f"sparsifier/{loss}"] == line[loss] > 0
    kept = sum(int((layer.weight != 0).sum()) for layer in targets(opened.model()))
    assert kept == int(0.2 * 58_656)


def test_a_quantised_atmc_resumes_to_the_bit_and_is_reported_against_its_dense_parent(tmp_path: Path) -> None:
    values = shortened("atmc", density=0.9, bits=1, interval=2, factorise_lr=5.0)
    values["evaluation"] = [{"attack": "fgsm", "n": 10}]
    values["training"] = {"epochs": 1, "batch_size": 20}
    whole = train(values, out=tmp_path / "whole")
    _broken_and_resumed(values, tmp_path / "broken", break_at=11)
    for state in ("factorise.end", "final"):
        one, other = (
            atomic.read_safetensors(open_run(tmp_path / run).folder.state(state)) for run in ("whole", "broken")
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    model = whole.model()
    assert any(isinstance(module, FactorLayer) for module in model.modules())
    stored = sum(int(layer.weight.count_nonzero()) for layer in targets(model))
    assert all(layer.weight[layer.weight != 0].unique().numel() <= 2 for layer in targets(model))
    assert 0 < stored <= int(0.9 * 58_656)
    measured = evaluate_spec(whole, model, whole.recipe.evaluation[0])
    assert (measured.weights, measured.nonzero, measured.density) == (58_656, stored, stored / 58_656)
    network = json.loads(whole.folder.result("network").read_text())
    assert (network["totals"]["weights"], network["totals"]["nonzero"]) == (58_656, stored)
    assert network["totals"]["multiply_adds"] == 496_128
    assert sum(layer["weights"] for layer in network["layers"]) > 58_656


def _broken_and_resumed(values: dict[str, Any], out: Path, *, break_at: int) -> None:
    from gossamer.training import loop  # noqa: PLC0415

    steps, real = 0, loop.train_step

    def stepping(*args: Any, **kwargs: Any) -> None:
        nonlocal steps
        if steps == break_at:
            raise pairs.BrokenOffError
        steps += 1
        real(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", stepping)
        with pytest.raises(pairs.BrokenOffError):
            train(dict(values), out=out)
    train(dict(values), out=out)


@pytest.mark.parametrize(
    ("name", "options", "field"),
    [
        ("robust-admm", {"interval": 0}, r"method\.interval: expected at least 1, got 0"),
        ("robust-admm", {"pattern": "rows"}, r"method\.pattern"),
        ("robust-admm", {"rho": 0.0}, r"method\.rho: expected a finite number above 0"),
        ("robust-admm", {"admm_epochs": 0}, r"method\.admm_epochs"),
        ("robust-admm", {"retrain_lr": 0.0}, r"method\.retrain_lr"),
        ("one-shot-admm", {"eps": [1.0, 0.5]}, r"method\.eps: expected rising shares"),
        ("one-shot-admm", {"steps": [0]}, r"method\.steps: expected rising numbers"),
        ("one-shot-admm", {"start_density": 0.05}, r"method\.start_density: expected between the density, 0\.1"),
        ("one-shot-admm", {"start_density": 0.6, "pattern": "2:4"}, r"what the pattern admits, 0\.5, got 0\.6"),
        ("one-shot-admm", {"bound": -0.1}, r"method\.bound"),
        ("one-shot-admm", {"tightened_by": 0.0}, r"method\.tightened_by"),
        ("one-shot-admm", {"tightening": "square"}, r"method\.schedule"),
        ("one-shot-admm", {"extra_epochs": -1}, r"method\.extra_epochs"),
        ("one-shot-admm", {"least_fall": 1.0}, r"method\.least_fall"),
        ("one-shot-admm", {"steps_epochs": 0}, r"method\.steps_epochs"),
        ("one-shot-admm", {"set": "funnel", "funnel_ratio": 1.0}, r"method\.budget\.ratio"),
        ("one-shot-admm", {"density": 1.5}, r"method\.density"),
        ("atmc", {"bits": 16}, r"method\.bits"),
        ("atmc", {"zero_among": True}, r"method\.zero_among: expected bits beside it"),
        ("atmc", {"quantise_epochs": 0}, r"method\.quantise_epochs"),
        ("atmc", {"density": 0.0}, r"method\.density"),
    ],
)
def test_options_that_cannot_be_are_refused(name: str, options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        build(name, **{"density": 0.1, **options})


def test_the_sparsifier_of_one_shot_admm_is_told_the_plan() -> None:
    (phase,) = phases("one-shot-admm", epochs=4, bound=0.05, update_steps=2)
    sparsifier = attached(phase)
    assert isinstance(sparsifier, TightenedADMM)
    assert sparsifier.present_density == 1.0
    # Z moves at every second step, and an epoch of three ends at the third.
    assert [done for done in range(1, 7) if sparsifier.due(done)] == [2, 3, 4, 6]
    losses, positions = (1.0, 1.04, 1.2, 1.1), []
    for epoch, loss in enumerate(losses):
        sparsifier.after_epoch(epoch, {"adversarial_loss": loss})
        positions.append(float(sparsifier.state_dict()["position"]))
    # On along the plan where the loss rose by no more than 5 %: not after the third epoch.
    assert positions == [1.0, 2.0, 2.0, 3.0]
    assert sparsifier.present_density == pytest.approx(0.1)


def test_filters_keep_at_most_their_density_through_retraining() -> None:
    assert phases("robust-admm", pattern="filter")[-1].sparsifier().contract == "at-most"
    assert phases("robust-admm")[-1].sparsifier().contract == "exact"


def test_an_average_of_quantised_weights_ships_quantised(tmp_path: Path) -> None:
    values = pairs.recipe("one-shot-admm", "adversarial")
    values["method"] = {**values["method"], "set": "quantised", "bits": 2}
    values["training"] = {**values["training"], "average": {"kind": "ema", "decay": 0.5}}
    shipped = train(values, out=tmp_path / "run").model()
    assert [layer.weight.unique().numel() <= 5 for layer in targets(shipped)] == [True] * 4


def test_radii_follow_no_stages_where_the_objective_has_threats_of_its_own() -> None:
    method = build("one-shot-admm", density=0.1)
    base = replace(small.phase(epochs=4), objective=Several(threats=(ThreatModel("linf", 0.1), ThreatModel("l2", 0.5))))
    (phase,) = method.phases(base, "resnet18")
    attack = tighten(phase.attack, attached(phase))
    assert isinstance(attack, PGD)
    assert isinstance(phase.attack, PGD)
    assert (attack.threat, attack.steps) == (phase.attack.threat, 7)
    with pytest.raises(ConfigError, match="recipe's threat"):
        build("one-shot-admm", density=0.1, eps=[0.5, 1.0]).phases(base, "resnet18")
