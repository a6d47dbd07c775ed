"""What is in an artifact? One module from images to logits, whatever the kind, and what the file says of itself.

Loading runs no code of the file for the kinds that are data: sparse, onnx, onnx-int8. A C source has to be compiled and
called, and a torch.export program is unpickled: both only where the caller says that the file is trusted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from gossamer.deploy import sparse_file
from gossamer.deploy.about import About, check_files, digests, read_about
from gossamer.deploy.csource import Compiled, Written, compile_c
from gossamer.deploy.csource.emit import NAME
from gossamer.deploy.seal import check_seal
from gossamer.deploy.torch_program import read_torch
from gossamer.deploy.tracing import told
from gossamer.errors import ConfigError, DataError, GossamerError
from gossamer.evaluation.adapters import Foreign, as_module
from gossamer.evaluation.onnx_model import OnnxModel
from gossamer.models.folding import plain_copy

QUANTISED = b"DequantizeLinear"
C_PARTS = (".h", ".blob")


@dataclass(frozen=True, kw_only=True, eq=False)
class Artifact:
    """An opened artifact.

    kind: sparse, c, c-int8, onnx, onnx-int8 or torch; shape: (C, H, W) of an image and classes, None where neither file
    nor record tells; bytes: of all files that belong to it, its record apart; files: their SHA-256 by name, as they
    were opened; about: its record, None where it has none; model: a module from images (N, C, H, W) in [0, 1] to
    logits, with gradients for sparse and torch alone.
    """

    path: Path
    kind: str
    name: str
    shape: tuple[int, int, int] | None
    classes: int | None
    bytes: int
    files: Mapping[str, str]
    about: About | None
    model: nn.Module = field(repr=False)


class CompiledModel(Foreign):
    """A compiled C artifact: on the CPU, without gradients, in as many threads as torch uses."""

    def __init__(self, compiled: Compiled, label: str) -> None:
        super().__init__(label)
        self.compiled = compiled

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K) for x: (N, C, H, W) in [0, 1]; raises DataError for another shape."""
        return self.compiled(x, threads=torch.get_num_threads()).to(x.device)


def open_artifact(path: Path | str, *, module: nn.Module | None = None, trust: bool = False) -> Artifact:
    """Open an artifact of any kind; its kind is that of its record, or else of its suffix and content.

    module: the network of a sparse file that names none, copied; one that names its own opens as that. trust: that
    whoever wrote a .c or .pt2 file may run code here. Raises ConfigError for another suffix, without trust where it is
    needed, and where a package or a compiler is missing, DataError for a file that is missing, damaged or changed since
    its record was written, RunError where a .c file cannot be compiled, for want of a temporary folder say.
    """
    path = Path(path)
    check_artifact(path)
    about = read_about(path)
    if about is not None:
        check_files(path, about)
    try:
        # A record's digests have just been found true.
        files = digests(files_of(path)) if about is None else about.files
        model = READERS[path.suffix](Request(path=path, module=module, trust=trust))
    except GossamerError:
        raise
    except (AttributeError, OSError, RuntimeError, ValueError) as error:
        raise DataError(
            str(path),
            expected="a whole artifact",
            got=f"{type(error).__name__}: {told(error)}",
            remedy="export it again",
        ) from error
    return Artifact(
        path=path,
        kind=about.kind if about is not None else kind_of(path),
        name=path.stem,
        shape=about.shape if about is not None else shape_of(model),
        classes=about.classes if about is not None else classes_of(model),
        bytes=about.bytes if about is not None else sum(each.stat().st_size for each in files_of(path)),
        files=files,
        about=about,
        model=model,
    )


def check_artifact(path: Path) -> None:
    """Raise ConfigError for a path that by its suffix is no artifact, DataError for one where no file is."""
    if path.suffix not in READERS:
        raise ConfigError(
            str(path),
            expected=f"an artifact: a file with {', '.join(READERS)}",
            got=f"one with {path.suffix!r}" if path.suffix else "a name without a suffix",
            remedy="give what `gossamer export` wrote",
        )
    if not path.is_file():
        raise DataError(str(path), expected="an artifact", got="no file", remedy="check the path")


