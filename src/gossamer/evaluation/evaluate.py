"""How robust is a model? Every sample's outcome under every attack, judged on the model itself."""

import math
import time
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.data import DataSet
from gossamer.errors import ConfigError
from gossamer.evaluation.batches import Batches, default_batch_size
from gossamer.evaluation.outcomes import Bench, Progress, interval, share
from gossamer.evaluation.record import Evaluation
from gossamer.evaluation.samples import Data, as_dataset, check_labels, select_samples
from gossamer.evaluation.subject import at_rest, count_classes, count_weights, place_of, prepare
from gossamer.evaluation.trials import Attacks, Trial, parameters, plan_trials
from gossamer.runs import results
from gossamer.runs.environment import environment
from gossamer.threat import ThreatModel

SURROGATE_CHECK = 8
"""Images on which a surrogate must give the model's logits."""


def evaluate(
    model: nn.Module,
    data: Data,
    attacks: Attacks,
    *,
    threat: ThreatModel | str | None = None,
    n: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    fast: bool = True,
    name: str | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure the clean and the robust accuracy of any module that maps images in [0, 1] to logits.

    data: a DataSet, or (x, y) with x: (N, C, H, W), uint8 or in [0, 1], and y: (N,); n: how many of them
    (`select_samples` chooses). attacks: an Attack, a name such as "pgd-50-10" (with threat="linf:8/255"), a
    sequence, or a mapping from names. The headline is the worst case over all attacks, at the largest eps.
    Samples that are wrong when clean are not attacked. fast: candidates are sought on a folded surrogate where
    the model has one; only points at which the model itself errs count, and what fools the surrogate alone is
    attacked again on the model. name: what the result calls the model. Flags depend on the seed and the sample,
    not on the batch size, which halves when memory runs out. The model comes back as it was.

    Raises ConfigError for impossible arguments, DataError for data that do not fit the model, RunError for logits
    that are not finite or a sample that does not fit into memory.
    """
    whole = as_dataset(data)
    dataset, selection = select_samples(whole, n, seed=seed)
    trials = plan_trials(attacks, threat)
    place = place_of(model, device)
    batches = Batches(_batch_size(batch_size, dataset, place))
    started = time.perf_counter()
    with at_rest(model, place) as resting:
        example = dataset.float(torch.arange(min(SURROGATE_CHECK, len(dataset))), device=place)
        check_labels(dataset, count_classes(resting, example[:1]))
        bench = Bench(prepare(resting, fast=fast, example=example), dataset, batches, seed, progress)
        clean = bench.clean()
        outcomes = tuple(bench.run(trial, clean) for trial in trials)
        weights, nonzero = count_weights(resting)
    label = name or type(model).__name__
    density = nonzero / weights if weights else 1.0
    standing = torch.tensor([outcome.robust for outcome in outcomes]).all(dim=0)
    return Evaluation(
        run=label,
        dataset=_dataset(whole, selection, len(dataset)),
        model=results.EvaluatedModel(name=label, weights=weights, nonzero=nonzero, density=density),
        n=len(dataset),
        seed=seed,
        **_clean(dataset, clean),
        robust_accuracy=share(standing),
        interval=interval(standing),
        **_headline(trials),
        density=density,
        nonzero=nonzero,
        weights=weights,
        seconds=time.perf_counter() - started,
        batch_size=batches.size,
        environment=environment(place),
        attacks=outcomes,
    )


def _batch_size(given: int | None, dataset: DataSet, device: torch.device) -> int:
    if given is None:
        return default_batch_size(math.prod(dataset.image_shape), device)
    if given < 1:
        raise ConfigError("batch size", expected="a whole number >= 1", got=given, remedy="write for example 128")
    return given


def _dataset(whole: DataSet, selection: str, n: int) -> results.Dataset:
    return results.Dataset(name=whole.name, part=whole.part, checksum=whole.checksum, selection=selection, n=n)


def _clean(dataset: DataSet, predictions: Tensor) -> dict[str, Any]:
    correct = predictions == dataset.labels.cpu()
    samples = results.Samples(
        index=tuple(dataset.index.tolist()),
        label=tuple(dataset.labels.tolist()),
        clean_prediction=tuple(predictions.tolist()),
        clean_correct=tuple(correct.int().tolist()),
    )
    return {"clean_accuracy": share(correct), "clean_interval": interval(correct), "samples": samples}


def _headline(trials: tuple[Trial, ...]) -> dict[str, Any]:
    rising = sorted(trials, key=lambda trial: trial.threat.eps)
    named = {trial.name: parameters(trial.attack) for trial in rising}
    only = rising[-1].name if len(named) == 1 else None
    return {
        "attack": only or f"the worst of {', '.join(dict.fromkeys(trial.name for trial in trials))}",
        "attack_parameters": named[only] if only else named,
        "threat": str(rising[-1].threat),
        "eps": rising[-1].threat.eps,
    }
