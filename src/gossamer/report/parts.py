"""What is a section of the page made of? Sentences, tables with intervals, charts, pictures, and the command behind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gossamer.report import palette
from gossamer.report.figures import Figure
from gossamer.report.words import brackets, percent
from gossamer.runs.protocols import Share
from gossamer.runs.results import Dataset

FEW = 12
"""Runs of which a page shows everything, open; of more it shows less of each, folded."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure's place on the page; key: its name among the page's figures.

    scope: "all", what it shows of follows the rows that a filter of the comparison leaves; "picked", the first of
    these alone; "" neither. A trace's `meta` names its `row`, or the `rows` of its points.
    """

    key: str
    title: str
    figure: Figure
    note: str = ""
    scope: Literal["", "all", "picked"] = ""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image as a data URI, and the prediction under it; `right` where that is the label."""

    source: str
    text: str
    right: bool = True


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Pictures in a row; width: of each in CSS pixels."""

    title: str
    pictures: Sequence[Picture]
    width: int


@dataclass(frozen=True, kw_only=True)
class Cell:
    """An entry of a table: a text, what stands small below it, its background, and a sign that needs no colour."""

    text: str
    small: str = ""
    shade: str = ""
    mark: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of as many cells as the head; the first cell names the row, the first `texts` are texts.

    look: plain, prose (cells wrap), or heat (cells are shaded); folded: closed until a reader opens it.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    texts: int = 1
    look: str = "plain"
    folded: bool = False


@dataclass(frozen=True, kw_only=True)
class Part:
    """A section; says: the question it answers; facts: what it was measured on and with."""

    key: str
    title: str
    says: str
    facts: Sequence[str] = ()
    sentences: Sequence[str] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    strips: Sequence[Strip] = ()
    commands: Sequence[str] = ()


def text(value: object, small: str = "") -> Cell:
    """Return a cell with a text."""
    return Cell(text=str(value), small=small)


def shared(share: Share, *, n: bool = False) -> Cell:
    """Return a share with its interval; n: with its samples too, where they are not the same in the whole table."""
    return Cell(text=percent(share.value), small=brackets(share.interval) + (f" n={share.n:,}" if n else ""))


def shaded(share: Share, mark: str = "") -> Cell:
    """Return a share with its interval, on a shade of blue that is the darker the higher it is."""
    return Cell(text=percent(share.value), small=brackets(share.interval), shade=palette.shade(share.value), mark=mark)


def measured_on(dataset: Dataset, seed: int | None = None) -> list[str]:
    """Return which samples a section is about."""
    which = "all of them" if dataset.selection == "all" else dataset.selection
    told = [f"{dataset.name} {dataset.part}, {which}, n = {dataset.n:,}"]
    return told if seed is None else [*told, f"seed {seed}"]


def commands(environment: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the command that a record was measured by, nothing where none is known."""
    command = environment.get("command")
    return (command,) if isinstance(command, str) else ()
