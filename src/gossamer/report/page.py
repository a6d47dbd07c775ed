"""How do runs become a page? Views and figures into one template; nothing on the page is fetched from elsewhere."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from gossamer.errors import ConfigError
from gossamer.report import curves, figures, pictures, retrace, words
from gossamer.report.audits import audit_of
from gossamer.report.cards import Card, cards
from gossamer.report.caveats import caveats
from gossamer.report.comparison import comparison
from gossamer.report.explanations import SIDE_BY_SIDE, explained
from gossamer.report.figures import Figure
from gossamer.report.groups import grouped
from gossamer.report.latencies import latencies
from gossamer.report.many import many
from gossamer.report.overlays import PICKED
from gossamer.report.parts import FEW, Chart
from gossamer.report.pictures import Shown
from gossamer.report.sections import all_measured, audit_key, parts
from gossamer.report.shell import rendered
from gossamer.report.views import RunView, collect
from gossamer.runs import atomic
from gossamer.runs.audits import Audit
from gossamer.runs.measured import Measured, read_measured
from gossamer.runs.timings import Timings, holds_timings, read_timings

_MOST_CAVEATS = 6


@dataclass(frozen=True, kw_only=True)
class Section:
    """All of one run that the template prints; row: of the comparison that it is in; left_out: what is not shown."""

    view: RunView
    key: str
    row: int
    facts: list[tuple[str, str]]
    cards: list[Card]
    charts: list[Chart]
    panels: dict[str, Shown]
    commands: list[str]
    left_out: str = ""


def write(run_paths: Sequence[Path], output: Path, *, records: Sequence[Path] = ()) -> Path:
    """Write one self-contained page on the runs to `output` and return that path.

    records: JSON files of protocols, audits and benches that lie outside the runs' own folders. A run that is
    unfinished, not evaluated or damaged in part has its section, which says what is missing. Raises ConfigError for no
    runs, RunError for a path that is no run folder, a record of none of these, or where the page cannot be written.
    """
    if not run_paths:
        raise ConfigError("runs of a report", expected="at least one run folder", got="none", remedy="name one")
    output, others = Path(output), [Path(path) for path in records]
    views = collect([Path(path) for path in run_paths])
    timed = [path for path in others if holds_timings(path)]
    page = render(
        views,
        [read_measured(path) for path in others if path not in timed],
        timings=[read_timings(path) for path in timed],
        command=_command(views, others, output),
    )
    atomic.write_text(output, page)
    return output


def render(
    views: Sequence[RunView], others: Sequence[Measured] = (), *, timings: Sequence[Timings] = (), command: str
) -> str:
    """Return the page on the runs as HTML; others, timings: from outside their folders; command: that made the page."""
    measured = all_measured(views, others)
    audits = [record for record in measured if isinstance(record, Audit)]
    groups = grouped(views)
    rows = {view.name: group.place for group in groups for view in group.views}
    sections = [_section(view, number, rows[view.name], views, audits) for number, view in enumerate(views)]
    timed = latencies(groups, timings)
    compared = many(groups, measured, timed) if len(views) > 1 else None
    security = _security(views) if compared is None else []
    below = parts(views, measured)
    drawn = [*security, *(chart for each in (*below, *sections) for chart in each.charts)]
    drawn += [*compared.overview, *compared.picked] if compared else []
    drawn_as = {chart.key: chart.figure for chart in drawn} | (compared.variants if compared else {})
    anchors = {section.view.name: section.key for section in sections}
    return rendered(
        "page.html",
        title=views[0].name if len(views) == 1 else f"{len(views)} runs compared",
        figures=drawn_as,
        command=command,
        broad=len(views) > FEW,
        sections=sections,
        comparison=comparison(groups, audits, timed, anchors) if compared else None,
        many=compared,
        few=len(views) <= FEW,
        picked=PICKED,
        security=security,
        explained=explained(views, rows, anchors),
        side_by_side=SIDE_BY_SIDE,
        parts=below,
        caveats=caveats(views, measured),
        most_caveats=_MOST_CAVEATS,
    )


def _command(views: Sequence[RunView], records: Sequence[Path], output: Path) -> str:
    extra = [word for path in records for word in ("--with", str(path))]
    return shlex.join(["gossamer", "report", *(str(view.path) for view in views), *extra, "-o", str(output)])


def _section(view: RunView, number: int, row: int, views: Sequence[RunView], audits: Sequence[Audit]) -> Section:
    audit, runs = audit_of(view, audits, views), len(views)
    panels = {name: pictures.show(panel, runs=runs) for name, panel in view.panels.items()}
    shown = {name: panel for name, panel in panels.items() if panel.samples}
    return Section(
        view=view,
        key=f"run-{number + 1}",
        row=row,
        facts=_facts(view),
        cards=cards(view, audit, "" if audit is None else audit_key(audits.index(audit))),
        charts=_charts(view, number, every=runs <= FEW),
        panels=shown,
        commands=retrace.commands(view),
        left_out=_left_out(runs, images=len(shown) < len(panels)),
    )


def _left_out(runs: int, *, images: bool) -> str:
    """Return what a page of so many runs does not show of each."""
    if runs <= FEW:
        return ""
    what = f"{'' if images else 'more '}images and the weights of single layers"
    return f"Left out on a page of {runs} runs: {what}. A report of this run alone has them."


def _facts(view: RunView) -> list[tuple[str, str]]:
    recipe, numeric = view.recipe, cast("dict[str, Any]", view.env.get("numeric") or {})
    facts = [("recipe", words.described(recipe["name"]))] if "name" in recipe else []
    fields = ("data", "model", "threat", "objective", "attack", "method", "training", "seed")
    facts += [(key, words.described(recipe[key])) for key in fields if recipe.get(key) is not None]
    if view.status is not None:
        facts.append(("state", view.status.state))
        facts.append(("started", view.status.started))
        facts.append(("trained for", words.duration(view.status.seconds_trained)))
    if numeric:
        threads = f"{(count := numeric.get('threads'))} thread{'s' * (count != 1)}"
        facts.append(("machine", f"{numeric.get('device')}, {threads}, {numeric.get('precision')}"))
    versions = [f"{key} {view.env[key]}" for key in ("gossamer", "torch", "python") if key in view.env]
    start = cast("dict[str, Any]", view.env.get("start") or {})
    if start:
        facts.append(("starts from", f"{start.get('path')}, SHA-256 {start.get('sha256')}"))
    return facts + ([("versions", ", ".join(versions))] if versions else [])


def _charts(view: RunView, number: int, *, every: bool) -> list[Chart]:
    lines, network = view.lines, view.network
    wanted: list[tuple[str, str, Figure | None, str]] = [
        ("loss", "Loss", figures.loss_curves(lines), "Mean over the epoch's training batches."),
        ("accuracy", "Accuracy", figures.accuracy_curves(lines), "Dotted: training batches, attacked as in training."),
        ("density", "Density while training", figures.density_curves(lines), ""),
        ("sparsifier", "Sparsifier", figures.sparsifier_curves(lines), ""),
    ]
    if network is not None:
        overall = words.percent(network.totals.density)
        zeros = f"{network.histogram.zeros:,} weights are zero and not drawn."
        wanted += [
            ("layers", "Density per layer", figures.layer_densities(network), f"Dashed: the network, {overall}."),
            ("blocks", "Density per block", figures.block_densities(network), ""),
            ("work", "Work per block", figures.work(network), "Sparsity is not work: early layers see more pixels."),
            ("weights", "Weights", figures.weights(network, menu=every), zeros),
        ]
    return [
        Chart(key=f"{key}-{number}", title=title, figure=figure, note=note)
        for key, title, figure, note in wanted
        if figure is not None
    ]


def _security(views: Sequence[RunView]) -> list[Chart]:
    found = curves.security_curves(views)
    return [
        Chart(
            key=f"security-{norm}",
            title=f"Security curve, {norm}",
            figure=curves.figure([curve for curve in found if curve.norm == norm]),
            note="Bands and bars: 95 % intervals. At eps 0: clean accuracy.",
        )
        for norm in dict.fromkeys(curve.norm for curve in found)
    ]
