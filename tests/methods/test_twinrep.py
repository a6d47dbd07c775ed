"""TwinRep's phase: the cut at its epoch, nothing selected from before it, and what ships."""

from pathlib import Path
from typing import Any

import pytest

import pairs
import phases_on_digits as small
from gossamer.attacks.pgd import PGD
from gossamer.errors import ConfigError
from gossamer.methods.twinrep import ProbeFrom, TwinRep
from gossamer.sparsity.twin import TwinRepresentation
from gossamer.threat import ThreatModel
from gossamer.training.monitors import Probe


def test_the_cut_is_a_tenth_into_the_training_or_where_asked() -> None:
    (phase,) = TwinRep(density=0.01).phases(small.phase(epochs=100), "resnet18")
    sparsifier = phase.sparsifier()
    assert isinstance(sparsifier, TwinRepresentation)
    # At the start of epoch 10, counted from 1: after nine.
    assert sparsifier._cut_after == 9
    (phase,) = TwinRep(density=0.01, pruning_epoch=1).phases(small.phase(epochs=1), "resnet18")
    assert phase.sparsifier()._cut_after == 0  # type: ignore[attr-defined]
    spec = TwinRep(density=0.1).default_optimizer("trades")
    assert (spec.lr, spec.momentum, spec.weight_decay) == (0.1, 0.9, 2e-4)


def test_probes_are_silent_before_the_cut() -> None:
    attack = PGD(threat=ThreatModel("linf", 0.15), steps=1)
    probe = Probe("held_out", small.digits(20), {"pgd": attack})
    (phase,) = TwinRep(density=0.5, pruning_epoch=3).phases(small.phase(epochs=4, probes=(probe,)), "digits-cnn")
    (made,) = phase.probes
    assert isinstance(made, ProbeFrom)
    model = small.network()
    assert made(1, model, last=False, seed=0) == {"held_out/clean": None, "held_out/pgd": None}
    assert made(2, model, last=False, seed=0) == probe(2, model, last=False, seed=0)


@pytest.mark.parametrize("options", [{"pruning_epoch": 2}, {"structure": "filters", "first": "he", "density": 0.5}])
def test_a_run_resumes_to_the_bit_and_ships_dense_keys(options: dict[str, Any], tmp_path: Path) -> None:
    values = pairs.recipe("twinrep", "adversarial")
    values["method"] = {**values["method"], **options}
    seen = pairs.assert_resumes(lambda: values, tmp_path, break_at=4)
    assert seen.finalised is not None
    assert seen.finalised.kind == "same-keys"
    if "density" not in options:
        assert seen.finalised.masks.kept == 58_656 - round(58_656 * 0.8)


def test_a_cut_before_or_after_training_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.pruning_epoch: expected an epoch, counted from 1, got 0"):
        TwinRep(density=0.1, pruning_epoch=0)
    with pytest.raises(ConfigError, match=r"method.pruning_epoch: expected an epoch of the training \(1 to 2\), got 3"):
        TwinRep(density=0.1, pruning_epoch=3).phases(small.phase(epochs=2), "digits-cnn")
    with pytest.raises(ConfigError, match=r"method\.density"):
        TwinRep(density=0.0)
