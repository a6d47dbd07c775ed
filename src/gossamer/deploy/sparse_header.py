"""What does the header of a sparse file say? Its layers, batch norms and network as one checked JSON text.

A safetensors file keeps texts beside its tensors. Four of them here: `format`, `version`, `about` (the JSON) and
`sha256`, a digest of everything else in the file.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from gossamer.deploy.gaps import MOST, Coding
from gossamer.deploy.values import Kind
from gossamer.errors import DataError
from gossamer.runs.records import STRICT

FORMAT = "gossamer-sparse"
VERSION = "1"
TEXTS = ("about", "format", "sha256", "version")
LONGEST = 2**22
"""Characters of the JSON that is still read: what it says takes many times their memory."""

Size = Annotated[int, Field(ge=1, lt=MOST)]
Count = Annotated[int, Field(ge=0, lt=MOST)]
Parameter = Annotated[int, Field(ge=0, le=31)]
Eps = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A prunable weight. shape: (C, ...); count: stored values; the rest as `gaps.Coded` and `values.Kind` have it."""

    __pydantic_config__ = STRICT

    shape: Annotated[tuple[Size, ...], Field(min_length=1, max_length=8)]
    count: Count
    coding: Coding
    parameter: Parameter
    values: Kind

    @property
    def size(self) -> int:
        """Weights, kept or not."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A batch norm of `features` channels, stored as scale and shift. eps: of the module it came from."""

    __pydantic_config__ = STRICT

    features: Size
    eps: Eps


@dataclass(frozen=True, kw_only=True)
class Network:
    """What builds the network again: a name and options of `gossamer.models`, and its form in `sparsity.forms`.

    Noise and latent weights do not enter a file, so that the form of such networks is `dense`.
    """

    __pydantic_config__ = STRICT

    name: str
    options: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    form: str = "dense"


@dataclass(frozen=True, kw_only=True)
class Header:
    """layers: by the name of the weight in the state dict; norms: by the name of the module."""

    __pydantic_config__ = STRICT

    layers: Mapping[str, Layer]
    norms: Mapping[str, Norm]
    network: Network | None = None

    @property
    def size(self) -> int:
        """Numbers that a reader makes of the layers and norms: weights, and four for each channel of a norm."""
        return sum(layer.size for layer in self.layers.values()) + 4 * sum(
            norm.features for norm in self.norms.values()
        )


def to_texts(header: Header, arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    """Return the texts of a file with these arrays."""
    texts = {
        "format": FORMAT,
        "version": VERSION,
        "about": json.dumps(dataclasses.asdict(header), separators=(",", ":"), allow_nan=False),
    }
    return {**texts, "sha256": digest(texts, arrays)}


def from_texts(texts: Mapping[str, str], arrays: Mapping[str, NDArray[Any]], *, subject: str) -> Header:
    """Return the header that a file's texts hold; raises DataError for another format, version or content."""
    _check_format(texts, subject)
    expected = digest({key: text for key, text in texts.items() if key != "sha256"}, arrays)
    if texts["sha256"] != expected:
        raise DataError(
            subject,
            expected=f"content of SHA-256 {texts['sha256'][:64]!r}",
            got=expected,
            remedy="the file was changed or damaged: export it again, or fetch it again",
        )
    try:
        return _HEADER.validate_json(texts["about"])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part)[:80] for part in first["loc"]) or "header"
        raise DataError(
            f"{subject}, {place}",
            expected="what a sparse file's header says there",
            got=f"{first['msg']} ({error.error_count()} faults in all)",
            remedy="export the file again",
        ) from error


def digest(texts: Mapping[str, str], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of texts and arrays by name, each with its type, shape and length; in hexadecimal."""
    found = hashlib.sha256()
    for key, text in sorted(texts.items()):
        _add(found, ["text", key], text.encode(errors="surrogatepass"))
    for name, array in sorted(arrays.items()):
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        _add(found, ["array", name, little.dtype.str, list(array.shape)], np.ascontiguousarray(little).tobytes())
    return found.hexdigest()


def _add(found: Any, about: list[object], content: bytes) -> None:
    found.update(f"{json.dumps([*about, len(content)])}\n".encode())
    found.update(content)


def _check_format(texts: Mapping[str, str], subject: str) -> None:
    if texts.get("format") != FORMAT:
        raise DataError(
            subject,
            expected=f"a file of the format {FORMAT}",
            got=repr(texts.get("format", "none"))[:80],
            remedy="give a file that `gossamer export --to sparse` wrote",
        )
    if texts.get("version") != VERSION:
        raise DataError(
            subject,
            expected=f"version {VERSION} of the format",
            got=repr(texts.get("version", "none"))[:80],
            remedy="open it with the version of gossamer that wrote it",
        )
    if tuple(sorted(texts)) != TEXTS:
        raise DataError(
            subject,
            expected=f"a header with {', '.join(TEXTS)} and no more",
            got=", ".join(sorted(texts))[:80],
            remedy="export the file again",
        )
    if len(texts["about"]) > LONGEST:
        raise DataError(
            subject,
            expected=f"a header of at most {LONGEST:,} characters",
            got=f"{len(texts['about']):,}",
            remedy="do not open it unless you know who made it",
        )


_HEADER = TypeAdapter(Header)
