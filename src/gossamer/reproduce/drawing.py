"""How is a rebuilt entry drawn? A section of a page: what follows from it, its figure, and every number."""

from collections.abc import Sequence

from gossamer.report.parts import Cell, Part, Table, text
from gossamer.reproduce.curves import curves
from gossamer.reproduce.pictures import pictures, strips
from gossamer.reproduce.published import Entry
from gossamer.reproduce.standing import Held, Rebuilt, Row
from gossamer.reproduce.text import (
    JUDGED,
    STANDING,
    both_texts,
    claims_text,
    command,
    made_text,
    number_text,
    spent_text,
    standing_cells,
    standing_text,
)

FOLDED = 24
"""Rows of numbers from which on a table is closed until a reader opens it."""
_MARKS = {"agrees": "✓", "differs": "≠", "holds": "✓", "broken": "✗", "undecided": "?"}


def part(rebuilt: Rebuilt, scale: str) -> Part:
    """Return the section of one entry."""
    entry = rebuilt.entry
    tables = [_claims(rebuilt.claims)] if rebuilt.claims else []
    return Part(
        key=_key(entry),
        title=f"{entry.name}: {entry.title}",
        says=_flat(entry.says),
        facts=[f"{name.replace('_', ' ')}: {_flat(value)}" for name, value in entry.setting.items()],
        sentences=[
            f"{entry.source}. Ours at the scale {scale}: {standing_text(rebuilt)}",
            *filter(None, [made_text(rebuilt.made)]),
            *([f"Missing: {_flat(rebuilt.missing)}"] if rebuilt.missing else []),
            *([f"Notes: {_flat(entry.notes)}"] if entry.notes else []),
        ],
        tables=[*tables, *([_numbers(entry, rebuilt.rows)] if rebuilt.rows else [])],
        charts=[*curves(rebuilt, _key(entry)), *pictures(rebuilt, _key(entry))],
        strips=strips(rebuilt),
        commands=(command(entry, scale),),
    )


def overview(rebuilt: Sequence[Rebuilt], scale: str) -> Part:
    """Return the section that says of every entry how it stands."""
    rows = [
        [text(each.entry.name, each.entry.title), *(text(cell or "–") for cell in standing_cells(each))]
        for each in rebuilt
    ]
    return Part(
        key="overview",
        title=f"Overview: published tables and figures at the scale {scale}",
        says=claims_text(rebuilt),
        sentences=(JUDGED, spent_text(rebuilt)),
        tables=[Table(title="How each stands", head=["entry", *STANDING], rows=rows, look="prose")],
        commands=(f"gossamer reproduce all --scale {scale} -o reproduced.html",),
    )


def _numbers(entry: Entry, rows: Sequence[Row]) -> Table:
    axes = list(entry.axes)
    head = [*(axis.replace("_", " ") for axis in axes), "measure", "published", "ours", "difference", "verdict"]
    listed = [
        [
            *(text(row.at[axis]) for axis in axes),
            text(row.measure.replace("_", " ")),
            *map(text, both_texts(row, entry.measures[row.measure].unit, empty="–")),
            text("–" if row.difference is None else f"{row.difference:+.2f}"),
            Cell(text=row.verdict, small=row.source, mark=_MARKS.get(row.verdict, "")),
        ]
        for row in rows
    ]
    title = f"All {len(listed)} numbers"
    return Table(title=title, head=head, rows=listed, texts=len(axes) + 1, folded=len(listed) > FOLDED)


def _claims(claims: Sequence[Held]) -> Table:
    rows = [
        [
            text(held.claim.text),
            text(
                "–"
                if held.at is None or held.than is None
                else f"{number_text(held.at)} against {number_text(held.than)}"
            ),
            Cell(text=held.verdict, mark=_MARKS.get(held.verdict, "")),
            text(held.why),
        ]
        for held in claims
    ]
    return Table(
        title="What the authors claim", head=["claim", "ours", "verdict", "by what"], rows=rows, texts=4, look="prose"
    )


def _key(entry: Entry) -> str:
    return entry.name.replace("/", "-").replace(".", "-")


def _flat(words: str) -> str:
    return " ".join(words.split())
