"""How does a rebuilt entry read? As Markdown, number by number, with what it cost and what is missing; and as JSON."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from gossamer.reproduce.provenance import Made
from gossamer.reproduce.published import Entry
from gossamer.reproduce.reading import Number
from gossamer.reproduce.standing import Held, Rebuilt, Row
from gossamer.training.progress import duration


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
