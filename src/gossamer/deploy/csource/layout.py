"""Where does every map of a program lie in the arena? One rule for both plans, which differ in the unit of a cell.

A cell is `unit` floats: one image, or 8 images side by side. A plane is its rows one behind the other, with a gap
behind each that serves as the margin on its right and on the left of the next, and margins before and behind them all.
So a cell and its neighbour are the same number of floats apart all over a map, and a weighted sum over a plane is one
run of floats, gaps included; their values are wrong, and are set to zero afterwards where anyone reads them. To that
end maps that one step both reads and writes have rows of the same length.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gossamer.deploy.csource.program import Cells, Program, Weighted, sources

LINE = 16
"""Floats of a cache line; also how far a step may read behind the last plane of a map."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A map in the arena, in floats. at: of its first cell; before, behind: margins of a plane that must be zero."""

    at: int
    plane: int
    row: int
    before: int
    behind: int
    cells: Cells


@dataclass(frozen=True, kw_only=True)
class Layout:
    """All maps of one plan. floats: what its part of the arena takes."""

    unit: int
    maps: Mapping[str, Place]
    floats: int

    def offset(self, step: Weighted, index: int) -> int:
        """Return how many floats lie from a cell that is made to what the index-th weight of a window reads."""
        source, read = self.maps[step.source], step.reads[index]
        return read.phase * source.plane + read.row * source.row + read.column * self.unit


def place(program: Program, unit: int) -> Layout:
    """Return where all maps lie when a cell is `unit` floats."""
    margins = _margins(program)
    rows = _row_lengths(program, margins)
    shaped = {name: _shape(cells, margins[name], rows[name], unit) for name, cells in program.maps.items()}
    sizes = {name: _floats(shape) for name, shape in shaped.items()}
    starts = _pack(sizes, _lives(program))
    maps = {name: replace(shape, at=starts[name] + shape.at) for name, shape in shaped.items()}
    return Layout(unit=unit, maps=maps, floats=max(starts[name] + sizes[name] for name in maps))


@dataclass
class _Margins:
    above: int = 0
    below: int = 0
    left: int = 0
    right: int = 0


def _margins(program: Program) -> dict[str, _Margins]:
    """Return how far the steps read outside each map, in cells."""
    found = {name: _Margins() for name in program.maps}
    for step in program.steps:
        if not isinstance(step, Weighted):
            continue
        margins, (_, rows, columns) = found[step.source], program.maps[step.source]
        _, made_rows, made_columns = program.maps[step.target]
        for read in step.reads:
            margins.above = max(margins.above, -read.row)
            margins.left = max(margins.left, -read.column)
            margins.below = max(margins.below, read.row + made_rows - rows)
            margins.right = max(margins.right, read.column + made_columns - columns)
    return found


def _row_lengths(program: Program, margins: Mapping[str, _Margins]) -> dict[str, int]:
    """Return the cells from one row of each map to the next: the same for maps that one weighted step connects."""
    groups = {name: {name} for name in program.maps}
    for step in program.steps:
        if not isinstance(step, Weighted) or program.maps[step.target][1] == 1:
            continue
        merged = set().union(*(groups[name] for name in (step.target, *sources(step))))
        for name in merged:
            groups[name] = merged
    needed = {name: cells[2] + max(margins[name].left, margins[name].right) for name, cells in program.maps.items()}
    return {name: _uneven(max(needed[other] for other in group)) for name, group in groups.items()}


def _uneven(length: int) -> int:
    """Return a row length that is no multiple of 16 cells: rows a power of two apart share sets of the cache."""
    return length + 1 if length > LINE and length % LINE == 0 else length


def _shape(cells: Cells, margins: _Margins, row: int, unit: int) -> Place:
    before = (margins.above * row + margins.left) * unit
    behind = (margins.below * row + margins.right) * unit
    run = ((cells[1] - 1) * row + cells[2]) * unit
    # Room for whole vectors, or half a one, behind the first cell, but for features, of which there are many.
    needed = max(run + behind, _whole_vectors(run) if cells[1] * cells[2] > 1 else 0)
    # The first cell begins a line, so that sums are stored in whole lines, unless all of a plane fits one.
    at = before if before + needed <= LINE else whole_lines(before)
    return Place(at=at, plane=_odd_lines(at + needed), row=row * unit, before=before, behind=behind, cells=cells)


def _odd_lines(floats: int) -> int:
    """Return a plane's size as an odd number of cache lines, so that equal places spread over all sets of the cache."""
    if floats <= LINE // 2:
        return floats
    lines = -(-floats // LINE)
    return (lines + 1 - lines % 2) * LINE


def _floats(shape: Place) -> int:
    return whole_lines(shape.cells[0] * shape.plane + LINE)


def _whole_vectors(floats: int) -> int:
    return LINE // 2 if floats <= LINE // 2 else whole_lines(floats)


def whole_lines(floats: int) -> int:
    """Return as many floats or more, so that they fill cache lines."""
    return -(-floats // LINE) * LINE


def _lives(program: Program) -> dict[str, tuple[int, int]]:
    """Return the first and the last step during which each map is needed."""
    lives = {program.input: (-1, -1)}
    for time, step in enumerate(program.steps):
        for name in (step.target, *sources(step)):
            lives[name] = (lives.get(name, (time, time))[0], time)
    lives[program.output] = (lives[program.output][0], len(program.steps))
    return lives


def _pack(sizes: Mapping[str, int], lives: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """Return the start of each map: largest first, in the smallest gap between maps that live at the same time."""
    starts: dict[str, int] = {}
    for name in sorted(sizes, key=lambda name: (-sizes[name], lives[name])):
        others = sorted(
            (starts[other], starts[other] + sizes[other]) for other in starts if _meet(lives[name], lives[other])
        )
        starts[name] = _best_gap(others, sizes[name])
    return starts


def _meet(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def _best_gap(taken: Sequence[tuple[int, int]], size: int) -> int:
    gaps: list[tuple[int, int]] = []
    free = 0
    for start, end in taken:
        if start - free >= size:
            gaps.append((start - free, free))
        free = max(free, end)
    return min(gaps)[1] if gaps else free
