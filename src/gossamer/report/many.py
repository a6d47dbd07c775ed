"""Which charts does a page of several runs have? Their places, notes and figures, a set of these a condition."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gossamer.report import overlays, overview
from gossamer.report.conditions import Condition, conditions, reached
from gossamer.report.figures import Figure
from gossamer.report.groups import Group
from gossamer.report.latencies import Latency
from gossamer.report.matching import matches
from gossamer.report.parts import Chart
from gossamer.runs.measured import Measured
from gossamer.runs.protocols import MatchingTable

_BARS = "Bars: standard deviation over seeds; of one seed, 95 % intervals."
_FRONTIER = f"{_BARS} Dotted: no row shown is at least as robust for less."
_NO_KERNELS = (
    "Weights kept per kernel are not drawn: no results/network.json here counts them (kernels of a layer); runs that "
    "were trained before it was counted have none."
)


@dataclass(frozen=True, kw_only=True)
class Many:
    """The charts of several runs.

    conditions: under which the overview holds, the first is drawn first; overview: of all rows shown; picked: a line a
    row, of the first rows; variants: the overview's figures under the other conditions; notes: what cannot be drawn.
    """

    conditions: Sequence[str]
    overview: Sequence[Chart]
    picked: Sequence[Chart]
    variants: dict[str, Figure] = field(default_factory=dict[str, Figure])
    notes: Sequence[str] = ()


def many(groups: Sequence[Group], measured: Sequence[Measured], timed: dict[int, Latency]) -> Many:
    """Return the charts of a comparison; timed: latencies by row."""
    held = conditions(groups)
    tables = [record for record in measured if isinstance(record, MatchingTable)]
    sets = [_overview(groups, condition, tables, timed) for condition in held]
    picked = _picked(groups)
    described_ones = any(view.network for group in groups for view in group.views)
    told = any(chart.key == "all-kernels" for chart in picked)
    return Many(
        conditions=[condition.label for condition in held],
        overview=sets[0] if sets else (),
        picked=picked,
        variants={f"{chart.key}:{i}": chart.figure for i, charts in enumerate(sets) if i for chart in charts},
        notes=[_NO_KERNELS] if described_ones and not told else [],
    )


def _overview(
    groups: Sequence[Group], condition: Condition, tables: Sequence[MatchingTable], timed: dict[int, Latency]
) -> list[Chart]:
    found = reached(groups, condition)
    matching = matches(found, tables)
    ringed = " Rings: matches its dense parent, sample by sample." if matching["robust"] else ""
    across = "Across: dense networks. " if any(one.group.is_dense for one in found) else ""
    charts = [
        Chart(
            key=f"all-{which}",
            title=f"{which.capitalize()} accuracy over density",
            figure=overview.over_density(found, which, matching[which]),
            note=f"{across}{_BARS}{ringed}",
            scope="all",
        )
        for which in ("robust", "clean")
    ]
    costs = [
        ("nonzeros", "Robust accuracy against nonzeros", overview.against_nonzeros(found)),
        ("work", "Robust accuracy against work", overview.against_work(found)),
    ]
    charts += [
        Chart(key=f"all-{key}", title=title, figure=figure, note=_FRONTIER, scope="all") for key, title, figure in costs
    ]
    if timed:
        own = next(iter(timed.values()))
        threads = f"{own.threads} thread{'s' * (own.threads != 1)}"
        charts.append(
            Chart(
                key="all-latency",
                title="Robust accuracy against measured latency",
                figure=overview.against_latency(found, timed),
                note=f"One image, {own.device}, {threads}; the fastest artifact of each. {_FRONTIER}",
                scope="all",
            )
        )
    return charts


def _picked(groups: Sequence[Group]) -> list[Chart]:
    wanted: list[tuple[str, str, Figure | None, str]] = [
        (f"security-{norm}", f"Security curve, {norm}", figure, _of_security(groups))
        for norm, figure in overlays.security(groups).items()
    ]
    wanted += [
        ("all-layers", "Density per layer", overlays.layers(groups), ""),
        ("all-blocks", "Density per block", overlays.blocks(groups), ""),
        ("all-kernels", "Weights kept per kernel", overlays.kernels(groups), "Of all kernels of the commonest size."),
        ("all-weights", "Weights that are not zero", overlays.weights(groups), "Each network over its largest weight."),
        (
            "all-training",
            "Robust accuracy while training",
            overlays.training(groups, "robust_accuracy", "robust accuracy", share=True),
            "Of training batches, attacked as in training.",
        ),
        ("all-loss", "Loss while training", overlays.training(groups, "loss", "loss", share=False), ""),
    ]
    seeds = "Mean over seeds." if any(len(group.views) > 1 for group in groups) else ""
    return [
        Chart(key=key, title=title, figure=figure, note=" ".join(filter(None, [note, seeds])), scope="picked")
        for key, title, figure, note in wanted
        if figure is not None
    ]


def _of_security(groups: Sequence[Group]) -> str:
    least = "; over seeds from the least to the most" if any(len(group.views) > 1 for group in groups) else ""
    return f"Bands and bars: 95 % intervals{least}. At eps 0: clean accuracy."
