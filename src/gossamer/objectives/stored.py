"""Perturbations kept for every image from epoch to epoch, so that few steps, or none of their own, are enough."""

from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, Literal, TypeAlias, cast, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from gossamer.attacks.pgd import PGD
from gossamer.attacks.starts import RANDOM, GaussianStart, GivenStart, Start
from gossamer.attacks.steps import OfEps, StepRule
from gossamer.errors import ConfigError
from gossamer.objectives.adversarial import Adversarial
from gossamer.objectives.crafted import attack_inputs
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel, per_image
from gossamer.types import Attack, Batch, Loss, Objective, State

Update: TypeAlias = Literal["attack", "backward"]
Storage: TypeAlias = Literal["float32", "float16", "int8"]

STORED, VISITS = "stored", "visits"
_HALF = OfEps(0.5)
_DTYPES: dict[Storage, torch.dtype] = {"float32": torch.float32, "float16": torch.float16, "int8": torch.int8}


@dataclass(frozen=True, kw_only=True)
class Stored:
    """The base objective's loss at x + delta, delta carried from each visit of an image to its next one.

    update: `attack`, the training attack starts from delta and what it finds is stored (ATTA: Zheng et al., CVPR 2020);
    `backward`, the loss is taken at x + delta itself, and its own gradient moves delta by `step` (published: eps/2)
    before it is stored: one forward and backward in all. start: where an image begins; None takes x + 0.001 N(0, 1)
    for `attack`, uniform in the ball for `backward`. reset_every: visits after which an image begins anew; 0: never;
    None takes 10 for `attack`, as published, and never for `backward`. storage: int8 keeps delta in 127ths of eps; the
    next visit starts from exactly what is stored.

    Delta is stored in the frame of the unaugmented image: each visit's augmentation is applied to it, and undone
    before it is stored; what a crop cuts off keeps its old value. pooled: squares of so many pixels a side keep the
    mean of their delta, one number a channel (published for large images: 8). base: what the loss is. threat: the
    recipe's.
    """

    threat: ThreatModel
    update: Update = "attack"
    step: StepRule | None = None
    start: Start | None = None
    reset_every: int | None = None
    storage: Storage = "float32"
    pooled: int = 1
    base: Objective = field(default_factory=Adversarial)

    def __post_init__(self) -> None:
        _check_choice("objective.update", self.update, get_args(Update))
        _check_choice("objective.storage", self.storage, get_args(Storage))
        if self.reset_every is not None and self.reset_every < 0:
            raise ConfigError(
                "objective.reset_every", expected="at least 0 visits", got=self.reset_every, remedy="write 10, or 0"
            )
        if self.pooled < 1:
            raise ConfigError("objective.pooled", expected="at least 1 pixel", got=self.pooled, remedy="write 8, or 1")
        if self.update == "attack" and self.step is not None:
            raise ConfigError(
                "objective.step",
                expected="nothing with update attack",
                got=self.step,
                remedy="write attack.step, or update: backward",
            )

    def default_attack(self, threat: ThreatModel, *, steps: int = 1, step: StepRule = _HALF) -> PGD | None:
        """Return one PGD step of eps/2 on the cross-entropy from what is stored; None where nothing is attacked.

        Published: 0.015 at eps 0.031 for one step, 0.01 for three, 0.007 for ten. The cross-entropy serves TRADES as
        well, as in the authors' code (the paper writes KL: `attack: {loss: kl}`).
        """
        return PGD(threat=threat, steps=steps, step=step) if self.update == "attack" else None

    def initial_state(
        self, n: int, image_shape: tuple[int, int, int], *, draws: Draws, device: torch.device
    ) -> dict[str, Tensor]:
        """Return zeros (n, C, H / pooled, W / pooled) in the storage type, and no visits: (n,).

        Raises ConfigError where the squares do not fill the image.
        """
        channels, height, width = image_shape
        if height % self.pooled or width % self.pooled:
            raise ConfigError(
                "objective.pooled",
                expected=f"a divisor of the image's {height} rows and {width} columns",
                got=self.pooled,
                remedy="write 1, or change the images' size",
            )
        shape = (n, channels, height // self.pooled, width // self.pooled)
        return {
            STORED: torch.zeros(shape, dtype=_DTYPES[self.storage], device=device),
            VISITS: torch.zeros(n, dtype=torch.int32, device=device),
        }

    def craft(
        self,
        model: nn.Module,
        batch: Batch,
        attack: Attack | None,
        state: State,
        *,
        draws: Draws,
    ) -> Tensor:
        """Return x_adv: (N, C, H, W); with `backward` a leaf that takes a gradient.

        Raises ConfigError where `attack` is needed and missing, or has no start of its own.
        """
        begun = self._begin(batch, state, draws)
        if self.update == "backward":
            return begun.detach().requires_grad_()
        x_adv = attack_inputs("stored", _from(attack, begun), model, batch.x, batch.y, draws=draws)
        self._keep(batch, x_adv, state)
        return x_adv

    def loss(self, model: nn.Module, batch: Batch, x_adv: Tensor, *, draws: Draws) -> Loss:
        """Return the base's loss at x_adv: (N, C, H, W) and, with `backward`, what its gradient does to delta."""
        loss = self.base.loss(model, batch, x_adv, draws=draws)
        if self.update == "attack":
            return loss
        size = (self.step or _HALF).size(self.threat.eps, 1)

        def move(gradient: Tensor, state: State) -> None:
            moved = x_adv.detach() + self.threat.steepest(gradient, x_adv.detach(), size=size)
            self._keep(batch, self.threat.project(moved, batch.x), state)

        return replace(loss, after_backward=move)

    def _begin(self, batch: Batch, state: State, draws: Draws) -> Tensor:
        kept = batch.x + batch.view.apply(self._decode(state[STORED][batch.index]))
        begun = self._start(self.threat, batch.x, draws.at("start"))
        return self.threat.project(torch.where(per_image(self._fresh(batch, state), begun), begun, kept), batch.x)

    def _keep(self, batch: Batch, x_adv: Tensor, state: State) -> None:
        view, rows = batch.view, batch.index
        before = self._decode(state[STORED][rows]).masked_fill_(per_image(self._fresh(batch, state), x_adv), 0.0)
        # What is 1 here was seen through the augmentation: a crop cuts off the rest.
        seen = view.inverse(view.apply(torch.ones_like(x_adv[:, :1]))) > 0.5
        delta = torch.where(seen, view.inverse(x_adv - batch.x), before)
        last = _last_of_each(rows)
        state[STORED][rows[last]] = self._encode(delta[last])
        state[VISITS][rows[last]] += 1

    def _fresh(self, batch: Batch, state: State) -> Tensor:
        visits, period = state[VISITS][batch.index], self._period
        return visits % period == 0 if period else visits == 0

    @property
    def _period(self) -> int:
        if self.reset_every is not None:
            return self.reset_every
        return 10 if self.update == "attack" else 0

    @property
    def _start(self) -> Start:
        if self.start is not None:
            return self.start
        return GaussianStart(0.001) if self.update == "attack" else RANDOM

    def _encode(self, delta: Tensor) -> Tensor:
        if self.pooled > 1:
            delta = F.avg_pool2d(delta, self.pooled)
        if self.storage == "int8":
            delta = (delta / self._unit).round().clamp(-127, 127)
        return delta.to(_DTYPES[self.storage])

    def _decode(self, stored: Tensor) -> Tensor:
        delta = stored.float() * self._unit if self.storage == "int8" else stored.to(torch.float32, copy=True)
        return delta if self.pooled == 1 else F.interpolate(delta, scale_factor=self.pooled, mode="nearest")

    @property
    def _unit(self) -> float:
        return self.threat.eps / 127 or 1.0


def _from(attack: Attack | None, images: Tensor) -> Attack | None:
    if attack is None:
        return None
    if not is_dataclass(attack) or not hasattr(attack, "start"):
        raise ConfigError(
            "objective stored",
            expected="an attack that can start from given images",
            got=type(attack).__name__,
            remedy="name pgd, or update: backward",
        )
    return cast("Attack", replace(cast("Any", attack), start=GivenStart(images)))


def _last_of_each(rows: Tensor) -> Tensor:
    """Return the last position of each distinct value: (M,); rows: (N,). Two writers of one row would race."""
    _, inverse = rows.unique(return_inverse=True)
    positions = torch.arange(len(rows), device=rows.device)
    return torch.zeros(int(inverse.max()) + 1, dtype=torch.int64, device=rows.device).scatter_reduce(
        0, inverse, positions, "amax"
    )


def _check_choice(subject: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(subject, expected=" or ".join(known), got=repr(value), remedy="choose one of them")
