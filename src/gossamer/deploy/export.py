"""How does a network become an artifact? By the writer of its kind, checked, with a record beside it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.deploy import interpret, sparse_file
from gossamer.deploy.about import About, digests, parent_of, read_about, write_about
from gossamer.deploy.capture import capture
from gossamer.deploy.csource import float_layers, rounded, write_c
from gossamer.deploy.csource.constants import DENSE_FROM, one_magnitude
from gossamer.deploy.naming import identifier
from gossamer.deploy.onnx_file import write_onnx
from gossamer.deploy.onnx_int8 import write_onnx_int8
from gossamer.deploy.parity import Parity, check_exact, parity, probes
from gossamer.deploy.scratch import scratch
from gossamer.deploy.simplify import simplify
from gossamer.deploy.sparse_header import Network
from gossamer.deploy.torch_program import write_torch
from gossamer.deploy.tracing import Frozen, freeze
from gossamer.errors import ConfigError, DataError, RunError
from gossamer.evaluation.onnx_model import OnnxModel
from gossamer.models.folding import plain_copy
from gossamer.runs import atomic
from gossamer.sparsity.targets import targets


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written: the artifact's file, and its record."""

    path: Path
    about: About

    def __str__(self) -> str:
        about, parent = self.about, self.about.parent
        share = about.bytes / parent.dense_bytes if parent.dense_bytes else 1.0
        lines = [
            f"{about.kind}: {about.bytes:,} bytes, {share:.1%} of the dense parent's {parent.dense_bytes:,} in float32",
            f"density {parent.density:.2%}: {parent.nonzero:,} of {parent.dense_weights:,} weights",
            *about.remarks,
            f"written: {self.path}",
        ]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """What a writer needs."""

    frozen: Frozen
    path: Path
    values: str
    blob: bool
    images: Tensor | None
    network: Network | None
    texts: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a writer wrote: the files, the artifact first, and what their reader must know."""

    files: tuple[Path, ...]
    remarks: tuple[str, ...] = ()


RECOGNISABLE = 0.5
"""Share of images on which a network of rounded weights must say its parent's class to be written at all."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of artifact. values: how weights may be stored, the first by default; blob: may it have one beside."""

    suffix: str
    summary: str
    write: Callable[[Job], Written]
    values: tuple[str, ...] = ("float32",)
    blob: bool = False


def export(
    model: nn.Module,
    example: Tensor,
    kind: str,
    path: Path | str,
    *,
    values: str | None = None,
    blob: bool = False,
    images: Tensor | None = None,
    network: Network | None = None,
    name: str | None = None,
    dense_weights: int | None = None,
    clean_accuracy: float | None = None,
    remarks: tuple[str, ...] = (),
) -> Exported:
    """Write a network as an artifact of a kind in `KINDS`, with its record beside it; the network stays as it is.

    example: (N, C, H, W) floats in [0, 1]; its size is the artifact's. path: its suffix is the kind's, or is added.
    values: how weights are stored (`KINDS` says which it may be; of kind c by default signs where all weights are).
    blob: of kind c, keep constants beside the source. images: (M, C, H, W) training images on which onnx-int8 is
    calibrated. network: what builds the network again, for a sparse file that opens by itself. name, dense_weights,
    clean_accuracy: what is known of the parent. Raises ConfigError for what the kind cannot express, naming the
    operator, DataError for weights that cannot be stored,
    RunError where the file system refuses or an artifact computes other logits.
    """
    entry = _entry(kind)
    if blob and not entry.blob:
        raise ConfigError("--blob", expected="a kind with constants: c or c-int8", got=kind, remedy="leave it out")
    frozen = freeze(model, example)
    chosen = _values(kind, entry, values, frozen)
    parent = parent_of(
        frozen.module, name or type(model).__name__, dense_weights=dense_weights, clean_accuracy=clean_accuracy
    )
    target = _target(Path(path), entry.suffix)
    texts = {"kind": kind, "network": parent.network, "density": repr(parent.density)}
    written = entry.write(
        Job(frozen=frozen, path=target, values=chosen, blob=blob, images=images, network=network, texts=texts)
    )
    about = About(
        kind=kind,
        values=chosen,
        shape=frozen.shape,
        classes=frozen.classes,
        files=digests(written.files),
        bytes=sum(each.stat().st_size for each in written.files),
        parent=parent,
        remarks=(*remarks, *written.remarks),
    )
    write_about(target, about)
    return Exported(path=target, about=about)


