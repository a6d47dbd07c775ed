"""Factors: kernels reproduced to the bit, one budget for all of them, layers that compute with them, one bit."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.sparsity import Horizon, plain_copy, targets
from gossamer.sparsity.budgets import Adaptive, Uniform
from gossamer.sparsity.factor_layers import FACTORISED, FactorLayer, compose, identity_inside
from gossamer.sparsity.factorised import Factorised, factorise, factors_of, restore
from gossamer.sparsity.forms import form
from gossamer.sparsity.projected import Projected

HORIZON = Horizon(epochs=1, steps_per_epoch=4, image_shape=(1, 8, 8))


def network() -> nn.Sequential:
    """Return a network with the identity on either side: 4 inputs to 8 filters, 72 to 6, a group of each channel."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 2, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, padding=1, dilation=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.Flatten(),
        nn.Linear(96, 5),
    )


SIZES = 8 * 4 + 6 * 72 + 6 * 9 + 5 * 96


def attached(model: nn.Module, density: float = 1.0, **options: Any) -> Factorised:
    sparsifier = Factorised(density=density, **options)
    sparsifier.attach(model, Draws(), HORIZON)
    return sparsifier


def scatter(model: nn.Module, *, seed: int = 1) -> None:
    """Move every factor a little, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for factor in factors_of(targets(model)).values():
            factor.add_(0.1 * torch.randn(factor.shape, generator=generator))


def test_the_factors_reproduce_the_kernel_to_the_bit() -> None:
    model, dense = network(), network()
    assert [identity_inside(target.weight.shape) for target in targets(dense)] == [True, False, False, False]
    attached(model)
    for target, plain in zip(targets(model), targets(dense), strict=True):
        assert torch.equal(target.weight, plain.weight)
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(model(x), dense(x))
    names = factors_of(targets(model))
    # The grouped convolution stays one kernel.
    assert {"0.weight:a", "0.weight:b", "0.weight:c", "5.weight:c"} <= set(names)
    assert "5.weight:a" not in names
    assert names["0.weight:a"].count_nonzero() == names["0.weight:c"].count_nonzero() == 0
    assert torch.equal(names["0.weight:b"].flatten(), dense[0].weight.flatten())
    assert torch.equal(names["3.weight:a"], dense[3].weight)


def test_the_kernel_of_two_by_two_factors_by_hand() -> None:
    a, b = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]]), torch.tensor([[0.0, 3.0], [1.0, 0.0]])
    c = torch.tensor([[0.0, 0.0, 5.0], [0.0, 0.0, 0.0]])
    # (B + I) A = [[1, 3], [1, 1]] A.
    assert compose(a, b, c).tolist() == [[1, 5, 8], [1, 3, 1]]
    tall = compose(
        torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), torch.zeros(3, 2)
    )
    # B (A + I) with A + I = [[1, 2], [1, 1]].
    assert tall.tolist() == [[1, 2], [1, 1], [2, 3]]


def test_one_budget_counts_all_factors_against_the_dense_weights() -> None:
    model = network()
    sparsifier = attached(model, density=0.25)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    assert sparsifier.masks().kept == int(0.25 * SIZES)
    for step in range(3):
        scatter(model, seed=step)
        before = torch.cat([factor.detach().abs().flatten() for factor in factors_of(targets(model)).values()])
        sparsifier.after_step(step, optimizer)
        after = torch.cat([factor.detach().abs().flatten() for factor in factors_of(targets(model)).values()])
        kept = after != 0
        assert int(kept.sum()) == int(0.25 * SIZES)
        assert before[kept].min() >= before[~kept].max()
    masks = sparsifier.masks()
    assert (masks.total, masks.density) == (SIZES, int(0.25 * SIZES) / SIZES)
    assert sum(sparsifier.measures().values()) == masks.kept
    assert sparsifier.measures()["kept_b"] > 0


def test_layers_may_have_budgets_of_their_own() -> None:
    model = network()
    sparsifier = attached(model, density=0.2, budget=Adaptive(p=0.1))
    scatter(model)
    sparsifier.after_step(0, torch.optim.SGD(model.parameters(), lr=0.1))
    sizes = {target.name: tuple(target.parameter.shape) for target in targets(model)}
    expected = Adaptive(p=0.1)(sizes, 0.2)
    found = dict.fromkeys(expected, 0)
    for name, kept in sparsifier.masks().kept_per_layer.items():
        found[name.partition(":")[0]] += kept
    assert found == expected


@pytest.mark.parametrize("bits", [None, 1])
def test_what_ships_computes_what_was_trained_from_its_stored_tensors(bits: int | None) -> None:
    model = network()
    sparsifier = attached(model, density=0.3, bits=bits)
    scatter(model)
    sparsifier.after_step(0, torch.optim.SGD(model.parameters(), lr=0.1))
    x = torch.rand(3, 1, 8, 8)
    model(torch.rand(6, 1, 8, 8))
    shipped = sparsifier.finalize(model)
    assert (shipped.kind, shipped.form, shipped.dense_weights) == ("restructured", FACTORISED, SIZES)
    assert any(isinstance(module, FactorLayer) for module in shipped.module.modules())
    assert shipped.masks.kept <= int(0.3 * SIZES)
    assert shipped.density == shipped.masks.kept / SIZES
    again = form(FACTORISED).rebuild(network(), shipped.module.state_dict())
    assert torch.equal(again(x), shipped.module(x))
    if bits is None:
        torch.testing.assert_close(shipped.module(x), model.eval()(x), rtol=1e-4, atol=1e-5)
    else:
        for target in targets(shipped.module):
            assert target.weight[target.weight != 0].unique().numel() <= 2
    assert parametrize.is_parametrized(model[0])


def test_a_kernel_ships_folded_where_that_has_no_more_entries() -> None:
    model = network()
    sparsifier = attached(model, density=0.3)
    shipped = sparsifier.finalize(model)
    assert not any(isinstance(module, FactorLayer) for module in shipped.module.modules())
    network().load_state_dict(shipped.module.state_dict())
    assert shipped.masks.kept == int(0.3 * SIZES)
    with torch.no_grad():
        # One entry of B repeats a row of A in another: four factors' entries, more in the kernel.
        factors_of(targets(model))["7.weight:b"][0, 1] = 9.0
    kernel = targets(model)[3].weight
    layer = sparsifier.finalize(model).module[7]
    assert isinstance(layer, FactorLayer)
    stored = sum(int(part.weight.count_nonzero()) for part in (layer.a, layer.b, layer.c))
    assert stored < int(kernel.count_nonzero())


def test_training_goes_on_from_what_was_stored() -> None:
    model = network()
    sparsifier = attached(model, density=0.3)
    scatter(model)
    sparsifier.after_step(0, torch.optim.SGD(model.parameters(), lr=0.1))
    shipped = sparsifier.finalize(model)
    fresh = network()
    restore(fresh, targets(fresh), shipped.module.state_dict())
    again = attached(fresh, density=0.3)
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(fresh.eval()(x), shipped.module(x), rtol=1e-4, atol=1e-5)
    assert again.masks().kept <= int(0.3 * SIZES)
    stored = {target.name: target.weight for target in targets(shipped.module)}
    for name, factor in factors_of(targets(fresh)).items():
        path, _, part = name.replace(".weight", "").partition(":")
        if f"{path}.{part}.weight" in stored:
            assert torch.equal(factor, stored[f"{path}.{part}.weight"])


def test_quantisation_draws_factors_towards_their_values_every_interval() -> None:
    model = network()
    sparsifier = attached(model, density=0.3, bits=2, rho=1.0, interval=2)
    scatter(model)
    penalty = sparsifier.penalty(model)
    assert penalty is not None
    assert float(penalty.detach()) > 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    copies = {name: value.clone() for name, value in sparsifier.state_dict().items()}
    sparsifier.after_step(0, optimizer)
    assert all(torch.equal(value, copies[name]) for name, value in sparsifier.state_dict().items())
    sparsifier.after_step(1, optimizer)
    assert not torch.equal(sparsifier.state_dict()["copy/3.weight:a"], copies["copy/3.weight:a"])
    other = attached(network(), density=0.3, bits=2)
    other.load_state_dict(sparsifier.state_dict())
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in sparsifier.state_dict().items())
    assert attached(network()).penalty(model) is None


def test_a_linear_model_without_a_name_ships_folded() -> None:
    model = nn.Linear(6, 4)
    sparsifier = attached(model, density=0.5)
    scatter(model)
    sparsifier.after_step(0, torch.optim.SGD(model.parameters(), lr=0.1))
    shipped = sparsifier.finalize(model)
    x = torch.rand(2, 6)
    torch.testing.assert_close(shipped.module(x), model(x))
    assert set(shipped.module.state_dict()) == {"weight", "bias"}


def test_a_single_kernel_is_factorised_once() -> None:
    model = nn.Sequential(nn.Linear(6, 4))
    (target,) = targets(model)
    factorise(target)
    attached(model)
    assert len(model[0].parametrizations["weight"]) == 1  # type: ignore[arg-type]
    assert torch.equal(plain_copy(model)[0].weight, target.weight)


def test_projected_weights_may_come_back() -> None:
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[4.0, 3.0, 2.0, 1.0]]))
    projected = Projected(density=0.5, budget=Uniform())
    projected.attach(model, Draws())
    assert model.weight.tolist() == [[4, 3, 0, 0]]
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[4.0, 0.5, 0.0, 0.75]]))
    projected.after_step(0, torch.optim.SGD(model.parameters(), lr=0.1))
    assert model.weight.tolist() == [[4, 0, 0, 0.75]]
    assert projected.masks()["weight"].tolist() == [[True, False, False, True]]
    assert projected.finalize(model).masks.kept == 2


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"bits": 9}, r"method\.bits"),
        ({"density": 0.0}, r"method\.density"),
        ({"interval": 0}, r"method\.interval"),
        ({"rho": -1.0}, r"method\.rho"),
    ],
)
def test_what_cannot_be_factorised_is_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        Factorised(**{"density": 0.5, **options})
