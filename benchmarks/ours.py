"""How does gossamer take the step? By the code of its training loop, on a phase as a recipe builds it."""

import itertools
from dataclasses import replace

import torch
from torch import Tensor, nn

from contestants import EPS, LEARNING_RATE, MOMENTUM, STEP_SIZE, WEIGHT_DECAY, Contestant, Part, Setting, images
from gossamer.attacks.crafting import BatchNormMode, crafting
from gossamer.attacks.goals import Goal, input_gradient
from gossamer.attacks.pgd import PGD
from gossamer.attacks.starts import NoStart
from gossamer.data import NONE, from_tensors
from gossamer.objectives.registry import build as build_objective
from gossamer.objectives.registry import default_attack
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.training.checkpointing import Training
from gossamer.training.crafting import Crafter
from gossamer.training.devices import Place, place
from gossamer.training.loop import begin, train_step
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase
from gossamer.training.scene import Scene
from gossamer.training.schedules import Constant
from gossamer.types import Batch


def training_step(
    model: nn.Module, setting: Setting, *, compiled: bool = False, attack_bn: BatchNormMode = "eval"
) -> Contestant:
    """Return the loop's step for standard adversarial training (Madry et al., 2018)."""
    phase, where = phase_of(setting, attack_bn), place("cpu", compile=compiled, threads=setting.threads)
    scene = Scene(
        phase=phase,
        states={},
        data=from_tensors(*images(setting.batch)),
        place=where,
        draws=Draws(0).at(phase.name),
        make_model=lambda: model,
    )
    training = begin(phase, model, scene)
    crafter = Crafter(training.model, where, phase.attack_bn, fast=phase.fast)
    network = where.compiled(training.model)
    numbers = itertools.count()

    def craft(x: Tensor, y: Tensor) -> Tensor:
        batch = where.batch(batch_of(x, y))
        draws = Draws(0, ("craft", next(numbers)))
        return crafter(
            phase.objective, training.model, batch, phase.attack, training.state, draws=draws, network=network
        )

    def step(x: Tensor, y: Tensor) -> None:
        draws = Draws(0, ("step", next(numbers)))
        batch = batch_of(x, y)
        train_step(phase, training, batch, phase.attack, crafter=crafter, network=network, place=where, draws=draws)

    def forward_backward(x: Tensor, y: Tensor) -> None:
        training.model.train()
        training.optimizer.zero_grad(set_to_none=True)
        batch = where.batch(batch_of(x, y))
        phase.objective.loss(network, batch, batch.x, draws=Draws()).total.backward()  # type: ignore[arg-type]

    return Contestant(
        model=training.model,
        craft=craft,
        step=step,
        parts={
            **_crafting_parts(training, where, attack_bn, setting),
            "loss forward and backward": Part(count=1, work=forward_backward),
            "optimiser": Part(count=1, work=lambda _x, _y: training.optimizer.step()),
        },
    )


def phase_of(setting: Setting, attack_bn: BatchNormMode) -> Phase:
    """Return the phase as a recipe builds it, at a constant rate."""
    objective = build_objective("adversarial")
    attack = default_attack(objective, ThreatModel("linf", EPS), steps=setting.steps, step=STEP_SIZE)
    if not setting.random_start:
        assert isinstance(attack, PGD)
        attack = replace(attack, start=NoStart())
    return Phase(
        name="train",
        epochs=1,
        batch_size=setting.batch,
        objective=objective,
        attack=attack,
        attack_bn=attack_bn,
        optimizer=OptimizerSpec(lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY),
        schedule=Constant(),
    )


def batch_of(x: Tensor, y: Tensor) -> Batch:
    """Return images (N, C, H, W) and labels (N,) as the loop's batch, without augmentation."""
    view = NONE.draw(len(x), (x.shape[1], x.shape[2], x.shape[3]), Draws(), x.device)
    return Batch(x=x, y=y, index=torch.arange(len(x)), labelled=torch.ones_like(y, dtype=torch.bool), view=view)


def _crafting_parts(training: Training, where: Place, attack_bn: BatchNormMode, setting: Setting) -> dict[str, Part]:
    surrogate = where.surrogate(training.model) if attack_bn == "eval" else None
    call = where.compiled(training.model if surrogate is None else surrogate)

    def gradient(x: Tensor, y: Tensor) -> None:
        x = where.images(x)
        if surrogate is not None:
            input_gradient(call, x, Goal(loss="ce", labels=y))
            return
        with crafting(training.model, attack_bn):
            input_gradient(call, x, Goal(loss="ce", labels=y))

    parts = {"input gradient": Part(count=setting.steps, work=gradient)}
    if surrogate is not None:
        parts["refresh"] = Part(count=1, work=lambda _x, _y: surrogate.refresh(training.model))
    return parts
