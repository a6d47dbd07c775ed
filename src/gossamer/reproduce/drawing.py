"""How is a rebuilt entry drawn? A section of a page: what follows from it, its figure, and every number."""

from collections.abc import Sequence

from gossamer.report.parts import Cell, Part, Table, text
from gossamer.reproduce.curves import curves
from gossamer.reproduce.pictures import pictures, strips
from gossamer.reproduce.published import Entry
from gossamer.reproduce.standing import JUDGED as CLAIMS
from gossamer.reproduce.standing import Held, Rebuilt, Row, total
from gossamer.reproduce.text import both_texts, command, made_text, number_text, standing_text
from gossamer.training.progress import duration

FOLDED = 24
"""Rows of numbers from which on a table is closed until a reader opens it."""
JUDGED = (
    "A claim holds, or is broken, where the difference of ours is significant at the 5 % level: by McNemar's test, "
    "sample by sample; of several seeds, by the exact sign-flip test over samples; by Fisher's where each network has "
    "samples of its own. What has no samples is told as the means have it, untested. A test tells the networks apart "
    "that were trained, one or two for each place, not methods; and of a hundred claims that do not hold, five would "
    "pass it by chance."
)
SHARED = (
    "The cost of an entry is that of its runs and protocols; what entries share counts in each of them, and once in "
    "the sum."
)
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
    head = ["entry", *(f"claims: {verdict}" for verdict in CLAIMS), "numbers of ours", "runs", "missing", "cost"]
    rows = [_standing(each) for each in rebuilt]
    judged = [held.verdict for each in rebuilt for held in each.claims]
    told = "; ".join(f"{judged.count(verdict)} {verdict}" for verdict in CLAIMS)
    return Part(
        key="overview",
        title=f"Overview: published tables and figures at the scale {scale}",
        says=f"Of {len(judged)} claims of their authors: {told}.",
        sentences=(
            JUDGED,
            f"All of them together took {duration(total(rebuilt))} of training, evaluation and protocols. {SHARED}",
        ),
        tables=[Table(title="How each stands", head=head, rows=rows, look="prose")],
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


def _standing(rebuilt: Rebuilt) -> list[Cell]:
    judged = [held.verdict for held in rebuilt.claims]
    verdicts = [row.verdict for row in rebuilt.rows]
    return [
        text(rebuilt.entry.name, rebuilt.entry.title),
        *(text(judged.count(verdict) or "–") for verdict in CLAIMS),
        text(sum(row.ours is not None for row in rebuilt.rows) or "–"),
        text(f"{rebuilt.runs} of {rebuilt.of}" if rebuilt.of else "–"),
        text(verdicts.count("missing") or "–"),
        text(duration(rebuilt.seconds) if rebuilt.runs else "–"),
    ]


def _key(entry: Entry) -> str:
    return entry.name.replace("/", "-").replace(".", "-")


def _flat(words: str) -> str:
    return " ".join(words.split())
