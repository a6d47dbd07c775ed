"""How do benches of several devices become one picture? A row a device, each on its own scale, in one HTML page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gossamer.deploy.bench_record import MILLI, BenchRecord, Timing
from gossamer.errors import ConfigError
from gossamer.runs import atomic

HEIGHT = 320
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

    titles = [f"{bench.device.name}, {bench.device.cores} cores, {bench.runs_on}" for bench in benches]
    figure = make_subplots(rows=len(benches), cols=1, subplot_titles=titles)
    names = list(dict.fromkeys(timing.contestant for bench in benches for timing in bench.timings))
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    shown: set[str] = set()
    for row, bench in enumerate(benches, start=1):
        for name in dict.fromkeys(timing.contestant for timing in bench.timings):
            own = [timing for timing in bench.timings if timing.contestant == name]
            bars = graph_objects.Bar(
                name=name,
                legendgroup=name,
                showlegend=name not in shown,
                marker_color=colours[name],
                x=[_setting(timing) for timing in own],
                y=[MILLI * timing.median / timing.batch for timing in own],
                error_y={"array": [MILLI * (timing.p95 - timing.median) / timing.batch for timing in own]},
                customdata=[[timing.speedup, timing.against] for timing in own],
                hovertemplate="%{y:.3f} ms an image, %{customdata[0]:.2f} x %{customdata[1]}",
            )
            figure.add_trace(bars, row=row, col=1)
            shown.add(name)
    figure.update_yaxes(title_text="ms an image", rangemode="tozero")
    figure.update_layout(barmode="group", height=HEIGHT * len(benches) + 120, template="plotly_white")
    return figure


def _setting(timing: Timing) -> str:
    what = f"{timing.batch} in memory" if timing.protocol == "memory" else f"{timing.batch} with loading"
    return f"{what}, {timing.threads} thread{'s' * (timing.threads > 1)}"
