"""Published files on disk: found, or downloaded whole; never believed before their checksum has matched."""

import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch

from gossamer.errors import DataError

_TIMEOUT_S = 30


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A published file: its name, where it is served (mirrors after), and its checksum as "md5:..." or "sha256:..."."""

    name: str
    urls: tuple[str, ...]
    checksum: str


def user_cache() -> Path:
    """Return the folder for downloads and decoded images where none is named: the user's cache."""
    return Path(pooch.os_cache("gossamer"))


def default_data_dir() -> Path:
    """Return $GOSSAMER_DATA, or else the user's cache."""
    named = os.environ.get("GOSSAMER_DATA")
    return Path(named).expanduser() if named else user_cache()


def find(name: str, folders: Sequence[Path]) -> Path | None:
    """Return the file of that name in the first folder that has it."""
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def read_checked(path: Path, checksum: str) -> bytes:
    """Return the bytes of a file once their checksum matched; raises DataError otherwise."""
    content = path.read_bytes()
    algorithm, _, _ = checksum.partition(":")
    _compare(path, checksum, f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")
    return content


def check_file(path: Path, checksum: str) -> None:
    """Compare a file's checksum with the published one; raises DataError."""
    _compare(path, checksum, checksum_like(path, checksum))


def checksum_like(path: Path, checksum: str) -> str:
    """Return the checksum of a file by the algorithm, and in the form, of a published one."""
    algorithm, _, _ = checksum.partition(":")
    with path.open("rb") as stream:
        return f"{algorithm}:{hashlib.file_digest(stream, algorithm).hexdigest()}"


def find_or_fetch(
    file: RemoteFile, folders: Sequence[Path], *, download: bool = True, base_url: str | None = None
) -> Path:
    """Return where the file lies; if in none of the folders, download it into the first.

    A downloaded file appears under its name only when it is whole and its checksum has matched; one that was
    found is for the caller to check. base_url: a server to ask instead of the published ones. Raises DataError.
    """
    found = find(file.name, folders)
    if found is not None:
        return found
    if not download:
        raise missing(file.name, folders, "not found, and downloading is off")
    urls = file.urls if base_url is None else (f"{base_url}/{file.name}",)
    failures: list[str] = []
    for url in urls:
        try:
            return _download(url, file, folders[0])
        except (OSError, ValueError) as error:
            failures.append(f"{url}: {error}")
    raise missing(file.name, folders, f"no download ({'; '.join(failures)})")


def missing(name: str, folders: Sequence[Path], got: str) -> DataError:
    """Return the error for a file that is neither there nor to be had."""
    return DataError(
        f"{name} in {' or '.join(str(folder) for folder in folders)}",
        expected="the official file",
        got=got,
        remedy="put the file there, or name the folder that has it with --data-dir or GOSSAMER_DATA",
    )


def _download(url: str, file: RemoteFile, folder: Path) -> Path:
    # pooch's own protocol names the parameters of a downloader otherwise than its downloaders do.
    downloader: Any = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=_TIMEOUT_S)
    return Path(pooch.retrieve(url, known_hash=file.checksum, fname=file.name, path=folder, downloader=downloader))


def _compare(path: Path, expected: str, got: str) -> None:
    if got != expected:
        raise DataError(
            str(path),
            expected=f"the published checksum {expected}",
            got=got,
            remedy="delete the file and download it again",
        )
