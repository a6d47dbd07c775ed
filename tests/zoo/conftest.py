"""A run that is over in a second, once for all tests of published networks."""

from pathlib import Path
from typing import Any

import pytest

from gossamer.recipe.train import train

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "claim": "a network | of a test <b>",
    "data": {"name": "digits", "train_n": 60},
    "model": {"name": "digits-cnn"},
    "threat": "linf:0.15",
    "objective": {"name": "adversarial"},
    "attack": {"steps": 1},
    "method": {"name": "random", "density": 0.05},
    "training": {"epochs": 1, "batch_size": 20},
    "machine": {"device": "cpu", "threads": 1},
    "evaluation": [{"attack": "fgsm", "n": 30}, {"attack": "pgd", "steps": 2, "restarts": 2, "n": 20}],
}


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gossamer.recipe.train._draw_panel", lambda *_: None)
        return train(RECIPE, out=tmp_path_factory.mktemp("runs") / "tiny").folder.path
