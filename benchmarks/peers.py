"""How does a user of another library take the step? Peers' own attacks in the loop their documentation shows."""

from typing import Any

import numpy as np
import torch
import torchattacks
from art.attacks.evasion import ProjectedGradientDescentPyTorch
from art.defences.trainer import AdversarialTrainer
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn
from torch.optim import SGD

from contestants import CLASSES, EPS, LEARNING_RATE, MOMENTUM, STEP_SIZE, WEIGHT_DECAY, Contestant, Part, Setting


def torchattacks_loop(
    model: nn.Module, setting: Setting, *, train_mode: bool = False, channels_last: bool = False
) -> Contestant:
    """Return the loop of torchattacks' README: attack (eval mode, unless told otherwise), forward, backward, step."""
    if channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer, criterion = _sgd(model), nn.CrossEntropyLoss()
    attack = torchattacks.PGD(model, eps=EPS, alpha=STEP_SIZE, steps=setting.steps, random_start=setting.random_start)
    if train_mode:
        attack.set_model_training_mode(model_training=True, batchnorm_training=True)

    def laid_out(x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last) if channels_last else x

    def craft(x: Tensor, y: Tensor) -> Tensor:
        return attack(laid_out(x), y)

    def step(x: Tensor, y: Tensor) -> None:
        x_adv = craft(x, y)
        model.train()
        optimizer.zero_grad()
        criterion(model(x_adv), y).backward()
        optimizer.step()

    def input_gradient(x: Tensor, y: Tensor) -> None:
        model.train(train_mode)
        leaf = laid_out(x).detach().requires_grad_(True)
        torch.autograd.grad(criterion(model(leaf), y), leaf)

    def forward_backward(x: Tensor, y: Tensor) -> None:
        model.train()
        optimizer.zero_grad()
        criterion(model(laid_out(x)), y).backward()

    return Contestant(
        model=model,
        craft=craft,
        step=step,
        parts={
            "input gradient": Part(count=setting.steps, work=input_gradient),
            "loss forward and backward": Part(count=1, work=forward_backward),
            "optimiser": Part(count=1, work=lambda _x, _y: optimizer.step()),
        },
    )


def art_trainer(model: nn.Module, setting: Setting) -> Contestant:
    """Return ART's own trainer on one batch: AdversarialTrainer with ratio 1, which AdversarialTrainerMadryPGD wraps.

    The wrapper leaves the attack's batch at 32; here it is the whole batch, which is faster. ART attacks in eval
    mode, takes every gradient with `backward` (so those of the weights too), and after each attack computes its
    success by two more forwards.
    """
    optimizer, criterion = _sgd(model), nn.CrossEntropyLoss()
    classifier = PyTorchClassifier(
        model=model,
        loss=criterion,
        optimizer=optimizer,
        input_shape=(3, 32, 32),
        nb_classes=CLASSES,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    attack = ProjectedGradientDescentPyTorch(
        classifier,
        eps=EPS,
        eps_step=STEP_SIZE,
        max_iter=setting.steps,
        num_random_init=int(setting.random_start),
        batch_size=setting.batch,
        verbose=False,
    )
    trainer = AdversarialTrainer(classifier, attack, ratio=1.0)

    def craft(x: Tensor, y: Tensor) -> Tensor:
        return torch.from_numpy(attack.generate(x.numpy(), y=y.numpy()))

    def step(x: Tensor, y: Tensor) -> None:
        trainer.fit(x.numpy(), _one_hot(y), batch_size=setting.batch, nb_epochs=1)

    def all_gradients(x: Tensor, y: Tensor) -> None:
        classifier.loss_gradient(x, torch.from_numpy(_one_hot(y)))

    def forward_backward(x: Tensor, y: Tensor) -> None:
        model.train()
        optimizer.zero_grad()
        criterion(model(x), y).backward()

    return Contestant(
        model=model,
        craft=craft,
        step=step,
        parts={
            "all gradients": Part(count=setting.steps, work=all_gradients),
            "forward": Part(count=2, work=lambda x, _y: classifier.predict(x.numpy(), batch_size=setting.batch)),
            "loss forward and backward": Part(count=1, work=forward_backward),
            "optimiser": Part(count=1, work=lambda _x, _y: optimizer.step()),
        },
    )


def _sgd(model: nn.Module) -> SGD:
    return SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)


def _one_hot(y: Tensor) -> np.ndarray[Any, Any]:
    return np.eye(CLASSES, dtype=np.float32)[y.numpy()]
