"""Trains the recipes of a JSON file one after the other; started by torchrun, its processes train each together."""

import json
import sys
from pathlib import Path

from gossamer.recipe.train import train


def main() -> None:
    cases = json.loads(Path(sys.argv[1]).read_text())
    for name, recipe in cases.items():
        train(recipe, out=Path(sys.argv[2]) / name)


if __name__ == "__main__":
    main()
