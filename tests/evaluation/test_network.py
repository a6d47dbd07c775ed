import pytest
import torch
from torch import nn

from gossamer.errors import ConfigError
from gossamer.evaluation import describe_network
from gossamer.evaluation.network import histogram
from gossamer.runs.results import Network


def toy():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4))
    with torch.no_grad():
        model[0].weight.fill_(0.5)
        model[0].weight[:, :, 0] = 0
        model[3].weight.fill_(-1.0)
        model[3].weight[0] = 0
    return model


def test_hand_counted_layers():
    # A 3x3 kernel over a 4x4 image has 4 positions: 18 weights, 72 multiply-adds, 12 weights and 48 of them kept.
    network = describe_network(toy(), (1, 4, 4))
    conv, linear = network.layers
    assert (conv.name, conv.shape, conv.weights, conv.nonzero) == ("0.weight", (2, 1, 3, 3), 18, 12)
    assert (conv.multiply_adds, conv.kept_multiply_adds) == (72, 48)
    assert (linear.weights, linear.nonzero, linear.multiply_adds, linear.kept_multiply_adds) == (32, 24, 32, 24)
    assert (network.totals.weights, network.totals.nonzero, network.totals.density) == (50, 36, 0.72)
    assert network.work_ratio == 104 / 72
    # Both 3x3 kernels keep two of three rows; a linear layer has no kernels.
    assert (conv.kernels, linear.kernels) == ((0, 0, 0, 0, 0, 0, 2, 0, 0, 0), None)
    assert network.histogram.zeros == 14
    assert network.histogram.counts[0] == 24
    assert sum(network.histogram.counts) == 36


def test_model_and_record_survive():
    model = toy().train()
    network = describe_network(model, (1, 4, 4))
    assert model.training
    assert Network.from_json(network.to_json()) == network


def test_a_network_of_zeros_has_no_work_ratio():
    model = toy()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert describe_network(model, (1, 4, 4)).work_ratio is None


def test_histogram_is_symmetric_with_zeros_apart():
    made = histogram(torch.tensor([0.0, 0.0, -2.0, 1.0, 1e-9]), bins=4)
    assert made.edges == (-2.0, -1.0, 0.0, 1.0, 2.0)
    assert made.counts == (1, 0, 1, 1)
    assert made.zeros == 2


def test_weights_that_are_not_numbers_are_refused():
    with pytest.raises(ConfigError, match="finite"):
        histogram(torch.tensor([1.0, float("nan")]))
