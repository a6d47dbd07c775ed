"""What is chosen once a step, and never in a forward pass: an attack of many steps would pay for it every time."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import phases_on_digits as small
from gossamer.attacks.crafting import BatchNormMode
from gossamer.attacks.pgd import PGD
from gossamer.data import Augmentation, make_batch
from gossamer.methods.registry import build
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.training.crafting import Crafter
from gossamer.training.loop import begin, train_step
from gossamer.training.phases import fresh

SELECTIONS = {"kthvalue", "topk", "sort"}
SUMS = {"count_nonzero"}
LAYERS = 4


class Counting(TorchDispatchMode):
    """Counts the operations that the tensor library is asked for, whoever asks."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    def of(self, names: set[str]) -> int:
        return sum(count for name, count in self.counts.items() if name in names)


# Which phase of a method searches, and how many selections a step takes: one a layer, or one of the whole network.
CASES: Mapping[str, tuple[dict[str, Any], int, int]] = {
    "edge-popup": ({}, 0, LAYERS),
    "robust-subnet": ({}, 0, LAYERS),
    "scratch-ticket": ({}, 0, LAYERS),
    "hydra": ({}, 1, LAYERS),
    "hydra-global": ({"scope": "global"}, 1, 1),
    "hydra-binary": ({"binary": True, "binary_scale": "mean"}, 1, LAYERS),
    "harp": ({}, 1, LAYERS),
}


def stepped(phase: Any, folder: Path, mode: BatchNormMode) -> tuple[Counting, Counting, Counting]:
    """Return what is counted in a forward pass, while a batch is attacked, and in a whole training step."""
    searching = replace(
        phase, start=fresh, attack=PGD(threat=ThreatModel("linf", 0.15), steps=3), attack_bn=mode, average=None
    )
    job = small.job(folder)
    training = begin(searching, small.network(), small.scene(searching, job))
    crafter = Crafter(training.model, small.PLACE, mode)
    batch = make_batch(job.data, torch.arange(20), Augmentation(), Draws(0), "cpu")
    with Counting() as forward:
        training.model.train()(batch.x)
        training.model.eval()(batch.x)
    with Counting() as crafted:
        crafter(training.objective, training.model, batch, searching.attack, training.state, draws=Draws(1))
    with Counting() as step:
        train_step(
            searching,
            training,
            batch,
            searching.attack,
            crafter=crafter,
            network=training.model,
            place=small.PLACE,
            draws=Draws(2),
        )
    return forward, crafted, step


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", CASES)
def test_a_search_selects_once_a_step(name: str, mode: BatchNormMode, tmp_path: Path) -> None:
    options, index, expected = CASES[name]
    method = build(name.removesuffix("-global").removesuffix("-binary"), density=0.1, **options)
    phase = method.phases(small.phase(), "digits-cnn")[index]
    forward, crafted, step = stepped(phase, tmp_path, mode)
    assert (forward.of(SELECTIONS), crafted.of(SELECTIONS), step.of(SELECTIONS)) == (0, 0, expected)


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize(("scale", "expected"), [("none", 0), ("mean", LAYERS)])
def test_the_scale_of_signs_is_computed_once_a_step_where_there_is_one(
    scale: str, expected: int, mode: BatchNormMode, tmp_path: Path
) -> None:
    method = build("dense", binary=True, binary_scale=scale)
    forward, crafted, step = stepped(method.phases(small.phase(), "digits-cnn")[0], tmp_path, mode)
    assert (forward.of(SUMS), crafted.of(SUMS), step.of(SUMS)) == (0, 0, expected)
