import copy
import math

import pytest
import torch
from torch import fx, nn

from gossamer.errors import ConfigError
from gossamer.models import MODELS, Normalize, blocks, build
from gossamer.models.layers import SubsamplePad

# name, options, convolution and linear kernels, all parameters: from the papers' tables and code.
COUNTS = [
    ("resnet18", {}, 11_164_352, 11_173_962),
    ("resnet18", {"num_classes": 100}, 11_210_432, 11_220_132),
    ("resnet34", {}, 21_265_088, 21_282_122),
    ("resnet34", {"num_classes": 100}, 21_311_168, 21_328_292),
    ("resnet34", {"num_classes": 200, "image_size": 64}, 21_362_368, 21_379_592),
    ("resnet34", {"num_classes": 100, "image_size": 224, "stem": "imagenet"}, 21_318_848, 21_335_972),
    ("resnet50", {}, 23_467_712, 23_520_842),
    ("resnet50", {"num_classes": 100}, 23_652_032, 23_705_252),
    ("resnet20", {}, 268_336, 269_722),
    ("resnet20", {"shortcut": "B"}, 270_896, 272_474),
    ("wideresnet20", {}, 17_113_472, 17_124_490),
    ("wideresnet20", {"shortcut": "B"}, 17_277_312, 17_289_866),
    ("wideresnet20", {"wide_stem": False}, 16_981_424, 16_992_218),
    ("wideresnet20", {"wide_stem": False, "shortcut": "B"}, 17_147_312, 17_159_898),
    ("wideresnet28", {}, 5_841_840, 5_849_050),
    ("wideresnet", {"depth": 28, "width": 10}, 36_461_232, 36_479_194),
    ("wideresnet", {}, 46_138_032, 46_160_474),
    ("wideresnet", {"depth": 34, "width": 20}, 184_486_832, 184_531_674),
    ("wideresnet", {"depth": 70, "width": 16}, 266_717_616, 266_796_506),
    ("vgg16", {}, 15_302_848, 15_311_818),
    ("vgg16", {"head": "single"}, 14_715_584, 14_724_042),
    ("vgg16-imagenet", {}, 138_344_128, 138_357_544),
    ("mobilenetv2", {}, 2_261_824, 2_296_922),
    ("mobilenetv2", {"num_classes": 100}, 2_377_024, 2_412_212),
    ("preact-resnet18", {}, 11_164_352, 11_172_170),
    ("small-resnet18", {"p": 0.1}, 99_550, 100_600),
    ("small-resnet34", {"p": 1.0}, 214_652, 216_370),
    ("small-resnet34", {"p": 0.5}, 212_021, 213_901),
    ("small-resnet34", {"p": 0.1}, 199_198, 201_088),
    ("small-resnet34", {"p": 0.0}, 197_678, 199_560),
    ("small-resnet50", {"p": 0.1}, 227_718, 233_710),
    ("digits-cnn", {}, 58_656, 58_986),
]

STAGES = [
    ("resnet18", {}, {"conv1": 1728, "layer1": 147_456, "layer2": 524_288, "layer3": 2_097_152, "layer4": 8_388_608}),
    ("resnet18", {"num_classes": 100}, {"fc": 51_200}),
    ("resnet34", {}, {"layer1": 221_184, "layer2": 1_114_112, "layer3": 6_815_744, "layer4": 13_107_200}),
    ("resnet50", {}, {"layer1": 212_992, "layer2": 1_212_416, "layer3": 7_077_888, "layer4": 14_942_208}),
    ("wideresnet28", {}, {"conv1": 432, "layer1": 268_288, "layer2": 1_114_112, "layer3": 4_456_448, "fc": 2560}),
    ("vgg16", {}, {"block1": 38_592, "block2": 221_184, "block3": 1_474_560, "block4": 5_898_240}),
    ("vgg16", {}, {"block5": 7_077_888, "dense": 592_384}),
]

