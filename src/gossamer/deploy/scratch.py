"""Where do files lie that are only made on the way? In a private folder, told where the system has no room for one."""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from gossamer.errors import RunError


@contextmanager
def scratch() -> Generator[Path]:
    """Yield a folder of this user alone that is gone afterwards; raises RunError where none can be made."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="gossamer-", ignore_cleanup_errors=True)
    except OSError as error:
        raise RunError(
            "temporary folder",
            expected="one that takes files",
            got=str(error),
            remedy="free space there, or set TMPDIR to a folder that can be written, then run the same command again",
        ) from error
    with folder as path:
        yield Path(path)
