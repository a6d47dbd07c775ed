"""Which adversary breaks which model? Sources by targets, training by test adversaries, corruptions by severity."""

from collections.abc import Sequence

from gossamer.report import lines, palette, words
from gossamer.report.figures import Figure
from gossamer.report.parts import Cell, Chart, Part, Table, commands, measured_on, shaded, text
from gossamer.runs.protocols import (
    AdversaryMatrix,
    CorruptedModel,
    CorruptionTable,
    Danger,
    MatrixModel,
    TransferMatrix,
)

_SHADING = "The darker, the higher the accuracy; in brackets 95 % intervals."


def transfer(record: TransferMatrix, key: str) -> Part:
    """Return the section of a transfer matrix: what a deployer needs, a heat map an eps, a panel a source."""
    return Part(
        key=key,
        title=f"Transfer, {words.attack_of(record.attack)}, {record.norm}",
        says="Which leaked model endangers which deployed ones? Accuracy of targets on sources' adversarial examples.",
        facts=measured_on(record.dataset, record.seed),
        sentences=record.sentences,
        tables=[_at_eps(record, column) for column in range(len(record.eps))],
        charts=[_panel(record, row, key) for row in range(len(record.sources))] if len(record.eps) > 1 else [],
        commands=commands(record.environment),
    )


def adversaries(record: AdversaryMatrix, key: str) -> Part:
    """Return the section of a matrix of training adversaries by test adversaries."""
    rows = [
        [text(model.kind, model.model.name), shaded(model.clean), *(shaded(share) for share in row)]
        for model, row in zip(record.models, record.accuracy, strict=True)
    ]
    tests = [f"{words.attack_name(each.name, {})}, {words.threat_of(each.threat)}" for each in record.adversaries]
    table = Table(
        title=f"Robust accuracy, n = {record.dataset.n:,}",
        head=("trained under", "clean", *tests),
        rows=rows,
        note=_SHADING,
        look="heat",
    )
    return Part(
        key=key,
        title="Training adversary × test adversary",
        says="Does robustness against one adversary hold against others?",
        facts=measured_on(record.dataset, record.seed),
        tables=[table],
        commands=commands(record.environment),
    )


def corruptions(record: CorruptionTable, key: str) -> Part:
    """Return the section of models on corrupted images."""
    return Part(
        key=key,
        title="Corruptions",
        says="How well does it see through fog? Accuracy under every corruption at severities 1 to 5.",
        facts=[f"images of {record.folder}", f"n = {record.n:,} a corruption and severity"],
        sentences=[
            f"{row.name}: mean accuracy {words.percent(row.mean)} over {record.counted} corruptions and 5 severities."
            for row in record.rows
        ],
        tables=[_corrupted(row, record) for row in record.rows],
        commands=commands(record.environment),
    )


def _at_eps(record: TransferMatrix, column: int) -> Table:
    eps = record.eps[column]
    dangers = {(each.source, each.target): each for each in record.dangers if each.eps == eps}
    rows = [[text("(clean)"), *(shaded(model.clean) for model in record.models)]]
    for source, row in zip(record.sources, record.accuracy, strict=True):
        name = record.models[source].model.name
        cells = [
            shaded(cell[column], _mark(source == place, dangers.get((name, record.models[place].model.name))))
            for place, cell in enumerate(row)
        ]
        rows.append([text(name, record.models[source].kind), *cells])
    return Table(
        title=f"{record.norm} eps {words.radius(eps)}, n = {record.dataset.n:,}",
        head=("source ↓ target →", *(model.model.name for model in record.models)),
        rows=rows,
        note=f"{_SHADING} ⚠: half of the white box's damage or more; ⚠⚠: more than it; beyond the intervals.",
        look="heat",
    )


def _mark(white_box: bool, danger: Danger | None) -> str:
    if white_box:
        return "white box"
    if danger is None:
        return ""
    return "⚠⚠ beats it" if danger.beats_white_box else "⚠ endangers" if danger.endangers else ""


def _panel(record: TransferMatrix, row: int, key: str) -> Chart:
    source = record.models[record.sources[row]]
    return Chart(
        key=f"{key}-source-{row}",
        title=f"Examples of {source.model.name}",
        figure=_over_eps(record, row),
        note="Targets coloured by architecture; bars: 95 % intervals; at eps 0: clean.",
    )


def _over_eps(record: TransferMatrix, row: int) -> Figure:
    kinds = list(dict.fromkeys(model.kind for model in record.models))
    seen: dict[str, int] = {}
    data: list[Figure] = []
    for place, (model, cell) in enumerate(zip(record.models, record.accuracy[row], strict=True)):
        second = seen[model.kind] = seen.get(model.kind, -1) + 1
        points = [lines.point(0.0, model.clean)]
        points += [lines.point(eps, share) for eps, share in zip(record.eps, cell, strict=True)]
        look = lines.look(kinds.index(model.kind), second)
        label = _target(model, white_box=record.sources[row] == place)
        data += lines.traces(label, points, look, says=lambda eps: f"eps {words.radius(eps)}", band=False)
    return lines.figure(data, x=lines.eps_axis(record.norm, record.eps), y="accuracy of targets", height=360)


def _target(model: MatrixModel, *, white_box: bool) -> str:
    return f"{model.model.name} ({model.kind}{', white box' if white_box else ''})"


def _corrupted(row: CorruptedModel, record: CorruptionTable) -> Table:
    rows = [
        [
            text(each.name, "extra: not in the mean" if each.extra and record.counted < len(row.corruptions) else ""),
            *(shaded(share) for share in each.accuracy),
        ]
        for each in row.corruptions
    ]
    rows.append([text(f"mean of {record.counted}"), *_means(row.by_severity)])
    return Table(
        title=f"{row.name}, n = {record.n:,} a cell",
        head=("corruption", *(f"severity {severity}" for severity in range(1, 6))),
        rows=rows,
        note=f"{_SHADING} A mean over corruptions has none.",
        look="heat",
    )


def _means(values: Sequence[float]) -> list[Cell]:
    return [Cell(text=words.percent(value), shade=palette.shade(value)) for value in values]
