"""Does a sparse network match its dense parent? Its section of the page, and the rows of a comparison that do."""

from collections.abc import Sequence

from gossamer.report import words
from gossamer.report.groups import Group
from gossamer.report.parts import Cell, Part, Table, commands, measured_on, shared, text
from gossamer.runs.protocols import MatchingTable, PairedDifference


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


def matches(groups: Sequence[Group], records: Sequence[MatchingTable], threat: str) -> dict[str, dict[int, bool]]:
    """Return which rows match their parents, clean and robust, by place: those that were measured at a threat.

    threat: "linf eps 8/255"; a row of several seeds matches where all that were measured do.
    """
    found: dict[str, dict[int, bool]] = {"clean": {}, "robust": {}}
    tables = [record for record in records if words.threat_of(record.threat) == threat]
    for group in groups:
        names = {name for view in group.views for name in (view.name, view.path.resolve().name)}
        rows = [row for record in tables for row in record.rows if row.model.name in names]
        if rows:
            found["clean"][group.place] = all(row.clean.verdict == "matches" for row in rows)
            found["robust"][group.place] = all(row.robust.verdict == "matches" for row in rows)
    return found


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
