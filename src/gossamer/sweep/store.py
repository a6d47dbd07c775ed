"""Where do finished phases lie? Under their keys: states and metrics first, and last the record that they are whole."""

import json
import secrets
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from gossamer.errors import RunError
from gossamer.recipe.identity import versions_of
from gossamer.recipe.load import run_name
from gossamer.recipe.schema import Recipe
from gossamer.recipe.train import result_names
from gossamer.runs import RunFolder, atomic, metrics, records
from gossamer.sweep.files import Files, files_at
from gossamer.training.job import now
from gossamer.training.run import FINAL

METRICS = "metrics.jsonl"
RECORD = "record.json"


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """One file of a phase: under which name it lies in the store, its size and its digest."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PhaseRecord:
    """A finished phase. states: by their names, such as train.epoch-8; seconds: that training took.

    like: what an estimate of other phases may go by: data, network, objective, attack, method, phase; environment: the
    machine and versions that trained it; stored: when, ISO 8601 in UTC, "" in records of before it was noted.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/phase/1"
    key: str
    phase: str
    epochs: int
    seconds: float
    states: dict[str, StoredFile]
    metrics: StoredFile
    like: dict[str, str]
    environment: dict[str, Any]
    stored: str = ""


@dataclass(frozen=True)
class Store:
    """The finished phases of sweeps. root: a folder, or a URL that fsspec knows.

    A phase is finished where its record lies, which is written after everything that it names; files of an attempt lie
    under a name of its own. So whoever is killed leaves nothing that another takes for whole, and of two who finish one
    phase the record of the first counts, with that one's files; what the second has beside is added.
    """

    root: str
    files: Files = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", files_at(self.root))

    def find(self, key: str, states: Iterable[str] = ()) -> PhaseRecord | None:
        """Return the record of a finished phase that has all of these states, None where there is none.

        Raises RunError for a record that is damaged.
        """
        name = f"phases/{key}/{RECORD}"
        data = self.files.read(name)
        if data is None:
            return None
        record = records.from_json(PhaseRecord, _json(data, name), subject=f"{self.root}, {name}")
        return record if set(states) <= set(record.states) else None

    def standing(self, run: str) -> dict[str, Any] | None:
        """Return what a run is `made_of`, by which `versions`, and whether it is `done`; None where nobody began it.

        Where it is done, also how long its `evaluations` took (`alike.Took`) and when it `ended`, ISO 8601 in UTC. Of a
        measurement of several runs: of what each was `made_of`, of how many seconds, `like` and `n` an estimate may go
        by, and when it `ended`.
        """
        name = f"standing/{run}.json"
        data = self.files.read(name)
        return None if data is None else _json(data, name)

    def standings(self) -> list[dict[str, Any]]:
        """Return all that `standing` reads of any run or measurement, but for what is damaged."""
        found: list[dict[str, Any]] = []
        for name in self.files.within("standing"):
            if name.endswith(".json"):
                with suppress(RunError):
                    found.append(self.standing(name.removesuffix(".json")) or {})
        return found

    def is_current(self, recipe: Recipe) -> bool:
        """Tell whether the run of a recipe was made by the versions that would make it now.

        Also where no sweep made it, as in a folder that holds copies. Of which data it was made, only a plan can tell.
        """
        standing = self.standing(run_name(recipe))
        if standing is None:
            return True
        made_by: Mapping[str, int] = standing.get("versions") or {}
        return made_by == versions_of(recipe, made_by)

    def holds(self, run: str, recipe: Recipe) -> bool:
        """Tell whether all that makes a run finished is in its folder: recipe, network, and the results it asks for."""
        folder = RunFolder(Path("runs", run))
        needed = (folder.recipe, folder.state(FINAL), *(folder.result(name) for name in result_names(recipe)))
        return {path.relative_to(folder.path).as_posix() for path in needed} <= set(self.files.within(f"runs/{run}"))

    def stand(self, run: str, standing: Mapping[str, Any]) -> None:
        """Write what `standing` reads."""
        self.files.write(f"standing/{run}.json", json.dumps(standing).encode())

    def keys(self) -> list[str]:
        """Return the keys of all phases that someone has begun to store."""
        return self.files.folders("phases")

    def publish(self, key: str, phase: str, run: RunFolder, *, like: Mapping[str, str]) -> PhaseRecord:
        """Store what a phase gave in a run folder, and return its record; raises RunError where the store refuses.

        Of a phase that was finished before, only states that it lacks are added: others may have begun from the rest.
        """
        attempt = f"phases/{key}/{secrets.token_hex(4)}"
        try:
            return self._published(attempt, key, phase, run, like)
        except BaseException:
            # What is half there would only fill a disk that is full already; a record that was written counts.
            if attempt.encode() not in (self.files.read(f"phases/{key}/{RECORD}") or b""):
                self.files.remove(attempt)
            raise

    def _published(self, attempt: str, key: str, phase: str, run: RunFolder, like: Mapping[str, str]) -> PhaseRecord:
        before = self.find(key)
        known = () if before is None else before.states
        states = [path for path in sorted(run.states.glob(f"{phase}.*.safetensors")) if path.stem not in known]
        stored = {path.stem: self._put(path, f"{attempt}/{path.name}") for path in states}
        first = self._described(attempt, key, phase, run, like) if before is None else before
        # Where nobody can be kept from it, another may have finished the phase meanwhile.
        latest = self.find(key) or first
        record = replace(latest, states={**stored, **latest.states})
        if latest is not first and record.states.keys() == latest.states.keys():
            self.files.remove(attempt)
            return latest
        self.files.write(f"phases/{key}/{RECORD}", json.dumps(records.to_json(record), indent=1).encode())
        return record

    def _described(self, attempt: str, key: str, phase: str, run: RunFolder, like: Mapping[str, str]) -> PhaseRecord:
        """Return the record of a phase but for its states, its metrics stored."""
        lines = [line for line in metrics.read(run) if line["phase"] == phase]
        return PhaseRecord(
            key=key,
            phase=phase,
            epochs=len(lines),
            seconds=float(sum(line["seconds"] for line in lines)),
            states={},
            metrics=self._put_lines(lines, f"{attempt}/{METRICS}"),
            like=dict(like),
            environment=atomic.read_json(run.env),
            stored=now(),
        )

    def fetch(self, record: PhaseRecord, run: RunFolder) -> None:
        """Copy the states of a phase into a run folder; raises RunError for one that is missing or damaged."""
        for state, stored in record.states.items():
            target = run.state(state)
            if not target.exists():
                self._get(stored, target)

    def lines(self, record: PhaseRecord) -> list[dict[str, Any]]:
        """Return the metrics of a phase, a line an epoch; raises RunError where they are missing or damaged."""
        with tempfile.TemporaryDirectory(prefix="gossamer-") as folder:
            path = Path(folder) / METRICS
            self._get(record.metrics, path)
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def _put(self, path: Path, name: str) -> StoredFile:
        self.files.put(path, name)
        return StoredFile(name=name, bytes=path.stat().st_size, sha256=atomic.sha256(path))

    def _put_lines(self, lines: list[dict[str, Any]], name: str) -> StoredFile:
        with tempfile.TemporaryDirectory(prefix="gossamer-") as folder:
            path = Path(folder) / METRICS
            path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
            return self._put(path, name)

    def _get(self, stored: StoredFile, target: Path) -> None:
        fetched = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        atomic.make_directory(target.parent)
        try:
            self.files.get(stored.name, fetched)
            if atomic.sha256(fetched) != stored.sha256:
                raise RunError(
                    f"{self.root}, {stored.name}",
                    expected=f"{stored.bytes:,} bytes as they were stored",
                    got=f"{fetched.stat().st_size:,} others",
                    remedy=f"remove phases/{stored.name.split('/')[1]} from the store: it is trained again",
                )
            fetched.replace(target)
        finally:
            fetched.unlink(missing_ok=True)


def _json(data: bytes, name: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise RunError(
            name, expected="a record in JSON", got=str(error), remedy="remove it: the phase is trained again"
        ) from error
