"""How is an accuracy drawn over something? A line with the band of its 95 % intervals, or points with error bars."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gossamer.report import palette
from gossamer.report.figures import Figure, escaped, layout
from gossamer.report.words import brackets, percent
from gossamer.runs.protocols import Share
from gossamer.runs.results import Interval

_STEPS = (1, 2, 4, 8, 16, 32, 64)
_TICKS = 8


@dataclass(frozen=True, kw_only=True)
class Point:
    """A share of n samples at x, with its 95 % interval."""

    x: float | str
    value: float
    interval: Interval
    n: int


@dataclass(frozen=True, kw_only=True)
class Look:
    """Colour, dash and symbol of a line; shape: of Plotly's, such as "hv" for steps."""

    colour: str
    dash: str = "solid"
    symbol: str = "circle"
    shape: str = "linear"


def point(x: float | str, share: Share) -> Point:
    """Return a share at x."""
    return Point(x=x, value=share.value, interval=share.interval, n=share.n)


def look(place: int, second: int = 0) -> Look:
    """Return the look of the place-th thing, and of the second-th line of it."""
    return Look(
        colour=palette.RUNS[place % len(palette.RUNS)],
        dash=palette.DASHES[second % len(palette.DASHES)],
        symbol=palette.SYMBOLS[second % len(palette.SYMBOLS)],
    )


def traces(
    label: str, points: Sequence[Point], look: Look, *, says: Callable[[Any], str], band: bool = True
) -> list[Figure]:
    """Return the traces of one line; says: how its x is written; without a band it has error bars."""
    line: Figure = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": escaped(label),
        "x": [point.x for point in points],
        "y": [point.value for point in points],
        "line": {"color": look.colour, "dash": look.dash, "width": 2, "shape": look.shape},
        "marker": {"color": look.colour, "size": 7, "symbol": look.symbol},
        "text": [
            escaped(f"{says(point.x)}: {percent(point.value)} {brackets(point.interval)}, n={point.n}")
            for point in points
        ],
        "hovertemplate": "%{text}<extra>" + escaped(label) + "</extra>",
    }
    if not band:
        return [line | {"error_y": _bars(points)}]
    return [_band(points, look), line]


def markers(label: str, points: Sequence[Point], look: Look, *, says: Callable[[Any], str]) -> list[Figure]:
    """Return points with error bars that nothing joins."""
    (line,) = traces(label, points, look, says=says, band=False)
    return [line | {"mode": "markers"}]


def figure(data: list[Figure], *, x: Figure, y: str, height: int = 340, whole: bool = True) -> Figure:
    """Return a figure of shares over x; whole: up to 100 %, else only as far as they reach."""
    reach = {"range": [0, 1.02]} if whole else {"rangemode": "tozero"}
    drawn = layout(x=x, y={"title": {"text": y}, "tickformat": ".0%", **reach}, legend=True)
    drawn["height"] = height
    return {"data": data, "layout": drawn}


def eps_axis(norm: str, radii: Sequence[float]) -> Figure:
    """Return the axis of eps, from 0; ticks in 255ths where every radius is a whole number of them."""
    axis: Figure = {"title": {"text": f"{norm} eps, pixels in [0, 1]"}, "rangemode": "tozero"}
    levels = [255 * eps for eps in radii]
    if norm != "linf" or not levels or any(abs(level - round(level)) > 1e-6 for level in levels):
        return axis
    step = next((each for each in _STEPS if max(levels) / each <= _TICKS), _STEPS[-1])
    ticks = range(0, round(max(levels)) + 1, step)
    texts = [f"{tick}/255" if tick else "0" for tick in ticks]
    return axis | {"tickvals": [tick / 255 for tick in ticks], "ticktext": texts}


def _bars(points: Sequence[Point]) -> Figure:
    return {
        "type": "data",
        "symmetric": False,
        "array": [point.interval[1] - point.value for point in points],
        "arrayminus": [point.value - point.interval[0] for point in points],
        "thickness": 1.5,
    }


def _band(points: Sequence[Point], look: Look) -> Figure:
    x = [point.x for point in points]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x + x[::-1],
        "y": [point.interval[1] for point in points] + [point.interval[0] for point in reversed(points)],
        "fill": "toself",
        "fillcolor": palette.translucent(look.colour, 0.14),
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }
