"""Does a sparse network match its dense parent? Its section of the page, and the rows of a comparison that do."""

from collections import Counter
from collections.abc import Sequence

from gossamer.report import words
from gossamer.report.conditions import Reached
from gossamer.report.parts import Cell, Part, Table, commands, measured_on, shared, text
from gossamer.runs.namesakes import differing
from gossamer.runs.protocols import MatchingTable, PairedDifference
from gossamer.runs.results import AttackOutcome, Evaluation


def matching(record: MatchingTable, key: str) -> Part:
    """Return the section of sparse networks beside their dense parent."""
    rows: list[list[Cell]] = []
    for row in record.rows:
        name = text(row.model.name, f"{words.percent(row.model.density)} of the weights")
        rows += [_compared(name, what, pair) for what, pair in (("clean", row.clean), ("robust", row.robust))]
    table = Table(
        title=f"Sample by sample beside {record.parent.name}, n = {record.dataset.n:,}",
        head=("sparse network", "accuracy", "sparse", "parent", "difference", "McNemar p", "verdict"),
        rows=rows,
        texts=2,
        note="Matches: meets or exceeds its parent; falls short: the 95 % interval of the difference lies below 0; "
        "undecided: between.",
    )
    attack = f"{words.attack_of(record.attack)}, {words.threat_of(record.threat)}"
    return Part(
        key=key,
        title="Matching subnetworks",
        says="Is the sparse network as good as its dense parent?",
        facts=[attack, *measured_on(record.dataset, record.seed)],
        tables=[table],
        commands=commands(record.environment),
    )


def matches(found: Sequence[Reached], records: Sequence[MatchingTable]) -> dict[str, dict[int, bool]]:
    """Return which rows match their parents, clean and robust, by place: those that were measured as the rows were.

    A row of several seeds matches where all that were measured do. Of runs whose folders have one name, a record tells
    of that which holds it.
    """
    told: dict[str, dict[int, bool]] = {"clean": {}, "robust": {}}
    views = {view.path.resolve() for one in found for view in one.group.views}
    shared_names = {name for name, count in Counter(path.name for path in views).items() if count > 1}
    for one in found:
        rows = [
            row
            for view, evaluation, outcome in one.measured
            for record in records
            if _alike(record, evaluation, outcome)
            if view.path.resolve().name not in shared_names or record in view.measured
            for row in record.rows
            if row.model.name in (view.name, view.path.resolve().name) and row.model.nonzero == evaluation.model.nonzero
        ]
        if rows:
            told["clean"][one.group.place] = all(row.clean.verdict == "matches" for row in rows)
            told["robust"][one.group.place] = all(row.robust.verdict == "matches" for row in rows)
    return told


def _alike(record: MatchingTable, evaluation: Evaluation, outcome: AttackOutcome) -> bool:
    """Tell whether networks were compared under the attack, at the threat and on the data of an evaluation."""
    ours, theirs = evaluation.dataset, record.dataset
    if (ours.name, ours.part, ours.checksum) != (theirs.name, theirs.part, theirs.checksum):
        return False
    at_threat = words.threat_of(record.threat) == words.threat_of(outcome.threat)
    return at_threat and not any(differing([("", record.attack), ("", outcome.parameters)]).values())


def _compared(name: Cell, what: str, pair: PairedDifference) -> list[Cell]:
    low, high = (100 * end for end in pair.interval)
    difference = text(f"{100 * pair.difference:+.1f} points", f"[{low:+.1f}, {high:+.1f}]")
    return [
        name,
        text(what),
        shared(pair.sparse),
        shared(pair.parent),
        difference,
        text(f"{pair.p_value:.2g}"),
        text(pair.verdict),
    ]
