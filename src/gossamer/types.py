"""The words every room shares: a batch, a loss, and the protocols of attacks and objectives."""

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

from gossamer.seeding import Draws, Part

State: TypeAlias = MutableMapping[str, Tensor]
Model: TypeAlias = Callable[[Tensor], Tensor]
Precision: TypeAlias = Literal["float32", "bf16"]


class View(Protocol):
    """One drawn augmentation of a batch: replayable, and undone where it can be."""

    def apply(self, images: Tensor) -> Tensor:
        """Augment images: (N, C, H, W) float."""
        ...

    def inverse(self, images: Tensor) -> Tensor:
        """Bring augmented images (N, C, H, W) back to the frame of the originals."""
        ...


@dataclass(frozen=True)
class Batch:
    """What one training step sees.

    x: (N, C, H, W) in [0, 1], augmented; y: (N,) int64; index: (N,) int64, the position in the data set;
    labelled: (N,) bool, False where y is a pseudo-label; view: the augmentation that made x; part: where these images
    lie in the whole batch, where several processes share it out.
    """

    x: Tensor
    y: Tensor
    index: Tensor
    labelled: Tensor
    view: View
    part: Part | None = None


@dataclass(frozen=True)
class Loss:
    """A training loss.

    total: scalar with a graph; parts: named scalars without one, "natural" and "adversarial" where they exist;
    logits: (m, K) without a graph, under the same two names, from which training accuracies are counted; rows: (m,)
    positions in the batch of those logits, by the same names, where they are not the whole batch's;
    after_backward: called with the gradient at the adversarial input and the objective's state, for one-pass methods.
    """

    total: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    logits: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    rows: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    after_backward: Callable[[Tensor, State], None] | None = None


@runtime_checkable
class Attack(Protocol):
    """Finds adversarial examples; never says whether it succeeded: the caller judges.

    x: (N, C, H, W) in [0, 1]; y: (N,) int64; returns x_adv: (N, C, H, W). Changes no mode, parameter,
    `requires_grad` or `.grad` of the model.
    """

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = ...) -> Tensor:
        """Return adversarial examples for x with labels y."""
        ...


@runtime_checkable
class WithState(Protocol):
    """An objective that carries tensors from step to step, such as stored perturbations.

    Where several processes share a batch, each tensor's rows are exchanged after a step: those at the batch's `index`,
    or, where the objective has an attribute `state_rows = "batch"`, those at its places in the whole batch.
    """

    def initial_state(
        self, n: int, image_shape: tuple[int, int, int], *, draws: Draws, device: torch.device
    ) -> dict[str, Tensor]:
        """Return the state before the first step; n: training images, each of image_shape (C, H, W)."""
        ...


@runtime_checkable
class Objective(Protocol):
    """A robust training loss in two halves: craft the inputs, then the loss."""

    def craft(self, model: nn.Module, batch: Batch, attack: Attack | None, state: State, *, draws: Draws) -> Tensor:
        """Return x_adv: (N, C, H, W) in [0, 1], without a graph; `state` outlives the step and is checkpointed."""
        ...

    def loss(self, model: nn.Module, batch: Batch, x_adv: Tensor, *, draws: Draws) -> Loss:
        """Return the loss of one batch, with a graph to the model's parameters."""
        ...
