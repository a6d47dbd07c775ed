"""How is a protocol read on a terminal? Its record as a short table, with n and intervals, never a bare number."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from gossamer.runs import protocols
from gossamer.runs.protocols import Share, Spread
from gossamer.threat import format_eps


def tell(record: object) -> str:
    """Return a protocol's record as lines of text; raises KeyError for a record of no protocol."""
    return "\n".join(_TELLERS[type(record)](record))


def _effort(record: protocols.EffortTable) -> list[str]:
    grid = [(steps, restarts) for restarts in record.restarts for steps in record.steps]
    head = ["model", "clean", *(f"{steps} x {restarts}" for steps, restarts in grid)]
    rows: list[list[str]] = []
    for row in record.rows:
        rows.append([row.model.name, _share(row.clean), *(_share(point.raw) for point in row.points)])
        rows.append(["  cumulative", "", *(_share(point.cumulative) for point in row.points)])
    return [f"robust accuracy over steps x restarts, {record.threat}, n = {record.dataset.n}", *_table(head, rows)]


def _transfer(record: protocols.TransferMatrix) -> list[str]:
    lines: list[str] = []
    for column, eps in enumerate(record.eps):
        lines.append(f"accuracy of targets on sources' examples, {record.norm}, eps {format_eps(eps)}")
        head = ["source \\ target", *(model.model.name for model in record.models)]
        rows = [["(clean)", *(_share(model.clean) for model in record.models)]]
        for source, row in zip(record.sources, record.accuracy, strict=True):
            rows.append([record.models[source].model.name, *(_share(cell[column]) for cell in row)])
        lines += [*_table(head, rows), ""]
    return [*lines, f"n = {record.dataset.n}", *record.sentences]


def _adversaries(record: protocols.AdversaryMatrix) -> list[str]:
    head = ["model", "trained under", "clean", *(each.name for each in record.adversaries)]
    rows = [
        [model.model.name, model.kind, _share(model.clean), *(_share(cell) for cell in row)]
        for model, row in zip(record.models, record.accuracy, strict=True)
    ]
    threats = ", ".join(dict.fromkeys(each.threat for each in record.adversaries))
    return [f"robust accuracy by test adversary, {threats}, n = {record.dataset.n}", *_table(head, rows)]


def _matching(record: protocols.MatchingTable) -> list[str]:
    head = ["sparse network", "kept", "", "sparse", "parent", "difference", "McNemar p", "verdict"]
    rows: list[list[str]] = []
    for row in record.rows:
        for what, pair in (("clean", row.clean), ("robust", row.robust)):
            low, high = pair.interval
            difference = f"{pair.difference:+.1%} [{low:+.1%}, {high:+.1%}]"
            shares = [_share(pair.sparse), _share(pair.parent)]
            name, kept = (row.model.name, f"{row.model.density:.2%}") if what == "clean" else ("", "")
            rows.append([name, kept, what, *shares, difference, f"{pair.p_value:.2g}", pair.verdict])
    attack = str(record.attack["type"]).rpartition(".")[2]
    title = f"beside {record.parent.name}, {attack}, {record.threat}, n = {record.dataset.n}"
    return [title, *_table(head, rows)]


def _pruning(record: protocols.PruningBenchmark) -> list[str]:
    threats = [at.threat for at in record.rows[0].radii]
    head = ["model", "sparsity", "weights kept", "clean", *threats, "least norm", "its n", "not found"]
    rows: list[list[str]] = []
    for row in record.rows:
        own = row.second_opinion
        opinion = ["", "", ""] if own is None else [_share(own.robust), str(own.robust.n), str(own.not_found)]
        at = [_share(each.robust) for each in row.radii]
        rows.append([row.model.name, f"{row.sparsity:.2%}", f"{row.kept:,}", _share(row.clean), *at, *opinion])
    published = any(row.second_opinion is not None and row.second_opinion.as_published for row in record.rows)
    note = ["least norm as published: what is not found counts as broken"] if published else []
    return [f"robust accuracy under {record.attack['name']}, n = {record.dataset.n}", *_table(head, rows), *note]


def _ensemble(record: protocols.EnsembleTable) -> list[str]:
    head = ["member", "clean", "robust alone", "ensemble on its examples"]
    rows = [
        [member.model.name, _share(member.clean), _share(member.robust), _share(member.ensemble)]
        for member in record.members
    ]
    apart = f"flatters by {100 * record.flattery:.1f} points" if record.flattery > 0 else "does not flatter"
    return [
        *_table(head, rows),
        f"{record.model.name}: {record.parameters:,} parameters of all members, clean {_share(record.clean)}",
        f"robust accuracy attacked as one model {_share(record.as_one)} ({record.threat}, n = {record.dataset.n})",
        f"member-wise attack {_share(record.member_wise)}: {apart}",
    ]


