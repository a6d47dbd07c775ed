"""Where do the kept weights of a layer stand? Golomb-Rice coded gaps, or a bitmap or nothing where that is smaller.

A gap is the number of weights skipped between two marked ones. With the parameter k, a gap g is its k lowest bits and
its quotient g >> k in unary: that many zeros, then a one. All lowest bits stand first (k bits a gap, the highest bit
first), then all quotients, then zeros up to a whole byte; so either part is read and written whole, without a loop
over gaps. Bits fill each byte from its highest one down.

Source: Golomb, "Run-length encodings", IEEE Transactions on Information Theory, 1966; Rice, "Some practical universal
noiseless coding techniques", JPL publication 79-22, 1979. For densities d from 0.5 to 50 % the best k takes at most
d (k + 1) + (1 - d) / 2^k <= 1.109 H(d) bits a position whatever the mask, and at most 1.043 H(d) expected over uniform
random masks, H the binary entropy in bits; to which comes less than one byte a layer.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import DataError

Coding: TypeAlias = Literal["all", "bitmap", "gaps", "gaps-of-zeros"]
Bytes: TypeAlias = NDArray[np.uint8]
Mask: TypeAlias = NDArray[np.bool_]
Integers: TypeAlias = NDArray[np.int64]

MOST = 2**31
"""Positions that one mask may have at most; with it no sum below leaves 64 bits."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Coded:
    """The positions of one layer. parameter: k of the gaps, 0 for the other codings; data: none for "all".

    "gaps" are those between kept weights, "gaps-of-zeros" those between the others.
    """

    coding: Coding
    parameter: int = 0
    data: Bytes


def encode(mask: Mask, *, value_bits: int | None = None) -> Coded:
    """Return a mask of shape (n,) in the coding that takes the fewest bytes.

    value_bits: bits of one stored value, where zeros may be stored among the values: "all" is then chosen where that
    is no larger. None: "all" only for a mask without a zero.
    """
    size, count = mask.size, int(np.count_nonzero(mask))
    if count == size:
        return _everything()
    of_zeros = 2 * count > size
    gaps = _gaps(~mask if of_zeros else mask)
    parameter, bits = _best_parameter(gaps)
    needed = min(_bytes(bits), _bytes(size))
    if value_bits is not None and value_bits * (size - count) <= 8 * needed:
        return _everything()
    if _bytes(size) == needed:
        return Coded(coding="bitmap", data=np.packbits(mask))
    return Coded(coding="gaps-of-zeros" if of_zeros else "gaps", parameter=parameter, data=_pack(gaps, parameter))


def decode(coded: Coded, *, size: int, count: int, subject: str) -> Mask:
    """Return the mask of `size` weights, `count` of them kept.

    Takes memory in proportion to `size` and `count`, however much the code holds. subject: what errors speak of. Raises
    DataError where the code is not one that `encode` can have written for such a mask.
    """
    if not 0 <= count <= size < MOST:
        raise damaged(subject, f"at most {size} kept weights, of fewer than {MOST}", count)
    if coded.parameter != 0 and coded.coding in ("all", "bitmap"):
        raise damaged(subject, f"parameter 0 for the coding {coded.coding}", coded.parameter)
    match coded.coding:
        case "all":
            return _decode_all(coded.data, size, count, subject)
        case "bitmap":
            return _decode_bitmap(coded.data, size, count, subject)
        case "gaps":
            return _marked(coded, size, count, subject)
        case "gaps-of-zeros":
            return ~_marked(coded, size, size - count, subject)


def damaged(subject: str, expected: str, got: object) -> DataError:
    """Return the error of a file whose parts do not fit one another."""
    return DataError(
        subject, expected=expected, got=got, remedy="the file is damaged: export it again, or fetch it again"
    )


def _everything() -> Coded:
    return Coded(coding="all", data=np.zeros(0, np.uint8))


def _bytes(bits: int) -> int:
    return -(-bits // 8)


def _gaps(marked: Mask) -> Integers:
    return np.diff(np.flatnonzero(marked), prepend=-1) - 1


def _best_parameter(gaps: Integers) -> tuple[int, int]:
    """Return the k of the shortest code and its bits."""
    if gaps.size == 0:
        return 0, 0
    bits = [gaps.size * (k + 1) + int((gaps >> k).sum()) for k in range(max(1, int(gaps.max()).bit_length()))]
    best = min(range(len(bits)), key=bits.__getitem__)
    return best, bits[best]


def _pack(gaps: Integers, parameter: int) -> Bytes:
    lowest = np.empty((gaps.size, parameter), np.uint8)
    for column in range(parameter):
        lowest[:, column] = (gaps >> (parameter - 1 - column)) & 1
    ends = np.cumsum((gaps >> parameter) + 1) - 1
    unary = np.zeros(ends[-1] + 1 if gaps.size else 0, np.uint8)
    unary[ends] = 1
    return np.packbits(np.concatenate([lowest.reshape(-1), unary]))


def _decode_all(data: Bytes, size: int, count: int, subject: str) -> Mask:
    if data.size or count != size:
        raise damaged(subject, f"no code and {size} values", f"{data.size} bytes and {count} values")
    return np.ones(size, np.bool_)


def _decode_bitmap(data: Bytes, size: int, count: int, subject: str) -> Mask:
    if data.size != _bytes(size):
        raise damaged(subject, f"a bitmap of {_bytes(size)} bytes", f"{data.size} bytes")
    bits = np.unpackbits(data).view(np.bool_)
    if bits[size:].any() or np.count_nonzero(bits) != count:
        raise damaged(subject, f"{count} bits set among the first {size}", f"{np.count_nonzero(bits)} set")
    return bits[:size]


def _marked(coded: Coded, size: int, count: int, subject: str) -> Mask:
    """Return the mask with `count` marks that the gaps describe."""
    k = coded.parameter
    if not 0 <= k < max(1, size.bit_length()):
        raise damaged(subject, f"a parameter below {max(1, size.bit_length())}", k)
    least, most = count * (k + 1), count * (k + 1) + ((size - count) >> k)
    if not _bytes(least) <= coded.data.size <= _bytes(most):
        raise damaged(subject, f"{_bytes(least)} to {_bytes(most)} bytes", f"{coded.data.size} bytes")
    bits = np.unpackbits(coded.data)
    lowest, unary = bits[: count * k].reshape(count, k), bits[count * k :]
    if np.count_nonzero(unary) != count:
        raise damaged(subject, f"{count} gaps", np.count_nonzero(unary))
    ends = np.flatnonzero(unary)
    used = int(ends[-1]) + 1 if count else 0
    if unary.size - used >= 8:
        raise damaged(subject, "fewer than 8 bits of padding", unary.size - used)
    gaps = np.diff(ends, prepend=-1) - 1
    for column in range(k):
        gaps = 2 * gaps + lowest[:, column]
    positions = np.cumsum(gaps + 1) - 1
    if count and positions[-1] >= size:
        raise damaged(subject, f"positions below {size}", positions[-1])
    mask = np.zeros(size, np.bool_)
    mask[positions] = True
    return mask
