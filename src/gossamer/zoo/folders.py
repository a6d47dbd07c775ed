"""How does a folder come to be, whole or not at all? Filled beside its place, then moved there."""

import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from gossamer.deploy.published import NAME, is_published
from gossamer.errors import ConfigError
from gossamer.runs import atomic


@contextmanager
def written_whole(folder: Path, *, force: bool) -> Generator[Path]:
    """Give a folder to fill, which takes the place of `folder` at the end; nothing is left where filling it fails.

    force: let it replace a published folder. Raises ConfigError where anything else stands in its place.
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
    """Raise ConfigError unless a folder is new, empty, or a published one that may be replaced."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if force and is_published(folder):
        return
    raise ConfigError(
        str(folder),
        expected="a new or empty folder",
        got="a published network" if is_published(folder) else "other files" if folder.is_dir() else "a file",
        remedy=f"name another, or replace it with --force (only a folder with a {NAME} is ever replaced)",
    )


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
