"""What does an artifact say of itself? A record beside it: its kind, its files and their digests, and its parent."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from gossamer.errors import ConfigError, DataError, RunError
from gossamer.evaluation.subject import count_weights
from gossamer.runs import atomic, records

SUFFIX = ".json"
LARGEST = 2**20
"""Bytes of a record that is still read."""
LONGEST = 255
"""Bytes of a file's name, the most that common file systems take."""
FLOAT32 = 4

Side = Annotated[int, Field(ge=1, le=2**16)]
Share = Annotated[float, Field(ge=0, le=1)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, kw_only=True)
class Parent:
    """The network that an artifact was made of.

    dense_weights: convolution and linear weights of its dense parent; nonzero: those of them that are not zero;
    dense_bytes: of the dense parent in float32, all tensors; weights_sha256: of the exported network's state.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    network: str
    dense_weights: int
    nonzero: int
    density: Share
    dense_bytes: int
    weights_sha256: Digest
    clean_accuracy: Share | None = None


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What `gossamer verify` measured of an artifact: on n images, under attacks within a threat, the worst of them.

    parent_robust_accuracy: of the network it was made of, on the same examples; passed: whether it held every limit,
    None where there was no network to compare it with.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    attacks: Annotated[tuple[str, ...], Field(min_length=1, max_length=16)]
    threat: str
    part: str
    n: Annotated[int, Field(ge=1)]
    clean_accuracy: Share
    robust_accuracy: Share
    parent_robust_accuracy: Share | None
    passed: bool | None


@dataclass(frozen=True, kw_only=True)
class About:
    """The record of one artifact.

    gossamer: the version that wrote it; shape: (C, H, W) of an image; files: SHA-256 by name, of all that belong to it;
    bytes: of these files together; remarks: what its reader must know, such as which operations stayed in float;
    verified: what was measured of it as it ships, None where nothing was.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/artifact/1"
    gossamer: str = field(default_factory=lambda: version("gossamer"))
    kind: str
    values: str | None = None
    shape: tuple[Side, Side, Side]
    classes: Annotated[int, Field(ge=1)]
    files: Annotated[Mapping[str, Digest], Field(min_length=1, max_length=8)]
    bytes: int
    parent: Parent
    remarks: tuple[str, ...] = ()
    verified: Verified | None = None


def parent_of(
    model: nn.Module, name: str, *, dense_weights: int | None = None, clean_accuracy: float | None = None
) -> Parent:
    """Return what an artifact says of a plain network; dense_weights: its own kernels' where None."""
    own, nonzero = count_weights(model)
    dense = own if dense_weights is None else max(dense_weights, nonzero)
    floats = sum(tensor.numel() for tensor in model.state_dict().values() if tensor.is_floating_point())
    return Parent(
        network=name,
        dense_weights=dense,
        nonzero=nonzero,
        density=nonzero / dense if dense else 1.0,
        dense_bytes=FLOAT32 * (floats - own + dense),
        weights_sha256=weights_sha256(model.state_dict()),
        clean_accuracy=clean_accuracy,
    )


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors by name, type, shape and values, in the order of their names; in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        digest.update(f"{name}\n{array.dtype.str}\n{array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def check_parent(artifact: Path, about: About | None, network: nn.Module) -> None:
    """Raise ConfigError where a record says that its artifact was made of other weights than a network's."""
    if about is None or about.parent.weights_sha256 == weights_sha256(network.state_dict()):
        return
    raise ConfigError(
        "--run",
        expected=f"the run that {artifact.name} was exported from",
        got="one of other weights",
        remedy="name that run, or export the artifact again from this one",
    )


def about_path(artifact: Path) -> Path:
    """Return where the record of an artifact lies: beside it, under its name with .json behind."""
    return artifact.with_name(artifact.name + SUFFIX)


def digests(files: Sequence[Path]) -> dict[str, str]:
    """Return the SHA-256 of files by their names."""
    return {path.name: atomic.sha256(path) for path in files}


def write_about(artifact: Path, about: About) -> None:
    """Write the record of an artifact beside it, atomically."""
    records.write(about_path(artifact), about)


def read_about(artifact: Path) -> About | None:
    """Return the record beside an artifact, None where there is none; raises DataError for anything else."""
    path = about_path(artifact)
    if not path.exists():
        return None
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(
                str(path), expected="a short record", got="a large file", remedy="export the artifact again"
            )
        return records.read(About, path)
    except (RunError, OSError) as error:
        raise DataError(
            str(path),
            expected="the record of an artifact",
            got=" ".join(str(error).split())[:300],
            remedy="export the artifact again, or remove the record to go without it",
        ) from error


def _digest(path: Path) -> str:
    try:
        return atomic.sha256(path)
    except OSError as error:
        raise DataError(
            str(path), expected="a file that can be read", got=str(error), remedy="make it readable, or fetch it again"
        ) from error


def check_files(artifact: Path, about: About) -> None:
    """Raise DataError unless the files that a record names lie beside the artifact, unchanged."""
    for name, expected in about.files.items():
        if not name or Path(name).name != name or len(name.encode(errors="replace")) > LONGEST:
            raise DataError(str(artifact), expected="names of files beside it", got=name[:80], remedy="export it again")
        path = artifact.with_name(name)
        got = _digest(path) if path.is_file() else "no file"
        if got != expected:
            raise DataError(
                str(path),
                expected=f"content of SHA-256 {expected}",
                got=got,
                remedy="the file was changed or damaged: export it again, or fetch it again",
            )
    size = sum(artifact.with_name(name).stat().st_size for name in about.files)
    if size != about.bytes:
        raise DataError(
            str(artifact),
            expected=f"{about.bytes:,} bytes, as its record says",
            got=f"{size:,}",
            remedy="export it again",
        )
    if artifact.name not in about.files:
        raise DataError(
            str(artifact),
            expected=f"one of {', '.join(about.files)}, which its record names",
            got=artifact.name,
            remedy="keep the name that it was exported with, or export it again",
        )
