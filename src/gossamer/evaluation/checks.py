"""Can the number be what it seems? Model, images, labels and attacks are checked before an evaluation starts."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.attacks.stepwise import StepwiseAttack
from gossamer.attacks.targets import Ranked
from gossamer.data import DataSet
from gossamer.errors import ConfigError, DataError, RunError
from gossamer.evaluation import remarks
from gossamer.evaluation.adapters import LogProbabilities, name_of
from gossamer.evaluation.parts import callers, within
from gossamer.evaluation.probes import Behaviour, asks_for_gradient, images_at, kept, observe, spread
from gossamer.evaluation.samples import check_labels
from gossamer.evaluation.subject import at_rest, count_classes, place_of
from gossamer.evaluation.trials import Trial
from gossamer.runs.notices import Notice

PROBE = 8
"""Images on which a model's behaviour is seen."""

ROWS = 1024
"""Images whose range is read at a time."""


def check_subject(
    model: nn.Module,
    dataset: DataSet,
    trials: Sequence[Trial],
    *,
    device: torch.device | str | None = None,
) -> tuple[Notice, ...]:
    """Return what a reader must know of a model, from `as_module`, that trials are to evaluate on a data set.

    The model is called a few times on `PROBE` images, and comes back as it was.

    Raises DataError for images or labels that do not fit, ConfigError for outputs that are no logits and for attacks
    that the model cannot take, RunError for a model that changes its input or its parameters.
    """
    check_pixels(dataset)
    with at_rest(model, device) as held, kept(held) as changed:
        positions = spread(dataset, PROBE)
        x, y = images_at(dataset, positions, place_of(held, device))
        classes = count_classes(held, x[:1])
        check_labels(dataset, classes)
        check_classes(classes, trials)
        seen = observe(held, x, y, index=dataset.index.cpu()[positions], changed=changed)
        _check_behaviour(held, seen)
        check_outputs(seen.logits, probabilities=isinstance(held, LogProbabilities))
        if seen.gradient == "none":
            _check_without_gradient(name_of(held), trials, x[:1], y[:1], seen.logits[:1])
        transferred = tuple(remarks.on_transfer(trials, x, seen.logits))
    return (
        *remarks.on_mode(model),
        *remarks.on_input(model),
        *remarks.on_radius(dataset, trials),
        *remarks.on_outputs(model, seen.logits),
        *remarks.on_behaviour(seen),
        *remarks.on_gradient(seen),
        *transferred,
    )


def check_clean(predictions: Tensor, labels: Tensor, classes: int) -> tuple[Notice, ...]:
    """Return what the clean predictions: (N,) of a model with that many classes tell its reader; labels: (N,)."""
    return tuple(remarks.on_clean(predictions, labels, classes))


def check_pixels(dataset: DataSet) -> None:
    """Raise DataError unless the images are uint8 from 0 to 255, or floats in [0, 1] that use that range."""
    low, high = _range(dataset)
    if dataset.images.dtype == torch.uint8:
        wrong, expected, got = high == 1, "uint8 pixels from 0 to 255", "none above 1"
        remedy = "multiply images in [0, 1] by 255 before they become uint8, or give them as floats"
    elif low >= 0 and high <= 1:
        wrong, expected, got = 0 < high <= 1 / 254, "values that use [0, 1]", f"none above {high:.2g}"
        remedy = "divide by 255 only once"
    else:
        wrong, expected, got = True, "finite values in [0, 1]", f"[{low:g}, {high:g}]"
        remedy = "divide by 255 and leave out any normalisation: it belongs inside the model"
    if wrong:
        raise DataError(f"images of {dataset.name} ({dataset.part})", expected=expected, got=got, remedy=remedy)


