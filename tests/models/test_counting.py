import torch
from torch import nn
from torch.nn.utils import parametrize

from gossamer.models import blocks, build, multiply_adds


class Negated(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return -weight


def test_convolutions_and_linear_layers_count_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=True),  # 5x5 pixels, 8 channels, 27 taps
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, stride=2, groups=4),  # 2x2 pixels, 8 channels, 2 * 9 taps
        nn.ConvTranspose2d(8, 6, 2, groups=2),  # 2x2 pixels, 8 channels, 3 * 4 taps
        nn.Flatten(),
        nn.Linear(54, 10),
    )
    expected = {"0.weight": 25 * 8 * 27, "2.weight": 4 * 8 * 18, "3.weight": 4 * 8 * 12, "5.weight": 540}
    assert multiply_adds(model, (3, 5, 5)) == expected


def test_a_layer_called_twice_counts_twice():
    layer = nn.Linear(4, 4)
    assert multiply_adds(nn.Sequential(layer, nn.ReLU(), layer), (1, 2, 4)) == {"0.weight": 2 * 2 * 4 * 4}


def test_a_lone_layer_has_a_name():
    assert multiply_adds(nn.Conv2d(1, 1, 2), (1, 3, 3)) == {"weight": 16}


def test_resnet18_does_555_million_multiply_adds():
    counts = multiply_adds(build("resnet18"), (3, 32, 32))
    assert counts["conv1.weight"] == 32 * 32 * 1728
    assert counts["layer1.0.conv1.weight"] == 32 * 32 * 36_864
    assert counts["layer2.0.shortcut.0.weight"] == 16 * 16 * 8192
    assert counts["fc.weight"] == 5120
    # 1,024 pixels times stem and stage 1, then a quarter of the pixels at every further stage.
    stages = 1024 * (1728 + 147_456) + 256 * 524_288 + 64 * 2_097_152 + 16 * 8_388_608
    # The first convolutions of stages 2 to 4 already yield the smaller maps, so all of a stage counts alike.
    assert sum(counts.values()) == stages + 5120


def test_counting_leaves_the_model_as_it_was():
    model = build("digits-cnn").train()
    parametrize.register_parametrization(model.conv2, "weight", Negated())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    counts = multiply_adds(model, (1, 8, 8))
    assert list(counts) == ["conv1.weight", "conv2.weight", "conv3.weight", "fc.weight"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_blocks_are_top_level_names():
    names = ["conv1.weight", "layer1.0.conv1.weight", "layer1.1.conv1.weight", "fc.bias"]
    assert list(blocks(names).values()) == ["conv1", "layer1", "layer1", "fc"]


def test_blocks_look_inside_a_wrapper():
    names = ["net.body.layer1.0.weight", "net.body.layer2.0.weight", "net.body.fc.weight"]
    assert list(blocks(names).values()) == ["net.body.layer1", "net.body.layer2", "net.body.fc"]


def test_blocks_of_a_single_layer():
    assert blocks(["fc.weight"]) == {"fc.weight": "fc"}
    assert blocks(["fc.weight", "fc.bias"]) == {"fc.weight": "fc", "fc.bias": "fc"}
    assert blocks(["weight"]) == {"weight": "weight"}
