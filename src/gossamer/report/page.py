"""How do runs become a page? Views and figures into one template; nothing on the page is fetched from elsewhere."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from gossamer.errors import ConfigError
from gossamer.report import curves, figures, pictures, words
from gossamer.report.figures import Figure
from gossamer.report.pictures import Shown
from gossamer.report.views import RunView, collect
from gossamer.runs import atomic
from gossamer.runs.results import AttackOutcome, Evaluation
from gossamer.threat import format_eps

_ONE_GRADIENT_ATTACK = ("FGSM", "PGD")


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure's place on the page; key: its name among the page's figures."""

    key: str
    title: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Card:
    """A number in large type, its interval, and what it holds under."""

    title: str
    value: str
    interval: str
    under: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """All of one run that the template prints."""

    view: RunView
    facts: list[tuple[str, str]]
    cards: list[Card]
    charts: list[Chart]
    panels: dict[str, Shown]
    commands: list[str]


def write(run_paths: Sequence[Path], output: Path) -> Path:
    """Write one self-contained page on the runs to `output` and return that path.

    A run that is unfinished, not evaluated or damaged in part has its section, which says what is missing.
    Raises ConfigError for no runs, RunError for a path that is no run folder or where the page cannot be written.
    """
    if not run_paths:
        raise ConfigError("runs of a report", expected="at least one run folder", got="none", remedy="name one")
    atomic.write_text(Path(output), render(collect([Path(path) for path in run_paths]), Path(output)))
    return Path(output)


def render(views: Sequence[RunView], output: Path) -> str:
    """Return the page on the runs as HTML; `output` is the path its last command names."""
    from plotly.offline import get_plotlyjs  # noqa: PLC0415  (slow to import, needed here alone)

    drawn: dict[str, Figure] = {}
    sections = [_section(view, number, drawn, len(views)) for number, view in enumerate(views)]
    security = _security(views, drawn)
    page = Environment(loader=FunctionLoader(_resource), autoescape=True, undefined=StrictUndefined)
    page.filters |= {
        "percent": words.percent,
        "brackets": words.brackets,
        "duration": words.duration,
        "attack": words.outcome_name,
        "radius": words.radius,
    }
    paths = [shlex.quote(str(view.path)) for view in views]
    return page.get_template("page.html").render(
        title=views[0].name if len(views) == 1 else f"{len(views)} runs compared",
        sections=sections,
        comparison=_comparison(views) if len(views) > 1 else None,
        security=security,
        caveats=caveats(views),
        figures=drawn,
        command=f"gossamer report {' '.join(paths)} -o {shlex.quote(str(output))}",
        style=Markup(_resource("page.css")),
        script=Markup(_resource("page.js")),
        plotly=Markup(get_plotlyjs()),
    )


def caveats(views: Sequence[RunView]) -> list[str]:
    """Return what a reader must know before quoting the page's numbers."""
    evaluations = [one for view in views for one in view.evaluations if one.attacks]
    outcomes = [outcome for one in evaluations for outcome in one.attacks]
    found: list[str] = []
    names = {words.outcome_name(outcome).split("-")[0].split(" ")[0] for outcome in outcomes}
    if names and names <= set(_ONE_GRADIENT_ATTACK):
        found.append(
            "Accuracy under FGSM or PGD is an upper bound on robust accuracy: "
            "a stronger or adaptive attack can only lower it."
        )
    rejected = sum(outcome.rejected for outcome in outcomes)
    if rejected:
        found.append(
            f"{rejected} attacked points left the ball or the box and were not counted as adversarial examples."
        )
    quoted = [one for view in views if (one := view.headline)]
    measured = {(one.dataset.name, one.dataset.checksum, one.dataset.selection, one.n) for one in quoted}
    if len(measured) > 1:
        found.append("The runs were evaluated on different samples: their rows are not strictly comparable.")
    if len(measured) == 1 and len({words.headline_conditions(one) for one in quoted}) > 1:
        found.append("The headlines hold under different attacks or threats: compare within one column only.")
    return found


