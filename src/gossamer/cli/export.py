"""`gossamer export`: a run in, an artifact out, with its size beside the dense parent's."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from gossamer.cli import options
from gossamer.data import DataSet
from gossamer.deploy.export import KINDS, Exported, default_name
from gossamer.deploy.export import export as write_artifact
from gossamer.deploy.parity import probes
from gossamer.deploy.published import is_published
from gossamer.deploy.sparse_header import Network
from gossamer.errors import ConfigError, RunError
from gossamer.models.registry import MODELS
from gossamer.recipe.open import OpenRun, open_run
from gossamer.runs import RunFolder, results
from gossamer.sparsity.factor_layers import FACTORISED
from gossamer.sparsity.forms import DENSE
from gossamer.sparsity.slim import SLIM
from gossamer.zoo.load import load as load_published

CALIBRATION = 512
RESTRUCTURED = (SLIM, FACTORISED)


def export(
    run: Annotated[Path, typer.Argument(help="a run folder, or a published one with --out")],
    to: Annotated[str, typer.Option(help=f"the kind: {', '.join(KINDS)}")],
    out: Annotated[Path | None, typer.Option(help="the file to write; by default in RUN/artifacts/")] = None,
    values: Annotated[
        str | None, typer.Option(help="how weights are stored: float32, float16, int8 or signs, as the kind allows")
    ] = None,
    blob: Annotated[
        bool, typer.Option("--blob", help="of kind c: constants in a file beside the source, for big networks")
    ] = False,
    data_dir: options.DataDir = None,
    trust: options.Trust = False,
) -> None:
    """Write a finished run as a file for devices, checked against the network, with a record beside it."""
    if to not in KINDS:
        raise ConfigError("--to", expected=f"one of {', '.join(KINDS)}", got=repr(to), remedy="check its spelling")
    if is_published(run):
        print(_export_published(run, to, out, values=values, blob=blob, data_dir=data_dir, trust=trust))
        return
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
        # What was measured of a run that draws noise is not its twin's.
        clean_accuracy=None if is_random(opened) else _clean_accuracy(opened.folder),
        remarks=remarks,
    )
    print(written)


def _export_published(
    folder: Path, to: str, out: Path | None, *, values: str | None, blob: bool, data_dir: Path | None, trust: bool
) -> Exported:
    """Write a published network as an artifact; its folder stays as it was published."""
    found = load_published(folder, allow_factory=trust)
    if out is None:
        raise ConfigError(
            "--out", expected="the file to write", got="none", remedy="a published folder is not added to"
        )
    manifest = found.manifest
    return write_artifact(
        found.twin,
        probes(manifest.image_shape, 2),
        to,
        out,
        values=values,
        blob=blob,
        images=_calibration(found.images("train", data_dir)) if to == "onnx-int8" else None,
        network=_as_stored(manifest.network),
        name=manifest.network.name,
        dense_weights=manifest.dense_weights,
        remarks=(f"of the published network {manifest.name}",),
    )


def is_random(run: OpenRun) -> bool:
    """Tell whether a run's network draws noise when it is called, so that its twin ships."""
    return any(getattr(module, "pure", True) is False for module in run.model().modules())


def network_of(run: OpenRun) -> Network | None:
    """Return what builds a run's network again from a sparse file, None for networks that are not the package's."""
    return _as_stored(Network(name=run.recipe.model.name, options=run.network_options(), form=run.form()))


def _as_stored(network: Network) -> Network | None:
    """Return what builds a network again from a sparse file, which no factory of its author's can be asked to do."""
    if network.name not in MODELS:
        return None
    return replace(network, form=network.form if network.form in RESTRUCTURED else DENSE)


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
