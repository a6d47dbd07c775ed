import argparse

import pytest
import torch

import mask_update
from contestants import Setting
from gossamer.methods.registry import METHODS
from gossamer.seeding import Draws
from gossamer.sparsity import HardMask, Horizon
from gossamer.sparsity.dynamic_mask import DynamicMask
from gossamer.sparsity.gradual import GradualPruning

SETTING = Setting(network="resnet20", batch=2, steps=1, threads=1)


def attached(sparsifier, steps):
    sparsifier.attach(torch.nn.Linear(4, 4), Draws(), Horizon(epochs=1, steps_per_epoch=steps, image_shape=(1, 8, 8)))
    return sparsifier


def test_steps_that_move_masks_weigh_as_often_as_they_happen():
    assert mask_update.pace(attached(DynamicMask(density=0.5, every=10), 100), 100) == mask_update.Pace(
        quiet=0, busy=19, share=0.07
    )
    gradual = attached(GradualPruning(density=0.5, begin=0.0, end=0.5, every=25), 100)
    assert mask_update.pace(gradual, 100) == mask_update.Pace(quiet=0, busy=49, share=0.02)
    assert mask_update.pace(attached(HardMask(density=0.5), 100), 100) == mask_update.Pace(quiet=0, busy=0, share=1.0)


def test_shares_are_formed_within_a_round():
    seconds = {"dense": [(10.0, 10.0), (20.0, 20.0)], "rigl/train": [(0.1, 3.0), (0.4, 3.0)]}
    [(name, share)] = mask_update.shares(seconds).items()
    assert (name, share["min"], share["max"], share["n"]) == ("rigl/train", 0.01, pytest.approx(0.02), 2)


def test_every_method_with_a_sparsifier_takes_part_once():
    phases = mask_update.sparse_phases(SETTING, 0.1)
    assert {"bcs/train", "rigl/train", "set/train", "flying-bird/train", "gradual/train"} <= set(phases)
    assert "dense/train" not in phases
    assert {name.partition("/")[0] for name in phases} <= set(METHODS)


@pytest.mark.long
def test_a_sparsifier_is_timed_beside_the_dense_step():
    options = argparse.Namespace(density=0.1, rounds=1, gradient_batch=2)
    seconds = mask_update.race(SETTING, ["bcs/train", "rigl/train"], options)
    assert list(seconds) == ["dense", "bcs/train", "rigl/train"]
    assert all(0.0 < mean <= busy for each in seconds.values() for mean, busy in each)
