"""How does robust accuracy fall as eps rises? The security curve, all runs over each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gossamer.report import palette
from gossamer.report.figures import Figure, escaped, layout
from gossamer.report.views import RunView
from gossamer.report.words import brackets, outcome_name, percent, radius
from gossamer.runs.results import Interval


@dataclass(frozen=True, kw_only=True)
class Point:
    """A robust accuracy with its 95 % interval; eps 0 is the clean one."""

    eps: float
    accuracy: float
    interval: Interval
    n: int


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One run under one attack in one norm, by rising eps."""

    run: str
    attack: str
    norm: str
    points: tuple[Point, ...]


def security_curves(views: Sequence[RunView]) -> list[Curve]:
    """Return a curve for each run, attack and norm; where one eps was attacked twice, that of more samples counts."""
    curves: list[Curve] = []
    for view in views:
        for attack, norm in _kinds(view):
            points = _points(view, attack, norm)
            curves.append(Curve(run=view.name, attack=attack, norm=norm, points=points))
    return curves


def figure(curves: Sequence[Curve]) -> Figure:
    """Return the curves of one norm as a figure: lines with interval bands, single points with error bars."""
    runs = list(dict.fromkeys(curve.run for curve in curves))
    attacks = list(dict.fromkeys(curve.attack for curve in curves))
    data: list[Figure] = []
    for curve in curves:
        label = " · ".join([curve.run] * (len(runs) > 1) + [curve.attack])
        place = runs.index(curve.run) if len(runs) > 1 else attacks.index(curve.attack)
        data += _traces(curve, label, palette.RUNS[place % 7], attacks.index(curve.attack))
    x = {"title": {"text": f"{curves[0].norm} eps, pixels in [0, 1]"}, "rangemode": "tozero"}
    y = {"title": {"text": "robust accuracy"}, "tickformat": ".0%", "range": [0, 1.02]}
    drawn = layout(x=x, y=y, legend=True)
    drawn["height"] = 340
    return {"data": data, "layout": drawn}


def _kinds(view: RunView) -> list[tuple[str, str]]:
    found = [(outcome_name(one), one.norm) for each in view.evaluations for one in each.attacks]
    return list(dict.fromkeys(found))


def _points(view: RunView, attack: str, norm: str) -> tuple[Point, ...]:
    attacked: dict[float, Point] = {}
    for evaluation in view.evaluations:
        for one in evaluation.attacks:
            if (outcome_name(one), one.norm) != (attack, norm):
                continue
            clean = Point(
                eps=0.0, accuracy=evaluation.clean_accuracy, interval=evaluation.clean_interval, n=evaluation.n
            )
            hit = Point(eps=one.eps, accuracy=one.robust_accuracy, interval=one.interval, n=one.n)
            for point in (clean, hit):
                known = attacked.get(point.eps)
                if known is None or point.n > known.n:
                    attacked[point.eps] = point
    return tuple(attacked[eps] for eps in sorted(attacked))


def _traces(curve: Curve, label: str, colour: str, attack: int) -> list[Figure]:
    points = curve.points
    joined = len(points) > 2
    x = [point.eps for point in points]
    line: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers" if joined else "markers",
        "name": escaped(label),
        "x": x,
        "y": [point.accuracy for point in points],
        "line": {"color": colour, "dash": palette.DASHES[attack % 4], "width": 2},
        "marker": {"color": colour, "size": 7, "symbol": palette.SYMBOLS[attack % 6]},
        "text": [
            f"eps {radius(point.eps)}: {percent(point.accuracy)} {brackets(point.interval)}, n={point.n}"
            for point in points
        ],
        "hovertemplate": "%{text}<extra>" + escaped(label) + "</extra>",
    }
    if not joined:
        line["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [point.interval[1] - point.accuracy for point in points],
            "arrayminus": [point.accuracy - point.interval[0] for point in points],
            "thickness": 1.5,
        }
        return [line]
    band = {
        "type": "scatter",
        "mode": "lines",
        "x": x + x[::-1],
        "y": [point.interval[1] for point in points] + [point.interval[0] for point in reversed(points)],
        "fill": "toself",
        "fillcolor": palette.translucent(colour, 0.14),
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    return [band, line]
