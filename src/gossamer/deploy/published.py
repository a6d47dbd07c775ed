"""What does a published folder say of itself? One checked record: its network, its images, and every file's digest."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, JsonValue
from torch import Tensor

from gossamer.deploy import sparse_file
from gossamer.deploy.sparse_header import Network
from gossamer.errors import DataError, RunError
from gossamer.runs import atomic, records

NAME = "gossamer.json"
CARD = "README.md"
WEIGHTS = "model.safetensors"
RECIPE = "recipe.yaml"
LARGEST = 2**22
"""Bytes of a manifest that is still read."""

FILES = re.compile(
    r"model\.safetensors|recipe\.yaml|(?:env|status)\.json|metrics\.jsonl|results/[A-Za-z0-9][A-Za-z0-9._:+@=-]*\.json"
)
"""The names that a manifest may name: none of them leaves the folder."""

READ_AS_DATA = frozenset(
    {".bin", ".ckpt", ".json", ".jsonl", ".npy", ".npz", ".onnx", ".pickle", ".pkl", ".pt", ".pt2", ".pth", ".py"}
    | {".safetensors", ".so", ".yaml", ".yml"}
)
"""Suffixes of files that could be taken for a part of the network: beside the manifest's own there are none."""

OF_A_MACHINE = ("cache_dir",)
"""Options of data sets that say where files lie, not which images they are: they do not travel."""

Side = Annotated[int, Field(ge=1, le=2**16)]
Share = Annotated[float, Field(ge=0, le=1)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Storage = Literal["dense", "sparse"]
Kind = Literal["same-keys", "restructured", "stochastic"]


@dataclass(frozen=True, kw_only=True)
class File:
    """One file: its bytes and its SHA-256."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    bytes: Annotated[int, Field(ge=0)]
    sha256: Digest


@dataclass(frozen=True, kw_only=True)
class Images:
    """A data set by its name in `gossamer.data`, with the options that say which images those are."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    name: str
    options: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that builds a network again without the run it came from.

    gossamer: the version that wrote it; network: a factory's name, its options, and the form of the stored tensors;
    storage: `dense` tensors as they are, or a `sparse` file; kind: `same-keys` loads into the dense network; threat:
    what it was trained to withstand, where that is known; dense_weights, nonzero: weights of the dense parent, and
    those of the network that are not zero; image_shape: (C, H, W); class_names: in the order of the logits; files:
    every file but the manifest and the card.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/published/1"
    gossamer: str = field(default_factory=lambda: version("gossamer"))
    name: str
    network: Network
    storage: Storage
    kind: Kind
    image_shape: tuple[Side, Side, Side]
    classes: Annotated[int, Field(ge=1)]
    class_names: tuple[str, ...] | None = None
    data: Images | None = None
    threat: str | None = None
    dense_weights: Annotated[int, Field(ge=0)]
    nonzero: Annotated[int, Field(ge=0)]
    density: Share
    remarks: tuple[str, ...] = ()
    files: Mapping[str, File] = field(default_factory=dict[str, File], repr=False)


def is_published(path: Path | str) -> bool:
    """Tell whether a path is a published folder: one with a manifest."""
    return (Path(path) / NAME).is_file()


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest with the digests of all files in a folder but the card, and return it."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in found if path.name not in (NAME, CARD)}
    sealed = replace(manifest, files={name: _file(path) for name, path in names.items()})
    records.write(folder / NAME, sealed)
    return sealed


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a folder; raises DataError for a missing, damaged or foreign one, or an unsafe name."""
    path = folder / NAME
    if not path.is_file():
        raise DataError(
            str(folder),
            expected=f"a folder with a {NAME}",
            got="a folder without one" if folder.is_dir() else "no folder",
            remedy="give what `gossamer publish` or `gossamer convert` wrote",
        )
    try:
        if path.stat().st_size > LARGEST:
            raise _damaged(path, "a short record", "a large file")
        manifest = records.read(Manifest, path)
    except (RunError, OSError, RecursionError) as error:
        raise _damaged(path, "the manifest of a published network", " ".join(str(error).split())[:400]) from error
    _check_names(path, manifest)
    return manifest


def verify_files(folder: Path, manifest: Manifest, *, within: Path | None = None) -> None:
    """Raise DataError unless the files that a manifest names are there, unchanged, and no other could stand for them.

    within: the folder that links may point into; by default the published one, out of which none may lead.
    """
    root = (within or folder).resolve()
    for name, expected in manifest.files.items():
        _verify(folder / name, expected, root)
    for path in [*folder.iterdir(), *((folder / "results").iterdir() if (folder / "results").is_dir() else ())]:
        name = path.relative_to(folder).as_posix()
        known = name in manifest.files or name == NAME or path.name.startswith(".")
        if not known and path.suffix.lower() in READ_AS_DATA:
            raise _damaged(path, f"no file beside those that {NAME} names", "one that could be taken for its part")


def check_published(paths: Iterable[Path]) -> None:
    """Raise DataError for a published folder among paths whose files are not those of its manifest."""
    for path in paths:
        if is_published(path):
            verify_files(path, read_manifest(path))


def read_weights(folder: Path, storage: Storage) -> dict[str, Tensor]:
    """Return the tensors of a published network; raises DataError or RunError for a damaged file."""
    path = folder / WEIGHTS
    return sparse_file.read(path) if storage == "sparse" else atomic.read_safetensors(path)


def _check_names(path: Path, manifest: Manifest) -> None:
    for name in manifest.files:
        if not FILES.fullmatch(name):
            raise _damaged(path, f"names of files of a published network, as {WEIGHTS}", repr(name[:200]))
    if WEIGHTS not in manifest.files:
        raise _damaged(path, f"a digest of {WEIGHTS}", f"those of {', '.join(manifest.files) or 'no file'}"[:200])


def _verify(path: Path, expected: File, root: Path) -> None:
    if not path.resolve().is_relative_to(root):
        raise _damaged(path, "a file in the published folder", "a link out of it")
    if not path.is_file():
        raise _damaged(path, "the file that the manifest names", "none")
    size = path.stat().st_size
    if size != expected.bytes:
        raise _damaged(path, f"{expected.bytes:,} bytes, as the manifest says", f"{size:,}")
    got = atomic.sha256(path)
    if got != expected.sha256:
        raise _damaged(path, f"content of SHA-256 {expected.sha256}", got)


def _file(path: Path) -> File:
    return File(bytes=path.stat().st_size, sha256=atomic.sha256(path))


def _damaged(path: Path, expected: str, got: str) -> DataError:
    return DataError(str(path), expected=expected, got=got, remedy="fetch the folder again, or publish it again")
