"""What do adversarial examples of one model do to another? The record of sources by targets."""

from dataclasses import dataclass
from typing import Any, ClassVar

from gossamer.runs import records
from gossamer.runs.protocols.common import MatrixModel, Share, hold
from gossamer.runs.results import Dataset


@dataclass(frozen=True, kw_only=True)
class Danger:
    """What a leaked source does to a deployed target at one eps.

    transferred: the target's accuracy on the source's examples; white_box: on its own, None where it was no source;
    share_of_damage: (clean - transferred) / (clean - white_box), None where the white box does no damage or is not
    known; endangers: the examples do at least half of the white box's damage, beyond the intervals;
    beats_white_box: they do more, beyond the intervals, so the target's own number cannot be trusted.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    source: str
    target: str
    eps: float
    clean: float
    transferred: float
    white_box: float | None
    share_of_damage: float | None
    endangers: bool
    beats_white_box: bool


@dataclass(frozen=True, kw_only=True)
class TransferMatrix:
    """Targets' accuracies on sources' examples: accuracy[source][target][eps]; where both are one, the white box.

    sources: positions among the models; sentences: one an eps, for a deployer; examples: the folder they lie in.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/transfer/1"
    dataset: Dataset
    seed: int
    norm: str
    eps: tuple[float, ...]
    attack: dict[str, Any]
    models: tuple[MatrixModel, ...]
    sources: tuple[int, ...]
    accuracy: tuple[tuple[tuple[Share, ...], ...], ...]
    dangers: tuple[Danger, ...]
    sentences: tuple[str, ...]
    examples: str | None
    environment: dict[str, Any]

    def __post_init__(self) -> None:
        shapes = {(len(row), len(cell)) for row in self.accuracy for cell in row}
        wanted = (len(self.sources), {(len(self.models), len(self.eps))})
        hold((len(self.accuracy), shapes) == wanted, "transfer", f"a matrix of {wanted}", shapes)
