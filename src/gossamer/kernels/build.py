"""How does a C file of this room become a loaded library? By the user's own compiler, once for each machine.

A library lies in a cache folder under a name made of a key and of its own digest. The key is a hash of the source, the
compiler's version, the flags and the processor's features, so that nothing stale and nothing built for another machine
is loaded; the digest shows a file that was cut short. Files appear by an atomic rename: processes that build the same
library at once each write their own and end with the same name.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gossamer.errors import ConfigError

COMPILERS = ("cc", "gcc", "clang")
OPTIMISE = ("-O3", "-ffp-contract=fast", "-shared", "-fPIC", "-pthread")
MISSING = "install gcc or clang, or name one in the environment variable CC"
REMEDY = "install gcc or clang, name one in the environment variable CC, or leave machine.compile out"
DIGEST = 32


def load(source: Path, flags: Sequence[str] = ()) -> ctypes.CDLL:
    """Return the library of a C file, compiled for this processor where the cache has none; flags: further ones.

    Raises ConfigError where there is no compiler, where it refuses the file, and where the cache cannot be written.
    """
    command = compiler("machine.compile", REMEDY)
    options = (*OPTIMISE, native(), *flags)
    text = source.read_bytes()
    key = _digest(text, _version(command), " ".join(options), _processor())
    found = _cached(source.stem, key)
    return ctypes.CDLL(str(found or _build(source, key, [*command, *options])))


def cache_folder() -> Path:
    """Return where libraries are kept: GOSSAMER_KERNELS, or gossamer/kernels in the user's cache folder."""
    if chosen := os.environ.get("GOSSAMER_KERNELS"):
        return Path(chosen)
    if sys.platform == "darwin":
        home = Path.home() / "Library" / "Caches"
    else:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "gossamer" / "kernels"


def compiler(subject: str = "C compiler", remedy: str = MISSING) -> list[str]:
    """Return the user's compiler: that of the environment variable CC, or the first there is.

    Raises ConfigError, which speaks of the subject and says the remedy, where there is none.
    """
    named = shlex.split(os.environ.get("CC", ""))
    for command in [named] if named else [[name] for name in COMPILERS]:
        if shutil.which(command[0]):
            return command
    got = f"no {' '.join(named) if named else ', '.join(COMPILERS)} on the path"
    raise ConfigError(subject, expected="a C compiler", got=got, remedy=remedy)


def native() -> str:
    """Return the compiler's flag for the processor of this machine."""
    return "-mcpu=native" if platform.machine().lower() in ("arm64", "aarch64") else "-march=native"


def _version(compiler: Sequence[str]) -> str:
    shown = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=False)
    return f"{shlex.join(compiler)} {shown.stdout}"


def _processor() -> str:
    features = ""
    about = Path("/proc/cpuinfo")
    if about.exists():
        lines = about.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}
        features = "\n".join(sorted(kept))
    return f"{platform.machine()} {platform.processor()} {features}"


def _digest(*parts: bytes | str) -> str:
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "big") + data)
    return state.hexdigest()[:DIGEST]


def _cached(stem: str, key: str) -> Path | None:
    for path in sorted(cache_folder().glob(f"{stem}-{key}-*.so")):
        if path.stem.endswith(_digest(path.read_bytes())):
            return path
        path.unlink(missing_ok=True)
    return None


def _build(source: Path, key: str, command: Sequence[str]) -> Path:
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder, prefix="building-") as scratch:
            made = Path(scratch) / "library.so"
            _compile([*command, str(source), "-o", str(made)])
            path = folder / f"{source.stem}-{key}-{_digest(made.read_bytes())}.so"
            made.replace(path)
    except OSError as error:
        raise ConfigError(
            "the cache of compiled kernels",
            expected="a folder that can be written",
            got=f"{folder}: {error}",
            remedy="name another in the environment variable GOSSAMER_KERNELS, or leave machine.compile out",
        ) from error
    return path


def _compile(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ConfigError("machine.compile", expected="a C compiler that takes our C", got=lines[0], remedy=REMEDY)
