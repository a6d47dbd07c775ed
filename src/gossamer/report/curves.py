"""How does robust accuracy fall as eps rises? The security curve, all runs over each other."""

from collections.abc import Sequence
from dataclasses import dataclass

from gossamer.report import lines
from gossamer.report.figures import Figure
from gossamer.report.lines import Point
from gossamer.report.views import RunView
from gossamer.report.words import radius


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One run under one attack in one norm, by rising eps; at eps 0 its clean accuracy."""

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
        draw = lines.traces if len(curve.points) > 2 else lines.markers
        data += draw(label, curve.points, lines.look(place, attacks.index(curve.attack)), says=_at)
    radii = [float(point.x) for curve in curves for point in curve.points]
    return lines.figure(data, x=lines.eps_axis(curves[0].norm, radii), y="robust accuracy")


def _at(eps: float) -> str:
    return f"eps {radius(eps)}"


def _kinds(view: RunView) -> list[tuple[str, str]]:
    found = [(view.named(one.attack, one.parameters), one.norm) for each in view.comparable for one in each.attacks]
    return list(dict.fromkeys(found))


def _points(view: RunView, attack: str, norm: str) -> tuple[Point, ...]:
    attacked: dict[float, Point] = {}
    for evaluation in view.comparable:
        for one in evaluation.attacks:
            if (view.named(one.attack, one.parameters), one.norm) != (attack, norm):
                continue
            clean = Point(x=0.0, value=evaluation.clean_accuracy, interval=evaluation.clean_interval, n=evaluation.n)
            hit = Point(x=one.eps, value=one.robust_accuracy, interval=one.interval, n=one.n)
            for eps, point in ((0.0, clean), (one.eps, hit)):
                known = attacked.get(eps)
                if known is None or point.n > known.n:
                    attacked[eps] = point
    return tuple(attacked[eps] for eps in sorted(attacked))
