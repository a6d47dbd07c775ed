"""Twin representation: gradients of both factors, one exact cut over all layers, and the folded network."""

from typing import Any

import pytest
import torch
from torch import nn

from gossamer.errors import ConfigError
from gossamer.models.registry import build
from gossamer.seeding import Draws
from gossamer.sparsity import Horizon, targets
from gossamer.sparsity.twin import Twin, TwinRepresentation


def horizon(epochs: int = 20) -> Horizon:
    return Horizon(epochs=epochs, steps_per_epoch=2, image_shape=(1, 8, 8))


def attached(model: nn.Module, **options: Any) -> TwinRepresentation:
    twins = TwinRepresentation(**options)
    twins.attach(model, Draws(), horizon())
    return twins


def twin(module: nn.Module) -> Twin:
    return module.parametrizations["weight"][0]  # type: ignore[union-attr,index,return-value]


def test_each_factor_learns_through_the_other_and_through_the_mask() -> None:
    model = nn.Sequential(nn.Linear(3, 1, bias=False))
    attached(model, density=1 / 3)
    part, theta = twin(model[0]), targets(model)[0].parameter
    with torch.no_grad():
        theta.copy_(torch.tensor([[2.0, -3.0, 1.0]]))
        part.factor.copy_(torch.tensor([[0.5, 1.0, 2.0]]))
        part.mask.copy_(torch.tensor([[True, False, True]]))
    torch.testing.assert_close(model[0].weight.detach(), torch.tensor([[1.0, 0.0, 2.0]]))
    model(torch.tensor([[1.0, 10.0, 100.0]])).sum().backward()
    torch.testing.assert_close(theta.grad, torch.tensor([[0.5, 0.0, 200.0]]))
    torch.testing.assert_close(part.factor.grad, torch.tensor([[2.0, 0.0, 100.0]]))


def test_the_cut_takes_the_smallest_products_of_all_layers_at_its_epoch_and_no_other() -> None:
    model = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3))
    twins = attached(model, density=0.3, cut_after=2)
    products = torch.cat([layer.weight.detach().abs().flatten() for layer in targets(model)])
    twins.after_epoch(0, {})
    assert twins.masks().kept == 50
    twins.after_epoch(1, {})
    assert twins.masks().kept == 50 - round(50 * 0.7)
    kept = torch.cat([mask.flatten() for mask in twins.masks().values()])
    assert float(products[kept].min()) > float(products[~kept].max())
    before = dict(twins.masks())
    with torch.no_grad():
        targets(model)[0].parameter.mul_(1e-3)
    twins.after_epoch(2, {})
    assert all(torch.equal(before[name], mask) for name, mask in twins.masks().items())


@pytest.mark.parametrize("structure", ["weights", "filters"])
def test_a_network_that_was_stopped_before_the_cut_ships_cut(structure: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 10, 3), nn.Flatten(), nn.Linear(360, 5))
    twins = attached(model, density=0.3, cut_after=2, structure=structure)
    twins.after_epoch(0, {})
    early = twins.finalize(model).module.state_dict()
    twins.after_epoch(1, {})
    late = twins.finalize(model).module.state_dict()
    assert all(torch.equal(early[name], late[name]) for name in late)
    assert not early["0.weight"].all()


def test_filters_need_a_convolution() -> None:
    with pytest.raises(ConfigError, match="weights in a network that has no filters"):
        attached(nn.Sequential(nn.Linear(7, 5)), density=0.3, structure="filters")


def test_resnet18_keeps_the_published_number_at_one_percent() -> None:
    with torch.device("meta"):
        total = sum(layer.size for layer in targets(build("resnet18")))
    assert total - round(total * (1 - 0.01)) == 111_644


def test_factors_start_uniform_within_their_published_bound_or_with_hes_variance() -> None:
    model = nn.Sequential(nn.Linear(100, 400))
    attached(model, density=0.5)
    theta, factor = targets(model)[0].parameter.detach(), twin(model[0]).factor.detach()
    assert float(theta.abs().max()) <= 0.1 >= float(factor.abs().max())
    assert float(model[0].weight.detach().std()) == pytest.approx(1 / 300, rel=0.02)
    assert not torch.equal(theta, factor)
    model = nn.Sequential(nn.Linear(100, 400))
    attached(model, density=0.5, first="he")
    assert float(model[0].weight.detach().std()) == pytest.approx((2 / 100) ** 0.5, rel=0.02)


def test_whole_filters_go_by_their_norm_one_stays_in_every_layer_and_linear_layers_stay() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    twins = attached(model, density=0.5, structure="filters")
    assert twins.contract == "reported"
    assert twin(model[0]).factor.shape == (4, 4)
    with torch.no_grad():
        targets(model)[1].parameter.mul_(1e-3)
    twins.cut()
    masks = twins.masks()
    assert [int(masks[f"{i}.weight"].flatten(1).any(dim=1).sum()) for i in (0, 1)] == [4, 1]
    assert all(bool(row.all()) or not row.any() for row in masks["1.weight"].flatten(1))
    assert bool(masks["3.weight"].all())


def test_a_filter_is_a_mixture_of_the_filters_of_its_layer() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False))
    attached(model, density=1.0, structure="filters")
    with torch.no_grad():
        targets(model)[0].parameter.copy_(torch.tensor([1.0, 10.0]).view(2, 1, 1, 1))
        twin(model[0]).factor.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert model[0].weight.flatten().tolist() == [21.0, 43.0]


@pytest.mark.parametrize("structure", ["weights", "filters"])
def test_the_folded_network_has_dense_keys_and_equal_outputs(structure: str) -> None:
    model = build("digits-cnn").eval()
    dense = set(model.state_dict())
    twins = attached(model, density=0.2, structure=structure, cut_after=0)
    x = torch.rand(4, 1, 8, 8)
    final = twins.finalize(model)
    torch.testing.assert_close(final.module(x), model(x), rtol=1e-4, atol=1e-5)
    assert set(final.module.state_dict()) == dense
    assert final.masks.kept == twins.masks().kept


def test_a_cut_after_the_end_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method.pruning_epoch: expected an epoch of the training \(1 to 3\), got 4"):
        TwinRepresentation(density=0.1, cut_after=3).attach(nn.Sequential(nn.Linear(2, 2)), Draws(), horizon(3))
