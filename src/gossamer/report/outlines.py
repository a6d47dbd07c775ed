"""How are numbers drawn over each other, a line a thing? Plain lines, and the outlines of histograms."""

import itertools
from collections.abc import Sequence

from gossamer.report.figures import Figure, escaped, layout
from gossamer.report.lines import Look
from gossamer.runs.results import Histogram

HEIGHT = 340
LOG_SHARES: Figure = {"type": "log", "tickformat": "~p", "dtick": 1}
NORMALISED: Figure = {"title": {"text": "weight / largest magnitude of the network"}, "range": [-1, 1]}
"""The axis of weights over the largest magnitude among them."""


def line(label: str, x: Sequence[object], y: Sequence[float | None], look: Look, hover: str) -> Figure:
    """Return a line through numbers, interrupted where one is None; hover: what is told of a point."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": escaped(label),
        "x": x,
        "y": [None if value is None else float(f"{value:.5g}") for value in y],
        "line": {"color": look.colour, "dash": look.dash, "width": 2},
        "marker": {"color": look.colour, "symbol": look.symbol, "size": 7},
        "hovertemplate": f"{hover}<extra>{escaped(label)}</extra>",
    }


def stepped(trace: Figure) -> Figure:
    """Return a line as the outline of bars, whose middles its points are."""
    return trace | {"mode": "lines", "line": {**trace["line"], "shape": "hvh"}, "connectgaps": False}


def middles(histogram: Histogram, *, normalised: bool) -> list[float]:
    """Return the middles of a histogram's bars; normalised: over the largest magnitude."""
    found = [(a + b) / 2 for a, b in itertools.pairwise(histogram.edges)]
    if not normalised:
        return [float(f"{middle:.5g}") for middle in found]
    largest = max(abs(edge) for edge in histogram.edges) or 1.0
    return [round(middle / largest, 4) for middle in found]


def shares(data: list[Figure], x: Figure, title: str) -> Figure:
    """Return a figure of shares on a logarithmic axis."""
    drawn = layout(x=x, y={"title": {"text": title}, **LOG_SHARES}, legend=True)
    return {"data": data, "layout": drawn | {"height": HEIGHT}}