def _entry(kind: str) -> Kind:
    if kind in KINDS:
        return KINDS[kind]
    raise ConfigError("--to", expected=f"one of {', '.join(KINDS)}", got=repr(kind), remedy="check its spelling")


def _values(kind: str, entry: Kind, values: str | None, frozen: Frozen) -> str:
    if values is None:
        return "signs" if kind == "c" and _is_binary(frozen.module) else entry.values[0]
    if values in entry.values:
        return values
    raise ConfigError(
        "--values",
        expected=f"{' or '.join(entry.values)} for {kind}",
        got=repr(values),
        remedy="leave it out, or choose another kind",
    )


def _is_binary(module: nn.Module) -> bool:
    """Tell whether all kernels are sparse and each of one magnitude but for signs: then no weight needs multiplying."""
    weights = [layer.weight for layer in targets(module)]
    kept = sum(int(weight.count_nonzero()) for weight in weights)
    if not weights or kept >= DENSE_FROM[-1][1] * sum(weight.numel() for weight in weights):
        return False
    return all(one_magnitude(weight.detach().flatten(1).numpy()) for weight in weights)


def _target(path: Path, suffix: str) -> Path:
    if path.suffix == suffix:
        return path
    if path.suffix in {each.suffix for each in KINDS.values()}:
        raise ConfigError(
            str(path),
            expected=f"a name with {suffix}, or with none",
            got=path.suffix,
            remedy=f"write {path.stem}{suffix}",
        )
    return path.with_name(path.name + suffix)


def _write_sparse(job: Job) -> Written:
    values: Any = job.values
    exact = job.values in ("float32", "signs")
    with scratch() as folder:
        made = folder / job.path.name
        sparse_file.write(made, job.frozen.module, kind=values, network=job.network)
        # As it will be opened: by the network it names, where it names one.
        opened = (
            sparse_file.load(made, plain_copy(job.frozen.module)) if job.network is None else sparse_file.rebuild(made)
        )
        error = _error(job, opened, exact=exact)
        atomic.copy(made, job.path)
    off = () if exact else (f"logits off by {error:.2g} of the largest",)
    named = () if job.network is not None else ("the file names no network: load it into the one it came from",)
    return Written(files=(job.path,), remarks=(*off, *named))


def _write_c(job: Job) -> Written:
    name = job.path.stem
    graph = simplify(capture(job.frozen.module, job.frozen.images))
    values: Any = job.values
    error = _error(job, partial(interpret.run, rounded(graph, values)), exact=job.values != "int8")
    floats = float_layers(graph, values)
    old = _old_record(job.path)
    with scratch() as folder:
        made = write_c(graph, folder, name, values=values, blob=job.blob)
        parts = [part for part in (made.source, made.header, made.blob) if part is not None]
        for part in parts:
            atomic.copy(part, job.path.with_name(part.name))
    blob = job.path.with_suffix(".blob")
    if not job.blob and old is not None and blob.name in old.files:
        blob.unlink(missing_ok=True)
    stored = (f"weights in int8, computed in float: smaller, not faster; logits off by {error:.2g} of the largest",)
    kept = (f"weights of several magnitudes stay float32: {', '.join(floats)}",) if floats else ()
    remarks = stored if job.values == "int8" else kept if job.values == "signs" else ()
    return Written(files=tuple(job.path.with_name(part.name) for part in parts), remarks=remarks)


