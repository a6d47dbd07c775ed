"""What does robustness cost, over all rows? Accuracy over density, and the Pareto frontier against size, work and time.

A trace's `meta` tells the page what a filter leaves of it: `row`, the one row that it is of, or `rows`, one a point.
"""

from collections.abc import Callable, Mapping, Sequence

from gossamer.report import lines, palette
from gossamer.report.conditions import Reached
from gossamer.report.families import families
from gossamer.report.figures import Figure, escaped
from gossamer.report.groups import Summary
from gossamer.report.latencies import Latency
from gossamer.report.words import percent

_HEIGHT = 400
_MARKS = [step * 10.0**power for power in range(-5, 1) for step in (1, 2, 5) if step * 10.0**power <= 1]
_DENSITIES = {"tickvals": _MARKS, "ticktext": [f"{100 * mark:.3g} %" for mark in _MARKS]}


def over_density(found: Sequence[Reached], which: str, matching: Mapping[int, bool]) -> Figure:
    """Return clean or robust accuracy over density, a line a method and objective, and across it the dense networks.

    which: "clean" or "robust"; matching: whether a row matches its dense parent in it, by place, where measured.
    """
    placed = [(one, one.group.density.mean) for one in found if one.group.density and one.group.density.mean > 0]
    names = families([one.group for one, _ in placed])
    data: list[Figure] = []
    for place, name in enumerate(dict.fromkeys(names.values())):
        line = sorted((pair for pair in placed if names[pair[0].group.place] == name), key=lambda pair: pair[1])
        data.append(
            _points(name, line, which, lines.look(place, place), lambda one: _said(one, which, matching))
            | {"mode": "lines+markers" if len(line) > 1 else "markers"}
        )
    least = min((density for _, density in placed), default=1.0)
    data += [_across(one, which, names[one.group.place], least) for one, _ in placed if one.group.is_dense]
    rings = [pair for pair in placed if matching.get(pair[0].group.place)]
    if rings:
        data.append(_rings(rings, which))
    x = {"type": "log", "title": {"text": "density (share of weights kept)"}, **_DENSITIES}
    return lines.figure(data, x=x, y=f"{which} accuracy", height=_HEIGHT)


def against_nonzeros(found: Sequence[Reached]) -> Figure:
    """Return robust accuracy against the weights kept, with the frontier."""
    costs = {one.group.place: one.group.nonzero.mean for one in found if one.group.nonzero}
    return _frontier(found, costs, "weights kept", "~s", lambda count: f"{count:,.0f} weights")


def against_work(found: Sequence[Reached]) -> Figure:
    """Return robust accuracy against the multiply-adds kept, with the frontier."""
    costs: dict[int, float] = {}
    for one in found:
        work = [view.network.totals.kept_multiply_adds for view in one.group.views if view.network]
        costs |= {one.group.place: sum(work) / len(work)} if work else {}
    return _frontier(found, costs, "multiply-adds kept, an image", "~s", lambda count: f"{count:,.0f} multiply-adds")


def against_latency(found: Sequence[Reached], timed: Mapping[int, Latency]) -> Figure:
    """Return robust accuracy against the measured latency of what ships, with the frontier."""
    costs = {one.group.place: 1e3 * timed[one.group.place].seconds for one in found if one.group.place in timed}
    return _frontier(found, costs, "ms an image", "~g", lambda cost: f"{cost:.3g} ms")


def _frontier(
    found: Sequence[Reached], costs: Mapping[int, float], title: str, ticks: str, says: Callable[[float], str]
) -> Figure:
    placed = [(one, costs[one.group.place]) for one in found if costs.get(one.group.place, 0) > 0]
    names = families([one.group for one, _ in placed])

    def said(one: Reached) -> str:
        return f"{_said(one, 'robust', {})}, {says(costs[one.group.place])}"

    data: list[Figure] = [
        _points(
            name,
            [pair for pair in placed if names[pair[0].group.place] == name],
            "robust",
            lines.look(place, place),
            said,
        )
        for place, name in enumerate(dict.fromkeys(names.values()))
    ]
    frontier = {
        "type": "scatter",
        "mode": "lines",
        "name": "Pareto frontier",
        "x": [],
        "y": [],
        "line": {"color": palette.BLACK, "dash": "dot", "width": 2, "shape": "hv"},
        "hoverinfo": "skip",
        "meta": {"frontier": True},
    }
    x = {"type": "log", "dtick": "D2", "tickformat": ticks, "title": {"text": title}}
    figure = lines.figure([*data, frontier], x=x, y="robust accuracy", height=_HEIGHT, whole=False)
    figure["layout"]["yaxis"] |= {"rangemode": "normal"}
    return figure


def _points(
    name: str,
    placed: Sequence[tuple[Reached, float]],
    which: str,
    look: lines.Look,
    says: Callable[[Reached], str],
) -> Figure:
    values = [_value(one, which) for one, _ in placed]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": escaped(name),
        "x": [x for _, x in placed],
        "y": [value.mean for value in values],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [value.reach[1] for value in values],
            "arrayminus": [value.reach[0] for value in values],
            "thickness": 1,
            "width": 3,
        },
        "line": {"color": look.colour, "dash": look.dash, "width": 2},
        "marker": {"color": look.colour, "size": 8, "symbol": look.symbol},
        "text": [escaped(says(one)) for one, _ in placed],
        "hovertemplate": "%{text}<extra>" + escaped(name) + "</extra>",
        "meta": {"rows": [one.group.place for one, _ in placed]},
    }


def _across(one: Reached, which: str, name: str, least: float) -> Figure:
    value = _value(one, which)
    natural = one.group.named("objective") == "natural"
    return {
        "type": "scatter",
        "mode": "lines",
        "name": escaped(f"{name}, dense line"),
        "x": [least, 1],
        "y": [value.mean, value.mean],
        "line": {"color": palette.GREY if natural else palette.BLACK, "dash": "longdash", "width": 1.5},
        "text": [escaped(_said(one, which, {}))] * 2,
        "hovertemplate": "%{text}<extra></extra>",
        "showlegend": False,
        "meta": {"row": one.group.place},
    }


def _rings(placed: Sequence[tuple[Reached, float]], which: str) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "matches its dense parent",
        "x": [x for _, x in placed],
        "y": [_value(one, which).mean for one, _ in placed],
        "marker": {"color": palette.BLACK, "size": 17, "symbol": "circle-open", "line": {"width": 2}},
        "hoverinfo": "skip",
        "meta": {"rows": [one.group.place for one, _ in placed]},
    }


def _value(one: Reached, which: str) -> Summary:
    return one.clean if which == "clean" else one.robust


def _said(one: Reached, which: str, matching: Mapping[int, bool]) -> str:
    density = f"density {percent(one.group.density.mean)}, " if one.group.density else ""
    told = {True: ", matches its dense parent", False: ", does not match its dense parent"}
    verdict = told[matching[one.group.place]] if one.group.place in matching else ""
    return f"{one.group.name}: {density}{which} {_value(one, which).said}{verdict}"
