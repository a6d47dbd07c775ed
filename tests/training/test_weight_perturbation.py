"""Adversarial weight perturbation: by hand, where weights are dropped, and what it leaves behind."""

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import phases_on_digits as small
from gossamer.errors import ConfigError
from gossamer.objectives.trades import Trades
from gossamer.runs import atomic
from gossamer.sparsity import ConnectivitySampling, HardMask, NoSparsifier, targets
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.run import run_phases
from gossamer.training.weight_perturbation import WeightPerturbation


class Masked(nn.Module):
    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def line(*weights: float) -> nn.Linear:
    layer = nn.Linear(len(weights), 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([weights]))
        layer.bias.fill_(1.0)
    return layer


def loss_of(layer: nn.Linear) -> Callable[[], Tensor]:
    """The gradient with respect to the kernel is (6, 8, 24)."""
    return lambda: layer(torch.tensor([6.0, 8.0, 24.0])).sum()


def test_a_kernel_moves_by_its_share_along_the_gradient_and_comes_back() -> None:
    layer = line(3.0, 4.0, 12.0)
    loss = loss_of(layer)
    calm = loss().item()
    with WeightPerturbation(gamma=0.1).around(layer, NoSparsifier(), 0, loss):
        # |w| = 13 and g = 2 w: w moves by 0.1 w. The bias stays.
        torch.testing.assert_close(layer.weight.detach(), torch.tensor([[3.3, 4.4, 13.2]]))
        assert layer.bias.item() == 1.0
        assert loss().item() > calm
    assert layer.weight.tolist() == [[3.0, 4.0, 12.0]]
    assert layer.weight.grad is None


@pytest.mark.parametrize("parametrized", [False, True])
def test_dropped_weights_stay_zero_and_the_rest_moves_by_their_own_length(parametrized: bool) -> None:
    layer = line(3.0, 4.0, 12.0 if parametrized else 0.0)
    if parametrized:
        parametrize.register_parametrization(layer, "weight", Masked(torch.tensor([[1.0, 1.0, 0.0]])))
    loss, keys = loss_of(layer), list(layer.state_dict())
    with WeightPerturbation(gamma=0.1).around(layer, NoSparsifier(), 0, loss):
        torch.testing.assert_close(layer.weight.detach(), torch.tensor([[3.3, 4.4, 0.0]]))
        loss().backward()
    assert list(layer.state_dict()) == keys
    stored = layer.parametrizations["weight"].original if parametrized else layer.weight
    assert stored.tolist() == [[3.0, 4.0, 12.0 if parametrized else 0.0]]
    assert stored.grad.tolist() == [[6.0, 8.0, 0.0 if parametrized else 24.0]]


def test_named_tensors_are_perturbed_as_they_are_stored() -> None:
    layer = line(3.0, 4.0, 12.0)
    bias_alone = WeightPerturbation(gamma=0.5, which=lambda model: [model.bias])
    with bias_alone.around(layer, NoSparsifier(), 0, loss_of(layer)):
        assert (layer.weight.tolist(), layer.bias.item()) == ([[3.0, 4.0, 12.0]], 1.5)
    assert layer.bias.item() == 1.0


def test_it_waits_for_its_first_epoch_and_refuses() -> None:
    layer = line(1.0, 1.0, 1.0)
    late = WeightPerturbation(gamma=0.1, start=2)
    moved = []
    for epoch in range(4):
        with late.around(layer, NoSparsifier(), epoch, loss_of(layer)):
            moved.append(layer.weight.tolist() != [[1.0, 1.0, 1.0]])
    assert moved == [False, False, True, True]
    with pytest.raises(ConfigError, match=r"weight_perturbation\.gamma"):
        WeightPerturbation(gamma=1.0)
    with pytest.raises(ConfigError, match=r"weight_perturbation\.start"):
        WeightPerturbation(gamma=0.1, start=-1)


def final(folder: Path, **changes: Any) -> dict[str, Tensor]:
    job = small.job(folder)
    run_phases([small.phase(**changes)], small.network, job)
    return atomic.read_safetensors(job.run.state("final"))


def test_none_of_it_is_the_plain_training_to_the_bit(tmp_path: Path) -> None:
    plain = final(tmp_path / "plain")
    none = final(tmp_path / "none", perturbation=WeightPerturbation(gamma=0.0))
    some = final(tmp_path / "some", perturbation=WeightPerturbation(gamma=0.01))
    assert all(torch.equal(plain[name], none[name]) for name in plain)
    assert not torch.equal(plain["conv1.weight"], some["conv1.weight"])


SPARSIFIERS: dict[str, Callable[[], Any]] = {
    "dense": NoSparsifier,
    "mask": lambda: HardMask(density=0.1),
    "bcs": lambda: ConnectivitySampling(density=0.1, initial={"*": 0.1}),
}


@pytest.mark.parametrize("name", SPARSIFIERS)
def test_in_training_the_loss_rises_dropped_weights_stay_dropped_and_norms_see_one_forward(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, float]] = []
    plain = WeightPerturbation.around

    def watched(self: Any, model: nn.Module, sparsifier: Any, epoch: int, loss: Any, **options: Any) -> Any:
        @contextmanager
        def around() -> Any:
            before = {key: value.clone() for key, value in model.state_dict().items()}
            buffers = {key: value.clone() for key, value in model.named_buffers()}
            calm = loss().item()
            zeros = [layer.weight == 0 for layer in targets(model)]
            restore(model, buffers)
            with plain(self, model, sparsifier, epoch, loss, **options):
                assert all(torch.equal(value, buffers[key]) for key, value in model.named_buffers())
                rising = loss().item()
                restore(model, buffers)
                still = [layer.weight == 0 for layer in targets(model)]
                assert all(torch.equal(was, now) for was, now in zip(zeros, still, strict=True))
                seen.append((calm, rising))
                yield
            after = model.state_dict()
            assert all(torch.equal(after[key], before[key]) for key in before if key not in buffers)

        return around()

    monkeypatch.setattr(WeightPerturbation, "around", watched)
    final(
        tmp_path / "run",
        objective=Trades(),
        sparsifier=SPARSIFIERS[name],
        optimizer=OptimizerSpec(lr=0.05),
        perturbation=WeightPerturbation(gamma=0.005),
    )
    assert len(seen) == 6
    assert all(rising >= calm for calm, rising in seen)


@torch.no_grad()
def restore(model: nn.Module, buffers: dict[str, Tensor]) -> None:
    for key, value in model.named_buffers():
        value.copy_(buffers[key])
