"""What are the kept weights of a layer worth? float32, float16, int8 with a scale per output channel, or signs.

int8: w is about q s with s = max |w| / 127 over the output channel, rounded to float16 where it has normal numbers for
the whole layer, and q = w / s rounded to nearest, ties to even; zero stays zero; a layer is in float16 instead where
its scales would take what int8 saves. signs: w = s sign(w), one bit a weight, s for the layer or for each output
channel. Only output channels that keep a weight have a scale. A weight that float16 or int8 rounds to zero is zero from
there on: neither its position nor its value is stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gossamer.deploy.gaps import Mask, damaged
from gossamer.errors import DataError

Kind: TypeAlias = Literal["float32", "float16", "int8", "signs"]
Floats: TypeAlias = NDArray[np.float32]
Codes: TypeAlias = NDArray[Any]

GREATEST_CODE = 127
HALF = np.finfo(np.float16)
GREATEST = float(np.finfo(np.float32).max)
# A little less than the quotient, so that the greatest code times it is finite.
GREATEST_INT8_SCALE = GREATEST / GREATEST_CODE * (1 - 2**-20)


@dataclass(frozen=True, kw_only=True, eq=False)
class Storage:
    """How one kind is stored. bits: of a value; dtype: of the stored array; greatest_scale: None without scales."""

    bits: int
    dtype: np.dtype[Any]
    greatest_scale: float | None = None

    @property
    def scaled(self) -> bool:
        """Whether scales stand beside the values."""
        return self.greatest_scale is not None


STORAGE: Mapping[Kind, Storage] = {
    "float32": Storage(bits=32, dtype=np.dtype(np.float32)),
    "float16": Storage(bits=16, dtype=np.dtype(np.float16)),
    "int8": Storage(bits=8, dtype=np.dtype(np.int8), greatest_scale=GREATEST_INT8_SCALE),
    "signs": Storage(bits=1, dtype=np.dtype(np.uint8), greatest_scale=GREATEST),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantised:
    """The codes of a layer, (C, fan-in): float32, float16, or int8 where they count scales; zero where w is zero.

    scales: () where the kind has none, (1,) for the layer, or one for each channel with a code that is not zero.
    """

    codes: Codes
    scales: Floats


def quantise(weight: Floats, kind: Kind, *, layer: str) -> Quantised:
    """Return the codes of a weight of shape (C, fan-in).

    layer: its name, for errors. Raises DataError for weights that the kind cannot hold.
    """
    if not np.isfinite(weight).all():
        raise DataError(
            f"weights of {layer}",
            expected="finite numbers",
            got="infinite ones or NaN",
            remedy="export a state from before training diverged",
        )
    if kind == "signs":
        return _signs(weight, layer)
    if kind == "float16":
        return _float16(weight, layer)
    return _int8(weight) if kind == "int8" else Quantised(codes=weight, scales=_no_scales())


def settled(weight: Floats, kind: Kind) -> Kind:
    """Return the kind that a weight of shape (C, fan-in) is stored in: float16 for int8 where that is no larger.

    So it is where channels that keep any weight keep two or fewer on average: a scale costs what int8 saves. The
    largest weight of each must be a normal float16: int8 with its scale keeps magnitudes that float16 has not.
    """
    kept = weight.any(axis=1)
    largest = np.abs(weight[kept]).max(axis=1, initial=0.0)
    if kind != "int8" or not ((largest >= HALF.tiny) & (largest <= HALF.max)).all():
        return kind
    saved = (STORAGE["float16"].bits - STORAGE["int8"].bits) * np.count_nonzero(weight)
    scale_bits = 8 * stored_scales(_int8_scales(weight)).itemsize
    return "int8" if saved > scale_bits * np.count_nonzero(kept) else "float16"


def stored_scales(scales: Floats) -> NDArray[Any]:
    """Return scales as the array that is stored: in float16 where that tells them to the bit."""
    with np.errstate(over="ignore"):
        halves = scales.astype(np.float16)
    return halves if (halves == scales).all() else scales


def pack(codes: Codes, kind: Kind) -> Codes:
    """Return codes of shape (count,) as the array that is stored: signs as bits, set where positive."""
    return np.packbits(codes > 0) if kind == "signs" else codes


def stored_shape(count: int, kind: Kind) -> tuple[int]:
    """Return the shape of the array that is stored for `count` codes."""
    return (-(-count // 8) if kind == "signs" else count,)


def expand(stored: Codes, scales: Floats, mask: Mask, *, kind: Kind, channels: int, subject: str) -> Floats:
    """Return the weight, (channels, fan-in), of the stored codes at the positions of a mask, (channels * fan-in,).

    stored: of `stored_shape`. subject: what errors speak of. Raises DataError where the scales do not fit the mask, or
    a code is none that `quantise` gives.
    """
    codes = np.zeros(mask.size, np.float32)
    codes[mask] = _unpack(stored, kind, int(np.count_nonzero(mask)), subject)
    weight = codes.reshape(channels, -1)
    greatest = STORAGE[kind].greatest_scale
    if greatest is None:
        return weight
    if not ((scales > 0) & (scales <= greatest)).all():
        raise damaged(subject, f"scales above 0, up to {greatest:g}", "others")
    kept: Mask = np.any(weight, axis=1, keepdims=False)
    weight *= _per_channel(scales, kept, subject)[:, None]
    return weight


def _float16(weight: Floats, layer: str) -> Quantised:
    greatest = float(np.abs(weight).max(initial=0.0))
    with np.errstate(over="ignore"):
        codes = weight.astype(np.float16)
    if not np.isfinite(codes).all():
        raise DataError(
            f"weights of {layer}",
            expected=f"magnitudes up to {np.finfo(np.float16).max:g} for float16",
            got=f"{greatest:g}",
            remedy="export values as float32 or int8",
        )
    return Quantised(codes=codes, scales=_no_scales())


def _int8(weight: Floats) -> Quantised:
    scales = _int8_scales(weight)
    # Magnitudes whose scale underflows to zero become zero.
    divisors = np.where(scales > 0, scales, np.float32(np.inf))
    codes = np.rint(weight / divisors[:, None])
    # A subnormal scale is coarse, so that a quotient can pass the greatest code.
    codes = np.clip(codes, -GREATEST_CODE, GREATEST_CODE).astype(np.int8)
    return Quantised(codes=codes, scales=scales[codes.any(axis=1)])


def _int8_scales(weight: Floats) -> Floats:
    """Return a scale for each channel, 0 where it keeps nothing; in steps of float16 where all are normal there."""
    largest = np.abs(weight).max(axis=1, initial=0.0)
    scales = np.minimum(largest / GREATEST_CODE, np.float32(GREATEST_INT8_SCALE))
    kept = scales[scales > 0]
    fit = ((kept >= HALF.tiny) & (kept <= HALF.max)).all()
    return scales.astype(np.float16).astype(np.float32) if fit else scales


def _signs(weight: Floats, layer: str) -> Quantised:
    codes, magnitudes = np.sign(weight).astype(np.int8), np.abs(weight)
    kept = codes.any(axis=1)
    greatest = magnitudes.max(axis=1, initial=0.0)
    if not ((magnitudes == greatest[:, None]) | (codes == 0)).all():
        raise DataError(
            f"weights of {layer}",
            expected="one magnitude in each output channel, for signs",
            got="several",
            remedy="export values as float32 or int8",
        )
    scales = greatest[kept]
    one = scales.size > 0 and bool((scales == scales[0]).all())
    return Quantised(codes=codes, scales=scales[:1] if one else scales)


def _no_scales() -> Floats:
    return np.zeros(0, np.float32)


def _unpack(stored: Codes, kind: Kind, count: int, subject: str) -> Codes:
    if kind == "signs":
        bits = np.unpackbits(stored)
        if bits[count:].any():
            raise damaged(subject, "zeros after the last sign", "bits that are set")
        return 2 * bits[:count].astype(np.int8) - 1
    if kind == "int8" and (stored < -GREATEST_CODE).any():
        raise damaged(subject, f"codes from {-GREATEST_CODE} to {GREATEST_CODE}", stored.min())
    return stored


def _per_channel(scales: Floats, kept: Mask, subject: str) -> Floats:
    alive = int(np.count_nonzero(kept))
    if scales.size not in (1, alive):
        raise damaged(subject, f"one scale, or one for each of {alive} channels", f"{scales.size} scales")
    spread = np.zeros(kept.size, np.float32)
    spread[kept] = scales
    return spread
