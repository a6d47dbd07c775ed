"""`gossamer export`: a run in, an artifact out, with its size beside the dense parent's."""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from gossamer.cli import options
from gossamer.data import DataSet
from gossamer.deploy.export import KINDS, default_name
from gossamer.deploy.export import export as write_artifact
from gossamer.deploy.sparse_header import Network
from gossamer.errors import ConfigError, RunError
from gossamer.models.registry import MODELS
from gossamer.recipe.build import model_options
from gossamer.recipe.open import OpenRun, open_run
from gossamer.runs import RunFolder, atomic, results
from gossamer.sparsity.factor_layers import FACTORISED
from gossamer.sparsity.forms import DENSE
from gossamer.sparsity.slim import SLIM
from gossamer.training.run import FINAL

CALIBRATION = 512
RESTRUCTURED = (SLIM, FACTORISED)


def export(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    to: Annotated[str, typer.Option(help=f"the kind: {', '.join(KINDS)}")],
    out: Annotated[Path | None, typer.Option(help="the file to write; by default in RUN/artifacts/")] = None,
    values: Annotated[
        str | None, typer.Option(help="how weights are stored: float32, float16, int8 or signs, as the kind allows")
    ] = None,
    blob: Annotated[
        bool, typer.Option("--blob", help="of kind c: constants in a file beside the source, for big networks")
    ] = False,
    data_dir: options.DataDir = None,
) -> None:
    """Write a finished run as a file for devices, checked against the network, with a record beside it."""
    if to not in KINDS:
        raise ConfigError("--to", expected=f"one of {', '.join(KINDS)}", got=repr(to), remedy="check its spelling")
    opened = open_run(run, data_dir)
    test = opened.part("test")
    twin, remarks = opened.twin(), ()
    if is_random(opened):
        remarks = ("the run is stochastic: this is its noise-free twin",)
    written = write_artifact(
        twin,
        test.float(torch.arange(min(2, len(test)))),
        to,
        out or opened.folder.artifacts / default_name(opened.folder.name, to, values),
        values=values,
        blob=blob,
        images=_calibration(opened.part("train")) if to == "onnx-int8" else None,
        network=network_of(opened),
        name=opened.recipe.model.name,
        dense_weights=opened.dense_weights(),
        clean_accuracy=_clean_accuracy(opened.folder),
        remarks=remarks,
    )
    print(written)


def is_random(run: OpenRun) -> bool:
    """Tell whether a run's network draws noise when it is called, so that its twin ships."""
    return any(getattr(module, "pure", True) is False for module in run.model().modules())


def network_of(run: OpenRun) -> Network | None:
    """Return what builds a run's network again from a sparse file, None for networks that are not the package's."""
    name = run.recipe.model.name
    if name not in MODELS:
        return None
    stored = atomic.read_about(run.folder.state(FINAL)).get("form", DENSE)
    given: dict[str, Any] = model_options(run.recipe, run.part("test"))
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}
    return Network(name=name, options=plain, form=stored if stored in RESTRUCTURED else DENSE)


def _calibration(train: DataSet) -> torch.Tensor:
    return train.float(torch.linspace(0, len(train) - 1, min(CALIBRATION, len(train))).long())


def _clean_accuracy(folder: RunFolder) -> float | None:
    """Return the clean accuracy of the evaluation of most samples on the test part, None where there is none."""
    found: list[results.Evaluation] = []
    for path in results.evaluation_files(folder):
        try:
            found.append(results.read_evaluation(path))
        except RunError:
            continue
    tested = [each for each in found if each.dataset.part == "test"]
    return max(tested, key=lambda each: each.n).clean_accuracy if tested else None
