"""Which networks there are: one lookup from name to factory, description, reference and published options."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from gossamer.errors import ConfigError
from gossamer.models.digits import digits_cnn
from gossamer.models.mobilenet import mobilenetv2
from gossamer.models.preact import preact_resnet18, wideresnet, wideresnet28
from gossamer.models.resnet import (
    resnet18,
    resnet20,
    resnet34,
    resnet50,
    small_resnet18,
    small_resnet34,
    small_resnet50,
    wideresnet20,
)
from gossamer.models.vgg import vgg16, vgg16_imagenet
from gossamer.options import typed

RESNET = "He et al., Deep residual learning for image recognition, CVPR 2016"
LIU = "Liu et al., Robust binary models by pruning randomly-initialized networks, NeurIPS 2022"
ZAGORUYKO = "Zagoruyko and Komodakis, Wide residual networks, BMVC 2016"
BCS = "Ozdenizci and Legenstein, Training adversarially robust sparse networks, ICML 2021"


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One network: its factory, what it is, who published it, and the option values that were published."""

    factory: Callable[..., nn.Module]
    description: str
    reference: str
    published: Mapping[str, tuple[object, ...]] = field(default_factory=dict[str, tuple[object, ...]])

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options the factory takes."""
        return tuple(inspect.signature(self.factory).parameters)

    @property
    def defaults(self) -> dict[str, object]:
        """The options that the factory need not be given, with their values."""
        parameters = inspect.signature(self.factory).parameters.values()
        return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}


MODELS: Mapping[str, ModelEntry] = {
    "resnet18": ModelEntry(
        factory=resnet18,
        description="ResNet-18, 3x3 stem",
        reference=RESNET,
        published={"width": (0.25, 0.5, 1.0), "stem": ("cifar",)},
    ),
    "resnet34": ModelEntry(
        factory=resnet34,
        description="ResNet-34, 3x3 stem, or 7x7 for large images",
        reference=RESNET,
        published={"width": (1.0,), "stem": ("cifar", "imagenet")},
    ),
    "resnet50": ModelEntry(
        factory=resnet50,
        description="ResNet-50 with bottleneck blocks, 3x3 stem",
        reference=RESNET,
        published={"width": (1.0,), "stem": ("cifar",)},
    ),
    "resnet20": ModelEntry(
        factory=resnet20,
        description="ResNet-20 of 16, 32 and 64 channels",
        reference=RESNET,
        published={"width": (1.0, 4.0), "shortcut": ("A", "B")},
    ),
    "wideresnet20": ModelEntry(
        factory=wideresnet20,
        description="ResNet-20 with k times the channels, post-activation",
        reference="Gilles, The lottery ticket hypothesis in an adversarial setting, MIT 2020",
        published={"width": (8,), "shortcut": ("A", "B")},
    ),
    "wideresnet28": ModelEntry(
        factory=wideresnet28,
        description="WideResNet-28-k, pre-activation",
        reference=ZAGORUYKO,
        published={"width": (4, 10)},
    ),
    "wideresnet": ModelEntry(
        factory=wideresnet,
        description="WideResNet-n-k of any depth, pre-activation",
        reference=ZAGORUYKO,
        published={"depth": (16, 22, 28, 34, 40, 70), "width": (1, 2, 4, 8, 10, 12, 16, 20)},
    ),
    "vgg16": ModelEntry(
        factory=vgg16,
        description="VGG-16 with batch norm and three dense layers, or one",
        reference=BCS,
        published={"head": ("dense-256", "single")},
    ),
    "vgg16-imagenet": ModelEntry(
        factory=vgg16_imagenet,
        description="VGG-16 in its ImageNet layout, without batch norm",
        reference="Simonyan and Zisserman, Very deep convolutional networks, ICLR 2015",
        published={"head": ("dense-4096",)},
    ),
    "mobilenetv2": ModelEntry(
        factory=mobilenetv2,
        description="MobileNetV2 for small images, with ReLU",
        reference="Sandler et al., MobileNetV2, CVPR 2018",
    ),
    "preact-resnet18": ModelEntry(
        factory=preact_resnet18,
        description="ResNet-18 with pre-activation blocks",
        reference="He et al., Identity mappings in deep residual networks, ECCV 2016",
        published={"width": (1.0,)},
    ),
    "small-resnet18": ModelEntry(
        factory=small_resnet18,
        description="dense control with about 1 % of the weights of ResNet-18",
        reference=LIU,
        published={"p": (1.0, 0.1), "stem": ("cifar",)},
    ),
    "small-resnet34": ModelEntry(
        factory=small_resnet34,
        description="dense control with about 1 % of the weights of ResNet-34",
        reference=LIU,
        published={"p": (1.0, 0.5, 0.1, 0.0), "stem": ("cifar", "imagenet")},
    ),
    "small-resnet50": ModelEntry(
        factory=small_resnet50,
        description="dense control with about 1 % of the weights of ResNet-50",
        reference=LIU,
        published={"p": (1.0, 0.1), "stem": ("cifar",)},
    ),
    "digits-cnn": ModelEntry(
        factory=digits_cnn,
        description="three convolutions for 8x8 digits, 58,656 weights",
        reference="Gossamer's own, for trials in seconds on a CPU",
    ),
}


def build(name: str, **options: object) -> nn.Module:
    """Return the network of that name; options are its factory's, from num_classes on.

    Raises ConfigError for an unknown name or option, naming the nearest one, and for values no network can have.
    """
    read = check_model(name, options)
    return MODELS[name].factory(**read)


def check_model(name: str, options: Mapping[str, object]) -> dict[str, object]:
    """Return the options, each of its type; raises ConfigError for an unknown network or option and another type."""
    if name not in MODELS:
        raise ConfigError("model", expected="a known network", got=repr(name), remedy=_suggestion(name, tuple(MODELS)))
    entry = MODELS[name]
    for option in options:
        if option not in entry.options:
            raise ConfigError(
                f"option of model {name}",
                expected="an option it takes",
                got=repr(option),
                remedy=_suggestion(option, entry.options),
            )
    return typed(entry.factory, options, f"model {name}")


def _suggestion(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else f"choose among {', '.join(known)}"
