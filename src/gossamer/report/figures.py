"""What is drawn of training and of the network? Records in, Plotly figures out, as plain values."""

import html
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from gossamer.report import palette
from gossamer.runs.metrics import is_probed, is_probed_loss
from gossamer.runs.results import Histogram, Layer, Network

Figure: TypeAlias = dict[str, Any]
Line: TypeAlias = dict[str, Any]

_LOSSES = {
    "natural_loss": ("natural", palette.BLUE, "solid"),
    "adversarial_loss": ("adversarial", palette.VERMILION, "solid"),
    "loss": ("total", palette.GREY, "dash"),
}
_ACCURACIES = {
    "clean_accuracy": ("clean, training batches", palette.BLUE, "dot"),
    "robust_accuracy": ("robust, training batches", palette.VERMILION, "dot"),
}
_FONT = {"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 12, "color": "#3b4250"}


def loss_curves(lines: Sequence[Line]) -> Figure | None:
    """Return the losses over epochs, natural and adversarial apart, and those of probes; None where none is logged."""
    probed = [key for key in _keys(lines) if is_probed_loss(key)]
    others = (palette.GREEN, palette.PURPLE, palette.ORANGE)
    styles = {key: (_shown(key), others[i % len(others)], "dot") for i, key in enumerate(probed)}
    return _curves(lines, {**_LOSSES, **styles}, y={"title": {"text": "loss"}})


def accuracy_curves(lines: Sequence[Line]) -> Figure | None:
    """Return clean and robust accuracy over epochs: of training batches and of every monitor that gives a share."""
    monitors = [key for key in _keys(lines) if is_probed(key) and not is_probed_loss(key)]
    shares = [key for key in monitors if all(0 <= value <= 1 for value in _values(lines, key))]
    colours = {"clean": palette.BLUE}
    others = (palette.VERMILION, palette.GREEN, palette.PURPLE, palette.ORANGE)
    attacks = [key for key in shares if key.rpartition("/")[2] not in colours]
    styles = dict(_ACCURACIES)
    for key in shares:
        last = key.rpartition("/")[2]
        colour = colours[last] if last in colours else others[attacks.index(key) % len(others)]
        styles[key] = (_shown(key), colour, "solid")
    return _curves(lines, styles, y={"title": {"text": "accuracy"}, "tickformat": ".0%", "range": [0, 1.02]})


def _shown(probed: str) -> str:
    return probed.removesuffix("/loss").replace("held_out/", "held out, ")


def density_curves(lines: Sequence[Line]) -> Figure | None:
    """Return density (share of weights kept) over epochs."""
    styles = {"density": ("density", palette.GREEN, "solid")}
    if all(0 <= value <= 1 for value in _values(lines, "active")):
        styles["active"] = ("active", palette.PURPLE, "dash")
    return _curves(lines, styles, y={"title": {"text": "density"}, "tickformat": "~p", "rangemode": "tozero"})


def sparsifier_curves(lines: Sequence[Line]) -> Figure | None:
    """Return what the sparsifier tells of itself over epochs, such as weights revived."""
    keys = [key for key in _keys(lines) if key.startswith("sparsifier/")]
    styles = {
        key: (key.removeprefix("sparsifier/"), palette.RUNS[i % 7], palette.DASHES[i % 4]) for i, key in enumerate(keys)
    }
    return _curves(lines, styles, y={"title": {"text": "per epoch"}, "rangemode": "tozero"})


def layer_densities(network: Network) -> Figure:
    """Return the density of each layer as bars, with that of the whole network as a line."""
    labels = [escaped(layer.name) for layer in network.layers]
    figure = _bars(labels, [layer.density for layer in network.layers], palette.GREEN, "density")
    overall = network.totals.density
    figure["layout"]["shapes"] = [
        {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": overall, "y1": overall, "line": _DASHED}
    ]
    figure["layout"]["yaxis"] |= _share_axis([layer.density for layer in network.layers])
    return figure


def block_densities(network: Network) -> Figure:
    """Return the density of each block of layers as bars."""
    blocks = _blocks(network.layers)
    densities = [
        sum(layer.nonzero for layer in layers) / max(1, sum(layer.weights for layer in layers))
        for layers in blocks.values()
    ]
    figure = _bars([escaped(name) for name in blocks], densities, palette.GREEN, "density")
    figure["layout"]["yaxis"] |= _share_axis(densities)
    return figure


def work(network: Network) -> Figure:
    """Return the multiply-adds of each block for one image, dense and kept."""
    blocks = _blocks(network.layers)
    names = [escaped(name) for name in blocks]
    dense = [sum(layer.multiply_adds for layer in layers) for layers in blocks.values()]
    kept = [sum(layer.kept_multiply_adds for layer in layers) for layers in blocks.values()]
    data = [
        {"type": "bar", "name": "dense", "x": names, "y": dense, "marker": {"color": "#C9CED6"}},
        {"type": "bar", "name": "kept", "x": names, "y": kept, "marker": {"color": palette.BLUE}},
    ]
    y = {"title": {"text": "multiply-adds an image"}, "type": "log", "exponentformat": "power", "dtick": 1}
    return {"data": data, "layout": layout(x={"type": "category"}, y=y, legend=True)}


def weights(network: Network, *, menu: bool = True) -> Figure:
    """Return the histogram of the weights that are not zero, over all layers; menu: of single layers as well."""
    drawn = [("all layers", network.histogram)]
    drawn += [(layer.name, layer.histogram) for layer in network.layers if menu and layer.histogram is not None]
    data = [_histogram(histogram, shown=i == 0) for i, (_, histogram) in enumerate(drawn)]
    y = {"title": {"text": "weights"}, "type": "log", "exponentformat": "power", "dtick": 1}
    figure: Figure = {"data": data, "layout": layout(x={"title": {"text": "value"}}, y=y)}
    if len(drawn) > 1:
        figure["layout"]["updatemenus"] = [_menu([name for name, _ in drawn])]
        figure["layout"]["margin"] = {**figure["layout"]["margin"], "t": 40}
    return figure


def layout(*, x: Figure, y: Figure, legend: bool = False) -> Figure:
    """Return the look all figures share."""
    axis = {"gridcolor": "#E6E9EE", "zerolinecolor": "#C9CED6", "linecolor": "#C9CED6", "automargin": True}
    return {
        "font": _FONT,
        "height": 280,
        "margin": {"l": 56, "r": 14, "t": 14, "b": 44},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "xaxis": {**axis, **x},
        "yaxis": {**axis, **y},
        "showlegend": legend,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 11}},
        "hoverlabel": {"namelength": -1},
        "bargap": 0.25,
    }


