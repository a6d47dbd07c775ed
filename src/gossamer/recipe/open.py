"""The only way from a run folder to its model, data and threat."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from gossamer.data import DataSet
from gossamer.errors import ConfigError, RunError
from gossamer.recipe.build import Parts, build_data, build_model, build_threat, model_options
from gossamer.recipe.load import load_recipe
from gossamer.recipe.schema import Recipe
from gossamer.runs import RunFolder, atomic
from gossamer.sparsity import plain_copy
from gossamer.sparsity.forms import DENSE, form
from gossamer.threat import ThreatModel
from gossamer.training.run import FINAL


@dataclass(frozen=True)
class OpenRun:
    """A run and what it names; data are read when first asked for."""

    folder: RunFolder
    recipe: Recipe
    data_dir: Path | None = None

    @cached_property
    def parts(self) -> Parts:
        """The run's training, held-out and test data."""
        return build_data(self.recipe, self.data_dir)

    @property
    def threat(self) -> ThreatModel:
        """The threat model the run was trained for."""
        return build_threat(self.recipe)

    def part(self, name: str) -> DataSet:
        """Return a part of the data by name; raises ConfigError where it does not exist."""
        found = {"train": self.parts.train, "held_out": self.parts.held_out, "test": self.parts.test}.get(name)
        if found is None:
            raise ConfigError(
                "part of the data",
                expected="train, test, or held_out where the run holds something out",
                got=name,
                remedy="choose another part",
            )
        # What is held out of the training images says so wherever it is measured on.
        return replace(found, part=name) if name == "held_out" else found

    def model(self, state: str = FINAL) -> nn.Module:
        """Return the network with a stored state, in eval mode; raises RunError where the run has not got that far."""
        path = self._path(state)
        dense = plain_copy(build_model(self.recipe, self.parts.test))
        return form(self.form(state)).rebuild(dense, atomic.read_safetensors(path))

    def twin(self, state: str = FINAL) -> nn.Module:
        """Return the noise-free form of a stored network: the network itself unless it is stochastic."""
        return form(self.form(state)).twin(self.model(state))

    def dense_weights(self, state: str = FINAL) -> int | None:
        """Return the prunable weights of the dense parent that a stored network's density refers to; None: not kept."""
        about = atomic.read_about(self._path(state))
        return int(about["dense_weights"]) if "dense_weights" in about else None

    def form(self, state: str = FINAL) -> str:
        """Return the name of the form (`gossamer.sparsity.forms`) in which a state was stored."""
        return atomic.read_about(self._path(state)).get("form", DENSE)

    def network_options(self) -> dict[str, Any]:
        """Return every option that builds the network, those that follow from the data too, as JSON has them."""
        given = model_options(self.recipe, self.parts.test)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}

    def _path(self, state: str) -> Path:
        path = self.folder.state(state)
        if not path.exists():
            stored = sorted(each.stem for each in self.folder.states.glob("*.safetensors"))
            raise RunError(
                f"{self.folder.path}",
                expected=f"the state {state}",
                got=f"the states {', '.join(stored)}" if stored else "a run that is not finished",
                remedy="run `gossamer train` on its recipe again: it goes on from the last checkpoint",
            )
        return path


def open_run(path: Path | str, data_dir: Path | None = None) -> OpenRun:
    """Open a run folder; raises RunError where there is none."""
    folder = RunFolder.open(path)
    return OpenRun(folder, load_recipe(folder.recipe), data_dir)
