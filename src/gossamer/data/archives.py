"""Unpacking a published archive: refused as a whole if any member could land elsewhere, whole or not at all."""

import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from gossamer.errors import DataError


@dataclass(frozen=True)
class _Member:
    name: str
    plain: bool


def extract(archive: Path, folder: str, *, into: Path) -> Path:
    """Unpack `folder` of a .tar.gz or .zip into the directory `into` and return its path there.

    Everything goes to a temporary sibling first, and one rename puts it in place. Raises DataError on a damaged
    archive, and on absolute paths, "..", links and devices inside it.
    """
    target = into / folder
    try:
        # Hidden beside the target, so that the rename stays within one file system.
        with tempfile.TemporaryDirectory(prefix=f".{folder}-", dir=into) as scratch:
            _unpack(archive, Path(scratch))
            _put_in_place(Path(scratch) / folder, target, archive)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, OSError) as error:
        raise DataError(
            str(archive),
            expected="a whole archive and a writable folder",
            got=error,
            remedy="delete the archive and download it again, or name another folder with --data-dir",
        ) from error
    return target


def _unpack(archive: Path, scratch: Path) -> None:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as opened:
            _check_members(archive, _zip_members(opened))
            opened.extractall(scratch)
        return
    with tarfile.open(archive) as opened:
        members = opened.getmembers()
        _check_members(archive, (_Member(m.name, m.isreg() or m.isdir()) for m in members))
        opened.extractall(scratch, members=members, filter="data")


def _zip_members(opened: zipfile.ZipFile) -> Iterator[_Member]:
    for info in opened.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        yield _Member(info.filename, kind in {0, stat.S_IFREG, stat.S_IFDIR})


def _check_members(archive: Path, members: Iterable[_Member]) -> None:
    for member in members:
        path = PurePosixPath(member.name)
        outside = path.is_absolute() or ".." in path.parts or PureWindowsPath(member.name).drive
        if outside or "\\" in member.name or not member.plain:
            raise DataError(
                str(archive),
                expected="plain files and folders below one folder",
                got=f"the member {member.name!r}",
                remedy="use the official archive",
            )


def _put_in_place(unpacked: Path, target: Path, archive: Path) -> None:
    if not unpacked.is_dir():
        raise DataError(
            str(archive), expected=f"a folder {unpacked.name}", got="none", remedy="use the official archive"
        )
    if target.is_dir():
        # Another process was faster, and what it put there is whole.
        shutil.rmtree(unpacked)
        return
    unpacked.rename(target)
