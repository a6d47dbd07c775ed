"""How is a rebuilt entry drawn? A section of a page: what follows from it, curves of both sides, and every number."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from gossamer.report import palette
from gossamer.report.figures import Figure, escaped, layout
from gossamer.report.parts import Cell, Chart, Part, Table, text
from gossamer.reproduce.published import Entry, Label
from gossamer.reproduce.standing import JUDGED as CLAIMS
from gossamer.reproduce.standing import Held, Rebuilt, Row, total
from gossamer.reproduce.text import both_texts, number_text, standing_text
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
            *([f"Missing: {_flat(rebuilt.missing)}"] if rebuilt.missing else []),
            *([f"Notes: {_flat(entry.notes)}"] if entry.notes else []),
        ],
        tables=[*tables, *([_numbers(entry, rebuilt.rows)] if rebuilt.rows else [])],
        charts=charts(rebuilt),
        commands=(f"gossamer reproduce {entry.name} --scale {scale}",),
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


def charts(rebuilt: Rebuilt) -> list[Chart]:
    """Return the figure of an entry, once for each label of the axes that it neither has on x nor as lines."""
    figure = rebuilt.entry.figure
    if figure is None:
        return []
    others = [axis for axis in rebuilt.entry.axes if axis not in (figure.x, figure.lines)]
    panels: dict[tuple[Label, ...], list[Row]] = {}
    for row in rebuilt.rows:
        panels.setdefault(tuple(row.at[axis] for axis in others), []).append(row)
    found: list[Chart] = []
    for place, (labels, rows) in enumerate(panels.items()):
        drawn = _drawn(rebuilt.entry, rows)
        if drawn is not None:
            title = ", ".join(f"{axis.replace('_', ' ')} {label}" for axis, label in zip(others, labels, strict=True))
            note = "Dashed and open: published. Solid: ours, with 95 % intervals, or the range of seeds."
            found.append(Chart(key=f"{_key(rebuilt.entry)}-{place}", title=title, figure=drawn, note=note))
    return found


def _drawn(entry: Entry, rows: Sequence[Row]) -> Figure | None:
    figure = entry.figure
    assert figure is not None
    lines: dict[Label, dict[tuple[Label, ...], dict[str, Row]]] = {}
    for row in rows:
        where = tuple(row.at.values())
        lines.setdefault(row.at.get(figure.lines, ""), {}).setdefault(where, {})[row.measure] = row
    data = list(
        chain.from_iterable(
            _line(
                figure.x,
                figure.y,
                _named(figure.lines, label),
                list(points.values()),
                palette.RUNS[place % len(palette.RUNS)],
            )
            for place, (label, points) in enumerate(lines.items())
        )
    )
    if not data:
        return None
    numeric = all(isinstance(x, int | float) for trace in data for x in trace["x"])
    kind = ("log" if figure.log_x else "linear") if numeric else "category"
    x = {"title": {"text": escaped(figure.x.replace("_", " "))}, "type": kind}
    measure = entry.measures[figure.y]
    y = {"title": {"text": escaped(f"{figure.y.replace('_', ' ')}, {measure.unit}")}, "rangemode": "tozero"}
    drawn = layout(x=x, y=y, legend=True)
    drawn["height"] = 340
    return {"data": data, "layout": drawn}


def _named(axis: str, label: Label) -> str:
    """Return what a line is called: its label, after the axis where a number alone would say nothing."""
    return label if isinstance(label, str) else f"{axis.replace('_', ' ')} {label}"


def _line(x: str, y: str, label: str, points: Sequence[Mapping[str, Row]], colour: str) -> list[Figure]:
    """Return what was published and what is ours of one line; nothing where there is neither."""
    printed: list[tuple[Any, float]] = []
    own: list[tuple[Any, Row]] = []
    for measures in points:
        row = measures.get(y)
        if row is None:
            continue
        if row.published is not None and (at := _at(x, measures, published=True)) is not None:
            printed.append((at, row.published))
        if row.ours is not None and (at := _at(x, measures, published=False)) is not None:
            own.append((at, row))
    if all(isinstance(at, int | float) for at, _ in (*printed, *own)):
        # Rows have what was printed first, and lines join points in the order in which they come.
        printed.sort(key=lambda point: point[0])
        own.sort(key=lambda point: point[0])
    found: list[Figure] = []
    if printed:
        found.append(
            _trace(f"{label}, published", [at for at, _ in printed], [value for _, value in printed], colour)
            | {"line": {"color": colour, "dash": "dash", "width": 1.5}, "marker": _marker(colour, "circle-open")}
        )
    if own:
        found.append(
            _trace(f"{label}, ours", [at for at, _ in own], [_value(row) for _, row in own], colour)
            | {"error_y": _bars([row for _, row in own])}
        )
    return found


def _at(x: str, measures: Mapping[str, Row], *, published: bool) -> Any:
    """Return where a point lies on x: a label of its axis, or a measure that was printed or reached."""
    row = next(iter(measures.values()))
    if x in row.at:
        return row.at[x]
    measured = measures.get(x)
    if measured is None:
        return None
    if published:
        return measured.published
    return None if measured.ours is None else measured.ours.value


def _trace(label: str, x: Sequence[Any], y: Sequence[float], colour: str) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": escaped(label),
        "x": list(x),
        "y": list(y),
        "line": {"color": colour, "width": 2},
        "marker": _marker(colour, "circle"),
        "hovertemplate": "%{x}: %{y}<extra>" + escaped(label) + "</extra>",
    }


def _marker(colour: str, symbol: str) -> Figure:
    return {"color": colour, "size": 8, "symbol": symbol}


def _bars(rows: Sequence[Row]) -> Figure:
    spans = [_span(row) for row in rows]
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - _value(row) for row, (_, high) in zip(rows, spans, strict=True)],
        "arrayminus": [_value(row) - low for row, (low, _) in zip(rows, spans, strict=True)],
        "thickness": 1.5,
    }


def _span(row: Row) -> tuple[float, float]:
    assert row.ours is not None
    return row.ours.interval or (row.ours.low, row.ours.high)


def _value(row: Row) -> float:
    assert row.ours is not None
    return row.ours.value


def _numbers(entry: Entry, rows: Sequence[Row]) -> Table:
    axes = list(entry.axes)
    head = [*(axis.replace("_", " ") for axis in axes), "measure", "published", "ours", "difference", "verdict"]
    listed = [
        [
            *(text(row.at[axis]) for axis in axes),
            text(row.measure.replace("_", " ")),
            *map(text, both_texts(row, entry.measures[row.measure].unit, empty="–")),
            text("–" if row.difference is None else f"{row.difference:+.2f}"),
            Cell(text=row.verdict, mark=_MARKS.get(row.verdict, "")),
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
