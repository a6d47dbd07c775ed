"""Which number of a protocol's record is asked for? By protocol: the record, and what is picked from it."""

import fnmatch
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeAlias

from gossamer.errors import ConfigError, RunError
from gossamer.runs import protocols, records
from gossamer.runs.protocols import LayerWeights, NetworkWeights, Share, WeightsTable
from gossamer.threat import parse_eps

PERCENT = 100.0
MILLI = 1e3
MILLION = 1e6

Side: TypeAlias = Literal["input", "output"]


@dataclass(frozen=True, kw_only=True)
class Read:
    """A number that was read. right: outcomes by sample where it is a share and they are told; paired: on the samples
    of all others; n: of how many samples it is a share, where these are counted alone.
    """

    value: float
    right: tuple[int, ...] | None = None
    paired: bool = True
    n: int | None = None

    @property
    def samples(self) -> int | None:
        """How many samples it is a share of, None where it is none."""
        return self.n if self.right is None else len(self.right)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a number is of: a run's name, those of the runs beside it, and patterns of the layers that count."""

    run: str
    beside: Sequence[str]
    layers: Sequence[str]


def transferred(record: protocols.TransferMatrix, seen: Seen, *, eps: str | float) -> Read:
    """Return the accuracy of the run on the examples of the one beside it, at this radius."""
    names = [each.model.name for each in record.models]
    row = [names[position] for position in record.sources].index(seen.beside[0])
    return _share(record.accuracy[row][names.index(seen.run)][_place(record.eps, parse_eps(eps))])


def combined(record: protocols.EnsembleTable, _seen: Seen, *, value: Literal["clean", "as_one", "member_wise"]) -> Read:
    """Return an accuracy of the mean of the runs."""
    return _share({"clean": record.clean, "as_one": record.as_one, "member_wise": record.member_wise}[value])


def noisy(
    record: protocols.StochasticTable,
    seen: Seen,
    *,
    mode: Literal["noise and EOT", "noise, one pass", "without noise"],
    value: Literal["clean", "robust"],
) -> Read:
    """Return an accuracy of the run in one mode, the mean over trials; outcomes are told of a single trial."""
    (row,) = (each for each in record.rows if each.model.name == seen.run)
    (found,) = (each for each in row.modes if each.name == mode)
    spread = found.clean if value == "clean" else found.robust
    right = _flags(spread.right[0]) if spread.right is not None and len(spread.right) == 1 else None
    return Read(value=PERCENT * spread.mean, right=right)


def queried(record: protocols.BlackBoxTable, seen: Seen) -> Read:
    """Return the share of samples on which the attack succeeds; they are those that the run has right, and its own."""
    (row,) = (each for each in record.rows if each.name == seen.run)
    right = tuple(int(sample.success) for sample in row.samples)
    return Read(value=PERCENT * row.success.value, right=right, paired=False)


def weighed(
    record: WeightsTable,
    seen: Seen,
    *,
    value: Literal["parameters", "deviation", "magnitude", "below", "least", "median", "most", "kernels", "at_random"],
    gamma: float | None = None,
    side: Side = "output",
    kept: int | None = None,
) -> Read | None:
    """Return what is asked of the run's weights, in the layers that count; None where nothing is kept.

    parameters: in millions; below: the share of weights below gamma, in percent; least, median, most: weights kept in a
    channel of that side; kernels, at_random: how many kernels keep so many weights, and would by even chance.
    """
    row, layers = _weights(record, seen)
    if value == "parameters":
        return Read(value=row.parameters / MILLION)
    if value == "deviation":
        return Read(value=_deviation(layers))
    if value == "magnitude":
        total = sum(each.nonzero for each in layers)
        summed = sum((each.magnitude or 0.0) * each.nonzero for each in layers)
        return Read(value=summed / total) if total else None
    if value == "below":
        place = _place(record.gammas, gamma or 0.0)
        return Read(value=PERCENT * sum(each.below[place] for each in layers) / sum(each.weights for each in layers))
    if value in ("kernels", "at_random"):
        counts = [each.kernels if value == "kernels" else each.at_random for each in layers]
        return Read(value=float(sum(each[kept or 0] for each in counts if each is not None)))
    kept_by = channels(record, seen, side)
    return Read(value=float({"least": min, "median": median, "most": max}[value](kept_by)))


