"""How far is an evaluation? What a progress callback is told."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True)
class Standing:
    """Where an evaluation stands.

    what: "clean", or the attack under way; done of total: its samples that are settled; robust of samples: those of
    all that no attack has broken so far (before the clean pass is done: none is counted); seconds_left: of this
    attack, at the pace so far; None while nothing is settled.
    """

    what: str
    done: int
    total: int
    robust: int
    samples: int
    seconds_left: float | None

    def __str__(self) -> str:
        return f"{self.what}: {self.done} of {self.total} samples, robust so far {self.robust} of {self.samples}"


Progress: TypeAlias = Callable[[Standing], None]


@dataclass
class Teller:
    """Tells one stage's progress; standing: samples that no attack broke before; before: those settled earlier."""

    progress: Progress | None
    what: str
    total: int
    standing: int
    samples: int
    before: int = 0
    _started: float = field(default_factory=time.perf_counter)

    def __call__(self, done: int, broken: int, under_way: float = 0.0) -> None:
        """Tell that `done` samples are settled, `broken` of them against the model.

        under_way: what the attempts at the others amount to, in samples.
        """
        if self.progress is None:
            return
        fresh = done + under_way - self.before
        pace = (time.perf_counter() - self._started) / fresh if fresh > 0 else None
        left = None if pace is None else pace * max(self.total - done - under_way, 0.0)
        self.progress(Standing(self.what, done, self.total, self.standing - broken, self.samples, left))
