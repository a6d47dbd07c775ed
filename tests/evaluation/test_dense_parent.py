"""What does density refer to? The weights of the dense parent, where a network's own kernels are others."""

import pytest
import torch
from torch import nn

from gossamer.evaluation import describe_network, evaluate
from gossamer.evaluation.subject import of_parent


def factors() -> nn.Module:
    """Return a kernel of 4 x 8 as the product of 4 x 2 and 2 x 8 weights, 6 of them zero."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 2, bias=False), nn.Linear(2, 4, bias=False))
    with torch.no_grad():
        model[1].weight.fill_(0.5)
        model[1].weight[0, :6] = 0
        model[2].weight.fill_(0.25)
    return model


def parent() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(8, 4, bias=False))


def test_an_evaluation_counts_against_the_dense_parent() -> None:
    data = (torch.rand(4, 1, 2, 4), torch.tensor([0, 1, 2, 3]))
    own = evaluate(factors(), data, "fgsm", threat="linf:0.1")
    seen = evaluate(factors(), data, "fgsm", threat="linf:0.1", dense_weights=32)
    assert (own.weights, own.nonzero, own.density) == (24, 18, 0.75)
    assert (seen.weights, seen.nonzero, seen.density) == (32, 18, 0.5625)
    assert (seen.model.weights, seen.model.density) == (32, 0.5625)
    assert "density 56.25%: 18 of 32 weights" in str(seen)


def test_the_network_s_totals_and_work_are_those_of_the_dense_parent() -> None:
    network = describe_network(factors(), (1, 2, 4), parent=parent())
    totals = network.totals
    assert (totals.weights, totals.nonzero, totals.density) == (32, 18, 0.5625)
    assert (totals.multiply_adds, totals.kept_multiply_adds) == (32, 18)
    assert network.work_ratio == pytest.approx(32 / 18)
    plain = parent()
    assert describe_network(plain, (1, 2, 4), parent=parent()) == describe_network(plain, (1, 2, 4))


def test_several_networks_in_one_are_counted_for_themselves() -> None:
    assert of_parent(90, 40, 30) == (90, 40)
    assert of_parent(90, 20, 30) == (30, 20)
    assert of_parent(90, 20, None) == (90, 20)
