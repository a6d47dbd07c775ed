"""Who hears of a run beside its folder? Its trackers, none of which can stop, delay or change it."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType

from gossamer.training.interruption import Interrupted
from gossamer.training.progress import Line
from gossamer.training.trackers.courier import Courier
from gossamer.training.trackers.protocol import State

PATIENCE = 60.0
"""Seconds that a run which ends waits for its trackers to take down the rest."""


class Tracking:
    """The trackers of one run; as a context manager it tells them how the run ended.

    tell: says that a tracker failed, once; it is then left out.
    """

    def __init__(
        self,
        couriers: Sequence[Courier] = (),
        *,
        tell: Callable[[str], None] = print,
        patience: float = PATIENCE,
    ) -> None:
        self._couriers = list(couriers)
        self._tell = tell
        self._patience = patience
        self._results: Mapping[str, float] = {}

    def begin(self, lines: Iterable[Line]) -> None:
        """Begin with the epochs that the run's log holds so far: they reach the trackers that miss them."""
        for courier in self._couriers:
            courier.begin()
        for line in lines:
            self.metrics(line)

    def metrics(self, line: Line) -> None:
        """Tell of an epoch."""
        step, values = line["step"], _finite(line)
        assert isinstance(step, int)
        for courier in self._couriers:
            courier.metrics(step, values)
        self._tell_failures()

    def results(self, results: Mapping[str, float]) -> None:
        """Set what was measured of the finished run, to be told at its end."""
        self._results = _finite(results)

    def __enter__(self) -> "Tracking":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell how the run ended, and wait a while until that is taken down."""
        state: State = "done"
        if kind is not None:
            state = "interrupted" if issubclass(kind, Interrupted | KeyboardInterrupt) else "failed"
        for courier in self._couriers:
            courier.end(state, self._results)
        until = time.monotonic() + self._patience
        for courier in self._couriers:
            courier.wait(until)
        self._tell_failures()

    def _tell_failures(self) -> None:
        for courier in [each for each in self._couriers if each.failure is not None]:
            self._couriers.remove(courier)
            self._tell(
                f"{courier.name} does not track this run any more ({courier.failure}); training is untouched, and "
                "`gossamer train` of it once more sends what is missing"
            )


def _finite(line: Mapping[str, object]) -> dict[str, float]:
    """Return the finite numbers of a line by name, its step aside; a flag is 0 or 1."""
    numbers = {name: float(value) for name, value in line.items() if isinstance(value, int | float) and name != "step"}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}
