"""How are weights spread, and how long does a pass take? Networks beside one another, a row each."""

from gossamer.report import words
from gossamer.report.parts import Cell, Part, Table, commands, text
from gossamer.runs.protocols import LatencyTable, LayerWeights, PassTime, TimedModel, WeightsTable


def weights(record: WeightsTable, key: str) -> Part:
    """Return the section of the weights of networks, layer by layer."""
    rows = [[text(row.name), text(layer.name), *_layer(layer)] for row in record.rows for layer in row.layers]
    below = [f"below {gamma:g}" for gamma in record.gammas]
    return Part(
        key=key,
        title="Sizes and places of weights",
        says="How are the weights of each layer spread, and into how many channels and kernels do those kept fall?",
        facts=[f"{row.name}: {row.parameters:,} parameters" for row in record.rows],
        tables=[
            Table(
                title="Every layer",
                head=("model", "layer", "weights", "kept", "deviation", "mean size", *below, "channels", "kernels"),
                rows=rows,
                note=(
                    "Deviation: of all weights, zeros too; mean size: of |w| where kept; below: share of all weights "
                    "smaller than that. Channels, kernels: output channels, and pairs of channels, that keep a weight; "
                    "by chance: kernels that would, were as many weights kept evenly."
                ),
                texts=2,
            )
        ],
        commands=commands(record.environment),
    )


def latency(record: LatencyTable, key: str) -> Part:
    """Return the section of the times of a pass."""
    rows = [_timed(row, each) for row in record.rows for each in row.passes]
    return Part(
        key=key,
        title="Time of a pass",
        says="How long does each network take on one machine, exported and in turns?",
        facts=[f"exported as {record.kind}", record.device, f"threads: {record.threads}"],
        tables=[
            Table(
                title="Milliseconds a pass",
                head=("model", "images", "weights kept", "file", "median", "mean", "95th percentile"),
                rows=rows,
                texts=2,
            )
        ],
        commands=commands(record.environment),
    )


def _layer(layer: LayerWeights) -> list[Cell]:
    size = "none" if layer.magnitude is None else f"{layer.magnitude:.3g}"
    alive = sum(count > 0 for count in layer.by_output)
    return [
        text(f"{layer.weights:,}"),
        text(words.percent(layer.nonzero / layer.weights), f"{layer.nonzero:,}"),
        text(f"{layer.deviation:.3g}"),
        text(size),
        *(text(words.percent(count / layer.weights)) for count in layer.below),
        text(f"{alive:,}", f"of {len(layer.by_output):,}"),
        _kernels(layer),
    ]


def _kernels(layer: LayerWeights) -> Cell:
    if layer.kernels is None or layer.at_random is None:
        return text("–")
    return text(f"{sum(layer.kernels[1:]):,}", f"of {sum(layer.kernels):,}, by chance {sum(layer.at_random[1:]):,.0f}")


def _timed(row: TimedModel, each: PassTime) -> list[Cell]:
    return [
        text(row.name),
        text(str(each.batch), "read from a file" if each.loaded else "in memory"),
        text(words.percent(row.density)),
        text(f"{row.bytes:,}", "bytes"),
        *(text(f"{1e3 * seconds:.3f}") for seconds in (each.median, each.mean, each.p95)),
    ]
