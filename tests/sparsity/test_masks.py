import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gossamer.errors import ConfigError
from gossamer.sparsity import Masks, finalise, nonzero_masks, targets
from gossamer.sparsity.budgets import check_density, total_budget, uniform
from gossamer.sparsity.choose import best_of_all, best_of_each
from gossamer.sparsity.masks import intersect
from gossamer.sparsity.targets import fan_in, flat

SHAPES = st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), min_size=1, max_size=3)


@given(shapes=SHAPES, seed=st.integers(0, 99))
def test_packing_is_undone_by_unpacking(shapes: list[list[int]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = Masks({str(i): torch.rand(shape, generator=generator) < 0.5 for i, shape in enumerate(shapes)})
    packed = masks.pack()
    assert [bits.numel() for bits in packed.values()] == [-(-mask.numel() // 8) for mask in masks.values()]
    again = Masks.unpack(packed, {name: mask.shape for name, mask in masks.items()})
    assert list(again) == list(masks)
    assert all(torch.equal(again[name], masks[name]) for name in masks)


def test_channels_last_masks_are_packed_in_row_major_order() -> None:
    mask = (torch.arange(24).reshape(1, 4, 2, 3) % 5 == 0).contiguous(memory_format=torch.channels_last)
    again = Masks.unpack(Masks({"w": mask}).pack(), {"w": mask.shape})
    assert torch.equal(again["w"], mask)


def test_counts_and_densities() -> None:
    masks = Masks({"a": torch.tensor([True, False, False, False]), "b": torch.tensor([[True, True]])})
    assert (masks.kept, masks.total, masks.density) == (3, 6, 0.5)
    assert masks.kept_per_layer == {"a": 1, "b": 2}
    assert masks.density_per_layer == {"a": 0.25, "b": 1.0}
    assert repr(masks) == "Masks(3 of 6 weights kept, density 0.5000)"
    other = Masks({"a": torch.tensor([True, True, False, False]), "b": torch.tensor([[False, True]])})
    assert intersect(masks, other).kept_per_layer == {"a": 1, "b": 1}


def test_masks_that_are_not_bool_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"mask of w: expected a bool tensor, got torch\.float32"):
        Masks({"w": torch.ones(2)})


def test_ties_are_broken_by_position() -> None:
    kept = best_of_all({"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([2.0, 2.0, 0.0])}, 2)
    assert kept["a"].tolist() == [[False, True]]
    assert kept["b"].tolist() == [True, False, False]
    each = best_of_each({"a": torch.zeros(2, 2), "b": torch.tensor([1.0, 3.0])}, {"a": 3, "b": 0})
    assert each["a"].tolist() == [[True, True], [True, False]]
    assert each.kept_per_layer == {"a": 3, "b": 0}


def test_budgets_round_down() -> None:
    assert total_budget({"a": 15, "b": 4}, 0.1) == 1
    assert uniform({"a": 15, "b": 4}, 0.1) == {"a": 1, "b": 0}
    assert total_budget({"a": 7}, 1.0) == 7


@pytest.mark.parametrize(
    ("density", "remedy"),
    [
        (1.5, "write 0.015 for 1.5 %"),
        (90, "write 0.9 for 90 %"),
        (0.0, "share of weights kept"),
        (float("nan"), "kept"),
    ],
)
def test_impossible_densities_are_refused_with_the_likely_mistake_named(density: float, remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        check_density(density, "method.density")


def test_targets_are_every_convolution_and_dense_kernel_once() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), shared, nn.Sequential(shared, nn.Linear(4, 2))
    )
    found = targets(model)
    assert [target.name for target in found] == ["0.weight", "3.weight", "4.1.weight"]
    assert [target.size for target in found] == [36, 16, 8]
    assert all(target.name in model.state_dict() for target in found)
    assert targets(nn.Linear(2, 2))[0].name == "weight"
    assert fan_in(torch.empty(8, 3, 5, 5)) == 75
    with pytest.raises(ConfigError, match="at least one convolution"):
        targets(nn.ReLU())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_flat_is_a_view_in_storage_order(memory_format: torch.memory_format) -> None:
    tensor = torch.arange(48.0).reshape(2, 4, 2, 3).contiguous(memory_format=memory_format)
    view = flat(tensor)
    assert view.data_ptr() == tensor.data_ptr()
    view[5] = -1.0
    assert int((tensor == -1.0).sum()) == 1
    assert torch.equal(flat(tensor == -1.0).nonzero().flatten(), torch.tensor([5]))


def test_finalising_counts_what_ships() -> None:
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.0, -0.0, 2.0]]))
    shipped = finalise(model, Masks({"weight": torch.tensor([[True, True, True, False]])}))
    assert shipped.masks.kept == 1
    assert shipped.density == 0.25
    assert shipped.module.weight.tolist() == [[1.0, 0.0, 0.0, 0.0]]
    assert not torch.signbit(shipped.module.weight).any()  # type: ignore[arg-type]
    assert model.weight.tolist() == [[1.0, 0.0, 0.0, 2.0]]
    assert nonzero_masks(model).kept == 2
