"""How do benches of several devices become one picture? A row a device, each on its own scale, in one HTML page."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gossamer.deploy.bench_record import MILLI, BenchRecord, Timing
from gossamer.errors import ConfigError
from gossamer.runs import atomic

HEIGHT = 320
GAP = 0.28
"""Of a row's height, between two rows: room for a title and the names of settings."""
COLOURS = ("#0b6e4f", "#c8553d", "#3d5a80", "#8a5a83", "#b08900", "#5c6f68", "#2f9bc1", "#7a3b2e")


def write_figure(benches: Sequence[BenchRecord], path: Path) -> None:
    """Write medians of every device, with the 95th percentile as a whisker, as one page that needs no network.

    Raises ConfigError where there is no bench or the page is no .html file.
    """
    if not benches or path.suffix != ".html":
        raise ConfigError(
            "bench --merge",
            expected="JSON files of benches, and -o FIGURE.html",
            got=f"{len(benches)} files and {path.name}",
            remedy="write gossamer bench --merge a.json b.json -o figure.html",
        )
    drawn: str = _figure(benches).to_html(include_plotlyjs=True, full_html=True)
    atomic.write_text(path, drawn)


def _figure(benches: Sequence[BenchRecord]) -> Any:
    from plotly import graph_objects  # noqa: PLC0415  (slow to import, needed here alone)
    from plotly.subplots import make_subplots  # noqa: PLC0415

    figure = make_subplots(
        rows=len(benches), cols=1, subplot_titles=_titles(benches), vertical_spacing=GAP / max(len(benches), 1)
    )
    names = list(dict.fromkeys(timing.contestant for bench in benches for timing in bench.timings))
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    shown: set[str] = set()
    for row, bench in enumerate(benches, start=1):
        for name in dict.fromkeys(timing.contestant for timing in bench.timings):
            own = [timing for timing in bench.timings if timing.contestant == name]
            bars = graph_objects.Bar(
                name=html.escape(name),
                legendgroup=name,
                showlegend=name not in shown,
                marker_color=colours[name],
                x=[_setting(timing) for timing in own],
                y=[MILLI * timing.median / timing.batch for timing in own],
                error_y={
                    "symmetric": False,
                    "array": [MILLI * (timing.p95 - timing.median) / timing.batch for timing in own],
                    "arrayminus": [0.0] * len(own),
                },
                customdata=[[_told(timing)] for timing in own],
                hovertemplate="%{x}: %{customdata[0]}",
            )
            figure.add_trace(bars, row=row, col=1)
            shown.add(name)
    figure.update_yaxes(title_text="ms an image", rangemode="tozero")
    figure.update_layout(barmode="group", height=HEIGHT * len(benches) + 120, template="plotly_white")
    return figure


def _titles(benches: Sequence[BenchRecord]) -> list[str]:
    """Return what each row is called, numbered where two devices have one name."""
    # Names come from files that others wrote: the page must not take them for markup.
    names = [html.escape(f"{each.device.name}, {each.device.cores} cores, {each.runs_on}") for each in benches]
    numbered = (f"{name} ({number})" if names.count(name) > 1 else name for number, name in enumerate(names, start=1))
    return list(numbered)


def _told(timing: Timing) -> str:
    time = f"{MILLI * timing.median / timing.batch:.3g} ms an image, {timing.throughput:.3g} images a second"
    if timing.speedup is None or timing.against == timing.contestant:
        return time
    return f"{time}, {timing.speedup:.2f} x {html.escape(timing.against or '')}"


def _setting(timing: Timing) -> str:
    what = f"{timing.batch} in memory" if timing.protocol == "memory" else f"{timing.batch} with loading"
    return f"{what}, {timing.threads} thread{'s' * (timing.threads > 1)}"
