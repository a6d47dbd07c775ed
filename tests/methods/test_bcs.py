"""Bayesian connectivity sampling as published: budgets, initial counts, and invariants of a run under attack."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

import phases_on_digits as small
from gossamer.methods.bcs import BCS, INITIAL
from gossamer.methods.registry import METHODS
from gossamer.models.registry import build
from gossamer.seeding import Draws
from gossamer.sparsity import ConnectivitySampling, Horizon, targets
from gossamer.training.interruption import Watch
from gossamer.training.loop import begin, train_phase
from gossamer.training.optimizers import OptimizerSpec

ENDS = {"conv1.weight": 0.6, "fc.weight": 0.6}


class Watched(ConnectivitySampling):
    """Holds the invariants of the method at every step."""

    steps = 0

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        super().attach(model, draws, horizon)
        self.signs = [self.sign(target).clone() for target in self._layers]
        self.drawn = 0

    @staticmethod
    def sign(target: Any) -> torch.Tensor:
        return target.module.parametrizations["weight"][0].sign

    def before_step(self, step: int, optimizer: Optimizer) -> None:
        for target in self._layers:
            theta = target.parameter
            assert theta.grad is not None
            assert torch.count_nonzero(theta.grad[theta <= 0]) == 0
            assert torch.count_nonzero(theta.grad[theta > 0]) > 0
            assert torch.count_nonzero(target.weight[theta <= 0]) == 0
            assert torch.equal(target.weight.sign()[theta > 0], self.sign(target)[theta > 0])
        super().before_step(step, optimizer)

    def _rewire(self, draws: Draws, optimizer: Optimizer) -> None:
        before = self.active
        alive = [target.parameter > 0 for target in self._layers]
        velocities = [optimizer.state[target.parameter]["momentum_buffer"].clone() for target in self._layers]
        super()._rewire(draws, optimizer)
        assert self.active == max(self.budget, before)
        for target, was, velocity in zip(self._layers, alive, velocities, strict=True):
            new = (target.parameter > 0) & ~was
            assert (target.parameter[new] == 1e-12).all()
            assert (target.parameter[was] > 0).all()
            assert torch.equal(optimizer.state[target.parameter]["momentum_buffer"], velocity)
        self.drawn += self.active - before

    def after_step(self, step: int, optimizer: Optimizer) -> None:
        super().after_step(step, optimizer)
        assert all(torch.equal(self.sign(t), sign) for t, sign in zip(self._layers, self.signs, strict=True))
        self.steps += 1


@pytest.mark.parametrize("density", [0.1, 0.01])
def test_invariants_hold_at_every_step_of_adversarial_training(density: float, tmp_path: Path) -> None:
    spec = BCS(density=density)
    watched = Watched(density=density, initial=ENDS)
    phase = small.phase(
        epochs=3, batch_size=16, sparsifier=lambda: watched, optimizer=spec.default_optimizer("adversarial")
    )
    job = small.job(tmp_path / "run", n=320)
    training = begin(phase, small.network(), small.scene(phase, job))
    counted: list[float] = []
    real = watched.measures
    watched.measures = lambda: counted.append(real()["revived"]) or {"revived": counted[-1]}  # type: ignore[method-assign,func-returns-value]
    with Watch() as watch:
        train_phase(phase, training, job, watch)
    assert watched.steps == 60
    assert sum(counted) == watched.drawn
    # At 1 % this small network starts above its budget, so that nothing is drawn; at 10 % below it.
    assert (watched.drawn > 0) is (density == 0.1)
    assert watched.active >= watched.budget == int(density * 58_656)


def model_of(name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return build(name, **options)


def attached(model: nn.Module, name: str, density: float, **options: Any) -> ConnectivitySampling:
    sampling = ConnectivitySampling(density=density, initial=INITIAL[name], **options)
    sampling.attach(model, Draws())
    return sampling


@pytest.mark.parametrize(
    ("name", "options", "density", "budget", "initial"),
    [
        ("vgg16", {}, 0.1, 1_530_284, 820_945),
        ("vgg16", {}, 0.01, 153_028, 144_124),
        ("resnet18", {"num_classes": 10}, 0.01, 111_643, 88_640),
        ("resnet18", {"num_classes": 100}, 0.1, 1_121_043, None),
        ("resnet18", {"num_classes": 100}, 0.01, 112_104, 116_288),
        ("resnet34", {"num_classes": 10}, 0.01, 212_650, 153_516),
        ("resnet34", {"num_classes": 200}, 0.01, 213_623, 211_884),
        ("resnet50", {"num_classes": 10}, 0.01, 234_677, 172_054),
        ("resnet50", {"num_classes": 100}, 0.01, 236_520, 282_646),
        ("wideresnet28", {"width": 4}, 0.1, 584_184, None),
        ("wideresnet28", {"width": 4}, 0.01, 58_418, 56_467),
    ],
)
def test_budgets_and_initial_counts_are_the_published_ones(
    name: str, options: dict[str, Any], density: float, budget: int, initial: int | None
) -> None:
    sizes = {target.name: target.size for target in targets(model_of(name, **{"in_channels": 3, **options}))}
    sampling = ConnectivitySampling(density=density, initial=INITIAL[name])
    assert int(density * sum(sizes.values())) == budget
    if initial is not None:
        assert sum(sampling.initial_counts(sizes).values()) == initial


@pytest.mark.parametrize("name", INITIAL)
def test_published_patterns_match_the_layers_of_their_network(name: str) -> None:
    sizes = {target.name: target.size for target in targets(model_of(name))}
    counts = ConnectivitySampling(density=0.1, initial=INITIAL[name]).initial_counts(sizes)
    first, *_, last = sizes
    assert counts[first] == int(0.6 * sizes[first])
    assert counts[last] == int(0.6 * sizes[last])


def one_draw(name: str, density: float, size: int, *, strict: bool = False, **options: Any) -> ConnectivitySampling:
    """Take one real step on two random images."""
    torch.manual_seed(0)
    model = build(name, in_channels=3, image_size=size, **options)
    sampling = attached(model, name, density, strict=strict)
    optimizer = OptimizerSpec(kind="decay-first-sgd", weight_decay=1e-3).build(model)
    nn.functional.cross_entropy(model(torch.rand(2, 3, size, size)), torch.tensor([3, 7])).backward()
    sampling.before_step(0, optimizer)
    optimizer.step()
    sampling.after_step(0, optimizer)
    return sampling


def test_wideresnet28_has_the_published_number_of_weights_after_one_draw() -> None:
    sampling = one_draw("wideresnet28", 0.01, 32, width=4)
    assert sampling.active == 58_418
    assert sampling.masks().kept == 58_418


def test_resnet18_starts_above_the_budget_and_stays_there_until_weights_die_unless_strict() -> None:
    model = build("resnet18", num_classes=100)
    assert attached(model, "resnet18", 0.01).active == 116_288


@pytest.mark.long
def test_resnet18_has_the_published_number_of_weights_after_one_draw_in_strict_mode() -> None:
    assert one_draw("resnet18", 0.01, 32, num_classes=100, strict=True).active == 112_104


@pytest.mark.long
@pytest.mark.parametrize(("density", "budget"), [(0.1, 1_530_284), (0.01, 153_028)])
def test_vgg16_has_the_published_number_of_weights_after_one_draw(density: float, budget: int) -> None:
    assert one_draw("vgg16", density, 32).active == budget


@pytest.mark.parametrize(
    ("objective", "decay"),
    [("natural", 1e-4), ("adversarial", 1e-3), ("mixed-batch", 1e-3), ("trades", 5e-4), ("mart", 5e-4)],
)
def test_the_published_optimiser_of_each_objective(objective: str, decay: float) -> None:
    spec = BCS(density=0.1).default_optimizer(objective)
    assert (spec.kind, spec.lr, spec.momentum, spec.weight_decay) == ("decay-first-sgd", 0.1, 0.9, decay)


def test_the_one_phase_takes_the_published_shares_of_its_network_or_the_recipes_own() -> None:
    base = small.phase()
    # Named as a network whose published shares are those of its first and last layer.
    (published,) = BCS(density=0.1).phases(base, "mobilenetv2")
    (own,) = BCS(density=0.1, initial={"conv1.weight": 0.25}).phases(base, "digits-cnn")
    (unknown,) = BCS(density=0.1).phases(base, "mine:network")
    counts = []
    for phase in (published, own, unknown):
        sparsifier, model = phase.sparsifier(), small.network()
        sparsifier.attach(model, Draws())
        counts.append(list(sparsifier.masks().kept_per_layer.values()))
    # Layers of 800, 18,432, 36,864 and 2,560 weights.
    assert counts == [[480, 921, 1_843, 1_536], [200, 921, 1_843, 128], [40, 921, 1_843, 128]]


def test_the_first_methods_give_phases_that_differ_from_the_recipes_only_where_they_say() -> None:
    base = small.phase()
    expected = {"dense": ["train"], "random": ["train"], "magnitude": ["pretrain", "finetune"], "bcs": ["train"]}
    made = {name: METHODS[name].make(**({} if name == "dense" else {"density": 0.1})) for name in expected}
    names = {name: [phase.name for phase in method.phases(base, "digits-cnn")] for name, method in made.items()}
    assert names == expected
    assert made["dense"].phases(base, "digits-cnn") == (base,)
    pretrain, finetune = made["magnitude"].phases(base, "digits-cnn")
    assert (pretrain.optimizer.lr, finetune.optimizer.lr) == pytest.approx((0.1, 0.01))
    assert (pretrain.epochs, finetune.epochs) == (2, 2)
    assert METHODS["magnitude"].make(density=0.1, finetune_epochs=7).phases(base, "x")[1].epochs == 7
