"""Cuts by threshold and density, and the proximal step, by hand."""

from typing import Any

import pytest
import torch
from torch import nn

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.sparsity import targets
from gossamer.sparsity.thresholding import SoftThreshold, check_cut, survivors


def two_layers() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(3, 1, bias=False), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.5, -0.01, 0.0]]))
        model[1].weight.copy_(torch.tensor([[-0.3], [2e-6]]))
    return model


@pytest.mark.parametrize(
    ("cut", "first", "second"),
    [
        ({"threshold": 0.3}, [True, False, False], [True, False]),
        ({"threshold": 0.0}, [True, True, False], [True, True]),
        ({}, [True, True, False], [True, False]),
        ({"density": 0.4}, [True, False, False], [True, False]),
        ({"density": 0.2}, [True, False, False], [False, False]),
    ],
    ids=str,
)
def test_a_cut_keeps_what_is_large_in_the_whole_network(
    cut: dict[str, float], first: list[bool], second: list[bool]
) -> None:
    masks = survivors(targets(two_layers()), **cut)
    assert [mask.flatten().tolist() for mask in masks.values()] == [first, second]


def test_the_proximal_step_shrinks_towards_zero_and_stops_there() -> None:
    model = two_layers()
    sparsifier = SoftThreshold(strength=0.2)
    sparsifier.attach(model, Draws())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    sparsifier.after_step(0, optimizer)
    # lr * strength = 0.1.
    assert model[0].weight.flatten().tolist() == pytest.approx([0.4, 0.0, 0.0])
    assert model[1].weight.flatten().tolist() == pytest.approx([-0.2, 0.0])
    assert sparsifier.masks().kept == 2
    assert sparsifier.finalize(model).masks.kept == 2
    with torch.no_grad():
        model[0].weight[0, 1] = 0.3
    assert sparsifier.masks().kept == 3


@pytest.mark.parametrize(
    ("density", "threshold", "said"),
    [
        (0.1, 1e-5, r"method\.threshold: expected a density or a threshold, not both"),
        (None, -1.0, r"method\.threshold: expected a magnitude of at least 0"),
        (10.0, None, r"method\.density: .*write 0\.1 for 10 %"),
    ],
)
def test_impossible_cuts_are_refused(density: Any, threshold: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_cut(density, threshold)


def test_a_negative_strength_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.strength"):
        SoftThreshold(strength=-1.0)
