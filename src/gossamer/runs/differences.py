"""What differs in what runs reached? Every accuracy that was measured alike on both sides, with interval and test."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from gossamer.errors import RunError
from gossamer.intervals import Difference, Paired, holm, paired, unpaired, welch
from gossamer.runs import records, results
from gossamer.runs.layout import RunFolder
from gossamer.runs.results import AttackOutcome, Evaluation, Interval

Test: TypeAlias = Literal["paired", "unpaired", "over runs"]
Flags: TypeAlias = Mapping[int, int]

LEVEL = 0.05
"""What an adjusted p-value must fall below for a difference to be called significant."""


@dataclass(frozen=True, kw_only=True)
class Reached:
    """What one run reached; notes: which of its files could not be read."""

    name: str
    evaluations: tuple[Evaluation, ...]
    work_ratio: float | None
    density: float | None
    nonzero: int | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One accuracy on both sides. attack: None for the clean one.

    a, b: accuracies in [0, 1], one a run; n: samples of each; difference: mean of a minus mean of b. test: `paired`
    where two networks were judged on the same samples (only_a, only_b: samples that one alone gets right), `unpaired`
    where on different ones, `over runs` where means over trainings are compared. interval: 95 %, not corrected for how
    many are compared; adjusted: the p-value after Holm's correction. None: nothing to judge the difference by.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    attack: str | None
    parameters: dict[str, Any]
    threat: str | None
    eps: float | None
    data: str
    part: str
    n: tuple[int, int]
    a: tuple[float, ...]
    b: tuple[float, ...]
    difference: float
    interval: Interval | None
    p_value: float | None
    adjusted: float | None
    test: Test
    only_a: int | None = None
    only_b: int | None = None

    @property
    def significant(self) -> bool:
        """Whether the difference holds at the 5 % level after the correction."""
        return self.adjusted is not None and self.adjusted < LEVEL


@dataclass(frozen=True, kw_only=True)
class Apart:
    """What was measured and cannot be compared, and why. attack: None for the clean accuracy."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    attack: str | None
    parameters: dict[str, Any]
    threat: str | None
    eps: float | None
    n: int
    why: str


@dataclass(frozen=True)
class _Measured:
    """An outcome with the evaluation it is of."""

    evaluation: Evaluation
    outcome: AttackOutcome

    @property
    def conditions(self) -> dict[str, Any]:
        """Everything that must be equal for two accuracies to be compared."""
        given, data = self.outcome.parameters, self.evaluation.dataset
        held = {name: value for name, value in given.items() if name not in ("type", "threat")}
        return {
            "attack": given.get("type", self.outcome.attack),
            "threat": self.outcome.threat,
            **held,
            "n": self.outcome.n,
            "data": f"{data.name} {data.part}",
            "images": data.checksum,
        }

    @property
    def key(self) -> str:
        """The conditions as one text."""
        return json.dumps(self.conditions, sort_keys=True)

    @property
    def flags(self) -> Flags:
        """1 where a sample is right under attack, by its index."""
        return dict(zip(self.evaluation.samples.index, self.outcome.robust, strict=True))


def read_reached(run: RunFolder) -> Reached:
    """Return what a run reached, as far as its files can be read."""
    notes: list[str] = []
    found = [one for path in results.evaluation_files(run) if (one := _read(path, notes))]
    work_ratio = density = nonzero = None
    if run.result("network").exists():
        try:
            network = results.read_network(run)
            work_ratio, density, nonzero = network.work_ratio, network.totals.density, network.totals.nonzero
        except RunError as error:
            notes.append(f"left out {error.subject}: {error.got}")
    if found:
        most = max(found, key=lambda one: one.n)
        density, nonzero = most.density, most.nonzero
    return Reached(
        name=run.name,
        evaluations=tuple(found),
        work_ratio=work_ratio,
        density=density,
        nonzero=nonzero,
        notes=tuple(notes),
    )


