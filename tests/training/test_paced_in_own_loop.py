"""Methods that pace themselves by the length of training, in their owner's loop."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

import gossamer
from gossamer.errors import ConfigError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)
    )


@pytest.mark.parametrize("method", ["set", "rigl", "flying-bird", "gradual"])
def test_they_train_a_sparse_network(method: str) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    options = {} if method == "set" else {"every": 3}
    sparsifier = gossamer.sparsify(model, optimizer, density=0.2, method=method, epochs=5, steps_per_epoch=4, **options)
    first = sparsifier.masks()
    data = gossamer.load_data("digits", "train")
    x, y = data.float(torch.arange(64)), data.labels[:64]
    losses: list[float] = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert any(not torch.equal(mask, first[name]) for name, mask in sparsifier.masks().items())
    shipped = sparsifier.finalize(model)
    # Flying Bird grows by chance: about as many as it drops.
    slack = 0.1 if method == "flying-bird" else 0.01
    assert shipped.density == pytest.approx(0.2, rel=slack)
    network().load_state_dict(shipped.module.state_dict())


def test_without_the_length_of_training_they_are_refused() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ConfigError, match=r"epochs: .*give epochs=\.\.\. and steps_per_epoch"):
        gossamer.sparsify(model, optimizer, density=0.2, method="rigl")
    with pytest.raises(ConfigError, match="steps_per_epoch: expected at least 1"):
        gossamer.sparsify(model, optimizer, density=0.2, method="rigl", epochs=5)
    with pytest.raises(ConfigError, match="epochs: expected at least 1"):
        gossamer.sparsify(model, optimizer, density=0.2, method="gradual", epochs=0, steps_per_epoch=4)


@pytest.mark.parametrize("method", ["rigl", "gradual"])
def test_a_training_that_goes_on_keeps_its_pace(method: str) -> None:
    data = gossamer.load_data("digits", "train")
    x, y = data.float(torch.arange(64)), data.labels[:64]

    def begun(done: int) -> tuple[nn.Module, torch.optim.Optimizer, Any]:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        sparsifier = gossamer.sparsify(
            model, optimizer, density=0.2, method=method, epochs=5, steps_per_epoch=4, every=3, done=done
        )
        return model, optimizer, sparsifier

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    whole, first = begun(0), begun(0)
    train(whole[0], whole[1], 20)
    train(first[0], first[1], 11)
    again = begun(11)
    for one, other in zip(first, again, strict=True):
        other.load_state_dict(copy.deepcopy(one.state_dict()))
    train(again[0], again[1], 9)
    found = [sparsifier.finalize(model).module.state_dict() for model, _, sparsifier in (whole, again)]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_steps_done_before_are_none_below_zero() -> None:
    model = network()
    with pytest.raises(ConfigError, match="done: expected steps, at least 0"):
        gossamer.sparsify(model, torch.optim.SGD(model.parameters(), lr=0.05), density=0.2, done=-1)
