"""How do the weights of a network become constants of a C file? As one run of bytes, and who finds what where in it.

A sparse layer is lists of places and values, one list for each chunk of input channels of each output channel. Lists of
one output channel follow one another, so that a plan whose maps are small reads several as one. A place is two bytes:
the channel above the bits for the place in the window. Where there are more channels than these bytes can tell, they
are counted from the first of the chunk, and lists are read one by one. Output channels stand in the order of how many
weights they keep, so that loops of equal length follow one another. A dense layer is weights only, four output channels
side by side. Values are float32; int8, with a scale for each output channel; or signs, of which only the order tells:
first the lists of all positive, then those of all negative weights.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gossamer.deploy.csource.layout import Layout, whole_lines
from gossamer.deploy.csource.program import Floats, Weighted, refuse
from gossamer.deploy.values import quantise

Values: TypeAlias = Literal["float32", "int8", "signs"]
Coding: TypeAlias = Literal["floats", "codes", "signs"]

ALIGNMENT = 64
PLACE_BITS = 16
GROUP = 4
"""Output channels that stand side by side in a dense layer."""

# The stated cost model, in floats and shares; the caches are those of a small core. Lists that are read as one leave
# more of it to the weights: they are long enough already.
TILE = 96
FIRST_CACHE = 14_000
FIRST_CACHE_TOGETHER = 10_000
SECOND_CACHE = 64_000
WEIGHTS_WORTH_A_CHUNK = 12
# From which share of kept weights on a layer is computed densely, by the most cells of its map: so that no layer takes
# longer than it would densely.
DENSE_FROM = ((1, 0.25), (1 << 30, 0.375))

MAGIC = b"GOSSAMER"
VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Coded:
    """The values of a layer: codes (out, fan-in), times scales (out,)."""

    coding: Coding
    codes: NDArray[Any]
    scales: Floats


class Blob:
    """Bytes that grow; each array begins at a multiple of 64."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, array: NDArray[Any]) -> int:
        """Return where this array begins."""
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        at = self._size
        padded = data + bytes(-len(data) % ALIGNMENT)
        self._parts.append(padded)
        self._size += len(padded)
        return at

    def bytes(self) -> bytes:
        """Return all of it."""
        return b"".join(self._parts)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What C knows of the constants of a weighted step, but for its maps. chunk: input channels of a list.

    kept: weights of an output channel, on average; apart: places count channels from the first of their list.
    values to bias: where they begin among the constants; values is -1 for signs, scale 0 where there is none.
    """

    coding: Coding
    dense: bool
    chunk: int
    kept: float
    apart: bool
    bits: int
    values: int
    places: int
    starts: int
    order: int
    scale: int
    bias: int

    @property
    def kernel(self) -> str:
        """The name of its kernel in C."""
        return f"{'dense' if self.dense else 'sparse'}_{self.coding}"


def layer(step: Weighted, values: Values, blob: Blob, block: Layout) -> Layer:
    """Return the layer of a step, its constants added to the blob. block: the layout that chunks are made for."""
    found = coded(step.weight.reshape(len(step.weight), -1), values, step.name)
    coding, codes = found.coding, found.codes.reshape(step.weight.shape)
    kept = int(np.count_nonzero(codes))
    channels = step.weight.shape[1] * step.groups
    _, rows, columns = block.maps[step.target].cells
    dense = coding != "signs" and is_dense(kept, codes.size, cells=rows * columns, groups=step.groups)
    bits = max(len(step.reads) - 1, 0).bit_length()
    chunk = _chunk(step, block, channels, kept, bits, dense=dense)
    scale, bias = 0 if coding == "floats" else blob.add(found.scales), blob.add(step.bias)
    if dense:
        at = blob.add(_panels(codes, chunk))
        return Layer(
            coding=coding,
            dense=True,
            chunk=chunk,
            kept=kept / len(codes),
            apart=True,
            bits=bits,
            values=at,
            places=0,
            starts=0,
            order=0,
            scale=scale,
            bias=bias,
        )
    apart = channels > 1 << (PLACE_BITS - bits)
    lists = _lists(codes, step.groups, chunk, bits, signs=coding == "signs", apart=apart)
    return Layer(
        coding=coding,
        dense=False,
        chunk=chunk,
        kept=kept / len(codes),
        apart=apart,
        bits=bits,
        values=-1 if coding == "signs" else blob.add(lists.values),
        places=blob.add(lists.places),
        starts=blob.add(lists.starts),
        order=blob.add(lists.order),
        scale=scale,
        bias=bias,
    )


def together(step: Weighted, layer: Layer, layout: Layout) -> int:
    """Return how many lists of an output channel a plan reads as one: those whose cells stay in a cache there too."""
    if layer.apart:
        return 1
    channels = layout.maps[step.source].cells[0] // step.phases
    chunks = -(-channels // layer.chunk)
    most = _channels_worth_reading(step, layout, layer.kept / channels, FIRST_CACHE_TOGETHER) // layer.chunk
    return -(-chunks // -(-chunks // max(most, 1)))


def is_dense(kept: int, weights: int, *, cells: int, groups: int) -> bool:
    """Return whether a layer with so many kept weights and cells in its map is computed with all of its weights."""
    return groups == 1 and kept >= next(share for most, share in DENSE_FROM if cells <= most) * weights


def code_table() -> Floats:
    """Return the value of each of the 256 bytes that an int8 can be."""
    return np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float32)


def packed(data: bytes) -> bytes:
    """Return constants as a file beside the source: magic, version, size, checksum, 64 bytes in all, then the data."""
    head = MAGIC + np.array([VERSION, len(data), zlib.crc32(data)], "<u4").tobytes()
    return head.ljust(ALIGNMENT, b"\0") + data


def coded(weight: Floats, values: Values, name: str) -> Coded:
    """Return how the weight (out, fan-in) of a layer is stored. Raises DataError for weights that are not finite."""
    if values == "float32" or (values == "signs" and not one_magnitude(weight)):
        return Coded(coding="floats", codes=weight, scales=np.ones(len(weight), np.float32))
    quantised = quantise(weight, values, layer=name)
    scales = np.zeros(len(weight), np.float32)
    scales[quantised.codes.any(axis=1)] = quantised.scales
    return Coded(coding="codes" if values == "int8" else "signs", codes=quantised.codes, scales=scales)


def one_magnitude(weight: Floats) -> bool:
    """Return whether all weights (out, fan-in) that an output channel keeps differ by their signs alone."""
    magnitudes = np.abs(weight)
    greatest = magnitudes.max(axis=1, initial=0.0, keepdims=True)
    return bool(((magnitudes == greatest) | (magnitudes == 0)).all())


def _chunk(step: Weighted, block: Layout, channels: int, kept: int, bits: int, *, dense: bool) -> int:
    """Return how many input channels to read at a time: those whose cells for one tile stay in a cache."""
    most = 1 << (PLACE_BITS - bits) if bits <= PLACE_BITS else 0
    if most == 0:
        raise refuse(
            step.name,
            expected=f"a window of at most {1 << PLACE_BITS} weights",
            got=len(step.reads),
            remedy="pool before this layer",
        )
    if step.groups > 1:
        return _balanced(channels, most)
    if dense:
        return _balanced(channels, max(FIRST_CACHE // _cells_of_a_tile(step, block), 1))
    chunk = _channels_worth_reading(step, block, kept / len(step.weight) / channels, FIRST_CACHE)
    return _balanced(channels, min(chunk, most))


def _channels_worth_reading(step: Weighted, layout: Layout, kept: float, first: int) -> int:
    """Return how many input channels fit a cache, of each of which an output channel keeps so many weights.

    first: floats that the first cache holds, which is for longer lists than those of a few weights.
    """
    cells = _cells_of_a_tile(step, layout)
    worth_it = kept * max(FIRST_CACHE // cells, 1) >= WEIGHTS_WORTH_A_CHUNK
    return max((first if worth_it else SECOND_CACHE) // cells, 1)


def _balanced(channels: int, most: int) -> int:
    """Return the size of chunks of equal size, at most this."""
    chunks = -(-channels // most)
    return -(-channels // chunks)


def _cells_of_a_tile(step: Weighted, layout: Layout) -> int:
    """Return how many floats of one input channel are read for a tile: of each row, or of rows that meet."""
    source, out = layout.maps[step.source], layout.maps[step.target]
    tile = min(TILE, whole_lines((out.cells[1] - 1) * out.row + out.cells[2] * layout.unit))
    seen = 0
    for phase in {read.phase for read in step.reads}:
        reads = [read for read in step.reads if read.phase == phase]
        rows, columns = [read.row for read in reads], [read.column for read in reads]
        wide = tile + (max(columns) - min(columns)) * layout.unit
        seen += min(len(set(rows)) * wide, wide + (max(rows) - min(rows)) * source.row, source.plane)
    return seen


@dataclass(frozen=True, kw_only=True, eq=False)
class _Lists:
    places: NDArray[np.uint16]
    values: NDArray[Any]
    starts: NDArray[np.int32]
    order: NDArray[np.int32]


def _lists(codes: NDArray[Any], groups: int, chunk: int, bits: int, *, signs: bool, apart: bool) -> _Lists:
    outputs, inputs, _ = codes.shape
    output, channel, place = np.nonzero(codes)
    values = codes[output, channel, place]
    channel = channel + output // (outputs // groups) * inputs
    counts = np.bincount(output, minlength=outputs)
    order = np.argsort(counts, kind="stable")
    position = np.empty(outputs, np.int64)
    position[order] = np.arange(outputs)
    chunks = -(-inputs * groups // chunk)
    lists = position[output]
    if signs:
        lists = 2 * lists + (values < 0)
    lists = lists * chunks + channel // chunk
    sequence = np.lexsort((place, channel, lists))
    lengths = np.bincount(lists, minlength=outputs * (2 if signs else 1) * chunks)
    counted = channel % chunk if apart else channel
    return _Lists(
        places=(counted << bits | place)[sequence].astype(np.uint16),
        values=values[sequence],
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        order=order.astype(np.int32),
    )


def _panels(codes: NDArray[Any], chunk: int) -> NDArray[Any]:
    """Return dense values as [chunk][group of outputs][channel][place][output of the group], flat."""
    outputs, inputs, places = codes.shape
    padded = np.pad(codes, ((0, -outputs % GROUP), (0, 0), (0, 0)))
    grouped = padded.reshape(-1, GROUP, inputs, places).transpose(0, 2, 3, 1)
    parts: Sequence[NDArray[Any]] = [grouped[:, first : first + chunk].reshape(-1) for first in range(0, inputs, chunk)]
    return np.concatenate(parts)
