"""Trackers of experiments by name; each imports its package when it is made, and never before."""

import importlib.util
from collections.abc import Callable, Iterable, Mapping

from gossamer.training.trackers.mlflow import MLflow
from gossamer.training.trackers.packages import not_installed
from gossamer.training.trackers.protocol import Tracker
from gossamer.training.trackers.tensorboard import TensorBoard
from gossamer.training.trackers.wandb import WeightsAndBiases

TRACKERS: Mapping[str, Callable[[], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}
"""What makes a tracker, by its name; package and extra are named like it."""


def refuse_missing(names: Iterable[str]) -> None:
    """Raise ConfigError for the first tracker whose package is not installed; imports none."""
    for name in names:
        found = importlib.util.find_spec(name)
        # A mere folder of that name, as wandb makes one where it runs, is found too, but has no origin.
        if found is None or found.origin is None:
            raise not_installed(name)


__all__ = ["TRACKERS", "refuse_missing"]
