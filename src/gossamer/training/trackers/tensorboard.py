"""Where does TensorBoard look? Event files in the run's folder, written anew from its log whenever it goes on."""

from collections.abc import Mapping

from gossamer.training.trackers.packages import imported
from gossamer.training.trackers.protocol import State, Tracked


class TensorBoard:
    """Writes scalars under RUN/tensorboard; raises ConfigError where the package is not installed."""

    def __init__(self) -> None:
        imported("tensorboard")
        self._writers = imported("torch.utils.tensorboard.writer")
        self._step = 0

    def begin(self, run: Tracked) -> int:
        """Drop what earlier attempts wrote: the run's own log is told from its first line."""
        self._writer = self._writers.SummaryWriter(str(run.folder / "tensorboard"), purge_step=0)
        self._writer.add_text("recipe", "\n".join(f"    {name}: {value}" for name, value in run.parameters.items()))
        return 0

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars."""
        self._step = step
        self._scalars(values)

    def end(self, state: State, results: Mapping[str, float]) -> None:
        """Write results as scalars at the last step."""
        self._scalars({f"results/{name}": value for name, value in results.items()})
        self._writer.close()

    def _scalars(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, self._step)
        self._writer.flush()
