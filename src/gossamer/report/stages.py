"""What did each member of an ensemble of attacks still break? Robust accuracy after each, as it falls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gossamer.intervals import wilson
from gossamer.report import lines, words
from gossamer.report.figures import Figure
from gossamer.report.lines import Point
from gossamer.report.parts import FEW, Cell, Chart, Part, Table, measured_on, text
from gossamer.report.retrace import evaluate_commands
from gossamer.report.views import RunView
from gossamer.runs.results import AttackOutcome, Evaluation


@dataclass(frozen=True, kw_only=True)
class Fall:
    """One ensemble of attacks on one run; points: clean, then after each stage."""

    run: RunView
    evaluation: Evaluation
    outcome: AttackOutcome
    points: tuple[Point, ...]


def falls(views: Sequence[RunView]) -> list[Fall]:
    """Return every outcome of the runs that has stages."""
    return [
        Fall(run=view, evaluation=one, outcome=outcome, points=_points(one, outcome))
        for view in views
        for one in view.evaluations
        for outcome in one.attacks
        if outcome.stages
    ]


def part(found: Sequence[Fall], key: str, rows: Mapping[str, int]) -> Part:
    """Return the section of all falls; rows: of the comparison by the name of each run on the page."""
    runs = len(rows)
    threats = list(dict.fromkeys(fall.outcome.threat for fall in found))
    return Part(
        key=key,
        title="AutoAttack, stage by stage" if _is_autoattack(found) else "Ensembles of attacks, stage by stage",
        says="What does each attack break that those before it left standing? The last value is the robust accuracy.",
        facts=list(
            dict.fromkeys(said for fall in found for said in measured_on(fall.evaluation.dataset, fall.evaluation.seed))
        ),
        tables=[_table(fall, runs=runs) for fall in found],
        charts=[
            Chart(
                key=f"{key}-{place}",
                title=f"Accuracy after each stage, {words.threat_of(threat)}",
                figure=_figure([fall for fall in found if fall.outcome.threat == threat], rows),
                note="Bars: 95 % intervals.",
                scope="picked" if runs > FEW else "",
            )
            for place, threat in enumerate(threats)
        ],
        commands=list(
            dict.fromkeys(command for fall in found for command in evaluate_commands(fall.run, fall.evaluation))
        ),
    )


def _is_autoattack(found: Sequence[Fall]) -> bool:
    return all(fall.outcome.attack.startswith("autoattack") for fall in found)


def _points(evaluation: Evaluation, outcome: AttackOutcome) -> tuple[Point, ...]:
    clean = Point(x="clean", value=evaluation.clean_accuracy, interval=evaluation.clean_interval, n=evaluation.n)
    after = (
        Point(
            x=words.attack_name(stage.attack, {}),
            value=stage.robust_accuracy,
            interval=wilson(round(stage.robust_accuracy * outcome.n), outcome.n),
            n=outcome.n,
        )
        for stage in outcome.stages or ()
    )
    return (clean, *after)


def _table(fall: Fall, *, runs: int) -> Table:
    outcome = fall.outcome
    rows = [[text("clean"), text("–"), text("–"), _share(fall.points[0]), text("–")]]
    for stage, point in zip(outcome.stages or (), fall.points[1:], strict=True):
        counts = [text(f"{stage.attacked:,}"), text(f"{stage.broken:,}")]
        rows.append([text(point.x), *counts, _share(point), text(words.duration(stage.seconds))])
    named = [fall.run.name] * (runs > 1)
    title = ", ".join([*named, words.outcome_name(outcome), words.threat_of(outcome.threat), f"n = {outcome.n:,}"])
    return Table(
        title=title,
        head=("after", "tried on", "broken", "robust accuracy", "time"),
        rows=rows,
        note=f"{outcome.borderline:,} samples on the border: rounding may change them." if outcome.borderline else "",
        folded=runs > FEW,
    )


def _share(point: Point) -> Cell:
    return text(words.percent(point.value), words.brackets(point.interval))


def _figure(found: Sequence[Fall], rows: Mapping[str, int]) -> Figure:
    data: list[Figure] = []
    for place, fall in enumerate(found):
        label = " · ".join([fall.run.name] * (len(rows) > 1) + [words.outcome_name(fall.outcome)])
        look = replace(lines.look(place, place), shape="hvh")
        traces = lines.traces(label, fall.points, look, says=str, band=False)
        data += [trace | {"meta": {"row": rows[fall.run.name]}} for trace in traces]
    return lines.figure(data, x={"type": "category"}, y="robust accuracy", height=320)
