"""Can a measured robust accuracy be trusted? The record of an audit: verdict, signs, and what they rest on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from gossamer.errors import RunError
from gossamer.runs import records
from gossamer.runs.results import Dataset, Interval

Verdict: TypeAlias = Literal["trust", "doubt", "reject"]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number: a share, counted as `count` of n samples, with its 95 % interval; else whatever `what` says."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    what: str
    value: float
    count: int | None = None
    n: int | None = None
    interval: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class AuditedAttack:
    """One attack of an audit.

    threat: what it was judged by; attacked: samples it was tried on; broken: those at which the model erred, 1 for
    each sample of the audit in order; eps in pixel units of [0, 1].
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    attack: str
    parameters: dict[str, Any]
    threat: str
    eps: float
    attacked: int
    broken: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Sign:
    """One sign of a misleading evaluation.

    fired: it was seen; follow_ups: the attacks that were to settle it; settled: whether they did, None where there
    was nothing to settle; says: what was seen, and what the follow-up showed; page: where it is explained;
    applicable: False where the model cannot show it, as one without gradients; says then tells why.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    name: str
    fired: bool
    settled: bool | None
    says: str
    measured: tuple[Measurement, ...]
    follow_ups: tuple[str, ...]
    page: str
    applicable: bool = True

    def __post_init__(self) -> None:
        if self.fired == (self.settled is None) or self.fired > self.applicable:
            raise RunError(
                f"sign {self.name}",
                expected="fired where it is applicable alone, and settled or not where it fired alone",
                got=f"applicable {self.applicable}, fired {self.fired}, settled {self.settled}",
                remedy="audit again",
            )


@dataclass(frozen=True, kw_only=True)
class Audit:
    """An audit of one model under one threat.

    claimed_*: under the standard attack (`claimed_attack`); settled_*: under the worst of all attacks at that threat,
    sample by sample, 1 where robust; intervals 95 %. judge: what decided whether the model erred. bounds: the
    constants of the verdict. Raises RunError where the parts contradict.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/audit/1"
    run: str
    verdict: Verdict
    reason: str
    dataset: Dataset
    n: int
    seed: int
    threat: str
    budget: dict[str, int]
    bounds: dict[str, float]
    judge: str
    clean_accuracy: float
    clean_interval: Interval
    claimed_attack: str
    claimed_robust_accuracy: float
    claimed_interval: Interval
    claimed_robust: tuple[int, ...]
    settled_robust_accuracy: float
    settled_interval: Interval
    settled_robust: tuple[int, ...]
    index: tuple[int, ...]
    signs: tuple[Sign, ...]
    attacks: tuple[AuditedAttack, ...]
    environment: dict[str, Any]

    def __post_init__(self) -> None:
        parts = (self.index, self.claimed_robust, self.settled_robust, *(each.broken for each in self.attacks))
        revived = sum(s > c for s, c in zip(self.settled_robust, self.claimed_robust, strict=False))
        if any(len(part) != self.n for part in parts) or revived:
            raise RunError(
                f"audit of {self.run}",
                expected=f"{self.n} outcomes everywhere, none of them robust that was not claimed so",
                got=f"lengths {sorted({len(part) for part in parts})}, {revived} revived",
                remedy="audit again: the parts contradict each other",
            )

    def sign(self, name: str) -> Sign:
        """Return the sign of a name; raises KeyError where there is none."""
        return {sign.name: sign for sign in self.signs}[name]

    @property
    def fired(self) -> tuple[str, ...]:
        """The names of the signs that fired."""
        return tuple(sign.name for sign in self.signs if sign.fired)

    def save(self, path: str | Path) -> None:
        """Write the audit as JSON, atomically; raises RunError where the file system refuses."""
        records.write(Path(path), self)

    def to_json(self) -> dict[str, Any]:
        """Return the audit as values that JSON has."""
        return records.to_json(self)

    @classmethod
    def from_json(cls, value: Any) -> "Audit":
        """Return the audit in `value`; raises RunError for another schema or a contradiction."""
        return records.from_json(cls, value, subject="audit")

    def __str__(self) -> str:
        lines = [f"{self.verdict}: {self.reason}"]
        return "\n".join([*lines, *(_line(sign) for sign in self.signs)])


def read_audit(path: Path) -> Audit:
    """Return the audit in a file; raises RunError if it is missing, damaged or of another schema."""
    return records.read(Audit, path)


def _line(sign: Sign) -> str:
    pointer = f" ({sign.page})" if sign.fired else ""
    return f"  {sign.name:<12} {_state(sign):<9} {sign.says}{pointer}"


def _state(sign: Sign) -> str:
    if not sign.applicable:
        return "-"
    if not sign.fired:
        return "not seen"
    return "settled" if sign.settled else "open"
