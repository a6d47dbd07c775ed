"""BinaryConnect over dense, random masks, Flying Bird and HYDRA: it ships -1, 0 and +1, and resumes to the bit."""

from pathlib import Path
from typing import Any

import pytest
import torch

import pairs
import phases_on_digits as small
from gossamer.errors import ConfigError
from gossamer.methods.registry import build
from gossamer.recipe.open import open_run
from gossamer.sparsity import targets
from gossamer.sparsity.binary_weights import Binary

_MASKED = {-1.0, 0.0, 1.0}
SHIPPED = {"dense": {-1.0, 1.0}, "random": _MASKED, "flying-bird": _MASKED, "hydra": _MASKED}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_binary_run_ships_signs_and_resumes_to_the_same_bits(name: str, tmp_path: Path) -> None:
    values = pairs.recipe(name, "adversarial")
    values["method"] = {**values["method"], "binary": True}
    if name == "flying-bird":
        values["method"]["every"] = 2
    seen = pairs.assert_resumes(lambda: values, tmp_path, break_at=7 if name == "hydra" else 4)
    opened = open_run(tmp_path / "whole")
    for layer in targets(opened.model()):
        assert set(layer.weight.unique().tolist()) == SHIPPED[name]
    assert seen.finalised is not None
    assert seen.finalised.kind == "same-keys"


def test_hydra_goes_on_from_latent_weights(tmp_path: Path) -> None:
    values = pairs.recipe("hydra", "adversarial")
    values["method"] = {**values["method"], "binary": True, "binary_scale": "mean"}
    pairs.run_pair(values, tmp_path / "run")
    opened = open_run(tmp_path / "run")
    dense, pruned, final = (targets(opened.model(name)) for name in ("pretrain.end", "prune.end", "final"))
    for trained, chosen, shipped in zip(dense, pruned, final, strict=True):
        mask = chosen.parameter != 0
        assert int(mask.sum()) == int(pairs.DENSITY * mask.numel())
        assert torch.equal(chosen.parameter[mask], trained.parameter[mask])
        assert len(trained.parameter.unique()) > 100
        assert len(trained.weight.unique()) == 2
        assert len(shipped.weight.unique()) == 3
        assert torch.equal(shipped.weight != 0, mask)


@pytest.mark.parametrize("name", SHIPPED)
def test_binary_weights_are_trained_by_adam(name: str) -> None:
    options: dict[str, Any] = {} if name == "dense" else {"density": 0.1}
    spec = build(name, binary=True, **options)
    optimizer = spec.default_optimizer("adversarial")
    assert (optimizer.kind, optimizer.lr, optimizer.weight_decay) == ("adam", 5e-4, 0.0)
    assert all(isinstance(phase.sparsifier(), Binary) for phase in spec.phases(small.phase(), "digits-cnn"))
    assert build(name, **options).default_optimizer("adversarial").kind == "sgd"
    with pytest.raises(ConfigError, match=r"method\.binary_scale: expected binary: true beside it"):
        build(name, binary_scale="mean", **options)
