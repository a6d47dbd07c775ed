"""Metrics for TensorBoard, where asked for."""

import importlib.util
from pathlib import Path

from gossamer.errors import ConfigError
from gossamer.training.progress import Line


class Scalars:
    """Writes the numbers of each epoch's line as scalars, at the global step.

    after: the last step that counts; what a killed attempt wrote beyond it is dropped.
    """

    def __init__(self, folder: Path, *, after: int = 0) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ConfigError(
                "training.tensorboard",
                expected="the tensorboard package",
                got="none installed",
                remedy="pip install 'gossamer[tensorboard]', or leave the field out",
            )
        from torch.utils.tensorboard.writer import SummaryWriter  # noqa: PLC0415  (slow to import)

        self._writer = SummaryWriter(str(folder), purge_step=after + 1)

    def add(self, line: Line) -> None:
        """Write one line."""
        step = line["step"]
        assert isinstance(step, int)
        for name, value in line.items():
            if isinstance(value, float):
                self._writer.add_scalar(name, value, step)
        self._writer.flush()
