"""How do our numbers stand beside the published ones? Place by place, and claim by claim."""

from collections import ChainMap
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from gossamer.intervals import paired, sign_flips, unpaired
from gossamer.recipe.load import run_name
from gossamer.reproduce.pictured import Pictured, pictured
from gossamer.reproduce.provenance import Made, made
from gossamer.reproduce.published import At, Cell, Claim, Entry
from gossamer.reproduce.reading import NoneFound, Number, read_number, spent, spent_asking
from gossamer.reproduce.scales import Ours, Place, Study, places

Verdict: TypeAlias = Literal[
    "agrees", "differs", "ours alone", "not comparable", "missing", "not at this scale", "quoted", "printed nowhere"
]
Outcomes: TypeAlias = Sequence[Sequence[int]]
Numbers: TypeAlias = Mapping[tuple[str, str], Number | NoneFound | None]
Judged: TypeAlias = Literal[
    "holds",
    "broken",
    "undecided",
    "as claimed, untested",
    "equal, untested",
    "not as claimed, untested",
    "not judged",
]
JUDGED: Sequence[Judged] = get_args(Judged)

SURE = 0.05
"""The level at which a difference is judged."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measure at one place. published, ours: None where there is none; difference: ours less published.

    none_published, none_ours: there is none because what was looked for was not found; source: whose number the
    published one is where it is not the authors' own, and what they say of it.
    """

    at: At
    measure: str
    published: float | None
    ours: Number | None
    difference: float | None
    verdict: Verdict
    none_published: bool = False
    none_ours: bool = False
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Held:
    """A claim, the numbers of ours that it is about, and whether they hold it; why: by what it was judged."""

    claim: Claim
    at: float | None
    than: float | None
    verdict: Judged
    why: str


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """An entry with our numbers. runs, of: how many of its runs are there.

    spent: their seconds and those of protocols, by what took them; made: where, with what and when; pictured: what its
    pictures are drawn from.
    """

    entry: Entry
    comparable: bool
    note: str
    missing: str
    rows: Sequence[Row]
    claims: Sequence[Held]
    runs: int
    of: int
    spent: Mapping[str, float]
    made: Made
    pictured: Pictured

    @property
    def seconds(self) -> float:
        """Of training, evaluation and protocols, what runs of the entry share counted once."""
        return sum(self.spent.values())


def rebuild(
    entry: Entry,
    study: Study | None,
    ours: Ours | None,
    store: Path,
    elsewhere: Sequence[tuple[At, str]] = (),
) -> Rebuilt:
    """Return an entry beside what the runs in a store reached; a run that is not there leaves its places missing.

    elsewhere: places, with a measure each, that another scale has runs for: what was printed there is not quoted.
    """
    found = [] if study is None or ours is None else places(entry, ours, study)
    comparable = study is not None and study.comparable
    numbers = {(_key(place.at), name): read_number(place, name, store) for place in found for name in place.measures}
    times = {run_name(case.recipe): spent(case, store) for place in found for case in place.runs}
    done = [each for each in times.values() if each is not None]
    asked = {each.name: each for place in found for own in place.measurements.values() for each in own}
    answers = [spent_asking(each, store) for each in asked.values()]
    return Rebuilt(
        entry=entry,
        comparable=comparable,
        note=" ".join(part for part in ((study.note if study else ""), (ours.note if ours else "")) if part),
        missing=ours.missing if ours else "No runs of ours are planned at this scale.",
        rows=_rows(entry, found, numbers, comparable, {(_key(at), measure) for at, measure in elsewhere}),
        claims=[_held(claim, numbers) for claim in entry.claims],
        runs=len(done),
        of=len(times),
        spent=dict(ChainMap(*done, *answers)),
        made=made(found, store),
        pictured=pictured(entry, found, store),
    )


def total(rebuilt: Sequence[Rebuilt]) -> float:
    """Return the seconds of training, evaluation and protocols of entries, what they share counted once."""
    return sum(ChainMap(*(dict(each.spent) for each in rebuilt)).values())


def _rows(
    entry: Entry,
    found: Sequence[Place],
    numbers: Numbers,
    comparable: bool,
    elsewhere: Set[tuple[str, str]],
) -> list[Row]:
    rows: list[Row] = []
    printed = {_key(cell.at): cell for cell in entry.cells}
    for cell in entry.cells:
        for measure in entry.measures:
            place = (_key(cell.at), measure)
            if measure in cell.values or place in numbers:
                published = _published(entry, cell, measure)
                empty = _empty(cell, published, planned=place in numbers, elsewhere=place in elsewhere)
                rows.append(_row(cell.at, measure, published, numbers.get(place), comparable, empty))
    for place in found:
        if _key(place.at) not in printed:
            for measure in entry.measures:
                own = numbers.get((_key(place.at), measure))
                if (_key(place.at), measure) in numbers:
                    rows.append(_row(place.at, measure, _Published(), own, comparable, "missing"))
    return rows


@dataclass(frozen=True, kw_only=True)
class _Published:
    """What was printed at a place. slack: how far from it a number may lie that would be printed so; source: whose."""

    value: float | None = None
    none: bool = False
    slack: float = 0.0
    source: str = ""

    @property
    def printed(self) -> bool:
        """Whether there is a number, or that there is none."""
        return self.none or self.value is not None


