"""How are figures drawn that are none of curves? Sizes of weights as outlines, channels as bars, images in a row."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from math import log10

from gossamer.report import outlines, palette
from gossamer.report.figures import Figure, layout
from gossamer.report.lines import look
from gossamer.report.parts import Chart, Strip
from gossamer.report.pictures import ladder
from gossamer.reproduce.curves import named, titled
from gossamer.reproduce.pictured import Attacked, Channels, Sizes
from gossamer.reproduce.published import Entry, Label
from gossamer.reproduce.standing import Rebuilt
from gossamer.runs.results import Histogram

FIRST = "Ours, the first seed"
SIZES = f"{FIRST}; what is exactly zero counts in the bar at 0."
WIDTHS = "As many bars reach to the largest weight of each network: where that is small they are narrow, and hold less."


def pictures(rebuilt: Rebuilt, key: str) -> list[Chart]:
    """Return the histograms or the bars that an entry shows; key: that those of their charts begin with."""
    shown = rebuilt.pictured
    drawn = [*_histograms(rebuilt.entry, shown.sizes), *map(_bars, shown.channels)]
    return [replace(chart, key=f"{key}-picture-{place}") for place, chart in enumerate(drawn)]


def strips(rebuilt: Rebuilt) -> list[Strip]:
    """Return the images of an entry, each network's over rising eps."""
    found = [(ladder(each.panel), each) for each in rebuilt.pictured.attacked]
    return [replace(strip, title=_strip_title(strip, each)) for strip, each in found if strip is not None]


def _strip_title(strip: Strip, attacked: Attacked) -> str:
    return "; ".join(filter(None, [titled(attacked.at), f"{strip.title}, under {attacked.panel.captions.attack}"]))


def _histograms(entry: Entry, sizes: Sequence[Sizes]) -> list[Chart]:
    """Return histograms over each other along the entry's last axis, a chart for each label of the others."""
    *others, last = entry.axes
    panels: dict[tuple[Label, ...], list[Sizes]] = {}
    for each in sizes:
        panels.setdefault(tuple(each.at[axis] for axis in others), []).append(each)
    normalised = entry.shows == "normalised-histogram"
    return [
        Chart(
            key="",
            title=titled(dict(zip(others, labels, strict=True))) or "Sizes of weights",
            figure=_outlined(last, own, normalised=normalised),
            note=SIZES if normalised else f"{SIZES} {WIDTHS}",
        )
        for labels, own in panels.items()
    ]


def _outlined(axis: str, sizes: Sequence[Sizes], *, normalised: bool) -> Figure:
    data: list[Figure] = []
    for place, each in enumerate(sizes):
        label = ", ".join(filter(None, [named(axis, each.at[axis]), each.layer]))
        x = outlines.middles(each.histogram, normalised=normalised)
        trace = outlines.line(label, x, _shares(each.histogram), look(place, place), "%{x:.3g}: %{y:.3~p}")
        data.append(outlines.stepped(trace))
    x = outlines.NORMALISED if normalised else {"title": {"text": "weight"}}
    return outlines.shares(data, x, "share of weights")


def _shares(histogram: Histogram) -> list[float | None]:
    """Return which share of all weights is in each bar, None where none is; zeros are in that which holds 0."""
    counts = list(histogram.counts)
    counts[min(max(bisect_right(histogram.edges, 0.0) - 1, 0), len(counts) - 1)] += histogram.zeros
    total = sum(counts)
    return [count / total if count else None for count in counts]


def _bars(channels: Channels) -> Chart:
    kept = channels.kept
    bars = {
        "type": "bar",
        "x": list(range(1, len(kept) + 1)),
        "y": [count or None for count in kept],
        "marker": {"color": palette.GREEN},
        "hovertemplate": "channel %{x}: %{y}<extra></extra>",
    }
    # A bar of one weight would have no height where the axis began at 1.
    reach = [-0.3, 0.1 + log10(max(1, *kept))]
    y = {"title": {"text": "weights kept"}, "type": "log", "exponentformat": "power", "dtick": 1, "range": reach}
    empty = sum(count == 0 for count in kept)
    return Chart(
        key="",
        title=titled(channels.at),
        figure={"data": [bars], "layout": layout(x={"title": {"text": "channel"}}, y=y)},
        note=f"{FIRST}." + (f" {empty} of {len(kept)} channels keep none and have no bar." if empty else ""),
    )
