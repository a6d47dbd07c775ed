"""How do runs become a page? Views and figures into one template; nothing on the page is fetched from elsewhere."""

import base64
import gzip
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from gossamer.errors import ConfigError
from gossamer.report import curves, figures, pictures, retrace, words
from gossamer.report.audits import audit_of
from gossamer.report.cards import Card, cards
from gossamer.report.caveats import caveats
from gossamer.report.figures import Figure
from gossamer.report.parts import Chart
from gossamer.report.pictures import Shown
from gossamer.report.sections import all_measured, audit_key, parts
from gossamer.report.views import RunView, collect
from gossamer.runs import atomic
from gossamer.runs.audits import Audit
from gossamer.runs.measured import Measured, read_measured
from gossamer.runs.results import AttackOutcome, Evaluation


@dataclass(frozen=True, kw_only=True)
class Section:
    """All of one run that the template prints."""

    view: RunView
    facts: list[tuple[str, str]]
    cards: list[Card]
    charts: list[Chart]
    panels: dict[str, Shown]
    commands: list[str]


def write(run_paths: Sequence[Path], output: Path, *, records: Sequence[Path] = ()) -> Path:
    """Write one self-contained page on the runs to `output` and return that path.

    records: JSON files of protocols and audits that lie outside the runs' own results/. A run that is unfinished, not
    evaluated or damaged in part has its section, which says what is missing. Raises ConfigError for no runs, RunError
    for a path that is no run folder, a record of no audit or protocol, or where the page cannot be written.
    """
    if not run_paths:
        raise ConfigError("runs of a report", expected="at least one run folder", got="none", remedy="name one")
    output, others = Path(output), [Path(path) for path in records]
    views = collect([Path(path) for path in run_paths])
    page = render(views, [read_measured(path) for path in others], command=_command(views, others, output))
    atomic.write_text(output, page)
    return output


def render(views: Sequence[RunView], others: Sequence[Measured] = (), *, command: str) -> str:
    """Return the page on the runs as HTML; others: records from outside their folders; command: that made the page."""
    measured = all_measured(views, others)
    audits = [record for record in measured if isinstance(record, Audit)]
    sections = [_section(view, number, len(views), audits) for number, view in enumerate(views)]
    security, below = _security(views), parts(views, measured)
    drawn = [*security, *(chart for each in (*below, *sections) for chart in each.charts)]
    page = Environment(loader=FunctionLoader(_resource), autoescape=True, undefined=StrictUndefined)
    page.filters |= {
        "percent": words.percent,
        "brackets": words.brackets,
        "duration": words.duration,
        "attack": words.outcome_name,
        "radius": words.radius,
        "threat": words.threat_of,
        "verdict": words.verdict,
    }
    return page.get_template("page.html").render(
        title=views[0].name if len(views) == 1 else f"{len(views)} runs compared",
        sections=sections,
        comparison=_comparison(views, audits) if len(views) > 1 else None,
        security=security,
        parts=below,
        caveats=caveats(views, measured),
        figures={chart.key: chart.figure for chart in drawn},
        command=command,
        style=Markup(_resource("page.css")),
        script=Markup(_resource("page.js")),
        plotly=_packed_plotly(),
    )


def _command(views: Sequence[RunView], records: Sequence[Path], output: Path) -> str:
    extra = [word for path in records for word in ("--with", str(path))]
    return shlex.join(["gossamer", "report", *(str(view.path) for view in views), *extra, "-o", str(output)])


def _section(view: RunView, number: int, runs: int, audits: Sequence[Audit]) -> Section:
    audit = audit_of(view, audits)
    return Section(
        view=view,
        facts=_facts(view),
        cards=cards(view, audit, "" if audit is None else audit_key(audits.index(audit))),
        charts=_charts(view, number),
        panels={name: pictures.show(panel, runs=runs) for name, panel in view.panels.items()},
        commands=retrace.commands(view),
    )


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
    return facts + ([("versions", ", ".join(versions))] if versions else [])


def _charts(view: RunView, number: int) -> list[Chart]:
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
            ("weights", "Weights", figures.weights(network), zeros),
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


def _comparison(views: Sequence[RunView], audits: Sequence[Audit]) -> dict[str, Any]:
    rows = [(view, view.headline, _at_headline(view)) for view in views]
    columns = dict.fromkeys(column for _, _, outcomes in rows for column in outcomes)
    found = [audit_of(view, audits) for view in views]
    verdicts = [None if each is None else (each, audit_key(audits.index(each))) for each in found]
    return {
        "columns": list(columns),
        "rows": rows,
        "methods": [_method(view) for view in views],
        "verdicts": verdicts if any(verdicts) else [],
    }


def _at_headline(view: RunView) -> dict[tuple[str, str], AttackOutcome | Evaluation]:
    """Return what is known at the headline's threat, the headline itself first, by attack and threat."""
    headline = view.headline
    if headline is None:
        return {}
    norm = headline.threat.partition(":")[0]
    known: dict[tuple[str, str], AttackOutcome | Evaluation] = {
        (words.attack_name(headline.attack, headline.attack_parameters), _threat_text(norm, headline.eps)): headline
    }
    outcomes = [each for one in view.evaluations for each in one.attacks if each.threat == headline.threat]
    for each in sorted(outcomes, key=lambda each: -each.n):
        known.setdefault((words.outcome_name(each), _threat_text(each.norm, each.eps)), each)
    return known


def _threat_text(norm: str, eps: float) -> str:
    return f"{norm} eps {words.radius(eps)}"


def _method(view: RunView) -> str:
    method = view.recipe.get("method")
    name = cast("dict[str, object]", method).get("name") if isinstance(method, dict) else method
    return str(name) if name is not None else "–"


@cache
def _packed_plotly() -> str:
    """Return the drawing library as base64 of gzip, the same on every day."""
    from plotly.offline import get_plotlyjs  # noqa: PLC0415  (slow to import, needed here alone)

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _resource(name: str) -> str:
    return (files("gossamer.report") / name).read_text(encoding="utf-8")
