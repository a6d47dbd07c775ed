"""What an epoch added up to: losses and training accuracies, kept on the device, resumable in the middle."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from gossamer.types import Batch, Loss

Together: TypeAlias = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]

_ACCURACIES = {"natural": "clean_accuracy", "adversarial": "robust_accuracy"}


class Totals:
    """Sums over the batches of one epoch, as float64 tensors."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, loss: Loss, batch: Batch, together: Together = lambda values: values) -> None:
        """Add one batch; takes nothing off the device. together: sums over the processes that share the batch."""
        for name, value in together(_of_batch(loss, batch)).items():
            self._add(name, value)

    def means(self) -> dict[str, float | None]:
        """Return the means of the epoch so far; None for what no batch told."""
        n = self._value("n")
        means: dict[str, float | None] = dict.fromkeys(
            ["loss", "natural_loss", "adversarial_loss", "clean_accuracy", "robust_accuracy"]
        )
        for name in self._sums:
            if name == "n" or name.endswith("/n"):
                continue
            over = self._value(f"{name}/n") if f"{name}/n" in self._sums else n
            means[name] = self._value(name) / over if over else None
        return means

    def state_dict(self) -> dict[str, Tensor]:
        """Return the sums."""
        return dict(self._sums)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the sums back."""
        self._sums = dict(state)

    def _add(self, name: str, value: Tensor) -> None:
        value = value.to(torch.float64)
        self._sums[name] = self._sums[name].to(value.device) + value if name in self._sums else value

    def _value(self, name: str) -> float:
        return float(self._sums[name]) if name in self._sums else 0.0


def _of_batch(loss: Loss, batch: Batch) -> dict[str, Tensor]:
    n = batch.y.numel()
    told = {"n": torch.full((), n, device=loss.total.device), "loss": loss.total.detach() * n}
    for name, part in loss.parts.items():
        told[f"{name}_loss"] = part.detach() * n
    for name, logits in loss.logits.items():
        y, labelled = _of_rows(batch, loss.rows.get(name))
        told[_ACCURACIES[name]] = ((logits.argmax(1) == y) & labelled).sum()
        told[f"{_ACCURACIES[name]}/n"] = labelled.sum()
    return told


def _of_rows(batch: Batch, rows: Tensor | None) -> tuple[Tensor, Tensor]:
    return (batch.y, batch.labelled) if rows is None else (batch.y[rows], batch.labelled[rows])
