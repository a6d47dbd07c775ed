"""What do single rows look like over each other? Security curves, density by layer, weights and training, a line a row.

Of hundreds of lines none can be read: the page draws those of the first rows of its table (`meta` names the row), and
gives them colours and symbols that no two of them share.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

from gossamer.report import curves, lines, outlines
from gossamer.report.figures import Figure, escaped, layout
from gossamer.report.groups import Group
from gossamer.report.lines import Point
from gossamer.report.outlines import HEIGHT, LOG_SHARES
from gossamer.report.words import percent, radius
from gossamer.runs.results import Layer, Network

PICKED = 12
"""Rows that are drawn over each other."""


def looks() -> list[dict[str, str]]:
    """Return colour, dash and symbol of the rows drawn over each other, by their order; no two are alike."""
    found = (lines.look(place, place) for place in range(PICKED))
    return [{"colour": each.colour, "dash": each.dash, "symbol": each.symbol} for each in found]


def security(groups: Sequence[Group]) -> dict[str, Figure]:
    """Return robust accuracy over eps by norm; of several seeds the mean, with the band from the least to the most."""
    figures: dict[str, list[Figure]] = {}
    radii: dict[str, list[float]] = {}
    drawn = {group.place: _merged(group) for group in groups}
    attacks = list(dict.fromkeys(curve.attack for found in drawn.values() for curve in found))
    for group in groups:
        for curve in drawn[group.place]:
            second = attacks.index(curve.attack)
            label = " · ".join([group.name, *([curve.attack] if len(attacks) > 1 else [])])
            draw = lines.traces if len(curve.points) > 2 else lines.markers
            look = lines.look(group.place, second)
            traces = draw(label, curve.points, look, says=lambda eps: f"eps {radius(eps)}")
            meta = {"row": group.place, **({"second": second} if len(attacks) > 1 else {})}
            figures.setdefault(curve.norm, []).extend(trace | {"meta": meta} for trace in traces)
            radii.setdefault(curve.norm, []).extend(float(point.x) for point in curve.points)
    return {
        norm: lines.figure(data, x=lines.eps_axis(norm, radii[norm]), y="robust accuracy", height=HEIGHT)
        for norm, data in figures.items()
    }


def layers(groups: Sequence[Group]) -> Figure | None:
    """Return the density of each layer, the mean over seeds; None where no network is described."""
    return _densities(groups, lambda layer: layer.name)


def blocks(groups: Sequence[Group]) -> Figure | None:
    """Return the density of each block of layers, the mean over seeds; None where no network is described."""
    return _densities(groups, lambda layer: layer.block)


def kernels(groups: Sequence[Group]) -> Figure | None:
    """Return the share of kernels by the weights kept in them, of the commonest size; None where no record tells."""
    counted = {group.place: [one for one in map(_kept_by_kernel, _networks(group)) if one] for group in groups}
    sizes = [len(one) for found in counted.values() for one in found]
    if not sizes:
        return None
    size = max(set(sizes), key=sizes.count)
    data: list[Figure] = []
    for group in groups:
        alike = [one for one in counted[group.place] if len(one) == size]
        if alike:
            total = [sum(each) for each in zip(*alike, strict=True)]
            shares = [count / sum(total) for count in total]
            data.append(_line(group, list(range(size)), shares, "%{x} kept: %{y:.3~p} of kernels"))
    title = f"weights kept of the {size - 1} of a kernel"
    x = {"title": {"text": title}, "dtick": 1 if size < 17 else None, "range": [-0.5, size - 0.5]}
    return outlines.shares(data, x, "share of kernels")


def weights(groups: Sequence[Group]) -> Figure | None:
    """Return the histograms of weights that are not zero over each other: log y, x over the largest magnitude."""
    data: list[Figure] = []
    for group in groups:
        spread = _spread(group)
        if spread is not None:
            hover = "%{x:.2f} of the largest: %{y:.3~p}"
            data.append(outlines.stepped(_line(group, spread[0], spread[1], hover)))
    return outlines.shares(data, outlines.NORMALISED, "share of weights kept") if data else None


def training(groups: Sequence[Group], key: str, title: str, *, share: bool) -> Figure | None:
    """Return a logged number over epochs, the mean over seeds; None where none is logged."""
    data: list[Figure] = []
    for group in groups:
        logged = [[_number(line.get(key)) for line in view.lines] for view in group.views]
        means = [_mean(each) for each in itertools.zip_longest(*logged)]
        if any(value is not None for value in means):
            form = "%{y:.1%}" if share else "%{y:.4g}"
            trace = _line(group, list(range(1, len(means) + 1)), means, f"epoch %{{x}}: {form}")
            data.append(trace | {"mode": "lines"})
    if not data:
        return None
    y = {"title": {"text": title}} | ({"tickformat": ".0%", "range": [0, 1.02]} if share else {"rangemode": "tozero"})
    return {"data": data, "layout": layout(x={"title": {"text": "epoch"}}, y=y, legend=True) | {"height": HEIGHT}}


def _merged(group: Group) -> list[curves.Curve]:
    found = curves.security_curves(group.views)
    if len(group.views) == 1:
        return found
    by_kind: dict[tuple[str, str], list[curves.Curve]] = {}
    for curve in found:
        by_kind.setdefault((curve.attack, curve.norm), []).append(curve)
    return [
        curves.Curve(run=group.name, attack=attack, norm=norm, points=_over_seeds(alike))
        for (attack, norm), alike in by_kind.items()
    ]


def _over_seeds(alike: Sequence[curves.Curve]) -> tuple[Point, ...]:
    at: dict[float, list[Point]] = {}
    for curve in alike:
        for point in curve.points:
            at.setdefault(float(point.x), []).append(point)
    return tuple(
        Point(
            x=eps,
            value=fmean(point.value for point in at[eps]),
            interval=(min(point.value for point in at[eps]), max(point.value for point in at[eps])),
            n=min(point.n for point in at[eps]),
        )
        for eps in sorted(at)
    )


def _networks(group: Group) -> list[Network]:
    return [view.network for view in group.views if view.network is not None]


def _densities(groups: Sequence[Group], of: Callable[[Layer], str]) -> Figure | None:
    data: list[Figure] = []
    for group in groups:
        found = [_shares_kept(network.layers, of) for network in _networks(group)]
        names = list(dict.fromkeys(name for shares in found for name in shares))
        if names:
            means = [fmean(shares[name] for shares in found if name in shares) for name in names]
            overall = f"network {percent(group.density.mean)}" if group.density else ""
            labels = [escaped(name) for name in names]
            data.append(_line(group, labels, means, f"%{{x}}: %{{y:.3~p}}, {overall}"))
    if not data:
        return None
    small = [share for trace in data for share in trace["y"] if share]
    wide = bool(small) and max(small) > 20 * min(small)
    y = {"title": {"text": "density"}, "tickformat": "~p"} | (LOG_SHARES if wide else {"rangemode": "tozero"})
    x = {"type": "category", "tickfont": {"size": 9}}
    return {"data": data, "layout": layout(x=x, y=y, legend=True) | {"height": HEIGHT}}


def _shares_kept(found: Iterable[Layer], of: Callable[[Layer], str]) -> Mapping[str, float]:
    counts: dict[str, tuple[int, int]] = {}
    for layer in found:
        nonzero, every = counts.get(of(layer), (0, 0))
        counts[of(layer)] = nonzero + layer.nonzero, every + layer.weights
    return {name: nonzero / max(1, every) for name, (nonzero, every) in counts.items()}


def _kept_by_kernel(network: Network) -> list[int]:
    """Return how many kernels of the commonest size keep 0, 1, ... weights; nothing where no layer tells."""
    told = [layer.kernels for layer in network.layers if layer.kernels]
    if not told:
        return []
    totals: dict[int, int] = {}
    for each in told:
        totals[len(each)] = totals.get(len(each), 0) + sum(each)
    size = max(totals, key=lambda each: totals[each])
    return [sum(each) for each in zip(*(one for one in told if len(one) == size), strict=True)]


def _spread(group: Group) -> tuple[list[float], list[float | None]] | None:
    found = [network.histogram for network in _networks(group)]
    alike = [one for one in found if len(one.counts) == len(found[0].counts)]
    if not alike or not any(any(one.counts) for one in alike):
        return None
    counts = [sum(each) for each in zip(*(one.counts for one in alike), strict=True)]
    return outlines.middles(alike[0], normalised=True), [count / sum(counts) or None for count in counts]


def _line(group: Group, x: Sequence[object], y: Sequence[float | None], hover: str) -> Figure:
    look = lines.look(group.place, group.place)
    return outlines.line(group.name, x, y, look, hover) | {"meta": {"row": group.place}}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
