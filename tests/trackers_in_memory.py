"""Stand-ins for the packages of trackers, with what is used of each and nothing more; stores outlive processes."""

import re
import sys
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


def _module(name: str, **attributes: Any) -> ModuleType:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None, origin="in memory")
    for key, value in attributes.items():
        setattr(module, key, value)
    return module


@dataclass
class MLflowRun:
    """A run of an MLflow server, and the client's view of it."""

    run_id: str
    run_name: str
    tags: dict[str, str]
    status: str = "RUNNING"
    params: dict[str, str] = field(default_factory=dict)
    history: list[Any] = field(default_factory=list)

    @property
    def info(self) -> Any:
        return SimpleNamespace(run_id=self.run_id, status=self.status)

    @property
    def data(self) -> Any:
        return SimpleNamespace(params=dict(self.params))

    def steps(self, key: str) -> list[int]:
        return [metric.step for metric in self.history if metric.key == key]

    def values(self, key: str) -> list[float]:
        return [metric.value for metric in self.history if metric.key == key]


class MLflowServer:
    """An MLflow store; gone: every request is refused."""

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: list[MLflowRun] = []
        self.gone = False

    def install(self, patch: pytest.MonkeyPatch) -> "MLflowServer":
        entities = SimpleNamespace(Metric=_metric, Param=lambda key, value: SimpleNamespace(key=key, value=value))
        patch.setitem(
            sys.modules,
            "mlflow",
            _module("mlflow", MlflowClient=lambda: MLflowClient(self), entities=entities),
        )
        return self


def _metric(key: str, value: float, timestamp: int, step: int) -> Any:
    assert re.fullmatch(r"[\w./ -]{1,250}", key)
    return SimpleNamespace(key=key, value=value, timestamp=timestamp, step=step)


class MLflowClient:
    """The client's methods, as the real one names them."""

    def __init__(self, server: MLflowServer) -> None:
        self._server = server

    def _run(self, run_id: str) -> MLflowRun:
        if self._server.gone:
            raise ConnectionError("no route to https://user:secret@server/api\nmore")
        return next(run for run in self._server.runs if run.run_id == run_id)

    def get_experiment_by_name(self, name: str) -> Any:
        found = self._server.experiments.get(name)
        return None if found is None else SimpleNamespace(experiment_id=found)

    def create_experiment(self, name: str) -> str:
        if name in self._server.experiments:
            raise ValueError(f"RESOURCE_ALREADY_EXISTS: {name}")
        self._server.experiments[name] = str(len(self._server.experiments))
        return self._server.experiments[name]

    def search_runs(self, experiment_ids: list[str], filter_string: str) -> list[MLflowRun]:
        match = re.fullmatch(r"tags\.`(\S+)` = '(\w+)'", filter_string)
        assert match
        return [run for run in self._server.runs if run.tags.get(match[1]) == match[2]]

    def create_run(self, experiment_id: str, *, run_name: str, tags: dict[str, str]) -> MLflowRun:
        run = MLflowRun(f"run{len(self._server.runs)}", run_name, tags)
        self._server.runs.append(run)
        return run

    def update_run(self, run_id: str, *, status: str) -> None:
        self._run(run_id).status = status

    def get_metric_history(self, run_id: str, key: str) -> list[Any]:
        return [metric for metric in self._run(run_id).history if metric.key == key]

    def log_batch(self, run_id: str, metrics: list[Any] | None = None, params: list[Any] | None = None) -> None:
        run = self._run(run_id)
        assert len(params or ()) <= 100
        for param in params or ():
            assert run.params.get(param.key, param.value) == param.value, "a parameter cannot change"
            run.params[param.key] = param.value
        run.history.extend(metrics or ())

    def set_terminated(self, run_id: str, status: str) -> None:
        self._run(run_id).status = status


class UsageError(Exception):
    """What the package raises where no key is known."""


@dataclass
class WandbRun:
    """A run of Weights & Biases."""

    asked: dict[str, Any]
    step: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, float] = field(default_factory=dict)
    exit_code: int | None = None

    def log(self, data: dict[str, float], *, step: int, commit: bool) -> None:
        assert step >= self.step, "rows of earlier steps are dropped"
        assert commit
        self.rows.append({**data, "step": step})
        self.step = step + 1

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


class WandbServer:
    """What Weights & Biases holds; online: a run that goes on knows its last step."""

    def __init__(self, *, online: bool = True, key: bool = True) -> None:
        self.runs: dict[str, WandbRun] = {}
        self.attempts: list[WandbRun] = []
        self._online = online
        self._key = key

    def install(self, patch: pytest.MonkeyPatch) -> "WandbServer":
        module = _module(
            "wandb",
            login=self._login,
            init=self._init,
            Settings=SimpleNamespace,
            errors=SimpleNamespace(UsageError=UsageError),
        )
        patch.setitem(sys.modules, "wandb", module)
        return self

    def _login(self, *, verify: bool) -> bool:
        assert not verify
        if not self._key:
            raise UsageError("No API key configured.")
        return self._online

    def _init(self, **asked: Any) -> WandbRun:
        assert asked["resume"] == "allow"
        known = self.runs.get(asked["id"])
        run = known if self._online and known is not None else WandbRun(asked)
        self.runs[asked["id"]] = run
        self.attempts.append(run)
        return run
