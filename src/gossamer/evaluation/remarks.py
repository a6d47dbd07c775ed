"""What should a reader know of a model that can be evaluated, and of the images and attacks it meets?"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from gossamer.attacks.transfer import Transfer
from gossamer.data import DataSet
from gossamer.errors import ConfigError
from gossamer.evaluation.adapters import InDtype, LogProbabilities
from gossamer.evaluation.judge import predict
from gossamer.evaluation.onnx_model import OnnxModel
from gossamer.evaluation.parts import within
from gossamer.evaluation.probes import Behaviour, images_at, spread
from gossamer.evaluation.subject import at_rest
from gossamer.evaluation.trials import Trial
from gossamer.intervals import wilson
from gossamer.runs.notices import Notice
from gossamer.threat import ThreatModel

CODES = (
    "batch-dependent",
    "bounded-outputs",
    "chance",
    "dtype",
    "large-eps",
    "no-gradient",
    "one-class",
    "probabilities",
    "random",
    "rounded-input",
    "stateful",
    "train-mode",
    "transfer",
    "unusable-gradient",
)

ON_CLEAN = ("one-class", "chance")
"""What clean predictions tell."""

NEIGHBOURS = 32
"""Images among which the distance between classes is measured."""

LEAST_FOR_CHANCE = 30
"""Samples below which an accuracy says nothing about chance."""

TWO_MODES = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
    *(nn.RReLU, nn.MultiheadAttention),
)
"""Modules that act otherwise in train mode."""


def on_mode(model: nn.Module) -> Iterator[Notice]:
    """Say which modules came in train mode that act otherwise in eval mode."""
    kinds = sorted({type(each).__name__ for each in model.modules() if each.training and isinstance(each, TWO_MODES)})
    if kinds:
        yield _notice(
            "train-mode",
            f"the model came in train mode with {', '.join(kinds)}; it was evaluated in eval mode and put back",
        )


def on_input(model: nn.Module) -> Iterator[Notice]:
    """Say in which type images reach the model where it is not float32."""
    for module in model.modules():
        if isinstance(module, InDtype):
            yield _notice("dtype", f"the model's tensors are {module.dtype}: images are given to it in that type")
        if isinstance(module, OnnxModel) and module.rounds:
            yield _notice(
                "rounded-input", "the model takes whole pixel levels: images are rounded to 255ths on their way into it"
            )


def on_radius(dataset: DataSet, trials: Sequence[Trial]) -> Iterator[Notice]:
    """Say where the largest eps joins images of different classes."""
    balls = [trial.threat for trial in trials if isinstance(trial.threat, ThreatModel)]
    if not balls:
        return
    threat = max(balls, key=lambda each: each.eps)
    x, y = images_at(dataset, spread(dataset, NEIGHBOURS), torch.device("cpu"))
    close = torch.stack([threat.distance(x, image.expand_as(x)) for image in x]) <= 2 * threat.eps
    near = int((close & (y[:, None] != y[None, :])).any(dim=1).sum())
    if 2 * near > len(x):
        yield _notice(
            "large-eps",
            f"at {threat}, {near} of {len(x)} images lie within 2 eps of an image of another class, and no model can "
            "be robust at both; eps counts in pixel units of [0, 1]: were 255ths meant?",
        )


def on_outputs(model: nn.Module, logits: Tensor) -> Iterator[Notice]:
    """Say what stands for the logits: (P, K) where they are squeezed."""
    if isinstance(model, LogProbabilities):
        certain = int((logits.max(dim=1).values == 0).sum())
        yield _notice(
            "probabilities",
            "the logarithm of the model's probabilities stands for its logits; "
            f"{certain} of {len(logits)} probe images have a probability that rounds to 1, where gradients vanish",
        )
    elif bool(((logits >= 0) & (logits <= 1)).all()):
        yield _notice(
            "bounded-outputs",
            "all outputs lie in [0, 1]: if a sigmoid ends the model, return what goes into it, as the cross-entropy of "
            "squeezed scores misleads attacks",
        )


def on_behaviour(seen: Behaviour) -> Iterator[Notice]:
    """Say where a model's answer to an image depends on more than the image."""
    if seen.changed:
        yield _notice(
            "stateful",
            f"a call changes the model's {', '.join(seen.changed[:5])}: its answers may depend on what it saw before, "
            "and so on the order and size of batches; the buffers are put back afterwards",
        )
    if seen.random:
        source = "torch's random numbers, which the seed fixes" if seen.repeats else "a state or numbers of its own"
        yield _notice(
            "random",
            f"the same images get other logits from call to call, from {source}: attack it through Expectation, which "
            "averages over draws (EOT), or its robustness is overstated",
        )
    if not seen.alone:
        yield _notice(
            "batch-dependent",
            "an image's logits depend on what else is in its batch (batch norm in train mode or without running "
            "statistics, or a scale taken over the batch?): no image is robust or broken by itself",
        )


def on_gradient(seen: Behaviour) -> Iterator[Notice]:
    """Say where attacks that follow the gradient are blind."""
    if seen.gradient == "none":
        yield _notice(
            "no-gradient",
            "the model gives no gradient, so no attack that follows it was tried on the model itself: robust accuracy "
            "is an upper bound, looser than usual",
        )
    elif seen.gradient != "finite":
        yield _notice(
            "unusable-gradient",
            f"the gradient at the probe images is {seen.gradient}: attacks that follow it are blind, so add one that "
            "needs none, such as square, or go round the layer with BPDA",
        )


def on_transfer(trials: Sequence[Trial], x: Tensor, logits: Tensor) -> Iterator[Notice]:
    """Say how far a twin predicts as the model does; x: (P, C, H, W); logits: (P, K), the model's.

    Raises ConfigError where the twin has other classes.
    """
    for trial in trials:
        for transfer in (each for each in within(trial.attack) if isinstance(each, Transfer)):
            with at_rest(transfer.source, x.device) as twin:
                theirs = predict(twin, x)
            if theirs.shape != logits.shape:
                raise ConfigError(
                    f"twin of {trial.name}",
                    expected=f"{logits.shape[1]} logits, as the model has",
                    got=theirs.shape[1],
                    remedy="give a network of the same classes",
                )
            agreed = int((theirs.argmax(dim=1) == logits.argmax(dim=1)).sum())
            yield _notice(
                "transfer",
                f"{trial.name} seeks its points on a twin that predicts as the model does on {agreed} of {len(x)} "
                "probe images: robust accuracy is an upper bound, looser than usual",
            )


def on_clean(predictions: Tensor, labels: Tensor, classes: int) -> Iterator[Notice]:
    """Say where the clean predictions: (N,) of a model with that many classes are worth nothing; labels: (N,)."""
    n, labels = len(labels), labels.to(predictions.device)
    right = int((predictions == labels).sum())
    if n < LEAST_FOR_CHANCE or wilson(right, n)[0] > 1 / classes:
        return
    if predictions.unique().numel() == 1:
        yield _notice("one-class", f"the model puts all {n} clean images into class {int(predictions[0])}")
        return
    yield _notice(
        "chance",
        f"{right} of {n} clean images are right, no better than chance among {classes} classes: are the classes "
        "numbered as in training, and the pixels scaled and normalised once, inside the model?",
    )


def _notice(code: str, text: str) -> Notice:
    assert code in CODES
    return Notice(code=code, text=text)
