"""How does a written network become something that Python can call? By the user's own compiler, in a private folder."""

import contextlib
import ctypes
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gossamer.deploy.csource.emit import Written
from gossamer.deploy.scratch import scratch
from gossamer.errors import DataError, RunError
from gossamer.kernels.build import compiler, native
from gossamer.runs import atomic

OPTIMISE = ("-std=gnu99", "-O3", "-ffp-contract=fast")
ABOUT = """#include "{name}.h"
long long about_{name}(int what, int threads) {{
    const long long numbers[] = {{{upper}_CHANNELS, {upper}_ROWS, {upper}_COLUMNS, {upper}_CLASSES}};
#ifdef _OPENMP
    const long long threaded = 1;
#else
    const long long threaded = 0;
#endif
    return what < 4 ? numbers[what] : what == 4 ? (long long){upper}_ARENA_BYTES(threads) : threaded;
}}
"""


REFUSED = "export it again, name another gcc or clang in CC, or set TMPDIR where the temporary folder is full"


class Compiled:
    """A loaded network, not for two callers at once.

    shape: (C, H, W) of an image; classes: how many logits; threaded: it uses as many threads as it is given.
    """

    def __init__(self, library: ctypes.CDLL, name: str, constants: NDArray[np.uint8] | None) -> None:
        self._run = _function(library, f"{name}_run_threads", "ppnpi")
        self._run_one = _function(library, f"{name}_run", "pp")
        self._about = _function(library, f"about_{name}", "ii", ctypes.c_longlong)
        self._arena = np.empty(0, np.uint8)
        self._constants = constants
        self.shape = (self._about(0, 1), self._about(1, 1), self._about(2, 1))
        self.classes: int = self._about(3, 1)
        self.threaded = bool(self._about(5, 1))
        if constants is not None:
            set_blob = _function(library, f"{name}_set_blob", "ps")
            _check_code(set_blob(constants.ctypes.data, constants.nbytes), f"{name}_set_blob")

    def __call__(self, x: Tensor, *, threads: int = 1) -> Tensor:
        """Return the logits (N, classes) of images (N, C, H, W) in float32. Raises DataError for another shape."""
        return torch.from_numpy(self.run(x.detach().to("cpu", torch.float32).numpy(), threads=threads))

    def run(self, x: NDArray[np.float32], *, threads: int = 1) -> NDArray[np.float32]:
        """Return the logits (N, classes) of images (N, C, H, W). Raises DataError for another shape or type."""
        if x.ndim != 4 or x.shape[1:] != self.shape or len(x) < 1 or x.dtype != np.float32:
            raise DataError(
                "images for a compiled network",
                expected=f"float32 of shape (N, {', '.join(map(str, self.shape))})",
                got=f"{x.dtype} of shape {x.shape}",
                remedy="give a batch of images as the network was exported for",
            )
        x = np.ascontiguousarray(x)
        out = np.empty((len(x), self.classes), np.float32)
        needed = self.arena_bytes(threads)
        if self._arena.nbytes < needed:
            self._arena = np.empty(needed, np.uint8)
        code = self._run(x.ctypes.data, out.ctypes.data, len(x), self._arena.ctypes.data, threads)
        _check_code(code, "a compiled network")
        return out

    def run_one(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits (classes,) of one image (C, H, W), computed in the library's own memory."""
        x, out = np.ascontiguousarray(x, np.float32), np.empty(self.classes, np.float32)
        _check_code(self._run_one(x.ctypes.data, out.ctypes.data), "a compiled network")
        return out

    def arena_bytes(self, threads: int) -> int:
        """Return the bytes of working memory that so many threads need."""
        return self._about(4, threads)


def compile_c(
    written: Written, *, flags: Sequence[str] = (), openmp: bool = False, optimise: Sequence[str] = OPTIMISE
) -> Compiled:
    """Return a written network, compiled for this machine and loaded; flags: further ones of the compiler.

    The library is made in a folder that only this user can read, and deleted once it is loaded. Raises ConfigError
    where there is no compiler, RunError where it refuses the source, and where no such folder can be made or filled.
    """
    name = written.source.stem
    # Copies: the compiler looks beside a source for whatever it includes, and finds these alone.
    copies = {part.name: part.read_bytes() for part in (written.source, written.header)}
    # No network's source has this name: theirs are identifiers.
    copies["about-it.c"] = ABOUT.format(name=name, upper=name.upper()).encode("ascii")
    with scratch() as folder:
        with atomic.refusals_told(folder):
            for part, data in copies.items():
                (folder / part).write_bytes(data)
        made = folder / f"{name}.so"
        options = (*optimise, native(), "-shared", "-fPIC", *flags)
        sources = [folder / part for part in copies if part.endswith(".c")]
        _compile(sources, made, options, openmp=openmp)
        try:
            library = ctypes.CDLL(str(made))
        except OSError as error:
            raise RunError(
                str(folder),
                expected="a folder from which programs may run",
                got=str(error),
                remedy="set TMPDIR to one on a disk that is not mounted noexec",
            ) from error
    constants = None if written.blob is None else np.fromfile(written.blob, np.uint8)
    return Compiled(library, name, constants)


def _compile(sources: Sequence[Path], made: Path, options: Sequence[str], *, openmp: bool) -> None:
    """Compile with OpenMP where it is asked for and there is one; one thread otherwise."""
    if openmp:
        with contextlib.suppress(RunError):
            compile_sources(sources, made, (*options, "-fopenmp"))
            return
    compile_sources(sources, made, options)


def compile_sources(sources: Sequence[Path], made: Path, options: Sequence[str]) -> None:
    """Compile and link C files. Raises ConfigError where there is no compiler, RunError where it refuses them."""
    command = [*compiler(), *options, *map(str, sources), "-o", str(made)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RunError("C compiler", expected="our C to compile", got="\n".join(lines[:5]), remedy=REFUSED)


_TYPES = {"p": ctypes.c_void_p, "n": ctypes.c_long, "i": ctypes.c_int, "s": ctypes.c_size_t}


def _function(library: ctypes.CDLL, name: str, arguments: str, result: Any = ctypes.c_int) -> Any:
    function = getattr(library, name)
    function.argtypes = [_TYPES[argument] for argument in arguments]
    function.restype = result
    return function


def _check_code(code: int, subject: str) -> None:
    if code != 0:
        raise RunError(
            subject,
            expected="code 0",
            got=f"code {code}",
            remedy="see what the header says of the code; a blob of code 3 is damaged: export it again",
        )
