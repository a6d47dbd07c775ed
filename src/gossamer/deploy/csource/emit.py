"""How is a network written as C? Fixed kernels, its constants, and the tables and calls of two plans.

The plan "block" computes 8 images at a time, side by side; the plan "single" one.
"""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from gossamer.deploy.csource.constants import VERSION, Values, packed
from gossamer.deploy.csource.layout import Layout, place
from gossamer.deploy.csource.lowering import lower
from gossamer.deploy.csource.program import Program, Weighted
from gossamer.deploy.csource.tables import Constants, collect, plan_text, uses
from gossamer.deploy.csource.templates import filled, template
from gossamer.deploy.graph import Graph
from gossamer.deploy.seal import BLANK, KEY, sealed
from gossamer.errors import ConfigError
from gossamer.runs import atomic

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
UNITS: Mapping[str, int] = {"single": 1, "block": 8}
SINGLES = 4
"""Images left over that are faster one by one than as a block with empty places."""
WORTH_A_THREAD = 6_000_000
"""Multiply-adds of one image for which a further thread is worth waiting for at every layer."""
MOST_THREADS = 1024
LITERAL = 4095
"""Bytes of one string: the most that every C99 compiler takes."""
LARGEST = 2**31 - 1
USE = "#define USE_"
_ROUNDED = re.compile(rf"^{USE}\w+_CODES$".encode(), re.MULTILINE)

SET_BLOB = """
/* Hands over the contents of @NAME@.blob, which must stay in memory. To be called once, before anything else. */
int @NAME@_set_blob(const void *data, size_t size);
"""


@dataclass(frozen=True, kw_only=True)
class Written:
    """The files of one network. blob: None where the constants are in the source."""

    source: Path
    header: Path
    blob: Path | None


def is_rounded(source: Path) -> bool:
    """Tell whether a C source computes a layer with weights that were rounded to int8."""
    return _ROUNDED.search(source.read_bytes()) is not None


def write_c(
    graph: Graph,
    folder: Path,
    name: str,
    *,
    values: Values = "float32",
    blob: bool = False,
    singles: int = SINGLES,
    worth_a_thread: int = WORTH_A_THREAD,
) -> Written:
    """Write NAME.c and NAME.h, a network in C99 that needs no library, into a folder.

    values: how weights are stored; with "signs" layers whose channels have weights of one magnitude, the others as
    float32. blob: the constants in NAME.blob instead, which the caller reads and hands over. singles: the number of
    images, 1 to 7, up to which the remainder after blocks of 8 is computed one by one. worth_a_thread: multiply-adds of
    one image for which a further thread shares it. Raises ConfigError for a name that is no identifier of C, and for a
    network that C cannot express, naming the node; RunError where the file system refuses.
    """
    _check(name, singles)
    program = lower(graph)
    layouts = {plan: place(program, unit) for plan, unit in UNITS.items()}
    constants = collect(program, values, layouts["block"])
    _check_size(constants, layouts)
    words = _words(program, layouts, constants, name, singles)
    words["SHARED"] = str(min(max(_products(program) // worth_a_thread, 1), MOST_THREADS))
    plans = [plan_text(program, constants, layout, plan) for plan, layout in layouts.items()]
    parts = [
        f"/* {KEY}: {BLANK} (SHA-256 of this file with zeros here, and of those beside it) */\n",
        f'#include "{name}.h"\n',
        *(f"{USE}{use.upper()}" for use in uses(program, constants)),
        template("kernels.c").replace("@KEPT_CONSTANTS@", _kept(constants.data, blob=blob)),
        *plans,
        template("entry.c"),
    ]
    written = Written(
        source=folder / f"{name}.c", header=folder / f"{name}.h", blob=folder / f"{name}.blob" if blob else None
    )
    header = template("header.h").replace("@SET_BLOB@", SET_BLOB if blob else "")
    beside = {written.header: filled(header, words).encode("ascii")}
    if written.blob is not None:
        beside[written.blob] = packed(constants.data)
    source = sealed(filled("\n".join(parts), words).encode("ascii"), [*beside.values()])
    with atomic.refusals_told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for path, data in {**beside, written.source: source}.items():
            path.write_bytes(data)
    return written


def _check(name: str, singles: int) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError(
            "name of a C file",
            expected="letters, digits and underscores, a letter first, at most 63",
            got=repr(name),
            remedy="name it for example robust_resnet18",
        )
    if not 1 <= singles < UNITS["block"]:
        raise ConfigError(
            "singles", expected=f"a number from 1 to {UNITS['block'] - 1}", got=singles, remedy="leave it out"
        )


def _check_size(constants: Constants, layouts: Mapping[str, Layout]) -> None:
    largest = max(len(constants.data), *(4 * layout.floats for layout in layouts.values()))
    if largest > LARGEST:
        raise ConfigError(
            "export to C",
            expected="constants and maps of at most 2 GiB each",
            got=f"{largest:,} bytes",
            remedy="export a smaller network, or smaller images",
        )


def _words(
    program: Program, layouts: Mapping[str, Layout], constants: Constants, name: str, singles: int
) -> dict[str, str]:
    channels, rows, columns = program.maps[program.input]
    numbers = {
        "CHANNELS": channels,
        "ROWS": rows,
        "COLUMNS": columns,
        "CLASSES": prod(program.maps[program.output]),
        "SINGLE": layouts["single"].floats,
        "BLOCK": layouts["block"].floats,
        "SINGLES": singles,
        "UNIT": UNITS["block"],
        "BLOB": len(constants.data),
        "CHECKSUM": zlib.crc32(constants.data),
        "VERSION": VERSION,
    }
    shape = f"{channels}x{rows}x{columns}"
    return {
        "NAME": name,
        "UPPER": name.upper(),
        "SHAPE": shape,
        **{word: str(number) for word, number in numbers.items()},
    }


def _products(program: Program) -> int:
    """Return the multiply-adds of kept weights for one image."""
    steps = [step for step in program.steps if isinstance(step, Weighted)]
    cells = {step.target: prod(program.maps[step.target][1:]) for step in steps}
    return sum(int(np.count_nonzero(step.weight)) * cells[step.target] for step in steps)


def _kept(data: bytes, *, blob: bool) -> str:
    if blob:
        return template("beside.c")
    rows = [data[first : first + LITERAL] for first in range(0, len(data), LITERAL)]
    literals = ",\n".join(_literal(row) for row in rows)
    text = template("inside.c").replace("@LITERALS@", str(len(rows))).replace("@LITERAL@", str(LITERAL))
    return text.replace("@ROWS_OF_BLOB@", literals)


def _literal(row: bytes) -> str:
    """Return bytes as one string of C; octal escapes are as short as what follows allows."""
    digits = b"01234567"
    following = (*row[1:], 0)
    texts = [(_BEFORE_DIGIT if after in digits else _ALONE)[byte] for byte, after in zip(row, following, strict=True)]
    return f'"{"".join(texts)}"'


def _plain(byte: int) -> bool:
    # Not `?`, of which two begin a trigraph, nor `@`, which begins a word that is filled in.
    return 32 <= byte < 127 and chr(byte) not in '"\\?@'


_ALONE = [chr(byte) if _plain(byte) else f"\\{byte:o}" for byte in range(256)]
_BEFORE_DIGIT = [chr(byte) if _plain(byte) else f"\\{byte:03o}" for byte in range(256)]
