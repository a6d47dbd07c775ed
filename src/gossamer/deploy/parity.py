"""How far is an artifact from the network that it was made of? In logits, relative to the largest, and in labels."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from gossamer.errors import RunError
from gossamer.evaluation.judge import predict
from gossamer.runs import records
from gossamer.types import Model

EXACT = 1e-4
"""Share of the largest logit within which an artifact of float32 weights must stay."""
BATCH = 100


@dataclass(frozen=True, kw_only=True)
class Parity:
    """n images: error is the largest difference of logits over the largest logit; agreement the share of labels."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    n: int
    error: float
    agreement: float

    def __str__(self) -> str:
        return f"logits within {self.error:.2g} of the largest, {self.agreement:.2%} of labels equal, n = {self.n}"


def parity(parent: Model, artifact: Model, images: Tensor) -> Parity:
    """Return how far two models are from each other on images: (N, C, H, W) in [0, 1]."""
    pairs = [(predict(parent, part).cpu(), predict(artifact, part).cpu()) for part in images.split(BATCH)]
    expected, got = (torch.cat([pair[side] for pair in pairs]).double() for side in range(2))
    if expected.shape != got.shape:
        raise RunError(
            "artifact",
            expected=f"{expected.shape[1]} logits, as its parent has",
            got=got.shape[1],
            remedy="compare it with the run that it was exported from",
        )
    largest = float(expected.abs().max())
    return Parity(
        n=len(images),
        error=float((got - expected).abs().max()) / max(largest, torch.finfo(torch.float32).tiny),
        agreement=float((got.argmax(dim=1) == expected.argmax(dim=1)).double().mean()),
    )


def probes(shape: tuple[int, ...], count: int = 16) -> Tensor:
    """Return random images (count, C, H, W) in [0, 1], the same at every call."""
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))


def check_exact(found: Parity, artifact: str) -> None:
    """Raise RunError where an artifact of float32 weights does not compute its parent's logits."""
    if not found.error <= EXACT:
        raise RunError(
            artifact,
            expected=f"its parent's logits, within {EXACT:g} of the largest",
            got=f"{found.error:.3g}",
            remedy="nothing was written: report the network, or export it to another kind",
        )
