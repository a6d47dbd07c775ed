"""In which order do audits, stages and protocols come, and who draws each? Only what was measured has a section."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from gossamer.report import audits, certificates, efforts, matching, matrices, readings, rows, stages
from gossamer.report.groups import grouped
from gossamer.report.parts import Part
from gossamer.report.views import RunView
from gossamer.runs import protocols
from gossamer.runs.audits import Audit
from gossamer.runs.measured import Measured

# In the order of the page.
DRAWN: Mapping[type, tuple[str, Callable[[Any, str], Part]]] = cast(
    "Mapping[type, tuple[str, Callable[[Any, str], Part]]]",
    {
        protocols.EffortTable: ("effort", efforts.part),
        protocols.TransferMatrix: ("transfer", matrices.transfer),
        protocols.AdversaryMatrix: ("adversaries", matrices.adversaries),
        protocols.BlackBoxTable: ("black-box", rows.black_box),
        protocols.PruningBenchmark: ("pruning", rows.pruning),
        protocols.EnsembleTable: ("ensemble", rows.ensemble),
        protocols.StochasticTable: ("stochastic", rows.stochastic),
        protocols.CorruptionTable: ("corruptions", matrices.corruptions),
        protocols.MatchingTable: ("matching", matching.matching),
        protocols.ClassTable: ("classes", rows.classes),
        protocols.SmoothingTable: ("certificates", certificates.part),
        protocols.WeightsTable: ("weights", readings.weights),
        protocols.LatencyTable: ("latency", readings.latency),
    },
)


def all_measured(views: Sequence[RunView], others: Sequence[Measured]) -> list[Measured]:
    """Return what the runs' folders and other files hold, each record once."""
    found: list[Measured] = []
    for record in [*(one for view in views for one in view.measured), *others]:
        if record not in found:
            found.append(record)
    return found


def audit_key(place: int) -> str:
    """Return the anchor of the place-th audit, counted from 0."""
    return f"audit-{place + 1}"


def parts(views: Sequence[RunView], measured: Sequence[Measured]) -> list[Part]:
    """Return the sections of audits, of stages, and of protocols, in the order of the page."""
    examined = [record for record in measured if isinstance(record, Audit)]
    found = [audits.part(each, audit_key(i), audits.audited(each, views)) for i, each in enumerate(examined)]
    if fallen := stages.falls(views):
        rows = {view.name: group.place for group in grouped(views) for view in group.views}
        found.append(stages.part(fallen, "stages", rows))
    for kind, (key, draw) in DRAWN.items():
        records = [record for record in measured if type(record) is kind]
        found += [draw(record, f"{key}-{place}") for place, record in enumerate(records, start=1)]
    return found
