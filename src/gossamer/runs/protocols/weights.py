"""How are a network's weights spread, and where are those that it keeps? The record, layer by layer."""

from dataclasses import dataclass
from typing import Any, ClassVar

from gossamer.runs import records
from gossamer.runs.protocols.common import hold


@dataclass(frozen=True, kw_only=True)
class LayerWeights:
    """One kernel. mean, deviation: of all weights, zeros too; magnitude: mean of |w| where w is not 0, None: nowhere.

    below: how many weights are smaller than each of the table's gammas in magnitude; by_output, by_input: weights kept
    in each channel; kernels: how many kernels, an input and an output channel each, keep 0, 1, ... of their weights;
    at_random: how many would on average, were as many weights kept by even chance. Both None: one weight a kernel.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    name: str
    weights: int
    nonzero: int
    mean: float
    deviation: float
    magnitude: float | None
    below: tuple[int, ...]
    by_output: tuple[int, ...]
    by_input: tuple[int, ...]
    kernels: tuple[int, ...] | None
    at_random: tuple[float, ...] | None

    def __post_init__(self) -> None:
        kept = {self.nonzero, sum(self.by_output), sum(self.by_input)}
        hold(len(kept) == 1, f"weights of {self.name}", "as many kept in each count", sorted(kept))


@dataclass(frozen=True, kw_only=True)
class NetworkWeights:
    """One network, without noise; parameters: all of it, trainable or not, biases and norms too."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    name: str
    parameters: int
    layers: tuple[LayerWeights, ...]


@dataclass(frozen=True, kw_only=True)
class WeightsTable:
    """The weights of networks beside one another; gammas: the magnitudes that they are counted below."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/weights/1"
    gammas: tuple[float, ...]
    rows: tuple[NetworkWeights, ...]
    environment: dict[str, Any]