def escaped(text: str) -> str:
    """Return a name for a figure, where Plotly would read tags in it."""
    return html.escape(text)


_DASHED = {"color": palette.BLACK, "width": 1, "dash": "dash"}


def _curves(lines: Sequence[Line], styles: dict[str, tuple[str, str, str]], *, y: Figure) -> Figure | None:
    epochs = list(range(1, len(lines) + 1))
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers" if len(lines) < 40 else "lines",
            "name": escaped(name),
            "x": epochs,
            "y": [_number(line.get(key)) for line in lines],
            "line": {"color": colour, "dash": dash, "width": 2},
            "marker": {"size": 4},
        }
        for key, (name, colour, dash) in styles.items()
        if _values(lines, key)
    ]
    if not data:
        return None
    x = {"title": {"text": "epoch"}, "range": [0.5, len(lines) + 0.5], "tickformat": "d"}
    drawn = layout(x=x, y=y, legend=True)
    drawn["shapes"], drawn["annotations"] = _phases(lines)
    drawn["margin"] = {**drawn["margin"], "t": 34}
    return {"data": data, "layout": drawn}


def _phases(lines: Sequence[Line]) -> tuple[list[Figure], list[Figure]]:
    """Return a line where a phase begins and its name; nothing for a single phase."""
    names = [str(line.get("phase")) for line in lines]
    starts = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    if len(starts) < 2:
        return [], []
    shapes = [
        {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": i + 0.5, "x1": i + 0.5, "line": _DASHED}
        for i in starts[1:]
    ]
    annotations = [
        {
            "text": escaped(names[i]),
            "x": i + 0.5,
            "xanchor": "left",
            "y": 0,
            "yref": "paper",
            "yanchor": "bottom",
            "showarrow": False,
            "font": {"size": 10, "color": "#5b6472"},
            "bgcolor": "rgba(255,255,255,0.8)",
        }
        for i in starts
    ]
    return shapes, annotations


def _bars(labels: list[str], values: list[float], colour: str, name: str) -> Figure:
    bars = {
        "type": "bar",
        "x": labels,
        "y": values,
        "marker": {"color": colour},
        "hovertemplate": "%{x}: %{y:.3~p}<extra></extra>",
    }
    x = {"type": "category", "tickfont": {"size": 9 if len(labels) > 8 else 11}, "tickangle": "auto"}
    return {"data": [bars], "layout": layout(x=x, y={"title": {"text": name}, "tickformat": "~p"})}


def _share_axis(shares: list[float]) -> Figure:
    """Return a logarithmic axis where the shares lie more than a factor of twenty apart."""
    if min(shares, default=0) > 0 and max(shares) > 20 * min(shares):
        return {"type": "log", "dtick": 1}
    return {"rangemode": "tozero"}


def _histogram(histogram: Histogram, *, shown: bool) -> Figure:
    return {
        "type": "bar",
        **_bins(histogram.edges),
        "y": [count or None for count in histogram.counts],
        "marker": {"color": palette.BLUE},
        "visible": shown,
        "hovertemplate": "%{x:.3g}: %{y}<extra></extra>",
    }


def _bins(edges: Sequence[float]) -> Figure:
    """Return the places of bars; of equal bins, which nearly all are, in three numbers rather than hundreds."""
    widths = [b - a for a, b in itertools.pairwise(edges)]
    if widths and max(widths) - min(widths) <= 1e-6 * max(widths):
        step = (edges[-1] - edges[0]) / len(widths)
        return {"x0": edges[0] + step / 2, "dx": step, "width": step}
    return {"x": [(a + b) / 2 for a, b in itertools.pairwise(edges)], "width": widths}


def _menu(names: list[str]) -> Figure:
    buttons = [
        {"method": "update", "label": escaped(name), "args": [{"visible": [i == j for j in range(len(names))]}]}
        for i, name in enumerate(names)
    ]
    return {
        "buttons": buttons,
        "x": 0,
        "xanchor": "left",
        "y": 1.02,
        "yanchor": "bottom",
        "font": {"size": 11},
        "pad": {"t": 0, "b": 0},
    }


def _blocks(layers: Iterable[Layer]) -> dict[str, list[Layer]]:
    blocks: dict[str, list[Layer]] = {}
    for layer in layers:
        blocks.setdefault(layer.block, []).append(layer)
    return blocks


def _keys(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(key for line in lines for key in line))


def _values(lines: Sequence[Line], key: str) -> list[float]:
    return [value for line in lines if (value := _number(line.get(key))) is not None]


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
