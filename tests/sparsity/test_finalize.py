import copy

import torch
from torch import nn

from gossamer.models.registry import build
from gossamer.seeding import Draws
from gossamer.sparsity import ConnectivitySampling, targets
from gossamer.training.optimizers import DecayFirstSGD


def training_network() -> tuple[nn.Module, ConnectivitySampling, DecayFirstSGD]:
    torch.manual_seed(0)
    model = build("digits-cnn").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    sampling = ConnectivitySampling(density=0.1)
    sampling.attach(model, Draws())
    optimizer = DecayFirstSGD(model.parameters(), lr=0.05, weight_decay=1e-3)
    for number in range(4):
        step(model, sampling, optimizer, number)
    return model, sampling, optimizer


def step(model: nn.Module, sampling: ConnectivitySampling, optimizer: DecayFirstSGD, number: int) -> None:
    x = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(number))
    model.train()
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), torch.arange(16) % 10).backward()
    sampling.before_step(number, optimizer)
    optimizer.step()
    sampling.after_step(number, optimizer)


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: value.detach().contiguous().numpy().tobytes() for name, value in model.state_dict().items()}


def test_the_plain_network_has_real_zeros_dense_keys_and_the_same_outputs() -> None:
    model, sampling, _ = training_network()
    shipped = sampling.finalize(model)
    dense = build("digits-cnn")
    dense.load_state_dict(shipped.module.state_dict(), strict=True)
    assert set(dense.state_dict()) == set(shipped.module.state_dict())
    for target in targets(shipped.module):
        zero = target.weight == 0
        assert zero.any()
        assert not torch.signbit(target.weight[zero]).any()
    x = torch.rand(32, 1, 8, 8)
    assert torch.equal(shipped.module(x), model.eval()(x))
    torch.testing.assert_close(dense.eval()(x), shipped.module(x))
    assert shipped.masks.kept == sampling.active == sampling.budget == int(0.1 * 58_656)
    assert shipped.dense_weights == 58_656


def test_finalising_and_copying_leave_the_model_in_training_as_it_was() -> None:
    model, sampling, optimizer = training_network()
    other, other_sampling, other_optimizer = training_network()
    before = bits(model)
    sampling.finalize(model)
    copied = copy.deepcopy(model)
    sampling.finalize(model)
    assert bits(model) == before
    assert model.training
    for number in range(4, 8):
        step(model, sampling, optimizer, number)
        step(other, other_sampling, other_optimizer, number)
    assert bits(model) == bits(other)
    assert bits(copied) == before
    copied(torch.rand(2, 1, 8, 8)).sum().backward()
    assert all(target.parameter.grad is not None for target in targets(copied))


def test_the_plain_network_trains_on_its_own() -> None:
    model, sampling, _ = training_network()
    before = bits(model)
    plain = sampling.finalize(model).module.train()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    plain(torch.rand(4, 1, 8, 8)).sum().backward()
    optimizer.step()
    assert bits(model) == before
