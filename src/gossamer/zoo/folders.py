"""How does a folder come to be, whole or not at all? Filled beside its place, then moved there."""

import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from gossamer.deploy.published import CARD, NAME, is_published, read_manifest
from gossamer.errors import ConfigError, DataError
from gossamer.runs import atomic


@contextmanager
def written_whole(folder: Path, *, force: bool) -> Generator[Path]:
    """Give a folder to fill, which takes the place of `folder` at the end; nothing is left where filling it fails.

    force: let it replace a published folder. Raises ConfigError where anything else stands in its place, or beside it.
    """
    target = folder.resolve()
    check_place(folder, force=force)
    atomic.make_directory(target.parent)
    filled = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    with atomic.refusals_told(folder):
        filled.mkdir()
    try:
        yield filled
        with atomic.refusals_told(folder):
            _take_place(filled, target)
    finally:
        shutil.rmtree(filled, ignore_errors=True)


def check_place(folder: Path, *, force: bool) -> None:
    """Raise ConfigError unless a folder is new, empty, or a published one, nothing beside it, that may be replaced."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    beside = _beside(folder) if is_published(folder) else []
    if beside:
        raise ConfigError(
            str(folder),
            expected="a published network alone",
            got=f"other files beside it: {', '.join(beside[:5])}",
            remedy="move them away, or name another folder: --force replaces what was published alone",
        )
    if force and is_published(folder):
        return
    raise ConfigError(
        str(folder),
        expected="a new or empty folder",
        got="a published network" if is_published(folder) else "other files" if folder.is_dir() else "a file",
        remedy=f"name another, or replace it with --force (only a folder with a {NAME} is ever replaced)",
    )


def _beside(folder: Path) -> list[str]:
    """Return what lies in a published folder and is no part of it: all but the card where its manifest is damaged."""
    try:
        named = read_manifest(folder).files.keys()
    except DataError:
        named = set[str]()
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if not _is_plain_folder(path)]
    return sorted(name for name in found if name not in {NAME, CARD, *named})


def _is_plain_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _take_place(filled: Path, target: Path) -> None:
    if not target.exists():
        filled.replace(target)
    else:
        aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        target.replace(aside)
        try:
            filled.replace(target)
        except OSError:
            aside.replace(target)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    atomic.sync(target.parent)
