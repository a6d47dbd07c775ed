"""What stands in the table of several runs? A row a recipe, seeds together, with what a reader filters and sorts by."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from gossamer.report import words
from gossamer.report.audits import audit_of
from gossamer.report.groups import Group, Summary, share
from gossamer.report.latencies import Latency
from gossamer.report.sections import audit_key
from gossamer.report.views import RunView
from gossamer.runs.audits import Audit
from gossamer.runs.results import AttackOutcome, Evaluation

_PARTS = ("objective", "data", "model")
_WORST_FIRST = ("reject", "doubt", "trust")


@dataclass(frozen=True, kw_only=True)
class Link:
    """A word that leads to a run's section."""

    text: str
    to: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A cell: its text, what stands small beside it, what it is sorted by, where it leads, and a CSS class."""

    text: str = "–"
    small: Sequence[str] = ()
    value: float | str = ""
    links: Sequence[Link] = ()
    to: str = ""
    look: str = ""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column's head; text: whether its cells are words."""

    title: str
    small: str = ""
    text: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row; words: what a search finds it by; density: in [0, 1], None where unknown; runs: of that many."""

    group: Group
    entries: Sequence[Entry]
    words: str
    density: float | None
    runs: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The table, and by what it can be filtered: the values of method, objective and data, where there are several."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    runs: int = 0


def comparison(
    groups: Sequence[Group], audits: Sequence[Audit], timed: Mapping[int, Latency], anchors: Mapping[str, str]
) -> Comparison:
    """Return the table of a page; timed: latencies by row; anchors: of the runs' sections, by name."""
    several = [key for key in _PARTS if len({group.named(key) for group in groups}) > 1]
    found = {group.place: [_at_headline(view) for view in group.views] for group in groups}
    attacks = dict.fromkeys(column for every in found.values() for one in every for column in one)
    views = [view for group in groups for view in group.views]
    verdicts = {group.place: _verdict(group, audits, views) for group in groups}
    examined = any(entry.value != "" for entry in verdicts.values())
    made: list[tuple[Column, Callable[[Group], Entry]]] = [
        (Column(title="run", text=True), lambda group: _name(group, anchors)),
        *([(Column(title="audit", text=True), lambda group: verdicts[group.place])] if examined else []),
        (Column(title="method", text=True), lambda group: Entry(text=group.method, value=group.method)),
        *((Column(title=key, text=True), _part(key)) for key in several),
        (Column(title="density"), lambda group: _plain(group.density, words.percent)),
        (Column(title="nonzero"), lambda group: _plain(group.nonzero, lambda count: f"{count:,.0f}")),
        (Column(title="clean"), _clean),
        *((Column(title=attack, small=threat), _robust((attack, threat), found)) for attack, threat in attacks),
        (Column(title="work ratio"), _work),
        *([(Column(title="latency", small=_device(timed)), lambda group: _latency(group, timed))] if timed else []),
        (Column(title="trained for"), _trained),
    ]
    rows = [
        Row(
            group=group,
            entries=[entry(group) for _, entry in made],
            words=" ".join([group.name, *_said(group)]).lower(),
            density=group.density.mean if group.density else None,
            runs=len(group.views),
        )
        for group in groups
    ]
    keys = [key for key in ("method", "objective", "data") if len({group.named(key) for group in groups}) > 1]
    choices = {key: sorted({group.named(key) for group in groups}) for key in keys}
    return Comparison(
        columns=[column for column, _ in made], rows=rows, choices=choices, runs=sum(row.runs for row in rows)
    )


def _said(group: Group) -> list[str]:
    named = [group.named(key) for key in ("name", "method", *_PARTS)]
    return [*(view.name for view in group.views), *named]


def _name(group: Group, anchors: Mapping[str, str]) -> Entry:
    if len(group.views) == 1:
        return Entry(text=group.name, value=group.name.lower(), to=anchors[group.views[0].name])
    links = [Link(text=str(view.recipe.get("seed")), to=anchors[view.name]) for view in group.views]
    return Entry(text=group.name, small=[f"{len(links)} seeds:"], value=group.name.lower(), links=links)


