"""Is a file still what was written? A digest inside of it, for files that may travel without their record."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from gossamer.errors import DataError

KEY = "gossamer.content"
BLANK = "0" * 64
REWRITTEN = (
    f"; or another program rewrote it and kept its entry {KEY}, which is true of the first file alone: remove that "
    "entry if you trust the program"
)
# Two bytes stand between both in a comment of C (": ") and in metadata of ONNX (tag and length).
_SEAL = re.compile(re.escape(KEY.encode()) + rb"..(.{64})", re.DOTALL)


def sealed(data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Return a file's bytes with the digest of themselves and of the files beside it where `KEY` and `BLANK` stand."""
    found = _SEAL.search(data)
    assert found is not None, "a file is written with the place of its seal"
    return data[: found.start(1)] + _digest(data, others) + data[found.end(1) :]


def check_seal(path: Path, others: Sequence[Path] = (), *, required: bool = False) -> None:
    """Raise DataError where a file with a seal, or a file beside it, has other content than it was sealed with.

    required: and where it has none.
    """
    data = path.read_bytes()
    found = _SEAL.search(data)
    if found is None and required:
        raise DataError(
            str(path), expected=f"its own SHA-256, as {KEY}", got="none", remedy="the file was damaged: export it again"
        )
    if found is None:
        return
    blank = data[: found.start(1)] + BLANK.encode() + data[found.end(1) :]
    got = _digest(blank, [other.read_bytes() for other in others])
    if got != found.group(1):
        raise DataError(
            " with ".join([str(path), *(other.name for other in others)]),
            expected=f"content of SHA-256 {found.group(1).decode(errors='replace')}",
            got=got.decode(),
            remedy="the file was damaged: export it again, or fetch it again" + ("" if required else REWRITTEN),
        )


def _digest(data: bytes, others: Sequence[bytes]) -> bytes:
    digest = hashlib.sha256(data)
    for other in others:
        digest.update(hashlib.sha256(other).digest())
    return digest.hexdigest().encode()
