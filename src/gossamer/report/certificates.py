"""Within which radius can no attack succeed? Certified accuracy over l2 radius, with the confidence of it."""

from gossamer.report import lines, words
from gossamer.report.figures import Figure, escaped
from gossamer.report.parts import Cell, Chart, Part, Table, commands, measured_on, shared, text
from gossamer.runs.protocols import SmoothedModel, SmoothingTable


def part(record: SmoothingTable, key: str) -> Part:
    """Return the section of randomised-smoothing certificates."""
    radii = [at.radius for at in record.rows[0].curve] if record.rows else []
    each, all_of_them = words.percent(1 - record.alpha), words.percent(record.confidence)
    return Part(
        key=key,
        title="Certificates by randomised smoothing",
        says="Within which l2 radius can no attack succeed? Of the smoothed model, which other sections do not attack.",
        facts=[
            *measured_on(record.dataset, record.seed),
            f"sigma {record.sigma:g}",
            f"{record.n0:,} noisy copies choose the class, {record.n:,} count it",
            f"each certificate holds with confidence {each}",
        ],
        tables=[
            Table(
                title=f"Certified accuracy, n = {record.dataset.n:,}",
                head=("model", "counted", "abstained", *(f"r > {radius:g}" for radius in radii)),
                rows=[cells for row in record.rows for cells in _rows(row)],
                texts=2,
                note=f"Guaranteed: with confidence {all_of_them}, wrong certificates allowed for.",
            )
        ],
        charts=[
            Chart(
                key=f"{key}-radius",
                title="Certified accuracy over radius",
                figure=_figure(record),
                note="Bands: 95 % intervals. Dotted: guaranteed.",
            )
        ],
        commands=commands(record.environment),
    )


def _rows(row: SmoothedModel) -> list[list[Cell]]:
    guaranteed = [text(words.percent(at.guaranteed)) for at in row.curve]
    return [
        [text(row.name), text("certified"), text(f"{row.abstained:,}"), *(shared(at.accuracy) for at in row.curve)],
        [text(""), text("guaranteed"), text(""), *guaranteed],
    ]


def _figure(record: SmoothingTable) -> Figure:
    data: list[Figure] = []
    for place, row in enumerate(record.rows):
        look = lines.look(place, 0)
        points = [lines.point(at.radius, at.accuracy) for at in row.curve]
        data += lines.traces(row.name, points, look, says=lambda radius: f"r > {radius:g}")
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": escaped(f"{row.name}, guaranteed"),
                "x": [at.radius for at in row.curve],
                "y": [at.guaranteed for at in row.curve],
                "line": {"color": look.colour, "dash": "dot", "width": 2},
                "hovertemplate": "r > %{x}: %{y:.1%}<extra>guaranteed</extra>",
            }
        )
    x = {"title": {"text": "l2 radius, pixels in [0, 1]"}, "rangemode": "tozero"}
    return lines.figure(data, x=x, y="certified accuracy", height=320)
