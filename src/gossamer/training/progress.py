"""What a person sees while a network trains: a live line in a terminal, a plain line an epoch elsewhere."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.text import Text

from gossamer.evaluation.standing import Standing
from gossamer.runs.metrics import is_probed, is_probed_loss

Line = Mapping[str, float | int | str | bool | None]


@dataclass(frozen=True)
class Glance:
    """Where training stands after a step: of `epochs` epochs and `steps` steps each."""

    phase: str
    epoch: int
    epochs: int
    index: int
    steps: int
    loss: float | None
    clean: float | None
    robust: float | None
    density: float
    images_per_second: float
    seconds_left: float


class Progress(Protocol):
    """Shows training; as a context manager it tidies up after itself."""

    def __enter__(self) -> "Progress":
        """Begin showing."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing."""
        ...

    def due(self) -> bool:
        """Return whether it is time to show a step; a glance costs a transfer from the device."""
        ...

    def step(self, glance: Glance) -> None:
        """Show a step."""
        ...

    def epoch(self, line: Line, epochs: int) -> None:
        """Show the line of a finished epoch."""
        ...

    def evaluation(self, standing: Standing) -> None:
        """Show how far an evaluation is."""
        ...

    def note(self, text: str) -> None:
        """Say something once."""
        ...


class Silent:
    """Shows nothing."""

    def __enter__(self) -> "Silent":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing."""

    def due(self) -> bool:
        """Never."""
        return False

    def step(self, glance: Glance) -> None:
        """Do nothing."""

    def epoch(self, line: Line, epochs: int) -> None:
        """Do nothing."""

    def evaluation(self, standing: Standing) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


class PlainLines(Silent):
    """One line an epoch, and one a minute of evaluation, for logs."""

    def __init__(self, every: float = 60.0) -> None:
        self._every = every
        self._told = time.monotonic()

    def __enter__(self) -> "PlainLines":
        return self

    def epoch(self, line: Line, epochs: int) -> None:
        """Print the line of a finished epoch."""
        self.note(epoch_text(line, epochs))

    def evaluation(self, standing: Standing) -> None:
        """Print how far an evaluation is, once in a while."""
        if time.monotonic() - self._told >= self._every:
            self._told = time.monotonic()
            self.note(standing_text(standing))

    def note(self, text: str) -> None:
        """Print a line."""
        print(text, flush=True)


class LiveLine(Silent):
    """A line that moves, and the line of each finished epoch above it."""

    def __init__(self, console: Console, every: float = 0.25) -> None:
        self._console = console
        self._live = Live(Text(), console=console, transient=True, auto_refresh=False)
        self._every = every
        self._shown = 0.0

    def __enter__(self) -> "LiveLine":
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing."""
        self._live.stop()

    def due(self) -> bool:
        """A few times a second."""
        return time.monotonic() - self._shown >= self._every

    def step(self, glance: Glance) -> None:
        """Show a step."""
        self._shown = time.monotonic()
        self._live.update(Text(step_text(glance), no_wrap=True, overflow="ellipsis"), refresh=True)

    def epoch(self, line: Line, epochs: int) -> None:
        """Print the line of a finished epoch."""
        self.note(epoch_text(line, epochs))

    def evaluation(self, standing: Standing) -> None:
        """Show how far an evaluation is."""
        text = "" if standing.done == standing.total else standing_text(standing)
        self._live.update(Text(text, no_wrap=True), refresh=True)

    def note(self, text: str) -> None:
        """Print a line above the live one."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def progress() -> Progress:
    """Return what fits where output goes: a live line in a terminal, plain lines elsewhere."""
    console = Console()
    return LiveLine(console) if console.is_terminal and sys.stdout.isatty() else PlainLines()


def step_text(glance: Glance) -> str:
    """Return the moving line of a step."""
    return "  ".join(
        [
            f"{glance.phase} epoch {glance.epoch}/{glance.epochs}",
            f"step {glance.index}/{glance.steps}",
            f"loss {_number(glance.loss, '.3f')}",
            f"clean {_percent(glance.clean)}",
            f"robust {_percent(glance.robust)}",
            f"density {100 * glance.density:.2f} %",
            f"{glance.images_per_second:,.0f} images/s",
            f"{duration(glance.seconds_left)} left",
        ]
    )


def epoch_text(line: Line, epochs: int) -> str:
    """Return the line of a finished epoch, probes included."""
    probes = [
        f"{name} {_number(value, '.4f') if is_probed_loss(name) else _percent(value)}"
        for name, value in line.items()
        if is_probed(name) and value is not None
    ]
    return "  ".join(
        [
            f"{line['phase']} epoch {line['epoch']}/{epochs}",
            f"loss {_number(line['loss'], '.3f')}",
            f"clean {_percent(line['clean_accuracy'])}",
            f"robust {_percent(line['robust_accuracy'])}",
            f"density {_percent(line['density'])}",
            f"{_number(line['images_per_second'], ',.0f')} images/s",
            *probes,
            *_warnings(line),
            f"{duration(_float(line['seconds_left']))} left",
        ]
    )


def standing_text(standing: Standing) -> str:
    """Return the moving line of an evaluation: attack, samples left, robust accuracy so far, time left."""
    parts = [standing.what, f"{standing.total - standing.done:,} of {standing.total:,} samples left"]
    if standing.what != "clean":
        parts.append(f"robust so far {_percent(standing.robust / standing.samples)}")
    if standing.seconds_left is not None:
        parts.append(f"{duration(standing.seconds_left)} left")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Return a time as people read it: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _warnings(line: Line) -> list[str]:
    if not line.get("catastrophic_overfitting"):
        return []
    return [f"CATASTROPHIC OVERFITTING: {_percent(line['overfitting_drop'])} below the best"]


def _float(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _number(value: object, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) else "-"


def _percent(value: object) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, int | float) else "-"
