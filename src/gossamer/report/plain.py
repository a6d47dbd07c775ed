"""How does a table stand in a terminal? Aligned columns, the widest of some shortened until it fits."""

import textwrap
from collections.abc import Sequence

GAP = 2
_LEAST = 6


def aligned(
    rows: Sequence[Sequence[str]], *, width: int = 0, indent: int = 0, cut: Sequence[Sequence[int]] = ()
) -> list[str]:
    """Return rows of equally many cells as lines.

    width: of the terminal, 0 for none; cut: groups of columns that may be cut to fit it, the first group first.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for group in cut if width else ():
        _shrink(widths, group, width - indent - GAP * (len(widths) - 1))
    return [_line(row, widths, indent) for row in rows]


def wrapped(text: str, *, width: int = 0, indent: int = 0, first: str = "") -> list[str]:
    """Return a text in lines of at most `width` columns, 0 for one line; first: what its first line begins with."""
    space = " " * indent
    if not width:
        return [f"{space}{first}{text}"]
    return textwrap.wrap(
        text,
        max(width, indent + 20),
        initial_indent=space + first,
        subsequent_indent=space + " " * len(first),
        break_on_hyphens=False,
        break_long_words=False,
    )


def _shrink(widths: list[int], group: Sequence[int], room: int) -> None:
    while sum(widths) > room:
        widest = max(group, key=lambda column: widths[column])
        if widths[widest] <= _LEAST:
            return
        widths[widest] -= 1


def _line(row: Sequence[str], widths: Sequence[int], indent: int) -> str:
    cells = (_cut(cell, width).ljust(width) for cell, width in zip(row, widths, strict=True))
    return (" " * indent + (" " * GAP).join(cells)).rstrip()


def _cut(cell: str, width: int) -> str:
    """Return a cell without its middle where it is too wide: names of runs differ at their ends."""
    end = width // 2
    return cell if len(cell) <= width else f"{cell[: width - end - 1]}…{cell[len(cell) - end :]}"
