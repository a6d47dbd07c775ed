"""How is a file written so that it is there wholly or not at all? A temporary sibling, fsync, rename."""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from gossamer.errors import RunError

_AGAIN = "then run the same command again"
_REMEDIES = {
    errno.ENOSPC: f"free space, {_AGAIN}",
    errno.EDQUOT: f"free space in your quota, {_AGAIN}",
    errno.EFBIG: f"raise the limit on file sizes, {_AGAIN}",
    errno.EACCES: f"make the folder writable, {_AGAIN}",
    errno.EPERM: f"make the folder writable, {_AGAIN}",
    errno.EROFS: f"make the file system writable, {_AGAIN}",
}
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
_OS_ERROR = re.compile(r"os error (\d+)")


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, atomically and durably; raises RunError where the file system refuses."""
    _replace(path, lambda temporary: temporary.write_bytes(data))


def write_text(path: Path, text: str) -> None:
    """Write `text` in UTF-8 to `path`, atomically and durably; raises RunError where the file system refuses."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """Write `value` as standard JSON, atomically; raises ValueError for NaN or infinity, which JSON has not."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> None:
    """Write named tensors, atomically; ones that share memory are stored apart, each in row-major order.

    about: texts kept in the file's header, for `read_about`.
    """
    apart, header = _apart(tensors), dict(about) if about else None
    _replace(path, lambda temporary: save_file(apart, temporary, header))


def copy(source: Path, target: Path) -> None:
    """Copy a file, atomically and durably; raises RunError where the file system refuses."""
    _replace(target, lambda temporary: shutil.copyfile(source, temporary))


def read_json(path: Path) -> Any:
    """Return the value of a JSON file; raises RunError if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error


def read_safetensors(path: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Return the tensors of a file, each in memory of its own; raises RunError if it is missing or damaged."""
    try:
        # Mapped tensors are aligned as the file has them; copies are aligned as the allocator does, as in training.
        return {name: tensor.clone() for name, tensor in load_file(path, device=str(device)).items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def read_about(path: Path) -> dict[str, str]:
    """Return the texts in the header of a file of tensors; raises RunError if it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, ValueError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_directory(path: Path) -> None:
    """Make a directory and its parents, durably; raises RunError where the file system refuses."""
    with refusals_told(path):
        if path.is_dir():
            return
        path.mkdir(parents=True, exist_ok=True)
        sync(path.parent)


def sync(path: Path) -> None:
    """Bring a file, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_temporary(path: Path) -> bool:
    """Tell whether a file is the leftover of a write that was killed."""
    return _TEMPORARY.fullmatch(path.name) is not None


@contextmanager
def refusals_told(path: Path) -> Generator[None]:
    """Turn a refusal of the file system to write `path` into a RunError with a remedy."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = _error_number(error)
        raise RunError(
            str(path),
            expected="a file system that takes the write",
            got=os.strerror(number) if number else str(error),
            remedy=_REMEDIES.get(number, f"mend the cause, {_AGAIN}"),
        ) from error


def _replace(path: Path, fill: Callable[[Path], object]) -> None:
    make_directory(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with refusals_told(path):
        try:
            fill(temporary)
            sync(temporary)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    apart: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        storage = own.untyped_storage()
        if storage.data_ptr() in taken or storage.nbytes() != own.nbytes:
            own = own.clone()
        taken.add(own.untyped_storage().data_ptr())
        apart[name] = own
    return apart


def _error_number(error: OSError | SafetensorError) -> int:
    if isinstance(error, OSError):
        return error.errno or 0
    # The library writes in Rust and passes the number on in its message alone.
    found = _OS_ERROR.search(str(error))
    return int(found[1]) if found else 0


def _unreadable(path: Path, error: Exception) -> RunError:
    missing = isinstance(error, FileNotFoundError)
    return RunError(
        str(path),
        expected="a complete file",
        got="no file" if missing else f"a damaged or unreadable one ({error})",
        remedy="run the command that writes it again, or put the file back",
    )
