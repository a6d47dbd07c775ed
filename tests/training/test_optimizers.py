import pytest
import torch
from torch import nn

from gossamer.errors import ConfigError
from gossamer.training.optimizers import DecayFirstSGD, Kind, OptimizerSpec


def minimise(spec: OptimizerSpec, steps: int = 12) -> list[torch.Tensor]:
    """Move a small network along given gradients, with rates that drop after five steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = spec.build(model)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        spec.set_rates(optimizer, 1.0 if step < 5 else 0.1)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_torch_with_coupled_decay(nesterov: bool) -> None:
    spec = OptimizerSpec(lr=0.2, momentum=0.8, weight_decay=0.01, nesterov=nesterov)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.8, weight_decay=0.01, nesterov=nesterov)
    generator = torch.Generator().manual_seed(1)
    for step in range(12):
        optimizer.param_groups[0]["lr"] = 0.2 if step < 5 else 0.2 * 0.1
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    for one, other in zip(minimise(spec), model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("kind", "first", "later"), [("sgdw", 0.2 * 0.01, 0.02 * 0.01), ("decay-first-sgd", 0.01, 0.001)]
)
def test_decoupled_decay_in_closed_form(kind: str, first: float, later: float) -> None:
    torch.manual_seed(0)
    expected = [p.detach().double() for p in nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).parameters()]
    velocities = [torch.zeros_like(p) for p in expected]
    generator = torch.Generator().manual_seed(1)
    for step in range(12):
        lr, decay = (0.2, first) if step < 5 else (0.02, later)
        for i in range(4):
            gradient = torch.randn(expected[i].shape, generator=generator).double()
            velocities[i] = 0.8 * velocities[i] - lr * gradient
            expected[i] = (1 - decay) * expected[i] + velocities[i]
    got = minimise(OptimizerSpec(kind=kind, lr=0.2, momentum=0.8, weight_decay=0.01))  # type: ignore[arg-type]
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-6, rtol=1e-5)


def test_weight_decay_alone_shrinks_geometrically() -> None:
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = DecayFirstSGD([weight], lr=0.5, weight_decay=0.1, decay_times_lr=True)
    for _ in range(10):
        weight.grad = torch.zeros(1)
        optimizer.step()
    assert weight.item() == pytest.approx(2 * 0.95**10)


def test_parameters_without_a_gradient_stay() -> None:
    weight = nn.Parameter(torch.tensor([2.0]))
    DecayFirstSGD([weight], lr=0.5, weight_decay=0.1).step()
    assert weight.item() == 2.0


def test_the_published_decay_moves_with_the_schedule() -> None:
    model = nn.Linear(1, 1)
    for kind, decay in (("decay-first-sgd", 0.0005), ("sgdw", 0.005), ("sgd", 0.005)):
        spec = OptimizerSpec(kind=kind, lr=0.3, weight_decay=0.005)  # type: ignore[arg-type]
        optimizer = spec.build(model)
        assert spec.set_rates(optimizer, 0.1) == pytest.approx(0.03)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.03)
        assert optimizer.param_groups[0]["weight_decay"] == pytest.approx(decay)


@pytest.mark.parametrize(("kind", "decay"), [("decay-first-sgd", 0.0005), ("sgdw", 0.005), ("sgd", 0.005)])
def test_a_share_of_the_rate_has_that_share_of_the_decay_that_moves_with_it(kind: Kind, decay: float) -> None:
    scaled = OptimizerSpec(kind=kind, lr=0.3, weight_decay=0.005).scaled(0.1)
    assert (scaled.lr, scaled.weight_decay) == (pytest.approx(0.03), pytest.approx(decay))


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    assert sum(len(group["params"]) for group in OptimizerSpec().build(model).param_groups) == 1


@pytest.mark.parametrize(("kind", "momentum"), [("sgdw", 0.9), ("decay-first-sgd", 0.9), ("sgd", 0.0)])
def test_nesterov_is_refused_where_it_would_do_nothing(kind: str, momentum: float) -> None:
    with pytest.raises(ConfigError, match=r"training\.optimizer\.nesterov"):
        OptimizerSpec(kind=kind, momentum=momentum, nesterov=True)  # type: ignore[arg-type]
