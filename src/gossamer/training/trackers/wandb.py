"""How is a run logged to Weights & Biases? As its own run there, whose id is the one that the run folder keeps."""

import os
from collections.abc import Mapping
from typing import Any

from gossamer.errors import ConfigError
from gossamer.training.trackers.packages import imported
from gossamer.training.trackers.protocol import State, Tracked


class WeightsAndBiases:
    """Logs to the project WANDB_PROJECT, by default gossamer; WANDB_MODE says whether online, offline or not at all.

    Neither code nor what is printed is sent. Raises ConfigError where the package is not installed, and where it would
    go online without a key.
    """

    def __init__(self) -> None:
        self._wandb = imported("wandb")
        try:
            # Asks for a key, in a terminal, before training rather than within it; whether the server knows the key
            # is seen later.
            self._wandb.login(verify=False)
        except self._wandb.errors.UsageError as error:
            raise ConfigError(
                "tracker wandb",
                expected="a key for its server",
                got=str(error),
                remedy="run `wandb login`, or set WANDB_MODE=offline and upload with `wandb sync` later",
            ) from error

    def begin(self, run: Tracked) -> int:
        """Begin or go on; online the server knows the last step, offline the run folder alone does."""
        # A run that the caller's own code has open stays apart.
        settings = self._wandb.Settings(console="off", disable_code=True, disable_git=True, reinit="create_new")
        folder = os.environ.get("WANDB_DIR", str(run.folder / "trackers"))
        self._run: Any = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", "gossamer"),
            name=run.name,
            id=run.id,
            resume="allow",
            config=dict(run.parameters),
            dir=folder,
            settings=settings,
        )
        return max(run.step, self._run.step - 1)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log one row, sent at once rather than with the next one."""
        self._run.log(dict(values), step=step, commit=True)

    def end(self, state: State, results: Mapping[str, float]) -> None:
        """Put results into the summary, and close."""
        self._run.summary.update(dict(results))
        self._run.finish(exit_code=0 if state == "done" else 1)
