import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from gossamer.attacks.crafting import crafting
from gossamer.attacks.pgd import PGD
from gossamer.errors import ConfigError
from gossamer.threat import ThreatModel

ATTACK = PGD(threat=ThreatModel("linf", 8 / 255), steps=3)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def uneven(model: nn.Module) -> tuple[list[bool], list[bool]]:
    """Give modules and parameters differing states, so that restoring all alike would show."""
    model.train()
    model[1].eval()  # pyright: ignore
    next(model.parameters()).requires_grad_(False)
    return [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]


@pytest.mark.parametrize("mode", ["eval", "batch"])
def test_eval_and_batch_leave_everything_to_the_bit(
    convnet: nn.Module, images: Tensor, labels: Tensor, mode: str
) -> None:
    states, before = uneven(convnet), snapshot(convnet)
    with crafting(convnet, mode):  # pyright: ignore
        assert not any(p.requires_grad for p in convnet.parameters())
        assert all(m.training == (mode == "batch") for m in convnet.modules())
        x_adv = ATTACK(convnet, images, labels)
    assert same(convnet, before)
    assert ([m.training for m in convnet.modules()], [p.requires_grad for p in convnet.parameters()]) == states
    assert not torch.equal(x_adv, images)


def test_train_moves_running_statistics_on_every_forward(convnet: nn.Module, images: Tensor, labels: Tensor) -> None:
    batches = int(convnet[1].num_batches_tracked)  # pyright: ignore
    with crafting(convnet, "train"):
        ATTACK(convnet, images, labels)
    assert int(convnet[1].num_batches_tracked) == batches + 3  # pyright: ignore
    assert not any(m.training for m in convnet.modules())


def test_batch_uses_the_statistics_of_the_batch(convnet: nn.Module, images: Tensor, labels: Tensor) -> None:
    for module in convnet.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    found = {}
    for mode in ("eval", "batch", "train"):
        with crafting(convnet, mode):  # pyright: ignore
            found[mode] = ATTACK(convnet, images, labels)
    assert torch.equal(found["batch"], found["train"])
    assert not torch.equal(found["eval"], found["batch"])


@pytest.mark.parametrize("mode", ["eval", "batch", "train"])
def test_an_exception_restores_too(convnet: nn.Module, mode: str) -> None:
    states = uneven(convnet)
    with pytest.raises(RuntimeError, match="from inside"), crafting(convnet, mode):  # pyright: ignore
        raise RuntimeError("from inside")
    assert ([m.training for m in convnet.modules()], [p.requires_grad for p in convnet.parameters()]) == states


def test_a_buffer_that_was_exchanged_is_put_back(convnet: nn.Module) -> None:
    norm = convnet[1]  # pyright: ignore
    mean = norm.running_mean
    before = mean.clone()
    with crafting(convnet, "batch"):
        norm.running_mean = torch.zeros_like(mean)
    assert norm.running_mean is mean
    assert torch.equal(mean, before)


def test_parametrized_weights_are_attacked_and_still_learn(convnet: nn.Module, images: Tensor, labels: Tensor) -> None:
    class Mask(nn.Module):
        def __init__(self, keep: Tensor) -> None:
            super().__init__()
            self.register_buffer("keep", keep)

        def forward(self, weight: Tensor) -> Tensor:
            return weight * self.keep

    conv = convnet[0]  # pyright: ignore
    parametrize.register_parametrization(conv, "weight", Mask((torch.rand(conv.weight.shape) > 0.5).float()))
    parametrizations.spectral_norm(convnet[3])  # pyright: ignore
    convnet.train()
    before = snapshot(convnet)
    with crafting(convnet, "batch"):
        x_adv = ATTACK(convnet, images, labels)
    assert same(convnet, before)
    convnet(x_adv).sum().backward()
    assert conv.parametrizations.weight.original.grad.abs().sum() > 0
    assert conv.bias.grad is not None


def test_unknown_mode(convnet: nn.Module) -> None:
    with pytest.raises(ConfigError, match="attack_bn"), crafting(convnet, "half"):  # pyright: ignore
        pass
