"""Does an attack reach a class of its choice? Any attack, with success only where the model says the target."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from gossamer.attacks.goals import SEED_ZERO
from gossamer.attacks.stepwise import Rows, StepwiseAttack, attack_batch, put, select
from gossamer.attacks.targets import LEAST_LIKELY, Given, Target
from gossamer.attacks.wrapping import Wrapper, as_stepwise
from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.threat import per_image
from gossamer.types import Attack, Model

TARGET, INNER_BEST = "towards_target", "towards_best"


@dataclass(frozen=True)
class Only:
    """One class, the same for every image."""

    label: int

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the class: (N,) int64; raises ConfigError where logits: (N, K) have no such class."""
        if not 0 <= self.label < logits.shape[1]:
            raise ConfigError(
                "attack target",
                expected=f"a class in [0, {logits.shape[1]})",
                got=self.label,
                remedy="number the classes from 0",
            )
        return torch.full_like(y, self.label)


Aim: TypeAlias = Target | Only


@dataclass(frozen=True, kw_only=True)
class Towards(Wrapper):
    """Any attack, driven to a target class; where that is not reached, the point returned is the clean image.

    So whoever judges by "the model errs" counts the targets reached, and nothing else. An attack with a field
    `target` (of its own or inside a wrapper) is given the target. Any other sees a model of two classes, the
    largest logit but the target's and the target's, and is asked to leave the first; images of different targets
    are then attacked one target after the other; the DLR losses, and with them AutoAttack, need more classes than
    two and are refused there. An image whose label is the target counts as not reached.

    target: ranked, one class for all (`Only`), or given for each image of a batch; the last only where the attack
    is called on that batch. Raises ConfigError where the target cannot be.
    """

    target: Aim = LEAST_LIKELY

    def attempts(self, classes: int) -> int:
        """Return the attempts of the attack inside."""
        aimed = _aim(self.attack, self.target)
        return self.inner.attempts(2) if aimed is None else as_stepwise(aimed).attempts(classes)

    def begin(self, x: Tensor, y: Tensor, clean: Tensor, attempt: Tensor, draws: Draws) -> Rows:
        """Return rows with their targets, at the clean image until the target is reached."""
        if isinstance(self.target, Given):
            raise ConfigError(
                "attack target",
                expected="a rank or one class for all, where images are attacked in any order",
                got="a class for each image of one batch",
                remedy="write Ranked(1) or Only(3), or call the attack on that batch",
            )
        target = self.target(clean, y)
        aimed = _aim(self.attack, self.target)
        if aimed is not None:
            rows = as_stepwise(aimed).begin(x, y, clean, attempt, draws)
        else:
            rows = self.inner.begin(x, torch.zeros_like(y), _two_classes(clean, target), attempt, draws)
        return _shown(rows, x, target, torch.zeros_like(rows["hit"]))

    def advance(self, model: Model, x: Tensor, y: Tensor, rows: Rows, draws: Draws) -> Rows:
        """Return rows advanced inside, with a hit only where the target is reached."""
        target = rows[TARGET]
        inside = {name: value for name, value in rows.items() if name not in (TARGET, INNER_BEST)}
        inside["best"] = rows[INNER_BEST]
        aimed = _aim(self.attack, self.target)
        if aimed is not None:
            inside = as_stepwise(aimed).advance(model, x, y, inside, draws)
        else:
            inside = _advance_by_target(self.inner, model, x, target, inside, draws)
        return _shown(inside, x, target, _reached(model, inside, y, target))

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return x_adv for x: (N, C, H, W) in [0, 1] and labels y: (N,); x where the target is not reached."""
        if not isinstance(self.target, Given):
            return attack_batch(self, model, x, y, draws)
        given = _given(self.target, y)
        draws = draws if draws.rows is not None else draws.per_sample(torch.arange(len(x)))
        x_adv = x.clone()
        for label in given.unique().tolist():
            rows = (given == label).nonzero().flatten()
            towards = dataclasses.replace(self, target=Only(label))
            x_adv[rows] = attack_batch(towards, model, x[rows], y[rows], draws.select(rows))
        return x_adv


def _given(target: Given, y: Tensor) -> Tensor:
    if target.classes.shape == y.shape:
        return target.classes.to(y.device)
    raise ConfigError(
        "attack target",
        expected=f"one class for each of {len(y)} images",
        got=f"shape {tuple(target.classes.shape)}",
        remedy="give the classes of the batch that is attacked",
    )


def _aim(attack: Attack, target: Aim) -> Attack | None:
    """Return the attack with its field `target` set, wherever it lies; None where there is none."""
    names = {field.name for field in dataclasses.fields(attack)} if dataclasses.is_dataclass(attack) else set()
    value = cast("Any", attack)
    if "target" in names:
        return cast("Attack", dataclasses.replace(value, target=target))
    if "attack" not in names or not callable(value.attack):
        return None
    inside = _aim(cast("Attack", value.attack), target)
    return None if inside is None else cast("Attack", dataclasses.replace(value, attack=inside))


def _two_classes(logits: Tensor, target: Tensor) -> Tensor:
    others = logits.scatter(1, target[:, None], -torch.inf).amax(dim=1)
    return torch.stack([others, logits.gather(1, target[:, None])[:, 0]], dim=1)


def _seen_from(model: Model, label: int) -> Callable[[Tensor], Tensor]:
    def see(x: Tensor) -> Tensor:
        logits = model(x)
        return _two_classes(logits, torch.full((len(x),), label, device=logits.device))

    return see


def _advance_by_target(
    inner: StepwiseAttack, model: Model, x: Tensor, target: Tensor, rows: Rows, draws: Draws
) -> Rows:
    # An attack may call its model on any of its rows, so one call must not mix targets.
    advanced: Rows = {}
    for label in target.unique().tolist():
        here = (target == label).nonzero().flatten()
        zeros = torch.zeros_like(target[here])
        moved = inner.advance(_seen_from(model, label), x[here], zeros, select(rows, here), draws.select(here))
        advanced = put(
            advanced or {name: rows.get(name, _like(rows, part)) for name, part in moved.items()}, here, moved
        )
    return advanced


def _like(rows: Rows, part: Tensor) -> Tensor:
    return part.new_zeros((len(rows["hit"]), *part.shape[1:]))


def _reached(model: Model, rows: Rows, y: Tensor, target: Tensor) -> Tensor:
    reached = rows["hit"] & (target != y)
    positions = reached.nonzero().flatten()
    if len(positions):
        reached[positions] = model(rows["best"][positions]).argmax(dim=1) == target[positions]
    return reached


def _shown(rows: Rows, x: Tensor, target: Tensor, reached: Tensor) -> Rows:
    best = torch.where(per_image(reached, x), rows["best"], x)
    return {**rows, "best": best, "hit": reached, TARGET: target, INNER_BEST: rows["best"]}
