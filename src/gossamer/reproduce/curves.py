"""How is an entry drawn as curves? Both sides over each other, a panel for each label of the other axes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, TypeAlias

from gossamer.report import palette
from gossamer.report.figures import Figure, escaped, layout
from gossamer.report.lines import Look, look
from gossamer.report.parts import Chart
from gossamer.reproduce.published import At, Entry, Label
from gossamer.reproduce.published import Figure as Asked
from gossamer.reproduce.standing import Rebuilt, Row

NOTE = "Dashed and open: published. Solid: ours, with 95 % intervals, or the range of seeds."
LEVEL = "Level, without points: what the others are held against."
REFERENCE = Look(colour=palette.GREY)

Labels: TypeAlias = tuple[Label, ...]


def curves(rebuilt: Rebuilt, key: str) -> list[Chart]:
    """Return the panels of an entry's figure that have something to show; key: that those of their charts begin with.

    There is one for each label of the axes that are neither on x, nor lines, nor along these.
    """
    figure = rebuilt.entry.figure
    if figure is None:
        return []
    others = [axis for axis in rebuilt.entry.axes if axis not in (figure.x, *figure.lines, *figure.along)]
    found: list[Chart] = []
    for place, (labels, rows) in enumerate(_panels(rebuilt.rows, figure, others).items()):
        drawn = _drawn(rebuilt.entry, figure, rows)
        if drawn is not None:
            title = titled(dict(zip(others, labels, strict=True)))
            note = f"{NOTE} {LEVEL}" if figure.x in figure.reference else NOTE
            found.append(Chart(key=f"{key}-{place}", title=title, figure=drawn, note=note))
    return found


def _panels(rows: Iterable[Row], figure: Asked, others: Sequence[str]) -> Mapping[Labels, list[Row]]:
    """Return rows by panel; those of the reference are in all panels that they agree with, or in one of their own."""
    panels: dict[Labels, list[Row]] = {}
    references: list[Row] = []
    for row in rows:
        if _is_reference(row, figure):
            references.append(row)
        else:
            panels.setdefault(tuple(row.at[axis] for axis in others), []).append(row)
    for row in references:
        own = tuple(row.at[axis] for axis in others)
        free = [place for place, axis in enumerate(others) if axis not in figure.reference]
        for labels in [each for each in panels if all(each[place] == own[place] for place in free)] or [own]:
            panels.setdefault(labels, []).append(row)
    return panels


def _is_reference(row: Row, figure: Asked) -> bool:
    return bool(figure.reference) and figure.reference.items() <= row.at.items()


def _drawn(entry: Entry, figure: Asked, rows: Sequence[Row]) -> Figure | None:
    others = [row for row in rows if not _is_reference(row, figure)]
    references = [row for row in rows if _is_reference(row, figure)]
    lines = _by_line(figure, others)
    looks = _looks(list(lines))
    data = list(
        chain.from_iterable(
            _line(figure, _line_name(figure, labels), points, looks[labels]) for labels, points in lines.items()
        )
    )
    across = list(dict.fromkeys(row.at[figure.x] for row in others)) if figure.x in figure.reference else []
    for labels, points in _by_line(figure, references).items():
        name = _line_name(figure, labels)
        data += _levels(figure, name, points, across) if across else _line(figure, name, points, REFERENCE)
    if not data:
        return None
    numeric = all(isinstance(x, int | float) for trace in data for x in trace["x"])
    kind = ("log" if figure.log_x else "linear") if numeric else "category"
    x = {"title": {"text": escaped(figure.x.replace("_", " "))}, "type": kind}
    measure = entry.measures[figure.y]
    y = {"title": {"text": escaped(f"{figure.y.replace('_', ' ')}, {measure.unit}")}, "rangemode": "tozero"}
    drawn = layout(x=x, y=y, legend=True)
    # The legend stands above the lines, and takes its room from them.
    drawn["height"] = 340 + 18 * max(0, len(data) - 4)
    return {"data": data, "layout": drawn}


def _by_line(figure: Asked, rows: Iterable[Row]) -> Mapping[Labels, list[Mapping[str, Row]]]:
    """Return what is measured at each place, by the labels of the line that the place is on."""
    lines: dict[Labels, dict[Labels, dict[str, Row]]] = {}
    for row in rows:
        places = lines.setdefault(tuple(row.at[axis] for axis in figure.lines), {})
        places.setdefault(tuple(row.at.values()), {})[row.measure] = row
    return {labels: list(places.values()) for labels, places in lines.items()}


def _looks(lines: Sequence[Labels]) -> Mapping[Labels, Look]:
    """Return how lines look: coloured by their first label, and with a symbol for each of what the others are."""
    firsts, others = (list(dict.fromkeys(labels[part] for labels in lines)) for part in (slice(1), slice(1, None)))
    return {labels: replace(look(firsts.index(labels[:1]), others.index(labels[1:])), dash="solid") for labels in lines}


def _line_name(figure: Asked, labels: Labels) -> str:
    return ", ".join(named(axis, label) for axis, label in zip(figure.lines, labels, strict=True))


def titled(at: At) -> str:
    """Return what a chart is called: the labels that all in it share."""
    return ", ".join(f"{axis.replace('_', ' ')} {label}" for axis, label in at.items())


def named(axis: str, label: Label) -> str:
    """Return what a line is called: its label, after the axis where a number alone would say nothing."""
    return label if isinstance(label, str) else f"{axis.replace('_', ' ')} {label}"


def _line(figure: Asked, label: str, points: Sequence[Mapping[str, Row]], look: Look) -> list[Figure]:
    """Return what was published and what is ours of one line; nothing where there is neither."""
    printed: list[tuple[Any, float]] = []
    own: list[tuple[Any, Row]] = []
    for measures in points:
        row = measures.get(figure.y)
        if row is None:
            continue
        if row.published is not None and (at := _at(figure.x, measures, published=True)) is not None:
            printed.append((at, row.published))
        if row.ours is not None and (at := _at(figure.x, measures, published=False)) is not None:
            own.append((at, row))
    if all(isinstance(at, int | float) for at, _ in (*printed, *own)):
        # Rows have what was printed first, and lines join points in the order in which they come.
        printed.sort(key=lambda point: point[0])
        own.sort(key=lambda point: point[0])
    found: list[Figure] = []
    if printed:
        found.append(
            _trace(f"{label}, published", [at for at, _ in printed], [value for _, value in printed], look)
            | {"line": _dashed(look.colour), "marker": _marker(look.colour, f"{look.symbol}-open")}
        )
    if own:
        found.append(
            _trace(f"{label}, ours", [at for at, _ in own], [_value(row) for _, row in own], look)
            | {"error_y": _bars([row for _, row in own])}
        )
    return found


def _levels(figure: Asked, label: str, points: Sequence[Mapping[str, Row]], across: Sequence[Label]) -> list[Figure]:
    """Return what was published and what is ours of a reference, each level across these labels of x."""
    found: list[Figure] = []
    numbers = [each for each in across if isinstance(each, int | float)]
    x = sorted(numbers) if len(numbers) == len(across) else across
    for row in (measures[figure.y] for measures in points if figure.y in measures):
        if row.published is not None:
            name = f"{label}, published"
            found.append(_level(name, x, row.published, f"{row.published:.4g}") | {"line": _dashed(palette.GREY)})
        if row.ours is not None:
            low, high = _span(row)
            told = f"{_value(row):.4g} [{low:.4g}, {high:.4g}]"
            found.append(_level(f"{label}, ours", x, _value(row), told))
    return found


def _level(label: str, x: Sequence[Label], y: float, told: str) -> Figure:
    hover = f"{escaped(told)}<extra>{escaped(label)}</extra>"
    mode = "lines" if len(x) > 1 else "markers"
    return _trace(label, x, [y] * len(x), REFERENCE) | {"mode": mode, "hovertemplate": hover}


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


def _trace(label: str, x: Sequence[Any], y: Sequence[float], look: Look) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": escaped(label),
        "x": list(x),
        "y": list(y),
        "line": {"color": look.colour, "width": 2},
        "marker": _marker(look.colour, look.symbol),
        "hovertemplate": "%{x}: %{y}<extra>" + escaped(label) + "</extra>",
    }


def _dashed(colour: str) -> Figure:
    return {"color": colour, "dash": "dash", "width": 1.5}


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
