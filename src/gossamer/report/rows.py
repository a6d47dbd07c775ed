"""How do models compare? Pruned, joined, noisy, asked from outside, and class by class: a row each."""

from collections.abc import Mapping, Sequence

from gossamer.report import lines, palette, words
from gossamer.report.figures import Figure, escaped, layout
from gossamer.report.parts import Cell, Chart, Part, Table, commands, measured_on, shared, text
from gossamer.runs.protocols import (
    BlackBoxTable,
    ClassTable,
    EnsembleTable,
    PrunedModel,
    PruningBenchmark,
    QueriedModel,
    Share,
    Spread,
    StochasticRow,
    StochasticTable,
)


def pruning(record: PruningBenchmark, key: str) -> Part:
    """Return the section of the adversarial-pruning benchmark."""
    attack = words.attack_of(record.attack)
    radii = [f"{attack}, {words.threat_of(at.threat)}" for row in record.rows[:1] for at in row.radii]
    opinions = [row.second_opinion for row in record.rows if row.second_opinion is not None]
    notes = ["Least norm: the nearest example found by tuned FMN is farther than eps."] if opinions else []
    notes += ["As published: what is not found counts as broken."] if any(own.as_published for own in opinions) else []
    table = Table(
        title=f"Robust accuracy, n = {record.dataset.n:,}",
        head=("model", "sparsity", "weights kept", "clean", *radii, *(["least norm"] if opinions else [])),
        rows=[_pruned(row)[: None if opinions else -1] for row in record.rows],
        note=" ".join(notes),
    )
    return Part(
        key=key,
        title="Pruning benchmark",
        says="What is left of pruned models at two radii, and what does a least-norm attack say?",
        facts=measured_on(record.dataset, record.seed),
        tables=[table],
        commands=commands(record.environment),
    )


def black_box(record: BlackBoxTable, key: str) -> Part:
    """Return the section of a black-box attack: success rate and queries."""
    rows = [
        [
            text(row.name),
            shared(row.success),
            text(f"{row.success.n:,}", f"of {row.asked:,} asked"),
            text(_queries(row.median_queries)),
            text(_queries(row.mean_queries)),
        ]
        for row in record.rows
    ]
    asked = [sample.queries for row in record.rows for sample in row.samples]
    curves = Chart(
        key=f"{key}-queries",
        title="Success rate over queries",
        figure=_over_queries(record.rows),
        note="Share of the samples broken by at most as many queries.",
    )
    return Part(
        key=key,
        title=f"Black box: {words.attack_of(record.attack)}",
        says="How often does an attack succeed that sees outputs alone, on samples that are right when clean?",
        facts=[
            f"drawn at random from the {record.dataset.n:,} of {record.dataset.name} {record.dataset.part}",
            f"seed {record.seed}",
            words.threat_of(record.threat),
            *([f"at most {max(asked):,} queries of a sample"] if asked else []),
        ],
        tables=[
            Table(
                title="Success and queries",
                head=("model", "success", "n", "median queries", "mean queries"),
                rows=rows,
                note="Queries are those of the successes, up to the first.",
            )
        ],
        charts=[curves] if any(sample.success for row in record.rows for sample in row.samples) else [],
        commands=commands(record.environment),
    )


def ensemble(record: EnsembleTable, key: str) -> Part:
    """Return the section of an ensemble, attacked as one model and by its members."""
    members = [
        [text(member.model.name), shared(member.clean), shared(member.robust), shared(member.ensemble)]
        for member in record.members
    ]
    whole = [
        [text("clean"), shared(record.clean)],
        [text("attacked as one model" + ": quote this" * (record.flattery >= 0)), shared(record.as_one)],
        [text("attacked member by member" + ": flatters" * (record.flattery > 0)), shared(record.member_wise)],
    ]
    n = f"n = {record.dataset.n:,}"
    return Part(
        key=key,
        title=f"Ensemble {record.model.name}",
        says="Is the mean of its members' probabilities more than its members?",
        facts=[
            *measured_on(record.dataset, record.seed),
            f"{words.attack_of(record.attack)}, {words.threat_of(record.threat)}",
            f"{record.parameters:,} parameters of all members",
        ],
        sentences=[_flattery(100 * record.flattery)],
        tables=[
            Table(title=f"The ensemble, {n}", head=("accuracy", "share"), rows=whole),
            Table(
                title=f"Its members, {n}",
                head=("member", "clean", "robust alone", "ensemble on its examples"),
                rows=members,
            ),
        ],
        commands=commands(record.environment),
    )


def stochastic(record: StochasticTable, key: str) -> Part:
    """Return the section of models that draw noise, in every mode over trials."""
    trials = f"{len(record.seeds)} trials"
    rows = [
        [text(row.model.name), text(mode.name), text(mode.passes), _spread(mode.clean), _spread(mode.robust)]
        for row in record.rows
        for mode in row.modes
    ]
    chart = Chart(
        key=f"{key}-trials",
        title="Robust accuracy of every trial",
        figure=_trials(record.rows),
        note="A dot a trial; bars: one standard deviation about the mean.",
    )
    return Part(
        key=key,
        title="Stochastic models",
        says="How much of the robustness is noise? The first mode is the one to quote.",
        facts=[
            *measured_on(record.dataset),
            f"{trials}, seeds {', '.join(map(str, record.seeds))}",
            f"{words.attack_of(record.attack)}, {words.threat_of(record.threat)}",
        ],
        tables=[
            Table(
                title=f"Mean and standard deviation over {trials}, n = {record.dataset.n:,} each",
                head=("model", "mode", "passes a step", "clean", "robust"),
                rows=rows,
                texts=2,
            )
        ],
        charts=[chart],
        commands=commands(record.environment),
    )


