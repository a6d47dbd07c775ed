"""Ctrl-C and SIGTERM: finish the step, save a checkpoint, leave with a hint; a second Ctrl-C leaves at once."""

import signal
from types import FrameType


class Interrupted(Exception):  # noqa: N818
    """Training stopped by a signal after its checkpoint was saved."""

    def __init__(self, number: int) -> None:
        self.exit_status = 128 + number
        super().__init__(f"stopped by {signal.Signals(number).name}; a checkpoint is saved")


class Watch:
    """Notes the first SIGINT or SIGTERM while it is entered; handlers are put back on leaving."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Watch":
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: its owner decides about signals
                break
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _note(self, number: int, frame: FrameType | None) -> None:
        # A launcher and a scheduler may both pass a SIGTERM on; only a person at a keyboard means it twice.
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or number
