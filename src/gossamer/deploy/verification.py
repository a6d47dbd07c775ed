"""What did verifying an artifact give? The versioned record: integrity, parity, and robust accuracy as it ships."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gossamer.deploy.parity import Parity
from gossamer.runs import records, results
from gossamer.runs.results import Interval

NO_RECORD = "no record beside it: whether its files have changed is not known"


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """The file that was verified; recorded: whether a record lay beside it, with which size and digests agreed."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    path: str
    kind: str
    bytes: int
    dense_bytes: int | None
    files: dict[str, str]
    recorded: bool


@dataclass(frozen=True, kw_only=True)
class Gap:
    """How much lower the artifact's accuracy is than its parent's on the same samples, with its 95 % interval."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    value: float
    interval: Interval

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:+.2f} points [{100 * low:+.2f}, {100 * high:+.2f}]"


@dataclass(frozen=True, kw_only=True, repr=False)
class Verification:
    """One verification of an artifact.

    artifact: its evaluation, the worst of all attacks for each sample; parent: the same of the network that it was made
    of, None where it is not at hand, and then no gap is known; parity on real and on random images; limit: the largest
    gap, a share, that passes; failures: why it does not pass, empty where it does.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/verification/1"
    shipped: Shipped
    parity: Parity | None
    parity_on_noise: Parity | None
    artifact: results.Evaluation
    parent: results.Evaluation | None
    clean_gap: Gap | None
    robust_gap: Gap | None
    limit: float
    failures: tuple[str, ...]
    environment: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    def save(self, path: str | Path) -> None:
        """Write the verification as JSON, atomically; raises RunError where the file system refuses."""
        records.write(Path(path), self)

    def __str__(self) -> str:
        shipped = self.shipped
        kept = f", {shipped.bytes / shipped.dense_bytes:.1%} of its dense parent" if shipped.dense_bytes else ""
        checked = "size and digests agree with its record" if shipped.recorded else NO_RECORD
        lines = [f"{shipped.path}: {shipped.kind}, {shipped.bytes:,} bytes{kept}; {checked}"]
        if self.parity is not None and self.parity_on_noise is not None:
            lines += [f"parity on images: {self.parity}", f"parity on noise:  {self.parity_on_noise}"]
        lines += [f"artifact: {line}" for line in str(self.artifact).splitlines()]
        if self.parent is not None:
            lines += [
                f"parent: {_accuracies(self.parent)}",
                f"the artifact is lower by {self.clean_gap} clean, {self.robust_gap} attacked",
            ]
        passed = "passed" if self.parent is not None else "nothing to compare it with: no float twin was given"
        verdict = [f"FAILED: {failure}" for failure in self.failures] or [passed]
        return "\n".join([*lines, *verdict])

    __repr__ = __str__


def _accuracies(measured: results.Evaluation) -> str:
    under = f"{measured.attack} ({measured.threat}, n = {measured.n})"
    return f"clean {measured.clean_accuracy:.2%}, robust {measured.robust_accuracy:.2%} under {under}"