def compare_reached(a: Sequence[Reached], b: Sequence[Reached]) -> tuple[list[Compared], list[Apart]]:
    """Compare what two sides reached, a run or several each, and say what cannot be compared.

    Attacks are compared where threat, every parameter, images and n are equal; clean accuracies on the samples that
    every run was judged on. Two networks are compared sample by sample; several runs a side by the means over them,
    with Welch's t. p-values are adjusted together.
    """
    clean, clean_apart = _clean(a, b)
    attacked, attacked_apart = _attacked(a, b)
    (together,) = adjusted([[*clean, *attacked]])
    return together, [*clean_apart, *attacked_apart]


def adjusted(several: Sequence[Sequence[Compared]]) -> list[list[Compared]]:
    """Return comparisons that are read together with p-values adjusted over all of them, by Holm's method."""
    judged = [each.p_value for found in several for each in found if each.p_value is not None]
    values = iter(holm(judged))
    return [
        [each if each.p_value is None else replace(each, adjusted=next(values)) for each in found] for found in several
    ]


def _read(path: Path, notes: list[str]) -> Evaluation | None:
    try:
        return results.read_evaluation(path)
    except RunError as error:
        notes.append(f"left out {error.subject}: {error.got}")
        return None


def _clean(a: Sequence[Reached], b: Sequence[Reached]) -> tuple[list[Compared], list[Apart]]:
    sides = [[_clean_flags(run) for run in side] for side in (a, b)]
    shared = [images for images in sides[0][0] if all(images in run for side in sides for run in side)]
    found: list[Compared] = []
    for images in shared:
        flags = [[run[images] for run in side] for side in sides]
        common = set[int].intersection(*(set(each) for side in flags for each in side))
        if common:
            flags = [[{index: run[index] for index in common} for run in side] for side in flags]
        name, part, _ = images
        found.append(
            _judged(flags[0], flags[1], attack=None, parameters={}, threat=None, eps=None, data=name, part=part)
        )
    if found or not all(run for side in sides for run in side):
        return found, []
    n = max(one.n for one in a[0].evaluations)
    why = f"{_images(sides[0])} against {_images(sides[1])}: other images"
    return [], [Apart(attack=None, parameters={}, threat=None, eps=None, n=n, why=why)]


def _clean_flags(run: Reached) -> dict[tuple[str, str, str], dict[int, int]]:
    """Return which samples a network gets right without attack, by data set, part and checksum, over evaluations."""
    found: dict[tuple[str, str, str], dict[int, int]] = {}
    for one in sorted(run.evaluations, key=lambda one: -one.n):
        flags = found.setdefault((one.dataset.name, one.dataset.part, one.dataset.checksum), {})
        for index, right in zip(one.samples.index, one.samples.clean_correct, strict=True):
            flags.setdefault(index, right)
    return found


def _images(side: Sequence[Mapping[tuple[str, str, str], Flags]]) -> str:
    return ", ".join(dict.fromkeys(f"{name} {part} ({checksum})" for run in side for name, part, checksum in run))


def _attacked(a: Sequence[Reached], b: Sequence[Reached]) -> tuple[list[Compared], list[Apart]]:
    sides = [[_by_conditions(run) for run in side] for side in (a, b)]
    shared = [key for key in sides[0][0] if all(key in run for side in sides for run in side)]
    found = [_compared(*([run[key] for run in side] for side in sides)) for key in shared]
    lone = [_lone(side, shared) for side in sides]
    apart = [_apart(one, lone[1], sides[0], "A") for one in lone[0].values()]
    told = {key for one in lone[0].values() if (key := _nearest(one, lone[1]))}
    apart += [_apart(one, lone[0], sides[1], "B") for key, one in lone[1].items() if key not in told]
    return found, apart


def _by_conditions(run: Reached) -> dict[str, list[_Measured]]:
    found: dict[str, list[_Measured]] = {}
    for evaluation in run.evaluations:
        for outcome in evaluation.attacks:
            one = _Measured(evaluation, outcome)
            found.setdefault(one.key, []).append(one)
    return found


