"""Distillation: its published mean, nHSIC against known values, hooks that do not stay, no gradient to the teacher."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gossamer.attacks.pgd import PGD
from gossamer.errors import ConfigError
from gossamer.models.folding import build_surrogate
from gossamer.models.registry import build
from gossamer.objectives.distillation import (
    Distillation,
    dependence,
    distillation,
    gaussian_kernel,
    hidden_outputs,
    layers_and_blocks,
    linear_kernel,
    normalised,
)
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.types import Batch


class Unchanged:
    def apply(self, images: Tensor) -> Tensor:
        return images

    def inverse(self, images: Tensor) -> Tensor:
        return images


def batch(n: int = 12) -> Batch:
    x = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    labelled = torch.ones(n, dtype=torch.bool)
    return Batch(x=x, y=torch.arange(n) % 10, index=torch.arange(n), labelled=labelled, view=Unchanged())


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build("digits-cnn")


def test_the_teacher_is_matched_in_the_mean_over_batch_and_classes() -> None:
    teacher, student = torch.tensor([[0.0, 2.0 * math.log(3.0)]]), torch.zeros(1, 2)
    # At T = 2 the teacher says (1/4, 3/4) and the student (1/2, 1/2).
    divergence = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert float(distillation(teacher, student, 2.0)) == pytest.approx(4.0 * divergence / 2)
    assert float(distillation(student, student, 30.0)) == 0.0


def test_labels_depend_on_themselves_by_one_less_than_their_classes() -> None:
    y = nn.functional.one_hot(torch.arange(128) % 10, 10).float()
    kernel = normalised(linear_kernel(y))
    assert float(dependence(kernel, kernel)) == pytest.approx(8.998, abs=2e-3)


def test_images_depend_on_themselves_by_less_than_their_number() -> None:
    x = torch.rand(128, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    kernel = normalised(gaussian_kernel(x, 5.0))
    assert float(dependence(kernel, kernel)) == pytest.approx(65.0, abs=1.5)


def test_a_kernel_is_the_formula_and_normalised_as_published() -> None:
    u = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 0.0]], dtype=torch.float64)
    kernel = gaussian_kernel(u, 5.0)
    assert float(kernel[0, 1]) == pytest.approx(math.exp(-25 / (2 * 25 * 2)))
    centred = kernel @ (torch.eye(3, dtype=torch.float64) - 1 / 3)
    expected = centred @ torch.linalg.inv(centred + 3e-5 * torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(normalised(kernel), expected)
    assert float(dependence(kernel, expected)) == pytest.approx(float(torch.trace(kernel @ expected)), rel=1e-4)


def test_the_total_is_the_weighted_sum_of_its_parts() -> None:
    model, seen = network(), batch()
    full = Distillation(lambda_x=0.5, lambda_y=0.25).taught_by(network(1))
    loss = full.loss(model, seen, seen.x, draws=Draws())
    assert float(loss.total.detach()) == pytest.approx(
        10 * float(loss.parts["distillation"]) + float(loss.parts["bottleneck"]), rel=1e-5
    )
    assert set(loss.logits) == {"natural"}
    plain = Distillation(weight=3.0).taught_by(network(1)).loss(network(), seen, seen.x, draws=Draws())
    assert float(plain.total.detach()) == pytest.approx(3 * float(loss.parts["distillation"]), rel=1e-4)
    assert set(plain.parts) == {"distillation"}


def test_no_gradient_reaches_the_teacher_and_no_hook_outlives_the_loss() -> None:
    model, teacher, seen = network(), network(1), batch()
    objective = Distillation(lambda_x=1e-3, lambda_y=1e-3).taught_by(teacher)
    loss = objective.loss(model, seen, seen.x, draws=Draws())
    assert build_surrogate(model) is not None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    loss.total.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not teacher.training


def test_hooks_go_also_where_the_forward_pass_fails() -> None:
    model = network()
    with pytest.raises(RuntimeError), hidden_outputs(model):
        model(torch.rand(1, 3, 8, 8))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Wrapped(nn.Module):
    """A user's model around another."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


@pytest.mark.parametrize("wrap", [lambda model: model, Wrapped])
def test_hidden_layers_are_the_stem_every_block_and_the_pooled_features(wrap: Any) -> None:
    model = wrap(build("resnet20"))
    found = [type(module).__name__ for module in layers_and_blocks(model)]
    assert found == ["Conv2d", *["BasicBlock"] * 9, "Linear"]
    with hidden_outputs(model) as hidden:
        model(torch.rand(2, 3, 32, 32))
    assert len(hidden) == 11
    assert hidden[0].shape == (2, 16, 32, 32)
    assert hidden[-1].shape == (2, 64)


def test_a_share_of_the_batches_is_attacked_where_asked() -> None:
    model, seen = network().eval(), batch(4)
    attack = PGD(threat=ThreatModel("linf", 0.15), steps=1)
    mixed = Distillation(mix_ratio=0.5).taught_by(network(1))
    attacked = [mixed.craft(model, seen, attack, {}, draws=Draws(i)) is not seen.x for i in range(40)]
    assert 8 < sum(attacked) < 32
    assert Distillation().craft(model, seen, attack, {}, draws=Draws()) is seen.x
    x_adv = Distillation(mix_ratio=1.0).craft(model, seen, attack, {}, draws=Draws())
    assert set(mixed.loss(model, seen, x_adv, draws=Draws()).logits) == {"adversarial"}
    with pytest.raises(ConfigError, match="attack"):
        Distillation(mix_ratio=1.0).craft(model, seen, None, {}, draws=Draws())


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"sigma": -1.0}, "sigma"),
        ({"lambda_x": -1.0}, "lambda_x"),
        ({"weight": -1.0}, "distillation"),
        ({"mix_ratio": 1.1}, "mix_ratio"),
    ],
)
def test_impossible_numbers_are_refused(options: dict[str, float], field: str) -> None:
    with pytest.raises(ConfigError, match=rf"\.{field}: "):
        Distillation(**options)


def test_without_a_teacher_there_is_no_loss() -> None:
    seen = batch()
    with pytest.raises(ConfigError, match="teacher"):
        Distillation().loss(network(), seen, seen.x, draws=Draws())