def channels(record: WeightsTable, seen: Seen, side: Side) -> list[int]:
    """Return how many weights each channel of that side keeps, in the layers that count."""
    _, layers = _weights(record, seen)
    return list(chain.from_iterable(each.by_output if side == "output" else each.by_input for each in layers))


def timed(
    record: protocols.LatencyTable,
    seen: Seen,
    *,
    loaded: bool = False,
    value: Literal["mean", "median", "p95"] = "mean",
) -> Read:
    """Return the milliseconds of a pass of the run, over all calls, of images in memory or read from a file."""
    (row,) = (each for each in record.rows if each.name == seen.run)
    (found,) = (each for each in row.passes if each.loaded == loaded)
    return Read(value=MILLI * {"mean": found.mean, "median": found.median, "p95": found.p95}[value])


READERS: Mapping[str, tuple[type, Callable[..., Read | None]]] = {
    "transfer": (protocols.TransferMatrix, transferred),
    "ensemble": (protocols.EnsembleTable, combined),
    "stochastic": (protocols.StochasticTable, noisy),
    "black-box": (protocols.BlackBoxTable, queried),
    "weights": (WeightsTable, weighed),
    "latency": (protocols.LatencyTable, timed),
}
"""Of each protocol that places may be read from: its record, and how a number is picked."""


def read_measured(path: Path, protocol: str, seen: Seen, picked: Mapping[str, Any]) -> Read | None:
    """Return the number that is picked from a record; None where it lies nowhere yet. Raises RunError."""
    kind, pick = READERS[protocol]
    return pick(records.read(kind, path), seen, **picked) if path.exists() else None


def check_picked(protocol: str, picked: Mapping[str, Any]) -> None:
    """Raise ConfigError for a protocol that numbers are not read from, or for what its reader does not know."""
    if protocol not in READERS:
        raise ConfigError("protocol", expected=f"one of {', '.join(READERS)}", got=protocol, remedy="choose another")
    known = {
        name: each
        for name, each in inspect.signature(READERS[protocol][1]).parameters.items()
        if each.kind is inspect.Parameter.KEYWORD_ONLY
    }
    missing = [name for name, each in known.items() if each.default is each.empty and name not in picked]
    if set(picked) <= set(known) and not missing:
        return
    raise ConfigError(
        f"pick of {protocol}",
        expected=", ".join(known) or "nothing",
        got=", ".join(picked) or "nothing",
        remedy="say it",
    )


def _weights(record: WeightsTable, seen: Seen) -> tuple[NetworkWeights, list[LayerWeights]]:
    """Return the run's row, and of its layers those that count."""
    (row,) = (each for each in record.rows if each.name == seen.run)
    patterns = seen.layers or ("*",)
    return row, [each for each in row.layers if any(fnmatch.fnmatchcase(each.name, name) for name in patterns)]


def _place(values: Sequence[float], wanted: float) -> int:
    near = [place for place, value in enumerate(values) if abs(value - wanted) < 1e-9]
    if near:
        return near[0]
    raise RunError("measurement", expected=f"one at {wanted:g}", got=values, remedy="ask the protocol for it too")


def _share(share: Share) -> Read:
    return Read(value=PERCENT * share.value, right=None if share.right is None else _flags(share.right))


def _flags(right: str) -> tuple[int, ...]:
    return tuple(map(int, right))


def _deviation(layers: Sequence[LayerWeights]) -> float:
    """Return the standard deviation of all weights of layers together."""
    n = sum(each.weights for each in layers)
    mean = sum(each.weights * each.mean for each in layers) / n
    squares = sum(each.weights * (each.deviation**2 + each.mean**2) for each in layers) / n
    return max(0.0, squares - mean**2) ** 0.5
