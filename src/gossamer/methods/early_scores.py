"""What is a weight worth before it is trained? SNIP, GraSP and SynFlow, each under the training loss as it will be."""

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor, nn

from gossamer.attacks.crafting import kept_buffers
from gossamer.plugins import named_function
from gossamer.sparsity import Target, targets
from gossamer.sparsity.choose import best_of_all
from gossamer.training.scene import Scene

Scores = dict[str, Tensor]
ROUNDS = 100
"""Rounds of SynFlow, as published."""


def snip(model: nn.Module, scene: Scene, density: float, batches: int) -> Scores:
    """Return |g * w| with g the gradient of the training loss over some batches (Lee et al., ICLR 2019)."""
    del density
    layers = targets(model)
    gradients = _mean_gradients(model, layers, scene, batches)
    return {
        layer.name: (gradient * layer.weight).detach().abs() for layer, gradient in zip(layers, gradients, strict=True)
    }


def grasp(model: nn.Module, scene: Scene, density: float, batches: int) -> Scores:
    """Return w * Hg: what a weight adds to the fall of the loss in the next step (Wang et al., ICLR 2020).

    The authors' score is -w * Hg with the highest removed; the sign here is turned, so that the best are highest. Hg is
    the gradient of g . stop(g), g taken over all the batches first. Batches come in halves, as in the authors' code:
    a second derivative of the whole would hold twice what a training step does.
    """
    del density
    layers = targets(model)
    scene, batches = _in_halves(scene, batches)
    gradients = _mean_gradients(model, layers, scene, batches)
    products = [torch.zeros_like(gradient) for gradient in gradients]
    for loss in _losses(model, scene, batches):
        own = torch.autograd.grad(loss / batches, _parameters(layers), create_graph=True)
        dot = torch.stack([(one * fixed).sum() for one, fixed in zip(own, gradients, strict=True)]).sum()
        for product, part in zip(products, torch.autograd.grad(dot, _parameters(layers)), strict=True):
            product.add_(part)
    return {layer.name: (layer.weight * product).detach() for layer, product in zip(layers, products, strict=True)}


def synflow(model: nn.Module, scene: Scene, density: float, batches: int) -> Scores:
    """Return |w * dR/dw| of R = sum of the outputs for an image of ones with every weight replaced by |w|.

    Data-free, so that no attack enters it; 100 rounds, each cutting to density^(round / 100) (Tanaka et al., NeurIPS
    2020). Weights cut in an earlier round score -1.
    """
    del batches
    layers = targets(model)
    alive = {layer.name: torch.ones_like(layer.weight) for layer in layers}
    total = sum(layer.size for layer in layers)
    ones = torch.ones(1, *scene.data.image_shape, device=scene.place.device, dtype=torch.float64)
    scores: Scores = {}
    with _linearised(model):
        whole = {layer.name: layer.parameter.detach().clone() for layer in layers}
        for number in range(1, ROUNDS + 1):
            with torch.no_grad():
                for layer in layers:
                    layer.parameter.copy_(whole[layer.name] * alive[layer.name])
            gradients = torch.autograd.grad(model(ones).sum(), _parameters(layers))
            scores = {
                layer.name: torch.where(alive[layer.name] > 0, (gradient * layer.weight).detach().abs(), -1.0)
                for layer, gradient in zip(layers, gradients, strict=True)
            }
            chosen = best_of_all(scores, int(total * density ** (number / ROUNDS)))
            alive = {name: mask.to(torch.float64) for name, mask in chosen.items()}
    return {name: torch.where(alive[name] > 0, score, -1.0) for name, score in scores.items()}


EarlyScore: TypeAlias = Callable[[nn.Module, Scene, float, int], Scores]

EARLY_SCORES: Mapping[str, EarlyScore] = {
    "snip": snip,
    "grasp": grasp,
    "synflow": synflow,
}


def early_score(name: str) -> EarlyScore:
    """Return the score of a name, or what a user's "package.module:factory" makes; raises ConfigError."""
    return named_function("score", name, EARLY_SCORES, "score(model, scene, density, batches) -> tensors by layer")


def enough_batches(scene: Scene) -> int:
    """Return how many batches hold ten images a class, as published for GraSP, within one epoch."""
    wanted = math.ceil(10 * scene.data.num_classes / scene.phase.batch_size)
    return max(1, min(wanted, scene.horizon.steps_per_epoch or wanted))


def _in_halves(scene: Scene, batches: int) -> tuple[Scene, int]:
    size = scene.phase.batch_size
    # Batch norm needs more than one image.
    if size < 4:
        return scene, batches
    return replace(scene, phase=replace(scene.phase, batch_size=size // 2)), 2 * batches


def _parameters(layers: tuple[Target, ...]) -> list[nn.Parameter]:
    return [layer.parameter for layer in layers]


def _losses(model: nn.Module, scene: Scene, batches: int) -> Iterator[Tensor]:
    """Yield the training loss of each batch, attacked as in training, batch norm in train mode.

    All of one network: what a batch moves in the running statistics, which attacks may read, is put back after it.
    """
    objective = scene.phase.objective
    for index, (batch, x_adv) in enumerate(scene.crafted(model, "early scores", limit=batches)):
        model.train()
        with kept_buffers(model):
            yield objective.loss(model, batch, x_adv, draws=scene.draws.at("early scores", "loss", index)).total


def _mean_gradients(model: nn.Module, layers: tuple[Target, ...], scene: Scene, batches: int) -> list[Tensor]:
    totals = [torch.zeros_like(layer.weight) for layer in layers]
    for loss in _losses(model, scene, batches):
        for total, gradient in zip(totals, torch.autograd.grad(loss, _parameters(layers)), strict=True):
            total.add_(gradient, alpha=1.0 / batches)
    return totals


@contextmanager
def _linearised(model: nn.Module) -> Generator[None]:
    """Hold every tensor of the model at its absolute value, in float64 and eval mode; afterwards it is as before.

    Buffers too, statistics of batch norms among them, as in the authors' code.
    """
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    training = model.training
    model.double().eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.abs_()
    try:
        yield
    finally:
        model.float().train(training)
        model.load_state_dict(before)