def _old_record(path: Path) -> About | None:
    """Return the record of what lies there, None where there is none to read: it is written anew."""
    try:
        return read_about(path) if path.exists() else None
    except DataError:
        return None


def _error(job: Job, computed: Callable[[Tensor], Tensor], *, exact: bool) -> float:
    """Return how far what will be written is from the network, on the example and on noise.

    Raises RunError for exact values with other logits, and for rounded ones that say another class on most images.
    """
    images = torch.cat([job.frozen.images, probes(job.frozen.shape)])
    found = parity(job.frozen.module, computed, images)
    if exact:
        check_exact(found, job.path.name)
    else:
        instead = "write --values float32, or --to c for c-int8"
        _check_recognisable(found, job.path.name, on="the example and random images", instead=instead)
    return found.error


def _check_recognisable(found: Parity, artifact: str, *, on: str, instead: str) -> None:
    """Raise RunError where a rounded network says its parent's class on too few images to be the same network."""
    if found.agreement >= RECOGNISABLE:
        return
    raise RunError(
        artifact,
        expected=f"the network's classes on most of {on}",
        got=f"{found.agreement:.0%} of them",
        remedy=f"nothing was written: {instead}",
    )


def _write_onnx(job: Job) -> Written:
    write_onnx(job.frozen.module, job.frozen.images, job.path, about=job.texts)
    return Written(files=(job.path,))


def _write_onnx_int8(job: Job) -> Written:
    if job.images is None:
        raise ConfigError(
            "export to onnx-int8", expected="training images to calibrate on", got="none", remedy="give images="
        )
    with scratch() as folder:
        made = folder / job.path.name
        floats = write_onnx_int8(job.frozen.module, job.frozen.images, job.images, made, about=job.texts)
        found = parity(job.frozen.module, OnnxModel(made), job.images)
        _check_recognisable(
            found,
            job.path.name,
            on="the images that it was calibrated on",
            instead="export to onnx, or to c-int8, whose weights alone are rounded",
        )
        atomic.copy(made, job.path)
    stays = f"in float: {', '.join(floats)}" if floats else "no operator stays in float"
    told = f"calibrated on {len(job.images)} images: {found}"
    return Written(files=(job.path,), remarks=(stays, told))


def _write_torch(job: Job) -> Written:
    write_torch(job.frozen.module, job.frozen.images, job.path, about=job.texts)
    return Written(files=(job.path,), remarks=("loading a .pt2 file runs what it says: share onnx or sparse instead",))


KINDS: Mapping[str, Kind] = {
    "sparse": Kind(
        suffix=".safetensors",
        summary="a file as small as the sparsity: positions and values",
        write=_write_sparse,
        values=("float32", "float16", "int8", "signs"),
    ),
    "c": Kind(
        suffix=".c",
        summary="one C99 source and header, no library, fast by the sparsity",
        write=_write_c,
        values=("float32", "signs"),
        blob=True,
    ),
    "c-int8": Kind(
        suffix=".c",
        summary="the same with weights stored in int8, computed in float: smaller, not faster",
        write=_write_c,
        values=("int8",),
        blob=True,
    ),
    "onnx": Kind(suffix=".onnx", summary="an ONNX file for onnxruntime and others", write=_write_onnx),
    "onnx-int8": Kind(
        suffix=".onnx",
        summary="an ONNX file quantised to int8, calibrated on training images",
        write=_write_onnx_int8,
        values=("int8",),
    ),
    "torch": Kind(suffix=".pt2", summary="a torch.export program", write=_write_torch),
}
"""The kinds of artifacts by name."""


def default_name(run: str, kind: str, values: str | None = None) -> str:
    """Return the file name of a run's artifact, which C takes for an identifier too: digits_bcs_seed0_int8.c."""
    # C keeps signs by itself where it can: float32 that was asked for is another file.
    known = None if kind == "c" else KINDS[kind].values[0]
    details = [kind.partition("-")[2], values if values not in (None, known) else ""]
    return identifier("-".join([run, *(detail for detail in details if detail)])) + KINDS[kind].suffix