def _published(entry: Entry, cell: Cell, measure: str) -> _Published:
    last = cell.last.get(measure, 0.0)
    return _Published(
        value=cell.values.get(measure),
        none=measure in cell.none,
        slack=last if entry.measures[measure].cut else last / 2,
        source="; ".join(filter(None, [cell.quoted_from, cell.theirs])),
    )


def _empty(cell: Cell, published: _Published, *, planned: bool, elsewhere: bool) -> Verdict:
    """Return what is said of a place that has no number of ours."""
    if planned:
        return "missing"
    if published.printed and cell.ran_by == "others":
        return "quoted"
    if elsewhere:
        return "not at this scale"
    return "quoted" if published.printed else "printed nowhere"


def _row(
    at: At, measure: str, published: _Published, own: Number | NoneFound | None, comparable: bool, empty: Verdict
) -> Row:
    ours = own if isinstance(own, Number) else None
    difference = None if ours is None or published.value is None else ours.value - published.value
    if own is None:
        verdict: Verdict = empty
    elif not published.printed:
        verdict = "ours alone"
    elif not comparable:
        verdict = "not comparable"
    elif published.value is None or ours is None:
        verdict = "agrees" if published.none and ours is None else "differs"
    else:
        verdict = "agrees" if _agrees(ours, published.value, published.slack) else "differs"
    return Row(
        at=at,
        measure=measure,
        published=published.value,
        ours=ours,
        difference=difference,
        verdict=verdict,
        none_published=published.none,
        none_ours=isinstance(own, NoneFound),
        source=published.source,
    )


def _agrees(own: Number, published: float, slack: float) -> bool:
    """Tell whether a printed number lies in the interval or range of ours, or within its last digit."""
    if own.interval is not None:
        return min(own.interval[0], own.low) <= published <= max(own.interval[1], own.high)
    # Half of a digit is itself not met exactly in binary.
    near = slack * (1 + 1e-6)
    return own.low - near <= published <= own.high + near


def _held(claim: Claim, numbers: Numbers) -> Held:
    at, than = (numbers.get((_key(where), claim.more)) for where in (claim.at, claim.than))
    if not isinstance(at, Number) or not isinstance(than, Number):
        lacking = [
            _told(where) + (", where none was found" if isinstance(own, NoneFound) else "")
            for where, own in ((claim.at, at), (claim.than, than))
            if not isinstance(own, Number)
        ]
        return Held(
            claim=claim,
            at=at.value if isinstance(at, Number) else None,
            than=than.value if isinstance(than, Number) else None,
            verdict="not judged",
            why=f"we have no number for {' and '.join(lacking)}",
        )
    verdict, why = _judge(at, than)
    return Held(claim=claim, at=at.value, than=than.value, verdict=verdict, why=why)


def _judge(at: Number, than: Number) -> tuple[Judged, str]:
    difference = at.value - than.value
    if at.right is None or than.right is None:
        return _untested(difference), "the means, without a test"
    p_value, told = _tested(at, at.right, than, than.right)
    if p_value >= SURE:
        return "undecided", f"{told}, p = {p_value:.2g}"
    return ("holds" if difference > 0 else "broken"), f"{told}, p = {p_value:.2g}"


def _untested(difference: float) -> Judged:
    if difference == 0:
        return "equal, untested"
    return "as claimed, untested" if difference > 0 else "not as claimed, untested"


def _tested(at: Number, right: Outcomes, than: Number, others: Outcomes) -> tuple[float, str]:
    """Return how sure a difference is, and by which test: on the same samples, or on samples of each one's own."""
    if at.paired and than.paired and _alike(right, others):
        if len(right) == 1:
            return paired(right[0], others[0]).p_value, f"McNemar's exact test over {at.n} samples"
        # Networks of several seeds see the same samples, which do not count as others for that.
        sums = [
            sum(own) - sum(other)
            for own, other in zip(zip(*right, strict=True), zip(*others, strict=True), strict=True)
        ]
        return sign_flips(sums), f"exact sign-flip test over {at.n} samples, {len(right)} seeds on each"
    # Networks of several seeds see much the same samples: their mean has as many as one of them.
    p_value = unpaired(_on_average(right), _on_average(others)).p_value
    assert p_value is not None
    return p_value, f"Fisher's exact test over {len(right[0])} and {len(others[0])} samples, means over seeds"


def _on_average(outcomes: Outcomes) -> list[int]:
    """Return as many outcomes as the first seed has samples, of which the share of all seeds is right."""
    n = len(outcomes[0])
    right = round(n * sum(map(sum, outcomes)) / sum(map(len, outcomes)))
    return [1] * right + [0] * (n - right)


def _alike(one: Outcomes, other: Outcomes) -> bool:
    return len({len(each) for each in (*one, *other)}) == 1 and len(one) == len(other)


def _key(at: At) -> str:
    return ", ".join(f"{axis}={label}" for axis, label in sorted(at.items()))


def _told(at: At) -> str:
    return ", ".join(f"{axis} {label}" for axis, label in at.items())
