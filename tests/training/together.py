"""Trains the recipes of a JSON file one after the other; started by torchrun, its processes train each together.

A third argument is the step after which each run is stopped, as a scheduler stops it.
"""

import json
import signal
import sys
from contextlib import nullcontext, suppress
from pathlib import Path

from gossamer.recipe.train import train
from gossamer.training.interruption import Interrupted
from gossamer.training.progress import Silent
from gossamer.training.ranks import leave


class StopAfter(Silent):
    """Sends its own process a SIGTERM after so many steps."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def due(self) -> bool:
        self._left -= 1
        if not self._left:
            signal.raise_signal(signal.SIGTERM)
        return False


def main() -> None:
    cases, folder, *stop = sys.argv[1:]
    for name, recipe in json.loads(Path(cases).read_text()).items():
        shown = StopAfter(int(stop[0])) if stop else None
        with suppress(Interrupted) if stop else nullcontext():
            train(recipe, out=Path(folder) / name, allow_numeric_drift=True, progress=shown)
    leave()


if __name__ == "__main__":
    main()
