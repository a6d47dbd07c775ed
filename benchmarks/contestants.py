"""Who takes part in the race of adversarial training steps? Each contestant crafts, steps, and names its parts."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gossamer.models import build

EPS, STEP_SIZE = 8 / 255, 2 / 255
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4
CLASSES = 10

Work = Callable[[Tensor, Tensor], object]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What every contestant does: PGD of `steps` steps (l_inf, eps 8/255, step 2/255), then one step of SGD."""

    network: str
    batch: int
    steps: int
    threads: int
    random_start: bool = True


@dataclass(frozen=True, kw_only=True)
class Part:
    """A piece of a contestant's step that can be timed alone; count: how often one step does it."""

    count: int
    work: Work


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """craft: x: (N, C, H, W), y: (N,) to x_adv; step: one whole training step; parts: what the step is made of."""

    model: nn.Module
    craft: Callable[[Tensor, Tensor], Tensor]
    step: Work
    parts: Mapping[str, Part]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One contestant by name. make: "module:function"; peer: stands for another library as its documentation shows it.

    mode: what batch norm does under attack, eval or train, since only equal modes compare; tuned: a peer's loop
    with our memory format, shown beside the others but not what ratios are taken to; double: computes in float64 too.
    """

    make: str
    mode: str
    peer: bool = False
    tuned: bool = False
    double: bool = True
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    summary: str = ""


CONTESTANTS: Mapping[str, Entry] = {
    "torchattacks": Entry(
        make="peers:torchattacks_loop", mode="eval", peer=True, summary="a plain loop around torchattacks.PGD"
    ),
    "art": Entry(
        make="peers:art_trainer",
        mode="eval",
        peer=True,
        double=False,
        summary="ART's AdversarialTrainer(ratio=1.0) on one batch",
    ),
    "torchattacks-channels-last": Entry(
        make="peers:torchattacks_loop",
        mode="eval",
        tuned=True,
        options={"channels_last": True},
        summary="the same loop, its model and images moved to channels-last",
    ),
    "gossamer": Entry(make="ours:training_step", mode="eval", summary="the training loop's step, as it comes"),
    "gossamer-compiled": Entry(
        make="ours:training_step", mode="eval", options={"compiled": True}, summary="the same, compiled"
    ),
    "torchattacks-train": Entry(
        make="peers:torchattacks_loop",
        mode="train",
        peer=True,
        options={"train_mode": True},
        summary="torchattacks.PGD with set_model_training_mode(True, True)",
    ),
    "gossamer-train": Entry(
        make="ours:training_step", mode="train", options={"attack_bn": "train"}, summary='attack_bn="train"'
    ),
}


def make(name: str, weights: Mapping[str, Tensor], setting: Setting) -> Contestant:
    """Return a contestant on its own copy of the network, with the given weights."""
    entry = CONTESTANTS[name]
    module, _, function = entry.make.partition(":")
    # Peers are imported only where they take part, so that the scripts run without them.
    return getattr(importlib.import_module(module), function)(network(weights, setting), setting, **entry.options)


def network(weights: Mapping[str, Tensor], setting: Setting) -> nn.Module:
    """Return a fresh network with the given weights, in their precision and in training mode."""
    model = build(setting.network, num_classes=CLASSES).to(weights["fc.weight"].dtype)
    model.load_state_dict(dict(weights))
    return model.train()


def initial_weights(setting: Setting) -> dict[str, Tensor]:
    """Return weights and buffers that everyone starts from; batch norm has seen some batches, as in training."""
    torch.manual_seed(0)
    model = build(setting.network, num_classes=CLASSES).train()
    with torch.no_grad():
        for _ in range(20):
            model(images(setting.batch)[0])
    return {name: value.clone() for name, value in model.state_dict().items()}


def images(n: int) -> tuple[Tensor, Tensor]:
    """Return random CIFAR-shaped images (n, 3, 32, 32) in [0, 1] and labels (n,)."""
    return torch.rand(n, 3, 32, 32), torch.randint(CLASSES, (n,))
