"""How does a run become a folder that others can load? Weights, recipe, results and environment under one manifest."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gossamer.deploy.published import CARD, OF_A_MACHINE, WEIGHTS, Images, Kind, Manifest, Storage, seal
from gossamer.errors import ConfigError, RunError
from gossamer.evaluation.subject import count_weights, of_parent
from gossamer.plugins import is_reference
from gossamer.recipe.open import OpenRun, open_run
from gossamer.runs import RunFolder, atomic, lock, records, results, status
from gossamer.runs.measured import measured_files, read_measured
from gossamer.sparsity.factor_layers import FACTORISED
from gossamer.sparsity.forms import DENSE
from gossamer.sparsity.noisy_weights import NOISY
from gossamer.sparsity.random_switch import RANDOM_SWITCH
from gossamer.sparsity.slim import SLIM
from gossamer.training.run import FINAL
from gossamer.zoo.card import card
from gossamer.zoo.folders import check_place, written_whole
from gossamer.zoo.load import Published, load
from gossamer.zoo.weights import Asked, Network, write_weights

_KINDS: Mapping[str, Kind] = {
    DENSE: "same-keys",
    SLIM: "restructured",
    FACTORISED: "restructured",
    NOISY: "stochastic",
    RANDOM_SWITCH: "stochastic",
}


def publish(
    run: Path | str,
    folder: Path | str,
    *,
    license: str | None = None,  # noqa: A002
    storage: Asked = "auto",
    force: bool = False,
    data_dir: Path | None = None,
) -> Published:
    """Write a finished run as a folder in the layout of the Hugging Face hub, and return it as it loads.

    license: an identifier as the hub has them, apache-2.0 say; None leaves it open. storage: `dense` tensors, a
    `sparse` file, or `auto`, the sparse one where it is at most half as large. force: replace a published folder. The
    folder is there wholly or not at all. Raises RunError for a run that is not finished, ConfigError for a place that
    is taken.
    """
    target = Path(folder)
    opened = open_run(run, data_dir)
    _check_finished(opened)
    check_place(target, force=force)
    stored = atomic.read_safetensors(opened.folder.state(FINAL))
    described = _describe(opened)
    _read_all(opened.folder)
    with written_whole(target, force=force) as filled:
        chosen = write_weights(filled / WEIGHTS, opened.model(), stored, described.network, storage)
        _copy_records(opened.folder, filled)
        sealed = seal(filled, described.manifest(chosen))
        atomic.write_text(filled / CARD, card(filled, opened.folder, sealed, license))
        _check_back(filled, stored)
    return load(target, allow_factory=True)


@dataclass(frozen=True, kw_only=True)
class _Described:
    """A manifest but for its storage and files."""

    network: Network
    values: Mapping[str, Any]

    def manifest(self, storage: Storage) -> Manifest:
        """Return the manifest of a network that is stored so."""
        return Manifest(network=self.network, storage=storage, **self.values)


def _describe(run: OpenRun) -> _Described:
    recipe, images = run.recipe, run.parts.test
    form, module = run.form(), run.model()
    own, nonzero = count_weights(run.twin() if _KINDS.get(form) == "stochastic" else module)
    weights, nonzero = of_parent(own, nonzero, run.dense_weights())
    options = {name: value for name, value in recipe.data.options.items() if name not in OF_A_MACHINE}
    values = {
        "name": run.folder.name,
        "kind": _KINDS.get(form, "restructured"),
        "image_shape": tuple(images.image_shape),
        "classes": images.num_classes,
        "class_names": tuple(images.classes),
        "data": Images(name=recipe.data.name, options=options),
        "threat": recipe.threat,
        "dense_weights": weights,
        "nonzero": nonzero,
        "density": nonzero / weights if weights else 1.0,
        "remarks": tuple(_remarks(recipe.model.name, form)),
    }
    return _Described(network=Network(name=recipe.model.name, options=run.network_options(), form=form), values=values)


def _remarks(model: str, form: str) -> list[str]:
    found: list[str] = []
    if is_reference(model):
        found.append(
            f"The network is made by its author's own code, {model}, which is not in this folder: loading needs that "
            "package, and allow_factory=True, which imports and calls it."
        )
    if _KINDS.get(form) == "stochastic":
        found.append(
            "The network is stochastic: attack it with expectation over transformation. Its weights and its density "
            "are counted without the noise."
        )
    return found


def _check_finished(run: OpenRun) -> None:
    where, writes = status.read(run.folder), lock.holder(run.folder)
    if writes is not None:
        raise RunError(
            f"{run.folder.path}",
            expected="a finished run",
            got=f"one that {writes} writes: it may still be evaluated",
            remedy="wait for it",
        )
    if run.folder.state(FINAL).exists() and where is not None and where.state == "done":
        return
    state = "a run without a status" if where is None else f"one that is {where.state}"
    raise RunError(
        f"{run.folder.path}",
        expected="a finished run",
        got=state if where is None or where.state != "done" else "one without its final state",
        remedy="run `gossamer train` on its recipe again: it goes on from the last checkpoint",
    )


def _read_all(run: RunFolder) -> None:
    """Raise RunError where a record that would be published cannot be read."""
    for path in results.evaluation_files(run):
        results.read_evaluation(path)
    for path in measured_files(run):
        read_measured(path)
    if run.result("network").exists():
        results.read_network(run)


def _copy_records(run: RunFolder, target: Path) -> None:
    there = RunFolder(target)
    for source, copy in ((run.recipe, there.recipe), (run.env, there.env), (run.status, there.status)):
        if source.exists():
            atomic.copy(source, copy)
    if run.metrics.exists():
        atomic.copy(run.metrics, there.metrics)
    for path in records.files(run.results):
        atomic.copy(path, there.results / path.name)


def _check_back(filled: Path, stored: Mapping[str, Tensor]) -> None:
    """Raise RunError unless the folder loads to the very tensors of the run."""
    back = load(filled, allow_factory=True).module.state_dict()
    different = [name for name in stored if name not in back or not torch.equal(back[name], stored[name])]
    if different or back.keys() != stored.keys():
        raise RunError(
            "published network",
            expected="the tensors of the run",
            got=f"others ({', '.join(different[:3]) or 'more of them'})",
            remedy="nothing was written: report the network",
        )


def check_license(name: str | None) -> None:
    """Raise ConfigError unless a license is written as the hub writes identifiers."""
    if name is None or (name and name == name.lower() and all(each.isalnum() or each in ".-_" for each in name)):
        return
    raise ConfigError(
        "--license", expected="an identifier of the hub in lower case", got=repr(name), remedy="write apache-2.0, say"
    )