def _stochastic(record: protocols.StochasticTable) -> list[str]:
    head = ["model", "mode", "passes", "clean", "robust"]
    rows = [
        [row.model.name, mode.name, str(mode.passes), _spread(mode.clean), _spread(mode.robust)]
        for row in record.rows
        for mode in row.modes
    ]
    trials = f"mean and standard deviation over {len(record.seeds)} trials"
    return [f"{trials}, {record.threat}, n = {record.dataset.n}", *_table(head, rows)]


def _corruptions(record: protocols.CorruptionTable) -> list[str]:
    head = ["model", "corruption", *(f"severity {severity}" for severity in range(1, 6))]
    rows: list[list[str]] = []
    for row in record.rows:
        for each in row.corruptions:
            label = f"{each.name} (extra)" if each.extra else each.name
            rows.append([row.name, label, *(_share(share) for share in each.accuracy)])
        rows.append([row.name, f"mean of {record.counted}", *(f"{value:.1%}" for value in row.by_severity)])
    means = [f"{row.name}: mean accuracy {row.mean:.2%}" for row in record.rows]
    return [f"accuracy under corruption, n = {record.n} a corruption and severity", *_table(head, rows), *means]


def _classes(record: protocols.ClassTable) -> list[str]:
    rows = [[each.name, str(each.clean.n), _share(each.clean), _share(each.robust)] for each in record.classes]
    return [
        f"{record.run} under {record.attack} ({record.threat}, n = {record.n})",
        *_table(["class", "n", "clean", "robust"], rows),
        f"worst class: {record.worst_robust} under attack, {record.worst_clean} clean",
    ]


def _black_box(record: protocols.BlackBoxTable) -> list[str]:
    head = ["model", "n", "success", "median queries", "mean queries"]
    rows = [
        [row.name, str(row.success.n), _share(row.success), _number(row.median_queries), _number(row.mean_queries)]
        for row in record.rows
    ]
    return [f"black-box success on samples that are right when clean, {record.threat}", *_table(head, rows)]


def _smoothing(record: protocols.SmoothingTable) -> list[str]:
    radii = [point.radius for point in record.rows[0].curve]
    head = ["model", "abstained", *(f"r > {radius:g}" for radius in radii)]
    rows: list[list[str]] = []
    for row in record.rows:
        rows.append([row.name, str(row.abstained), *(_share(point.accuracy) for point in row.curve)])
        rows.append(["  guaranteed", "", *(f"{point.guaranteed:.1%}" for point in row.curve)])
    made = f"sigma {record.sigma:g}, {record.n:,} copies, each certificate {1 - record.alpha:.1%} sure"
    return [f"certified accuracy over l2 radius, {made}, n = {record.dataset.n}", *_table(head, rows)]


def _weights(record: protocols.WeightsTable) -> list[str]:
    head = ["model", "layer", "weights", "kept", "deviation", "mean size", *(f"< {gamma:g}" for gamma in record.gammas)]
    rows: list[list[str]] = []
    for row in record.rows:
        for layer in row.layers:
            size = "none" if layer.magnitude is None else f"{layer.magnitude:.3g}"
            below = [f"{count / layer.weights:.1%}" for count in layer.below]
            counts = [f"{layer.weights:,}", f"{layer.nonzero / layer.weights:.1%}"]
            rows.append([row.name, layer.name, *counts, f"{layer.deviation:.3g}", size, *below])
    return ["weights by layer; deviation: zeros too, mean size: of those kept", *_table(head, rows)]


def _latency(record: protocols.LatencyTable) -> list[str]:
    head = ["model", "kept", "images", "", "median ms", "mean ms", "p95 ms"]
    rows = [
        [row.name, f"{row.density:.1%}", str(each.batch), "read from a file" if each.loaded else "in memory"]
        + [f"{1e3 * seconds:.3f}" for seconds in (each.median, each.mean, each.p95)]
        for row in record.rows
        for each in row.passes
    ]
    return [
        f"time of a pass, exported as {record.kind}, {record.device}, threads: {record.threads}",
        *_table(head, rows),
    ]


def _share(share: Share) -> str:
    return f"{share.value:.1%} [{100 * share.interval[0]:.1f}, {100 * share.interval[1]:.1f}]"


def _spread(spread: Spread) -> str:
    return f"{spread.mean:.2%}" + ("" if spread.deviation is None else f" +- {100 * spread.deviation:.2f}")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:,.0f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    ]


_TELLERS: Mapping[type, Callable[[Any], list[str]]] = cast(
    "Mapping[type, Callable[[Any], list[str]]]",
    {
        protocols.EffortTable: _effort,
        protocols.TransferMatrix: _transfer,
        protocols.AdversaryMatrix: _adversaries,
        protocols.PruningBenchmark: _pruning,
        protocols.EnsembleTable: _ensemble,
        protocols.StochasticTable: _stochastic,
        protocols.CorruptionTable: _corruptions,
        protocols.ClassTable: _classes,
        protocols.MatchingTable: _matching,
        protocols.BlackBoxTable: _black_box,
        protocols.SmoothingTable: _smoothing,
        protocols.WeightsTable: _weights,
        protocols.LatencyTable: _latency,
    },
)
