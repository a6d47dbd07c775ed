"""What was published? A table or figure of a study: its axes, its numbers, and what its authors conclude from them."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, cast

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from gossamer.errors import ConfigError
from gossamer.recipe.load import config_error, read_fields
from gossamer.recipe.schema import Section

Label: TypeAlias = str | int | float | bool
At: TypeAlias = Mapping[str, Label]
Shows: TypeAlias = Literal["histogram", "normalised-histogram", "channels", "images"]


def _text(value: object) -> object:
    return str(value) if isinstance(value, int | float | bool) else value


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_text)]
Axes = Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1)]


class Measure(Section):
    """What a number says: its unit, and in words; cut: some are printed without their further digits, not rounded."""

    unit: str
    words: str
    cut: bool = False


class Cell(Section):
    """One number, or several measured together, at one label of every axis; None: printed in a picture alone.

    none: measures of which the authors say that there is no such number; last: what the last printed digit of a number
    is worth, by default as the file writes the number, in quotes where it ends in zeros. ran_by: others where the study
    quotes a number; quoted_from: whose; theirs: what else its authors say of it.
    """

    at: dict[str, Label]
    values: dict[str, float | None]
    none: tuple[str, ...] = ()
    last: dict[str, float] = Field(default_factory=dict)
    ran_by: Literal["authors", "others"] = "authors"
    quoted_from: str | None = None
    theirs: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _with_last(cls, given: Any) -> Any:
        said = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
        if not isinstance(said.get("values"), dict):
            return given
        written = {name: _last_digit(value) for name, value in cast("dict[str, object]", said["values"]).items()}
        known = {name: worth for name, worth in written.items() if worth is not None}
        return {**said, "last": {**known, **said.get("last", {})}}


class Figure(Section):
    """How an entry draws as curves: which axis or measure lies on x, which measure on y, which axes make lines.

    lines: an axis, or several, of which the first gives lines their colours and the others their symbols. along: axes
    in which the points of a line differ where a measure lies on x; those left make panels. reference: by labels, rows
    that all others are held against: in every panel with which they agree on the axes that are not named here, a level
    line where x is named too, else one over x.
    """

    x: str
    y: str
    lines: Axes
    log_x: bool = False
    along: tuple[str, ...] = ()
    reference: dict[str, Label] = Field(default_factory=dict)


class Claim(Section):
    """An order that the authors claim: of `more`, there is at least as much `at` as at `than`."""

    text: str
    more: str
    at: dict[str, Label]
    than: dict[str, Label]


class Entry(Section):
    """One published table or figure. setting: what its numbers were made with; notes: conflicts and what is unsaid.

    shows: what the figure is where it is none of curves: of weights their histogram, as they are or normalised by the
    largest of each network, or those that channels keep; or images.
    """

    name: str
    title: str
    source: str
    kind: Literal["table", "figure"]
    says: str
    setting: dict[str, Text]
    axes: dict[str, str]
    measures: dict[str, Measure]
    cells: tuple[Cell, ...]
    figure: Figure | None = None
    shows: Shows | None = None
    claims: tuple[Claim, ...] = ()
    notes: str = ""

    @model_validator(mode="after")
    def _holds_together(self) -> "Entry":
        for cell in self.cells:
            _check(set(cell.at) == set(self.axes), f"a label of each of {', '.join(self.axes)}", dict(cell.at))
            _check(set(cell.values) <= set(self.measures), f"some of {', '.join(self.measures)}", list(cell.values))
            empty = {name for name, value in cell.values.items() if value is None}
            _check(set(cell.none) <= empty, "as none what has no number", list(cell.none))
        places = [tuple(sorted(cell.at.items(), key=lambda each: each[0])) for cell in self.cells]
        _check(
            len(set(places)) == len(places), "every place once", next((p for p in places if places.count(p) > 1), "")
        )
        for claim in self.claims:
            _check(claim.more in self.measures, f"one of {', '.join(self.measures)}", claim.more)
            for at in (claim.at, claim.than):
                _check(any(cell.at == at for cell in self.cells), "a place that the entry has", dict(at))
        if self.figure is not None:
            self._check_figure(self.figure)
        return self

    def _check_figure(self, figure: Figure) -> None:
        axes, measures, others = [*self.axes], [*self.measures], set(self.axes) - {figure.x, *figure.lines}
        _check(figure.x in (*axes, *measures), f"on x one of {', '.join((*axes, *measures))}", figure.x)
        _check(figure.y in measures, f"on y one of {', '.join(measures)}", figure.y)
        _check(set(figure.lines) <= set(axes), f"as lines some of {', '.join(axes)}", list(figure.lines))
        _check(set(figure.along) <= others, f"along some of {', '.join(sorted(others))}", list(figure.along))
        _check(not figure.along or figure.x in measures, "a measure on x where points lie along axes", figure.x)
        of = figure.reference.items()
        _check(not of or any(of <= cell.at.items() for cell in self.cells), "a reference that the entry has", dict(of))

    def labels(self, axis: str) -> list[Label]:
        """Return the labels of an axis, in the order in which the entry prints them."""
        return list(dict.fromkeys(cell.at[axis] for cell in self.cells))


def entries() -> dict[str, Path]:
    """Return every entry's file by its name, STUDY/ENTRY."""
    root = Path(str(files("gossamer") / "reproduce" / "published"))
    return {f"{path.parent.name}/{path.stem}": path for path in sorted(root.glob("*/*.yaml"))}


def load_entry(name: str) -> Entry:
    """Return one entry; raises ConfigError for a name that there is not, and for a file that contradicts itself."""
    known = entries()
    if name not in known:
        raise ConfigError(
            "table", expected="one of `gossamer reproduce --list`", got=repr(name), remedy="write bcs/table-1, say"
        )
    values: dict[str, Any] = read_fields(known[name], f"entry {name}")
    try:
        return Entry.model_validate({"name": name, **values})
    except ValidationError as error:
        raise config_error(error, Entry, f"entry {name}") from error


def _last_digit(number: object) -> float | None:
    """Return what the last digit of a number is worth, as it is written; None where it is no number."""
    try:
        exponent = Decimal(str(number)).as_tuple().exponent
    except InvalidOperation:
        return None
    return 10.0**exponent if isinstance(exponent, int) else None


def _check(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise ConfigError("cells, figure and claims", expected=expected, got=got, remedy="mend the entry's file")
