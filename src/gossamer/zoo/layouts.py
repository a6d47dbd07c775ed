"""How do others name the tensors of networks that the package has? One table from layout and model to our names.

The layouts are those of HYDRA's release (Sehwag et al., NeurIPS 2020) and of RobustBench (Croce et al., NeurIPS 2021).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from gossamer.errors import DataError
from gossamer.models.resnet import STAGES

Tensors = Mapping[str, Tensor]
Rules = tuple[tuple[str, str], ...]

STATISTICS: Mapping[str, str] = {
    "mean": "mean",
    "std": "std",
    "mu": "mean",
    "sigma": "std",
    "normalize.mean": "mean",
    "normalize.std": "std",
}
"""Names of the buffers that wrappers normalise with, and which statistic each is."""
SCORES = ".popup_scores"
IMAGE_SIZE = 32
"""Pixels of a side: these networks pool the maps of images of this size, and only then as ours do."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """How one layout names one of our networks.

    rules: (pattern, name) in order, the first that matches the whole name tells ours; options: what the tensors say of
    the network's size; remarks: what the names cannot tell; unused: patterns of tensors that forward never reads, each
    with the reason.
    """

    rules: Rules
    options: Callable[[Tensors], dict[str, Any]]
    remarks: tuple[str, ...] = ()
    unused: Rules = ()


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a layout is, how it names each network it has, and whether it may hold scores that mask the weights."""

    summary: str
    models: Mapping[str, Source]
    scored: bool = False


def rename(source: Source, name: str) -> str | None:
    """Return our name of a tensor, None where the layout knows none of that name."""
    for pattern, ours in source.rules:
        if found := re.fullmatch(pattern, name):
            return found.expand(ours)
    return None


def unused(source: Source, name: str) -> str | None:
    """Return why a tensor is left out, None where it is not."""
    return next((reason for pattern, reason in source.unused if re.fullmatch(pattern, name)), None)


def _size(tensors: Tensors, name: str, dimension: int = 0) -> int:
    if name not in tensors or tensors[name].ndim <= dimension:
        raise DataError(
            "checkpoint",
            expected=f"a tensor {name} of the layout",
            got=f"none among {', '.join(list(tensors)[:6])}, ..." if name not in tensors else "one of no such shape",
            remedy="choose another --layout or --model",
        )
    return int(tensors[name].shape[dimension])


def _resnet_options(tensors: Tensors) -> dict[str, Any]:
    return {
        "num_classes": _size(tensors, "linear.weight"),
        "in_channels": _size(tensors, "conv1.weight", 1),
        "width": _size(tensors, "conv1.weight") / STAGES[0],
    }


def _wide_options(tensors: Tensors) -> dict[str, Any]:
    return {
        "num_classes": _size(tensors, "fc.weight"),
        "in_channels": _size(tensors, "conv1.weight", 1),
        "depth": _wide_depth(tensors),
        "width": _size(tensors, "block1.layer.0.conv1.weight") // 16,
    }


def _wide28_options(tensors: Tensors) -> dict[str, Any]:
    options = _wide_options(tensors)
    if (depth := options.pop("depth")) == 28:
        return options
    raise DataError(
        "checkpoint",
        expected="a WideResNet of 28 layers, 4 blocks a stage",
        got=f"one of {depth} layers, {depth // 6} blocks a stage",
        remedy="choose --model wideresnet, which has any depth",
    )


def _wide_depth(tensors: Tensors) -> int:
    """Return the layers of a WideResNet: six for each block of the first stage, and four."""
    blocks = {found[1] for name in tensors if (found := re.match(r"block1\.layer\.(\d+)\.", name))}
    return 6 * len(blocks) + 4


def _vgg_options(tensors: Tensors) -> dict[str, Any]:
    return {
        "num_classes": _size(tensors, "classifier.4.weight"),
        "in_channels": _size(tensors, "features.0.weight", 1),
        "head": "dense-256",
    }


