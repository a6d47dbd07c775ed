"""Which protocol or audit does a file hold? Records by the schema that they name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

from gossamer.errors import RunError
from gossamer.runs import atomic, protocols, records
from gossamer.runs.audits import Audit
from gossamer.runs.layout import RunFolder

Measured: TypeAlias = (
    Audit
    | protocols.EffortTable
    | protocols.TransferMatrix
    | protocols.AdversaryMatrix
    | protocols.BlackBoxTable
    | protocols.PruningBenchmark
    | protocols.EnsembleTable
    | protocols.StochasticTable
    | protocols.CorruptionTable
    | protocols.ClassTable
    | protocols.MatchingTable
    | protocols.SmoothingTable
    | protocols.WeightsTable
    | protocols.LatencyTable
)

_KINDS = (
    Audit,
    protocols.EffortTable,
    protocols.TransferMatrix,
    protocols.AdversaryMatrix,
    protocols.BlackBoxTable,
    protocols.PruningBenchmark,
    protocols.EnsembleTable,
    protocols.StochasticTable,
    protocols.CorruptionTable,
    protocols.ClassTable,
    protocols.MatchingTable,
    protocols.SmoothingTable,
    protocols.WeightsTable,
    protocols.LatencyTable,
)


def _family(schema: str) -> str:
    return schema.rpartition("/")[0]


KINDS: Mapping[str, type[Measured]] = {_family(kind.schema): kind for kind in _KINDS}
"""What a schema without its version means, as gossamer/effort."""


def read_measured(path: Path) -> Measured:
    """Return the protocol's record or the audit in a file.

    Raises RunError if it is missing or damaged, names no such schema, or another version of one.
    """
    schema = _schema(atomic.read_json(path))
    kind = KINDS.get(_family(schema))
    if kind is None:
        raise RunError(
            str(path),
            expected=f"a record of an audit or a protocol: {', '.join(KINDS)}",
            got=f"schema {schema}" if schema else "no schema",
            remedy="give what `gossamer protocol --json` or `gossamer audit --json` wrote",
        )
    return records.read(kind, path)


def measured_files(run: RunFolder) -> list[Path]:
    """Return the files under results/ that are audits or protocols of any version, by name."""
    return [path for path in records.files(run.results) if _family(_schema_of(path)) in KINDS]


def _schema_of(path: Path) -> str:
    try:
        return _schema(atomic.read_json(path))
    except RunError:
        return ""


def _schema(value: Any) -> str:
    named = cast("dict[str, Any]", value).get("schema") if isinstance(value, dict) else None
    return named if isinstance(named, str) else ""
