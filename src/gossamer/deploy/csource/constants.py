"""How do the weights of a network become constants of a C file? As one run of bytes, and who finds what where in it.

A sparse layer is lists of places and values, one list for each output channel in each chunk of input channels. A place
is two bytes: the channel, counted from the first of its chunk, above the bits for the place in the window. Output
channels stand in the order of how many weights they keep, so that loops of equal length follow one another. A dense
layer is weights only, four output channels side by side. Values are float32; int8, with a scale for each output
channel; or signs, of which only the order tells: first the places of all positive, then those of all negative weights.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gossamer.deploy.csource.layout import Layout
from gossamer.deploy.csource.program import Floats, Weighted, refuse
from gossamer.deploy.values import quantise

Values: TypeAlias = Literal["float32", "int8", "signs"]
Coding: TypeAlias = Literal["floats", "codes", "signs"]

ALIGNMENT = 64
PLACE_BITS = 16
GROUP = 4
"""Output channels that stand side by side in a dense layer."""

# The stated cost model, in floats and shares; the caches are those of a small core.
TILE = 96
DENSE_TILE = 24
FIRST_CACHE = 14_000
SECOND_CACHE = 64_000
WEIGHTS_WORTH_A_CHUNK = 12
# From which share of kept weights on a layer is computed densely, by the most cells of its map: the fewer cells a
# weight serves, the more a sparse one costs, most of all where images are computed one by one.
DENSE_FROM = ((1, 0.25), (16, 0.375), (1 << 30, 0.48))

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
    """What C knows of the constants of a weighted step, but for its maps. chunk: input channels read at a time.

    values to bias: where they begin among the constants; values is -1 for signs, scale 0 where there is none.
    """

    coding: Coding
    dense: bool
    chunk: int
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
            bits=bits,
            values=at,
            places=0,
            starts=0,
            order=0,
            scale=scale,
            bias=bias,
        )
    lists = _lists(codes, step.groups, chunk, bits, signs=coding == "signs")
    return Layer(
        coding=coding,
        dense=False,
        chunk=chunk,
        bits=bits,
        values=-1 if coding == "signs" else blob.add(lists.values),
        places=blob.add(lists.places),
        starts=blob.add(lists.starts),
        order=blob.add(lists.order),
        scale=scale,
        bias=bias,
    )


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
    cells = _cells_of_a_tile(step, block, DENSE_TILE if dense else TILE)
    small, large = max(FIRST_CACHE // cells, 1), max(SECOND_CACHE // cells, 1)
    per_chunk = kept / len(step.weight) * small / channels
    chunk = small if dense or per_chunk >= WEIGHTS_WORTH_A_CHUNK else large
    return _balanced(channels, chunk if dense else min(chunk, most))


def _balanced(channels: int, most: int) -> int:
    """Return the size of chunks of equal size, at most this."""
    chunks = -(-channels // most)
    return -(-channels // chunks)


def _cells_of_a_tile(step: Weighted, block: Layout, tile: int) -> int:
    """Return how many floats of one input channel are read for a tile of so many: of each row, or of rows that meet."""
    source = block.maps[step.source]
    seen = 0
    for phase in {read.phase for read in step.reads}:
        reads = [read for read in step.reads if read.phase == phase]
        rows, columns = [read.row for read in reads], [read.column for read in reads]
        wide = tile + (max(columns) - min(columns)) * block.unit
        seen += min(len(set(rows)) * wide, wide + (max(rows) - min(rows)) * source.row, source.plane)
    return seen


@dataclass(frozen=True, kw_only=True, eq=False)
class _Lists:
    places: NDArray[np.uint16]
    values: NDArray[Any]
    starts: NDArray[np.int32]
    order: NDArray[np.int32]


def _lists(codes: NDArray[Any], groups: int, chunk: int, bits: int, *, signs: bool) -> _Lists:
    outputs, inputs, _ = codes.shape
    output, channel, place = np.nonzero(codes)
    values = codes[output, channel, place]
    channel = channel + output // (outputs // groups) * inputs
    counts = np.bincount(output, minlength=outputs)
    order = np.argsort(counts, kind="stable")
    position = np.empty(outputs, np.int64)
    position[order] = np.arange(outputs)
    chunks = -(-inputs * groups // chunk)
    lists = (channel // chunk) * outputs + position[output]
    if signs:
        lists = 2 * lists + (values < 0)
    sequence = np.lexsort((place, channel, lists))
    # Lists begin where the ones before end; so that each chunk has its own end, that of the last list is repeated.
    each = outputs * (2 if signs else 1)
    ends = np.cumsum(np.bincount(lists, minlength=chunks * each)).reshape(chunks, each)
    begins = np.concatenate([[0], ends[:-1, -1]])
    starts = np.concatenate([begins[:, None], ends], axis=1)
    return _Lists(
        places=((channel % chunk << bits) | place)[sequence].astype(np.uint16),
        values=values[sequence],
        starts=starts.astype(np.int32),
        order=order.astype(np.int32),
    )


def _panels(codes: NDArray[Any], chunk: int) -> NDArray[Any]:
    """Return dense values as [chunk][group of outputs][channel][place][output of the group], flat."""
    outputs, inputs, places = codes.shape
    padded = np.pad(codes, ((0, -outputs % GROUP), (0, 0), (0, 0)))
    grouped = padded.reshape(-1, GROUP, inputs, places).transpose(0, 2, 3, 1)
    parts: Sequence[NDArray[Any]] = [grouped[:, first : first + chunk].reshape(-1) for first in range(0, inputs, chunk)]
    return np.concatenate(parts)