def check_classes(classes: int, trials: Sequence[Trial]) -> None:
    """Raise ConfigError where the model has no two classes, or fewer than an attack's loss or target needs."""
    if classes < 2:
        raise ConfigError(
            "outputs of the model",
            expected="logits of at least 2 classes",
            got=f"{classes} for each image",
            remedy="for one score s of class 1 return torch.cat([-s, s], dim=1)",
        )
    for trial in trials:
        for attack in within(trial.attack):
            _check_attack_classes(trial.name, attack, classes)


def check_outputs(logits: Tensor, *, probabilities: bool = False) -> None:
    """Raise ConfigError where logits: (P, K) are classes or probabilities, or where the log of probabilities is not.

    probabilities: the logits are said to be the logarithm of probabilities.
    """
    subject = "outputs of the model"
    rows = logits.double().exp() if probabilities else logits.double()
    sums = rows.sum(dim=1)
    likely = bool(((rows >= 0) & (rows <= 1 + 1e-2)).all() and ((sums - 1).abs() <= 1e-2).all())
    if probabilities and not likely:
        raise ConfigError(
            subject,
            expected="probabilities of all classes, in [0, 1] with the sum 1",
            got=f"a sum of {float(sums[0]):.4g} for one image",
            remedy='leave out outputs="probabilities" for logits or log-probabilities',
        )
    if probabilities or not likely:
        return
    if bool(((rows == 0) | (rows == 1)).all()):
        raise ConfigError(
            subject, expected="logits", got="0 and 1: the predicted class", remedy="return the scores of all classes"
        )
    raise ConfigError(
        subject,
        expected="logits",
        got="probabilities: rows in [0, 1] with the sum 1",
        remedy='return what goes into the softmax, or say outputs="probabilities" and their logarithm is taken',
    )


def _check_attack_classes(name: str, attack: Any, classes: int) -> None:
    if isinstance(attack, StepwiseAttack):
        attack.attempts(classes)
    target = getattr(attack, "target", None)
    least = 2 if getattr(attack, "loss", None) != "dlr" else 3 if target is None else 4
    if classes < least:
        raise ConfigError(
            f"attack {name}",
            expected=f"at least {least} classes for the {'DLR' if target is None else 'targeted DLR'} loss",
            got=classes,
            remedy="use the loss ce, or margin from 2 classes on",
        )
    if isinstance(target, Ranked):
        target(torch.zeros(1, classes), torch.zeros(1, dtype=torch.int64))


def _check_behaviour(model: nn.Module, seen: Behaviour) -> None:
    if seen.overwrites:
        raise RunError(
            "model",
            expected="its input left as it is",
            got="a model that writes into it",
            remedy="write x = x - mean rather than x -= mean",
        )
    learned = [name for name in seen.changed if name in dict(model.named_parameters())]
    if learned:
        raise RunError(
            "model",
            expected="parameters that stay as they are when it is called",
            got=f"changes in {', '.join(learned[:5])}",
            remedy="evaluate it without adaptation, or after it",
        )


def _check_without_gradient(label: str, trials: Sequence[Trial], x: Tensor, y: Tensor, logits: Tensor) -> None:
    for trial in trials:
        if any(asks_for_gradient(attack, x, y, logits) for attack in callers(trial.attack)):
            raise ConfigError(
                f"attack {trial.name}",
                expected=f"a model with gradients, which {label} does not give",
                got="an attack that follows them",
                remedy="attack it with square, or by Transfer(attack=..., source=...) from a float twin (--twin)",
            )


def _range(dataset: DataSet) -> tuple[float, float]:
    """Return the lowest and highest pixel of a set's own images, NaN where one is; bytes only until one is above 1."""
    images = dataset.images
    rows = torch.arange(len(images)) if dataset.rows is None else dataset.rows
    ends: list[Tensor] = []
    for part in rows.split(ROWS):
        ends.append(torch.stack(images.index_select(0, part.to(images.device)).aminmax()))
        if images.dtype == torch.uint8 and int(ends[-1][1]) > 1:
            break
    found = torch.stack(ends)
    return float(found[:, 0].min()), float(found[:, 1].max())
