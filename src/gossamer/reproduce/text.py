"""How does a rebuilt entry read? As Markdown, number by number, with what it cost and what is missing; and as JSON."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from gossamer.reproduce.provenance import Made
from gossamer.reproduce.published import Entry
from gossamer.reproduce.reading import Number
from gossamer.reproduce.standing import JUDGED as CLAIMS
from gossamer.reproduce.standing import Held, Rebuilt, Row, total
from gossamer.training.progress import duration

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

STANDING = (*(f"claims: {verdict}" for verdict in CLAIMS), "numbers of ours", "runs", "missing", "cost")
"""What an overview tells of each entry."""


def overview_markdown(rebuilt: Sequence[Rebuilt], scale: str) -> str:
    """Return how every entry stands as a page of Markdown, which links to what `markdown` wrote of each."""
    rows = [
        [
            f"[{each.entry.name}]({each.entry.name}.md) {each.entry.title}",
            *(cell or "–" for cell in standing_cells(each)),
        ]
        for each in rebuilt
    ]
    lines = [f"# Published tables and figures at the scale {scale}", "", claims_text(rebuilt), "", JUDGED, ""]
    head = ["entry", *STANDING]
    lines += [_line(head), _line(["---"] * len(head)), *map(_line, rows), "", spent_text(rebuilt)]
    return "\n".join([*lines, ""])


def claims_text(rebuilt: Sequence[Rebuilt]) -> str:
    """Return how many claims were judged, and how."""
    judged = [held.verdict for each in rebuilt for held in each.claims]
    told = "; ".join(f"{judged.count(verdict)} {verdict}" for verdict in CLAIMS)
    return f"Of {len(judged)} claims of their authors: {told}."


def spent_text(rebuilt: Sequence[Rebuilt]) -> str:
    """Return what entries took together."""
    return f"All of them together took {duration(total(rebuilt))} of training, evaluation and protocols. {SHARED}"


def standing_cells(rebuilt: Rebuilt) -> list[str]:
    """Return what `STANDING` names of an entry, "" where there is none."""
    judged = [held.verdict for held in rebuilt.claims]
    verdicts = [row.verdict for row in rebuilt.rows]
    return [
        *(str(judged.count(verdict) or "") for verdict in CLAIMS),
        str(sum(row.ours is not None for row in rebuilt.rows) or ""),
        f"{rebuilt.runs} of {rebuilt.of}" if rebuilt.of else "",
        str(verdicts.count("missing") or ""),
        duration(rebuilt.seconds) if rebuilt.runs else "",
    ]


def markdown(rebuilt: Rebuilt, scale: str) -> str:
    """Return an entry with our numbers as a Markdown section."""
    entry = rebuilt.entry
    lines = [f"## {entry.name}: {entry.title}", "", f"{entry.source}. {_clean(entry.says)}", ""]
    lines += ["| setting | |", "| --- | --- |"]
    lines += [f"| {name.replace('_', ' ')} | {_cell(value)} |" for name, value in entry.setting.items()]
    lines += ["", f"Ours at the scale `{scale}`: {standing_text(rebuilt)}", ""]
    lines += [f"{made_text(rebuilt.made)} Printed by `{command(entry, scale)}`.".strip(), ""]
    if not rebuilt.pictured.empty:
        lines += [f"Its pictures: `{command(entry, scale)} --show -o page.html`.", ""]
    lines += _table(entry, rebuilt.rows)
    if rebuilt.claims:
        lines += ["", "| what the authors claim | ours | |", "| --- | --- | --- |", *map(_claim, rebuilt.claims)]
    if rebuilt.missing:
        lines += ["", f"Missing: {_clean(rebuilt.missing)}"]
    if entry.notes:
        lines += ["", f"Notes: {_clean(entry.notes)}"]
    return "\n".join([*lines, ""])


def to_json(rebuilt: Rebuilt, scale: str) -> dict[str, Any]:
    """Return an entry with our numbers as values that JSON has; outcomes by sample stay with the runs."""
    rows = [
        {**dataclasses.asdict(row), "ours": None if row.ours is None else _number_json(row.ours)}
        for row in rebuilt.rows
    ]
    claims = [
        {"text": held.claim.text, "at": held.at, "than": held.than, "verdict": held.verdict, "why": held.why}
        for held in rebuilt.claims
    ]
    return {
        "schema": "gossamer/reproduced/2",
        "entry": rebuilt.entry.name,
        "source": rebuilt.entry.source,
        "scale": scale,
        "command": command(rebuilt.entry, scale),
        "made": dataclasses.asdict(rebuilt.made),
        "comparable": rebuilt.comparable,
        "note": rebuilt.note,
        "runs": rebuilt.runs,
        "of": rebuilt.of,
        "seconds": round(rebuilt.seconds, 1),
        "rows": rows,
        "claims": claims,
    }


def _number_json(number: Number) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(number).items() if key != "right"}


def standing_text(rebuilt: Rebuilt) -> str:
    """Return how much of an entry is there, and what its numbers stand for."""
    told = (
        f"{rebuilt.runs} of {rebuilt.of} runs, {duration(rebuilt.seconds)} of training, evaluation and protocols"
        if rebuilt.of
        else "none"
    )
    if rebuilt.of and not rebuilt.comparable:
        told += (
            "; another setting than the published one: differences are told, and say little; what follows from our "
            "numbers counts"
        )
    return f"{told}. {_clean(rebuilt.note)}".strip()


def made_text(made: Made) -> str:
    """Return on which machines an entry was made, with which versions and when; "" where no record says."""
    machines = [
        f"on {each.device} with gossamer {each.gossamer}, torch {each.torch}, Python {each.python}"
        for each in made.machines
    ]
    days = list(dict.fromkeys(time.partition("T")[0] for time in (made.first, made.last) if time))
    told = [*(["; ".join(machines)] if machines else []), *([" to ".join(days)] if days else [])]
    return f"Made {', '.join(told)}." if told else ""


def command(entry: Entry, scale: str) -> str:
    """Return the command that makes an entry at a scale, and prints it."""
    return f"gossamer reproduce {entry.name} --scale {scale}"


def _table(entry: Entry, rows: Sequence[Row]) -> list[str]:
    axes = list(entry.axes)
    head = [*axes, "measure", "published", "ours", "difference", ""]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in rows:
        unit = entry.measures[row.measure].unit
        lines.append(
            _line(
                [
                    *(str(row.at[axis]) for axis in axes),
                    row.measure.replace("_", " "),
                    *both_texts(row, unit, empty="-"),
                    "-" if row.difference is None else f"{row.difference:+.2f}",
                    _verdict(row),
                ]
            )
        )
    return lines


def _verdict(row: Row) -> str:
    """Return a verdict, with whose the published number is."""
    if not row.source:
        return row.verdict
    return f"{row.verdict}: {row.source}" if row.verdict == "quoted" else f"{row.verdict} ({row.source})"


def both_texts(row: Row, unit: str, *, empty: str) -> tuple[str, str]:
    """Return what was printed and what is ours: a number, `none` where none was found, else what stands for nothing."""
    printed = "none" if row.none_published else empty
    own = "none" if row.none_ours else empty
    return (
        printed if row.published is None else value_text(row.published, unit),
        own if row.ours is None else ours_text(row.ours, unit),
    )


def ours_text(number: Number, unit: str) -> str:
    """Return a number of ours with its interval, its samples and the range of its seeds."""
    told = value_text(number.value, unit)
    if number.interval is not None:
        told += f" [{number.interval[0]:.1f}, {number.interval[1]:.1f}], n = {number.n}"
    if number.seeds > 1 and number.by_seed:
        told += f", {number.seeds} seeds from {value_text(number.low, unit)} to {value_text(number.high, unit)}"
    elif number.seeds > 1:
        told += f", over {number.seeds} seeds"
    return told


def value_text(value: float, unit: str) -> str:
    """Return a number in its unit, without zeros that say nothing."""
    if unit == "percent":
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return number_text(value, digits=3)


def number_text(value: float, *, digits: int = 4) -> str:
    """Return a number as it is read: whole where it is, with one place from 100 on, else so many digits."""
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.{digits}g}"


def _claim(held: Held) -> str:
    numbers = (
        "-" if held.at is None or held.than is None else f"{number_text(held.at)} against {number_text(held.than)}"
    )
    return _line([held.claim.text, numbers, f"{held.verdict} ({held.why})"])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    return _clean(str(text)).replace("|", "\\|")


def _clean(text: str) -> str:
    return " ".join(text.split())
