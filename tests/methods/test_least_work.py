"""Which methods can divide their weights by least work is what the error of the others advises."""

from typing import Any

import pytest

import phases_on_digits as small
from gossamer.errors import ConfigError
from gossamer.methods.registry import METHODS, build
from gossamer.seeding import Draws
from gossamer.sparsity import Horizon
from gossamer.sparsity.budgets import MEASURING, LeastWork

HORIZON = Horizon(epochs=2, steps_per_epoch=3, image_shape=(1, 8, 8))


def divides_by_work(name: str) -> bool:
    """Attach every phase of a method whose budget is one of least work."""
    known = METHODS[name].options
    options: dict[str, Any] = {"scope": "layer"} if "scope" in known and not name.endswith("deep-r") else {}
    made = build(name, density=0.2, budget="least-work", **options)
    try:
        for phase in made.phases(small.phase(), "digits-cnn"):
            phase.sparsifier().attach(small.network(), Draws(), HORIZON)
    except ConfigError as error:
        if "least-work without costs" not in str(error):
            raise
        return False
    return True


@pytest.mark.parametrize("name", [name for name, entry in METHODS.items() if "budget" in entry.options])
def test_the_methods_that_measure_are_those_named(name: str) -> None:
    assert divides_by_work(name) == (name in MEASURING)


def test_the_others_are_told_which_they_are() -> None:
    assert set(MEASURING) <= set(METHODS)
    with pytest.raises(ConfigError, match="use it with random, magnitude, gradual, set, rigl, flying-bird, edge-popup"):
        LeastWork()({"fc": (10, 10)}, 0.5)