def is_artifact(path: Path) -> bool:
    """Tell whether a path names a file of an artifact, by its suffix."""
    return path.suffix in READERS and not path.is_dir()


def kind_of(path: Path) -> str:
    """Return the kind of an artifact that has no record, by suffix and content; raises what `check_artifact` does."""
    check_artifact(path)
    if path.suffix == ".onnx":
        return "onnx-int8" if QUANTISED in path.read_bytes() else "onnx"
    return {".safetensors": "sparse", ".c": "c", ".pt2": "torch"}[path.suffix]


def files_of(path: Path) -> list[Path]:
    """Return the files that belong to an artifact, itself first: of C source the header, and constants it asks for."""
    if path.suffix != ".c":
        return [path]
    header, blob = (path.with_suffix(suffix) for suffix in C_PARTS)
    beside = [header] if header.is_file() else []
    return [path, *beside, *([blob] if _has_blob(path, header) and blob.is_file() else [])]


def _has_blob(path: Path, header: Path) -> bool:
    """Tell whether a C source has its constants beside it: with them inside it takes no blob, whatever lies there."""
    return header.is_file() and f"{path.stem}_set_blob" in header.read_text(encoding="utf-8", errors="replace")


def shape_of(model: nn.Module) -> tuple[int, int, int] | None:
    """Return (C, H, W) of the images that a model without a record takes, None where it does not tell."""
    shape = model.compiled.shape if isinstance(model, CompiledModel) else None
    if isinstance(model, OnnxModel):
        shape = model.shape[1:]
    if shape is None or not all(isinstance(side, int) for side in shape):
        return None
    channels, rows, columns = (int(side) for side in shape if side is not None)
    return channels, rows, columns


def classes_of(model: nn.Module) -> int | None:
    """Return how many logits a model without a record gives, None where it does not tell."""
    return model.compiled.classes if isinstance(model, CompiledModel) else None


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """What a reader needs to open a file."""

    path: Path
    module: nn.Module | None
    trust: bool


def _read_sparse(request: Request) -> nn.Module:
    named = sparse_file.about(request.path).header.network is not None
    if request.module is None or named:
        return sparse_file.rebuild(request.path).requires_grad_(False)
    return sparse_file.load(request.path, plain_copy(request.module)).requires_grad_(False)


def _read_onnx(request: Request) -> nn.Module:
    check_seal(request.path)
    return OnnxModel(request.path)


def _read_torch(request: Request) -> nn.Module:
    return as_module(read_torch(request.path, trust=request.trust))


def _read_c(request: Request) -> nn.Module:
    path = request.path
    if not request.trust:
        raise ConfigError(
            str(path),
            expected="a word that you trust it: a C source is compiled and then runs here",
            got="none",
            remedy="write --trust (trust=True) if you made the file",
        )
    if not NAME.fullmatch(path.stem):
        raise DataError(
            str(path), expected="the name that it was exported with", got=path.stem, remedy="export it again"
        )
    header, blob = (path.with_suffix(suffix) for suffix in C_PARTS)
    if not header.is_file():
        raise DataError(str(path), expected=f"{header.name} beside it", got="no file", remedy="export it again")
    beside = _has_blob(path, header)
    if beside and not blob.is_file():
        raise DataError(str(path), expected=f"{blob.name} beside it", got="no file", remedy="export it again")
    check_seal(path, [header, blob] if beside else [header], required=True)
    written = Written(source=path, header=header, blob=blob if beside else None)
    return CompiledModel(compile_c(written, openmp=torch.get_num_threads() > 1), path.stem)


READERS: Mapping[str, Callable[[Request], nn.Module]] = {
    ".safetensors": _read_sparse,
    ".c": _read_c,
    ".onnx": _read_onnx,
    ".pt2": _read_torch,
}
"""What opens a file, by its suffix."""
