"""How are files of a store read and written? Under names, whole or not at all, in a folder or where fsspec reaches."""

import contextlib
import functools
import os
import posixpath
import secrets
import shutil
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gossamer.errors import ConfigError, RunError
from gossamer.runs import atomic


class Files(Protocol):
    """Files by name, such as phases/KEY/record.json; a write is there whole, or not at all."""

    def put(self, source: Path, name: str) -> None:
        """Store a local file; raises RunError where it is refused."""
        ...

    def get(self, name: str, target: Path) -> None:
        """Give a stored file a local path; raises RunError where there is none."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Store bytes; raises RunError where they are refused."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a file, None where there is none."""
        ...

    def folders(self, name: str) -> list[str]:
        """Return the names of the folders within a folder, sorted."""
        ...

    def within(self, name: str) -> list[str]:
        """Return the names of all files within a folder and its folders, from there on, sorted."""
        ...

    def remove(self, name: str) -> None:
        """Remove a folder and all in it, where there is one."""
        ...


def files_at(root: str | Path) -> Files:
    """Return the files of a folder, or of a URL such as s3://bucket/sweep."""
    text = str(root).removeprefix("file://")
    return RemoteFiles(text) if "://" in text else LocalFiles(Path(text))


@dataclass(frozen=True)
class LocalFiles:
    """Files in a folder that every worker sees.

    A file is stored and given away as a hard link where the file system has them, so that a state of one phase takes
    its room once, however many runs go on from it: who has one may replace it, and must never write into it.
    """

    root: Path

    def put(self, source: Path, name: str) -> None:
        """Store a local file."""
        _share(source, self.root / name)

    def get(self, name: str, target: Path) -> None:
        """Give a stored file a local path."""
        if not (self.root / name).is_file():
            raise _missing(str(self.root / name))
        _share(self.root / name, target)

    def write(self, name: str, data: bytes) -> None:
        """Store bytes."""
        atomic.write_bytes(self.root / name, data)

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a file, None where there is none."""
        path = self.root / name
        return path.read_bytes() if path.is_file() else None

    def folders(self, name: str) -> list[str]:
        """Return the names of the folders within a folder."""
        path = self.root / name
        return sorted(each.name for each in path.iterdir() if each.is_dir()) if path.is_dir() else []

    def within(self, name: str) -> list[str]:
        """Return the names of all files within a folder and its folders, from there on."""
        # What a worker removes meanwhile is no error to os.walk.
        found = (Path(place, each) for place, _, names in os.walk(self.root / name) for each in names)
        return sorted(path.relative_to(self.root / name).as_posix() for path in found)

    def remove(self, name: str) -> None:
        """Remove a folder and all in it, where there is one."""
        shutil.rmtree(self.root / name, ignore_errors=True)


class StoreError(RunError):
    """A store elsewhere that did not answer, or refused; it may answer later."""


@dataclass(frozen=True)
class RemoteFiles:
    """Files under a URL."""

    url: str

    def put(self, source: Path, name: str) -> None:
        """Store a copy of a local file."""
        self.write(name, source.read_bytes())

    def get(self, name: str, target: Path) -> None:
        """Copy a stored file to a local path."""
        data = self.read(name)
        if data is None:
            raise _missing(self._at(name))
        atomic.write_bytes(target, data)

    def write(self, name: str, data: bytes) -> None:
        """Store bytes."""
        path = self._at(name)
        # Not every store shows an object whole or not at all; a move does.
        temporary = f"{path}.{secrets.token_hex(4)}.tmp"
        with self._refusals_told(path):
            self._system.makedirs(posixpath.dirname(path), exist_ok=True)
            try:
                self._system.pipe_file(temporary, data)
                self._move(temporary, path, data)
            except BaseException:
                with contextlib.suppress(OSError):
                    self._system.rm(temporary)
                raise

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a file, None where there is none."""
        path = self._at(name)
        with self._refusals_told(path, "read"):
            try:
                return self._system.cat_file(path)
            except FileNotFoundError:
                return None

    def folders(self, name: str) -> list[str]:
        """Return the names of the folders within a folder."""
        path = self._at(name)
        with self._refusals_told(path, "read"):
            try:
                found: list[dict[str, Any]] = self._system.ls(path, detail=True)
            except FileNotFoundError:
                return []
        return sorted(posixpath.basename(each["name"].rstrip("/")) for each in found if each["type"] == "directory")

    def within(self, name: str) -> list[str]:
        """Return the names of all files within a folder and its folders, from there on, by one listing."""
        path = self._at(name)
        with self._refusals_told(path, "read"):
            # A listing that is remembered lacks what other machines have written since.
            self._system.invalidate_cache()
            try:
                found: list[str] = self._system.find(path)
            except FileNotFoundError:
                return []
        return sorted(each.removeprefix(f"{path}/") for each in found)

    def remove(self, name: str) -> None:
        """Remove a folder and all in it, where there is one."""
        path = self._at(name)
        with self._refusals_told(path, "removal"), contextlib.suppress(FileNotFoundError):
            self._system.rm(path, recursive=True)

    def _move(self, temporary: str, path: str, data: bytes) -> None:
        self._system.mv(temporary, path)
        # Some stores move nothing onto what is there, and do not say so.
        if not self._system.exists(temporary):
            return
        if self._system.cat_file(path) == data:
            with contextlib.suppress(FileNotFoundError):
                self._system.rm(temporary)
            return
        self._system.rm(path)
        self._system.mv(temporary, path)
        if self._system.cat_file(path) != data:
            raise OSError("a move that did nothing")

    @contextlib.contextmanager
    def _refusals_told(self, path: str, what: str = "write") -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                path,
                expected=f"a store that takes the {what}",
                got=str(error),
                remedy="mend the cause, and run it again",
            ) from error

    @functools.cached_property
    def _system(self) -> Any:
        return self._found[0]

    def _at(self, name: str) -> str:
        return posixpath.join(self._found[1], name)

    @functools.cached_property
    def _found(self) -> tuple[Any, str]:
        import fsspec  # noqa: PLC0415  (slow to import, needed for remote stores alone)

        try:
            return fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                "--store", expected="a folder, or a URL that fsspec reaches", got=self.url, remedy=str(error)
            ) from error


def _share(source: Path, target: Path) -> None:
    atomic.make_directory(target.parent)
    try:
        os.link(source, target)
    except OSError:
        atomic.copy(source, target)
        return
    with atomic.refusals_told(target):
        atomic.sync(target)
        atomic.sync(target.parent)


def _missing(name: str) -> RunError:
    return RunError(
        name, expected="a stored file", got="none", remedy="remove its phase from the store: it is trained again"
    )