SMALL = {
    "resnet18": {"width": 0.125},
    "resnet34": {"width": 0.125, "stem": "imagenet"},
    "resnet50": {"width": 0.125},
    "wideresnet20": {"width": 1},
    "wideresnet28": {"width": 1},
    "wideresnet": {"depth": 10, "width": 1},
    "vgg16-imagenet": {"head": "single", "image_size": 32},
    "preact-resnet18": {"width": 0.125},
}


def kernels(model: nn.Module) -> dict[str, int]:
    return {
        name: module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def on_meta(name: str, options: dict[str, object]) -> nn.Module:
    with torch.device("meta"):
        return build(name, **options)


def small(name: str, **options: object) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = build(name, **{**SMALL.get(name, {}), **options}).eval()
    channels, size = (1, 8) if name == "digits-cnn" else (3, 32)
    return model, torch.rand(2, channels, size, size)


@pytest.mark.parametrize(("name", "options", "prunable", "total"), COUNTS)
def test_parameter_counts_are_the_published_ones(name, options, prunable, total):
    model = on_meta(name, options)
    assert sum(kernels(model).values()) == prunable
    assert sum(parameter.numel() for parameter in model.parameters()) == total


@pytest.mark.parametrize(("name", "options", "expected"), STAGES)
def test_weights_per_stage_are_the_published_ones(name, options, expected):
    sizes = {f"{layer}.weight": size for layer, size in kernels(on_meta(name, options)).items()}
    stage_of = blocks(sizes)
    totals = {stage: sum(size for key, size in sizes.items() if stage_of[key] == stage) for stage in expected}
    assert totals == expected


@pytest.mark.parametrize(("name", "layers"), [("resnet18", 21), ("resnet34", 37), ("resnet50", 54)])
def test_layer_counts(name, layers):
    assert len(kernels(on_meta(name, {}))) == layers


@pytest.mark.parametrize("name", MODELS)
def test_every_network_maps_images_to_logits_alike_in_all_forms(name):
    model, x = small(name)
    logits = model(x)
    assert logits.shape == (2, 1000 if name == "vgg16-imagenet" else 10)
    others = {
        "copied": copy.deepcopy(model)(x),
        "traced": fx.symbolic_trace(model)(x),
        "channels last": copy.deepcopy(model).to(memory_format=torch.channels_last)(
            x.contiguous(memory_format=torch.channels_last)
        ),
    }
    for other in others.values():
        torch.testing.assert_close(other, logits, rtol=1e-4, atol=1e-4 * float(logits.detach().abs().max()))


@pytest.mark.parametrize("name", [name for name in MODELS if "imagenet" not in name])
@pytest.mark.parametrize("size", [17, 40])
def test_other_image_sizes_and_channels_work(name, size):
    model, _ = small(name, image_size=size, in_channels=2, num_classes=3)
    assert model(torch.rand(1, 2, size, size)).shape == (1, 3)


@pytest.mark.parametrize("name", MODELS)
def test_normalisation_comes_first_and_last_batch_norm_last(name):
    channels = 1 if name == "digits-cnn" else 3
    statistics = {"mean": (0.5,) * channels, "std": (0.25,) * channels}
    model, x = small(name, last_batch_norm=True, **statistics)
    first, *_, last = model.children()
    assert isinstance(first, Normalize)
    torch.testing.assert_close(first(x), 4 * x - 2)
    assert isinstance(last, nn.BatchNorm1d)
    assert not list(last.parameters())
    plain, _ = small(name, **statistics)
    assert len(list(plain.children())) == len(list(model.children())) - 1
    last.running_mean.fill_(1.0)
    last.running_var.fill_(4.0 - last.eps)
    torch.testing.assert_close(model(x), (plain(x) - 1) / 2)


def test_without_statistics_normalisation_returns_the_very_images():
    layer, x = Normalize(3), torch.rand(1, 3, 2, 2)
    assert layer(x) is x
    assert set(layer.state_dict()) == {"mean", "std"}


def test_kernels_are_he_normal_and_biases_zero():
    torch.manual_seed(0)
    model = build("resnet18")
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            expected = math.sqrt(2 / fan_in)
            assert module.weight.std().item() == pytest.approx(expected, rel=5 / math.sqrt(module.weight.numel()))
            assert module.bias is None
    assert torch.equal(model.fc.bias, torch.zeros(10))


def test_option_a_takes_every_second_pixel_and_appends_zero_channels():
    x = torch.arange(9.0).view(1, 1, 3, 3)
    expected = torch.zeros(1, 2, 2, 2)
    expected[0, 0] = torch.tensor([[0.0, 2.0], [6.0, 8.0]])
    assert torch.equal(SubsamplePad(1, 2, 2)(x), expected)


def test_a_wideresnet_of_28_layers_is_the_one_of_that_name():
    torch.manual_seed(0)
    named = build("wideresnet28", width=2).state_dict()
    torch.manual_seed(0)
    sized = build("wideresnet", depth=28, width=2).state_dict()
    assert list(named) == list(sized)
    assert all(torch.equal(tensor, sized[name]) for name, tensor in named.items())


def test_preactivation_shortcuts_have_no_batch_norm_and_share_the_first_activation():
    model, _ = small("wideresnet28", width=2)
    block = model.layer2[0].double()
    assert isinstance(block.shortcut, nn.Conv2d)
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(1, 32, 4, 4, dtype=torch.float64)
    activated = torch.relu(block.bn1(x))
    torch.testing.assert_close(block(x), block.shortcut(activated))


@pytest.mark.parametrize("size", [1, 8, 33])
def test_residual_networks_pool_globally(size):
    model, _ = small("resnet20", image_size=size)
    assert model(torch.rand(2, 3, size, size)).shape == (2, 10)


def test_digits_network_is_small():
    model, x = small("digits-cnn")
    assert 58_000 < sum(kernels(model).values()) < 59_000
    assert 2 <= sum(isinstance(module, nn.Conv2d) for module in model.modules()) <= 4
    assert model(x).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("resnet18", {"num_classes": 1}, "num_classes"),
        ("resnet18", {"num_classes": 10.5}, "num_classes"),
        ("resnet18", {"num_classes": True}, "num_classes"),
        ("resnet18", {"in_channels": 0}, "in_channels"),
        ("resnet18", {"image_size": 0}, "image_size"),
        ("resnet18", {"width": 0.001}, "width"),
        ("resnet18", {"width": float("nan")}, "width"),
        ("resnet18", {"width": "half"}, "width"),
        ("resnet18", {"stem": "large"}, "'cifar' or 'imagenet'"),
        ("resnet18", {"mean": (0.5, 0.5, 0.5)}, "both or neither"),
        ("resnet18", {"mean": (0.5,), "std": (0.5,)}, "3 finite numbers"),
        ("resnet18", {"mean": (0.5,) * 3, "std": (0.5, 0.5, 0.0)}, "positive"),
        ("resnet20", {"shortcut": "C"}, "shortcut"),
        ("wideresnet20", {"width": 0}, "width"),
        ("wideresnet28", {"width": 2.5}, "width"),
        ("wideresnet", {"width": 0}, "width"),
        ("wideresnet", {"depth": 4}, "an integer of at least 10"),
        ("wideresnet", {"depth": 32}, "6 n \\+ 4 layers"),
        ("wideresnet", {"depth": 28.5}, "depth"),
        ("wideresnet", {"depth": 6 * 10**9 + 4}, "1000 at most"),
        ("vgg16", {"image_size": 15}, "at least 16"),
        ("vgg16", {"image_size": 31, "head": "single"}, "at least 32"),
        ("vgg16", {"head": "double"}, "head"),
        ("small-resnet18", {"p": 0.5}, "1.0 or 0.1"),
    ],
)
def test_impossible_sizes_are_refused(name, options, word):
    with pytest.raises(ConfigError, match=word):
        build(name, **options)


@pytest.mark.parametrize(("head", "size"), [("dense-256", 16), ("single", 32)])
def test_the_least_image_size_of_vgg_works(head, size):
    model = build("vgg16", head=head, image_size=size).eval()
    assert model(torch.rand(1, 3, size, size)).shape == (1, 10)