def _part(key: str) -> Callable[[Group], Entry]:
    return lambda group: Entry(text=group.named(key), value=group.named(key))


def _verdict(group: Group, audits: Sequence[Audit], views: Sequence[RunView]) -> Entry:
    own = [found for view in group.views if (found := audit_of(view, audits, views))]
    worst = min(own, key=lambda each: _WORST_FIRST.index(each.verdict), default=None)
    if worst is None:
        return Entry()
    settled = [f"settled {words.percent(worst.settled_robust_accuracy)}", words.brackets(worst.settled_interval)]
    return Entry(
        text=words.verdict(worst.verdict),
        small=[*settled, f"n={worst.n}"],
        value=worst.verdict,
        to=audit_key(audits.index(worst)),
        look=worst.verdict,
    )


def _plain(found: Summary | None, says: Callable[[float], str]) -> Entry:
    if found is None:
        return Entry()
    spread = [f"± {says(found.deviation)}"] if found.deviation > 0.005 * found.mean else []
    return Entry(text=says(found.mean), small=spread, value=found.mean)


def _share(found: Summary | None) -> Entry:
    return Entry(text=words.percent(found.mean), small=found.small, value=found.mean) if found else Entry()


def _clean(group: Group) -> Entry:
    quoted = [one for view in group.views if (one := view.headline)]
    return _share(share([(one.clean_accuracy, one.clean_interval, one.n) for one in quoted]))


def _robust(
    column: tuple[str, str], found: Mapping[int, Sequence[Mapping[tuple[str, str], AttackOutcome | Evaluation]]]
) -> Callable[[Group], Entry]:
    def entry(group: Group) -> Entry:
        known = [outcomes[column] for outcomes in found[group.place] if column in outcomes]
        cell = _share(share([(one.robust_accuracy, one.interval, one.n) for one in known]))
        if 0 < len(known) < len(group.views):
            return replace(cell, small=[*cell.small, f"{len(known)} of {len(group.views)} runs"])
        return cell

    return entry


def _work(group: Group) -> Entry:
    ratios = [view.network.work_ratio for view in group.views if view.network and view.network.work_ratio is not None]
    return Entry(text=f"{fmean(ratios):.3g}×", value=fmean(ratios)) if ratios else Entry()


def _latency(group: Group, timed: Mapping[int, Latency]) -> Entry:
    own = timed.get(group.place)
    return Entry(text=f"{1e3 * own.seconds:.3g} ms", small=[own.of], value=own.seconds) if own else Entry()


def _device(timed: Mapping[int, Latency]) -> str:
    any_of_them = next(iter(timed.values()))
    return f"one image, {any_of_them.device}, {any_of_them.threads} thread{'s' * (any_of_them.threads != 1)}"


def _trained(group: Group) -> Entry:
    spent = [view.status.seconds_trained for view in group.views if view.status]
    return Entry(text=words.duration(fmean(spent)), value=fmean(spent)) if spent else Entry()


def _at_headline(view: RunView) -> dict[tuple[str, str], AttackOutcome | Evaluation]:
    """Return what is known at the headline's threat, the headline itself first, by attack and threat."""
    headline = view.headline
    if headline is None:
        return {}
    norm = headline.threat.partition(":")[0]
    known: dict[tuple[str, str], AttackOutcome | Evaluation] = {
        (view.named(headline.attack, headline.attack_parameters), _threat(norm, headline.eps)): headline
    }
    outcomes = [each for one in view.comparable for each in one.attacks if each.threat == headline.threat]
    for each in sorted(outcomes, key=lambda each: -each.n):
        known.setdefault((view.named(each.attack, each.parameters), _threat(each.norm, each.eps)), each)
    return known


def _threat(norm: str, eps: float) -> str:
    return f"{norm} eps {words.radius(eps)}"
