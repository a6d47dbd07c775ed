"""Does more effort still change the number? Robust accuracy over an attack's steps and restarts, model by model."""

from gossamer.report import lines, words
from gossamer.report.figures import Figure
from gossamer.report.parts import Cell, Chart, Part, Table, commands, measured_on, shared, text
from gossamer.runs.protocols import EffortRow, EffortTable


def part(record: EffortTable, key: str) -> Part:
    """Return the section of an effort table."""
    threat = words.threat_of(record.threat)
    chart = Chart(
        key=f"{key}-curves",
        title=f"Robust accuracy over steps, {threat}",
        figure=_figure(record),
        note="Cumulative: broken by no attack of at most as many steps and restarts. Bands: 95 % intervals.",
    )
    return Part(
        key=key,
        title=f"Steps × restarts, {words.attack_of(record.attack)}",
        says="Does more effort still change the number? A sound model's columns settle.",
        facts=[*measured_on(record.dataset, record.seed), threat],
        tables=[
            Table(
                title=f"Robust accuracy, raw above cumulative, n = {record.dataset.n:,}",
                head=("model", "restarts", "counted", "clean", *(f"{steps} steps" for steps in record.steps)),
                rows=[row for model in record.rows for row in _rows(model, record)],
                texts=3,
            )
        ],
        charts=[chart],
        commands=commands(record.environment),
    )


def _rows(model: EffortRow, record: EffortTable) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for restarts in record.restarts:
        points = sorted((each for each in model.points if each.restarts == restarts), key=lambda each: each.steps)
        head = [text(model.model.name), text(restarts), text("raw"), shared(model.clean)]
        below = [text(""), text(""), text("cumulative"), text("")]
        rows.append([*head, *(shared(each.raw) for each in points)])
        rows.append([*below, *(shared(each.cumulative) for each in points)])
    return rows


def _figure(record: EffortTable) -> Figure:
    data: list[Figure] = []
    for place, model in enumerate(record.rows):
        for second, restarts in enumerate(record.restarts):
            points = [lines.point(each.steps, each.cumulative) for each in model.points if each.restarts == restarts]
            label = f"{model.model.name}, {restarts} restart{'s' * (restarts != 1)}"
            data += lines.traces(label, points, lines.look(place, second), says=lambda steps: f"{steps} steps")
    ticks = {"tickvals": list(record.steps), "ticktext": [str(steps) for steps in record.steps]}
    x = {"title": {"text": "steps"}, "type": "log" if len(record.steps) > 2 else "linear", **ticks}
    return lines.figure(data, x=x, y="robust accuracy", whole=False)