_TENSOR = r"(weight|bias)"
_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"

_RESNET = Source(
    rules=(
        (rf"(conv1|layer\d+\.\d+\.conv\d)\.{_TENSOR}", r"\1.\2"),
        (rf"(bn1|layer\d+\.\d+\.(?:bn\d|shortcut\.1))\.{_NORM}", r"\1.\2"),
        (r"(layer\d+\.\d+\.shortcut\.0)\.weight", r"\1.weight"),
        (rf"linear\.{_TENSOR}", r"fc.\1"),
    ),
    options=_resnet_options,
)

_WIDE = Source(
    rules=(
        (r"conv1\.weight", "conv1.weight"),
        (r"block(\d)\.layer\.(\d+)\.(conv\d)\.weight", r"layer\1.\2.\3.weight"),
        (r"block(\d)\.layer\.(\d+)\.convShortcut\.weight", r"layer\1.\2.shortcut.weight"),
        (rf"block(\d)\.layer\.(\d+)\.(bn\d)\.{_NORM}", r"layer\1.\2.\3.\4"),
        (rf"bn1\.{_NORM}", r"bn.\1"),
        (rf"fc\.{_TENSOR}", r"fc.\1"),
    ),
    options=_wide_options,
    unused=((r"sub_block1\..*", "sub_block1 is built by the original and never called"),),
)

_WIDE28 = replace(_WIDE, options=_wide28_options)

_WHICH_SHORTCUT = (
    "names and shapes are the same where shortcuts read the input of their block instead of its activation, which is "
    "another network: --expect-clean tells them apart"
)

_PREACT = Source(
    rules=(
        (r"(conv1|layer\d+\.\d+\.conv\d)\.weight", r"\1.weight"),
        (r"(layer\d+\.\d+\.shortcut)\.0\.weight", r"\1.weight"),
        (rf"(bn|layer\d+\.\d+\.bn\d)\.{_NORM}", r"\1.\2"),
        (rf"linear\.{_TENSOR}", r"fc.\1"),
    ),
    options=_resnet_options,
    remarks=(_WHICH_SHORTCUT,),
)


def _vgg_rules() -> Rules:
    """Return the names of VGG-16's convolutions by their place in a chain of convolution, batch norm, ReLU, pooling."""
    rules: list[tuple[str, str]] = []
    place = 0
    for block, convolutions in enumerate((2, 2, 3, 3, 3), start=1):
        for index in range(1, convolutions + 1):
            rules.append((rf"features\.{place}\.{_TENSOR}", rf"block{block}.conv{index}.\1"))
            rules.append((rf"features\.{place + 1}\.{_NORM}", rf"block{block}.bn{index}.\1"))
            place += 3
        place += 1
    named = (("0", "fc1"), ("2", "fc2"), ("4", "out"))
    return (*rules, *((rf"classifier\.{number}\.{_TENSOR}", rf"dense.{ours}.\1") for number, ours in named))


_RESNETS = {"resnet18": _RESNET, "resnet34": _RESNET, "resnet50": _RESNET}
_WIDES = {"wideresnet28": _WIDE28, "wideresnet": _WIDE}

LAYOUTS: Mapping[str, Layout] = {
    "hydra": Layout(
        summary="HYDRA's release: state_dict with popup_scores, or the dense one it writes beside",
        models={**_RESNETS, **_WIDES, "vgg16": Source(rules=_vgg_rules(), options=_vgg_options)},
        scored=True,
    ),
    "robustbench-resnet": Layout(summary="RobustBench's ResNet for CIFAR", models=_RESNETS),
    "robustbench-wideresnet": Layout(summary="RobustBench's WideResNet, as TRADES has it", models=_WIDES),
    "robustbench-preact-v2": Layout(
        summary="RobustBench's PreAct ResNet, shortcuts after the activation, batch norm before pooling",
        models={"preact-resnet18": _PREACT},
    ),
}