def classes(record: ClassTable, key: str) -> Part:
    """Return the section of an evaluation by class, the worst one named."""
    worst = {record.worst_clean: "worst clean", record.worst_robust: "worst under attack"}
    if record.worst_clean == record.worst_robust:
        worst = {record.worst_robust: "worst clean and under attack"}
    clean = {each.name: each.clean for each in record.classes}
    robust = {each.name: each.robust for each in record.classes}
    rows = [
        [text(each.name, worst.get(each.name, "")), text(f"{each.clean.n:,}"), shared(each.clean), shared(each.robust)]
        for each in record.classes
    ]
    chart = Chart(key=f"{key}-bars", title="Accuracy by class", figure=_by_class(record), note="Bars: 95 % intervals.")
    return Part(
        key=key,
        title=f"Classes of {record.run}",
        says="Which class pays?",
        facts=[f"{words.attack_name(record.attack, {})}, {words.threat_of(record.threat)}", f"n = {record.n:,}"],
        sentences=[
            f"Worst under attack: {_named(record.worst_robust, robust)}.",
            f"Worst clean: {_named(record.worst_clean, clean)}.",
        ],
        tables=[Table(title="Every class", head=("class", "n", "clean", "robust"), rows=rows)],
        charts=[chart],
        commands=commands(record.environment),
    )


def _flattery(points: float) -> str:
    if points < 0:
        more = f"{-points:.1f} points more"
        return f"Member by member breaks {more} than the attack on it as one: quote the smaller number."
    return f"Attacked member by member it looks {points:.1f} points more robust than it is."


def _named(name: str, shares: Mapping[str, Share]) -> str:
    if name not in shares:
        return name
    cell = shared(shares[name], n=True)
    return f"{name} with {cell.text} {cell.small}"


def _pruned(row: PrunedModel) -> list[Cell]:
    own = row.second_opinion
    opinion = text("–")
    if own is not None:
        said = shared(own.robust, n=True)
        opinion = text(said.text, f"{said.small}, eps {words.radius(own.eps)}, {own.not_found} not found")
    return [
        text(row.model.name),
        text(words.percent(row.sparsity)),
        text(f"{row.kept:,}", f"of {row.model.weights:,}"),
        shared(row.clean),
        *(shared(at.robust) for at in row.radii),
        opinion,
    ]


def _queries(value: float | None) -> str:
    return "none" if value is None else f"{value:,.0f}"


def _over_queries(rows: Sequence[QueriedModel]) -> Figure:
    data: list[Figure] = []
    most = max((sample.queries for row in rows for sample in row.samples), default=0)
    for place, row in enumerate(rows):
        needed = sorted(sample.queries for sample in row.samples if sample.success)
        look = lines.look(place, place)
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": escaped(row.name),
                "x": [0, *needed, most],
                "y": [count / row.success.n for count in (*range(len(needed) + 1), len(needed))],
                "line": {"color": look.colour, "dash": look.dash, "width": 2, "shape": "hv"},
                "hovertemplate": "%{x} queries: %{y:.1%}<extra>" + escaped(row.name) + "</extra>",
            }
        )
    return lines.figure(
        data, x={"title": {"text": "queries"}, "rangemode": "tozero"}, y="success rate", height=300, whole=False
    )


def _spread(spread: Spread) -> Cell:
    deviation = "one trial" if spread.deviation is None else f"± {100 * spread.deviation:.2f} points"
    return text(words.percent(spread.mean), deviation)


def _trials(rows: Sequence[StochasticRow]) -> Figure:
    data: list[Figure] = []
    for place, row in enumerate(rows):
        look = lines.look(place, place)
        name = escaped(row.model.name)
        dots = [(mode.name, value) for mode in row.modes for value in mode.robust.values]
        shared_look = {"color": look.colour, "symbol": look.symbol}
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [mode for mode, _ in dots],
                "y": [value for _, value in dots],
                "marker": {**shared_look, "size": 7, "opacity": 0.55},
                "hovertemplate": "%{x}: %{y:.2%}<extra>" + name + "</extra>",
            }
        )
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "showlegend": False,
                "x": [mode.name for mode in row.modes],
                "y": [mode.robust.mean for mode in row.modes],
                "error_y": {"type": "data", "array": [mode.robust.deviation or 0 for mode in row.modes]},
                "marker": {**shared_look, "size": 3},
                "hovertemplate": "%{x}: mean %{y:.2%}<extra>" + name + "</extra>",
            }
        )
    return lines.figure(data, x={"type": "category"}, y="robust accuracy", height=300, whole=False)


def _by_class(record: ClassTable) -> Figure:
    names = [escaped(each.name) for each in record.classes]
    data = [
        _bars("clean", names, [each.clean for each in record.classes], palette.BLUE, ""),
        _bars("robust", names, [each.robust for each in record.classes], palette.VERMILION, "/"),
    ]
    y = {"title": {"text": "accuracy"}, "tickformat": ".0%", "range": [0, 1.02]}
    return {"data": data, "layout": layout(x={"type": "category"}, y=y, legend=True) | {"barmode": "group"}}


def _bars(name: str, x: list[str], shares: Sequence[Share], colour: str, pattern: str) -> Figure:
    return {
        "type": "bar",
        "name": name,
        "x": x,
        "y": [share.value for share in shares],
        "marker": {"color": colour, "pattern": {"shape": pattern, "solidity": 0.25}},
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [share.interval[1] - share.value for share in shares],
            "arrayminus": [share.value - share.interval[0] for share in shares],
            "thickness": 1.2,
            "color": palette.BLACK,
        },
        "hovertemplate": "%{x}: %{y:.1%}<extra>" + name + "</extra>",
    }