def _section(view: RunView, number: int, drawn: dict[str, Figure], runs: int) -> Section:
    return Section(
        view=view,
        facts=_facts(view),
        cards=_cards(view),
        charts=_charts(view, number, drawn),
        panels={name: pictures.show(panel, runs=runs) for name, panel in view.panels.items()},
        commands=_commands(view),
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
        threads = f"{numeric.get('threads')} threads, {numeric.get('precision')}"
        facts.append(("machine", f"{numeric.get('device')}, {threads}"))
    versions = [f"{key} {view.env[key]}" for key in ("gossamer", "torch", "python") if key in view.env]
    return facts + ([("versions", ", ".join(versions))] if versions else [])


def _cards(view: RunView) -> list[Card]:
    cards: list[Card] = []
    if headline := view.headline:
        under = words.headline_conditions(headline)
        told = f"{headline.dataset.name} {headline.dataset.part}, n={headline.n}"
        cards = [
            Card(
                title="robust accuracy",
                value=words.percent(headline.robust_accuracy),
                interval=words.brackets(headline.interval),
                under=f"under {under}",
            ),
            Card(
                title="clean accuracy",
                value=words.percent(headline.clean_accuracy),
                interval=words.brackets(headline.clean_interval),
                under=told,
            ),
        ]
    counted = view.network.totals if view.network else headline
    if counted is not None:
        kept = f"{counted.nonzero:,} of {counted.weights:,} weights; sparsity {words.percent(1 - counted.density)}"
        cards.append(Card(title="density", value=words.percent(counted.density), interval="", under=kept))
    if view.network:
        ratio, totals = view.network.work_ratio, view.network.totals
        under = f"{totals.kept_multiply_adds:,} of {totals.multiply_adds:,} multiply-adds an image"
        value = f"{ratio:.3g}×" if ratio is not None else "–"
        cards.append(Card(title="work ratio", value=value, interval="", under=under))
    return cards


def _charts(view: RunView, number: int, drawn: dict[str, Figure]) -> list[Chart]:
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
    charts: list[Chart] = []
    for key, title, figure, note in wanted:
        if figure is not None:
            drawn[f"{key}-{number}"] = figure
            charts.append(Chart(key=f"{key}-{number}", title=title, note=note))
    return charts


def _security(views: Sequence[RunView], drawn: dict[str, Figure]) -> list[Chart]:
    charts: list[Chart] = []
    found = curves.security_curves(views)
    for norm in dict.fromkeys(curve.norm for curve in found):
        drawn[f"security-{norm}"] = curves.figure([curve for curve in found if curve.norm == norm])
        note = "Bands and bars: 95 % intervals. At eps 0: clean accuracy."
        charts.append(Chart(key=f"security-{norm}", title=f"Security curve, {norm}", note=note))
    return charts


def _comparison(views: Sequence[RunView]) -> dict[str, Any]:
    rows = [(view, view.headline, _at_headline(view)) for view in views]
    columns = dict.fromkeys(column for _, _, outcomes in rows for column in outcomes)
    return {"columns": list(columns), "rows": rows, "methods": [_method(view) for view in views]}


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


def _commands(view: RunView) -> list[str]:
    path, recipe = shlex.quote(str(view.path)), shlex.quote(str(view.path / "recipe.yaml"))
    train = [f"gossamer train {recipe} --out {shlex.quote(str(view.path) + '-again')}"] if view.recipe else []
    return train + [f"gossamer evaluate {path} {_flags(one)}" for one in view.evaluations if one.attacks]


def _flags(evaluation: Evaluation) -> str:
    """Return the flags that measure the same again; a preset such as pgd-50-10 says its options itself."""
    first = evaluation.attacks[0]
    radii = ",".join(format_eps(outcome.eps) for outcome in evaluation.attacks if outcome.attack == first.attack)
    flags = ["--attack", first.attack, "--norm", first.norm, "--eps", radii, "--seed", str(evaluation.seed)]
    if evaluation.dataset.part != "test":
        flags += ["--part", evaluation.dataset.part]
    if evaluation.dataset.selection != "all":
        flags += ["--n", str(evaluation.n)]
    told = {} if first.attack.startswith("pgd-") else first.parameters
    options = {name: value for name, value in told.items() if name not in ("type", "threat") and value is not None}
    flags += [word for name, value in options.items() for word in ("--option", f"{name}={value}")]
    return shlex.join(flags)


def _resource(name: str) -> str:
    return (files("gossamer.report") / name).read_text(encoding="utf-8")
