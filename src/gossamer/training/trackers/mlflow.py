"""How is a run logged to MLflow? Through its client, to MLFLOW_TRACKING_URI or where MLflow keeps runs by itself."""

import os
import re
import time
from collections.abc import Mapping
from typing import Any

from gossamer.training.trackers.packages import imported
from gossamer.training.trackers.protocol import State, Tracked

_TAG = "gossamer.id"
_STATES = {"done": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
# What every version of the server takes: parameters a request, letters of a value, and letters in a name.
_PARAMETERS, _VALUE = 100, 500
_FOREIGN = re.compile(r"[^\w./ -]")


class MLflow:
    """Logs to the experiment MLFLOW_EXPERIMENT_NAME, by default gossamer; its run is found again by a tag.

    Raises ConfigError where the package is not installed.
    """

    def __init__(self) -> None:
        self._mlflow = imported("mlflow")
        self._step = 0

    def begin(self, run: Tracked) -> int:
        """Find the run, or create it; its own history says which steps it holds."""
        self._client: Any = self._mlflow.MlflowClient()
        experiment = self._experiment()
        found = self._client.search_runs([experiment], f"tags.`{_TAG}` = '{run.id}'")
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
        else:
            self._run = self._client.create_run(experiment, run_name=run.name, tags={_TAG: run.id}).info.run_id
        # A parameter cannot change: those of the first attempt stand.
        self._parameters(run.parameters, known=found[0].data.params if found else {})
        history = self._client.get_metric_history(self._run, "epoch")
        self._step = max((metric.step for metric in history), default=0)
        return self._step

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log one batch: it is there wholly or not at all."""
        self._step = step
        now = int(time.time() * 1000)
        metric = self._mlflow.entities.Metric
        logged = [metric(_name(name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=logged)

    def end(self, state: State, results: Mapping[str, float]) -> None:
        """Log results as metrics at the last step, and MLflow's own word for how the run ended."""
        if results:
            self.metrics(self._step, results)
        self._client.set_terminated(self._run, _STATES[state])

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "gossamer")
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        try:
            return self._client.create_experiment(name)
        # Another run may have created it meanwhile: those of a sweep end at the same time.
        except Exception:
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return found.experiment_id

    def _parameters(self, parameters: Mapping[str, object], known: Mapping[str, str]) -> None:
        param = self._mlflow.entities.Param
        told = {_name(name): str(value)[:_VALUE] for name, value in parameters.items()}
        missing = [param(name, value) for name, value in told.items() if name not in known]
        for start in range(0, len(missing), _PARAMETERS):
            self._client.log_batch(self._run, params=missing[start : start + _PARAMETERS])


def _name(name: str) -> str:
    return _FOREIGN.sub("_", name)