def _compared(a: Sequence[list[_Measured]], b: Sequence[list[_Measured]]) -> Compared:
    """Compare one attack; of several evaluations of it in a run the first counts, or the first on the same samples."""
    first, second = [each[0] for each in a], [each[0] for each in b]
    if len(a) == len(b) == 1:
        pairs = product(a[0], b[0])
        alike = (pair for pair in pairs if pair[0].flags.keys() == pair[1].flags.keys())
        one, other = next(alike, (first[0], second[0]))
        first, second = [one], [other]
    outcome, data = first[0].outcome, first[0].evaluation.dataset
    return _judged(
        [one.flags for one in first],
        [one.flags for one in second],
        attack=outcome.attack,
        parameters=outcome.parameters,
        threat=outcome.threat,
        eps=outcome.eps,
        data=data.name,
        part=data.part,
    )


def _judged(a: Sequence[Flags], b: Sequence[Flags], **what: Any) -> Compared:
    """Compare outcomes by sample, a mapping a run."""
    test, difference = _difference(a, b)
    return Compared(
        **what,
        n=(len(a[0]), len(b[0])),
        a=tuple(_share(flags) for flags in a),
        b=tuple(_share(flags) for flags in b),
        difference=difference.value,
        interval=difference.interval,
        p_value=difference.p_value,
        adjusted=None,
        test=test,
        only_a=difference.only_first if isinstance(difference, Paired) else None,
        only_b=difference.only_second if isinstance(difference, Paired) else None,
    )


def _difference(a: Sequence[Flags], b: Sequence[Flags]) -> tuple[Test, Difference]:
    if len(a) > 1 or len(b) > 1:
        return "over runs", welch([_share(flags) for flags in a], [_share(flags) for flags in b])
    first, second = a[0], b[0]
    if first.keys() != second.keys():
        return "unpaired", unpaired(list(first.values()), list(second.values()))
    return "paired", paired(list(first.values()), [second[index] for index in first])


def _share(flags: Flags) -> float:
    return sum(flags.values()) / len(flags)


def _lone(side: Sequence[Mapping[str, list[_Measured]]], shared: Sequence[str]) -> dict[str, _Measured]:
    return {key: found[0] for run in side for key, found in run.items() if key not in shared}


def _apart(
    one: _Measured, others: Mapping[str, _Measured], side: Sequence[Mapping[str, list[_Measured]]], name: str
) -> Apart:
    """Say why an outcome of one side stands alone, beside what the other side has nearest to it."""
    having = sum(one.key in run for run in side)
    nearest = _nearest(one, others)
    if having < len(side):
        why = f"{having} of the {len(side)} runs of {name} have it"
    elif nearest is None:
        why = f"{name} alone has it"
    elif nearest == one.key:
        why = "not every run of the other side has it"
    else:
        why = _unlike(one, others[nearest])
    outcome = one.outcome
    return Apart(
        attack=outcome.attack,
        parameters=outcome.parameters,
        threat=outcome.threat,
        eps=outcome.eps,
        n=outcome.n,
        why=why,
    )


def _nearest(one: _Measured, others: Mapping[str, _Measured]) -> str | None:
    """Return the key of the same attack under the fewest other conditions, None where there is none."""
    kin = {key: other for key, other in others.items() if other.conditions["attack"] == one.conditions["attack"]}
    return min(kin, key=lambda key: len(_fields(one, kin[key])), default=None)


def _fields(one: _Measured, other: _Measured) -> list[str]:
    mine, theirs = one.conditions, other.conditions
    return [field for field in dict.fromkeys([*mine, *theirs]) if mine.get(field) != theirs.get(field)]


def _unlike(one: _Measured, other: _Measured) -> str:
    mine, theirs = one.conditions, other.conditions
    return ", ".join(f"{field} {mine.get(field)} against {theirs.get(field)}" for field in _fields(one, other))
