"""How robust is a model? Every sample's outcome under every attack, judged on the model itself."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.data import DataSet
from gossamer.errors import ConfigError
from gossamer.evaluation.adapters import Outputs, as_module, name_of
from gossamer.evaluation.batches import Batches, fitting_batch_size
from gossamer.evaluation.checks import check_clean, check_subject
from gossamer.evaluation.judge import predict
from gossamer.evaluation.ledger import Ledger
from gossamer.evaluation.outcomes import Bench, interval, share
from gossamer.evaluation.plan import plan_of
from gossamer.evaluation.record import Evaluation
from gossamer.evaluation.samples import Data, as_dataset, select_samples
from gossamer.evaluation.shards import WHOLE, Shard
from gossamer.evaluation.standing import Progress
from gossamer.evaluation.subject import Subject, at_rest, count_weights, of_parent, place_of, prepare, seed_noise
from gossamer.evaluation.trials import Attacks, Trial, parameters, plan_trials
from gossamer.runs import results
from gossamer.runs.environment import environment
from gossamer.seeding import derive
from gossamer.threat import ThreatModel
from gossamer.types import Model, Precision

SURROGATE_CHECK = 8
"""Images on which a surrogate must give the model's logits."""


def evaluate(
    model: nn.Module | Model,
    data: Data,
    attacks: Attacks,
    *,
    threat: ThreatModel | str | None = None,
    n: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    fast: bool = True,
    precision: Precision = "float32",
    compile: bool = False,  # noqa: A002
    name: str | None = None,
    dense_weights: int | None = None,
    progress: Progress | None = None,
    partial: Path | str | None = None,
    save_seconds: float = 30.0,
    keep_partial: bool = False,
    shard: Shard = WHOLE,
    outputs: Outputs = "logits",
) -> Evaluation:
    """Measure the clean and the robust accuracy of any module or function that maps images in [0, 1] to logits.

    data: a DataSet, or (x, y) with x: (N, C, H, W), uint8 or in [0, 1], and y: (N,); n: how many of them
    (`select_samples` chooses). attacks: an Attack, a name such as "pgd-50-10" (with threat="linf:8/255"), a
    sequence, or a mapping from names. The headline is the worst case over all attacks, at the largest eps.
    Samples that are wrong when clean are not attacked. fast: candidates are sought on a folded surrogate where
    the model has one; precision: in which they are sought; compile: on kernels compiled for this machine. Only
    points at which the model itself errs in its own precision count, and what fools the stand-in alone is attacked
    again on the model. name: what the result calls the model; dense_weights: the weights of its dense parent, which its
    density refers to, where its own kernels are others. Flags depend on the seed and the sample, and on the
    batch size, which halves when memory runs out, by rounding alone. The model comes back as it was.

    partial: a folder for partial results, saved every `save_seconds`; an evaluation that was killed goes on from
    there with the batch size it began with, and ends in the same flags; removed at the end, or with keep_partial left
    to the caller, who removes it once the result is written. shard: evaluate every
    k-th sample alone, and `merge` the parts. outputs: what the model gives; of probabilities the log is taken.

    Raises ConfigError for impossible arguments, DataError for data that do not fit the model, RunError for logits
    that are not finite, a sample that does not fit into memory, and partial results of another evaluation.
    """
    whole = as_dataset(data)
    chosen, selection = select_samples(whole, n, seed=seed)
    dataset = shard.part(chosen)
    trials = plan_trials(attacks, threat)
    label = name or name_of(model)
    module = as_module(model, outputs=outputs)
    place = place_of(module, device)
    started = time.perf_counter()
    notices = check_subject(module, dataset, trials, device=place)
    with at_rest(module, place) as resting:
        example = dataset.float(torch.arange(min(SURROGATE_CHECK, len(dataset))), device=place)
        subject = prepare(resting, fast=fast, example=example, precision=precision, compile=compile)
        seed_noise(derive(seed, "plan"), place)
        settings = {"seed": seed, "fast": fast, "precision": precision, "compile": compile, "shard": str(shard)}
        plan = plan_of(resting, dataset, trials, logits=_logits_of(resting, example), **settings)
        ledger = Ledger.open(None if partial is None else Path(partial), plan, seconds=save_seconds)
        before = ledger.seconds_before
        batches = Batches(_batch_size(batch_size, dataset, subject, ledger))
        bench = Bench(subject, dataset, batches, seed, progress, ledger)
        clean = bench.clean()
        outcomes = tuple(bench.run(trial, clean) for trial in trials)
        weights, nonzero = of_parent(*count_weights(resting), dense_weights)
    density = nonzero / weights if weights else 1.0
    standing = torch.tensor([outcome.robust for outcome in outcomes]).all(dim=0)
    measured = Evaluation(
        run=label,
        dataset=_dataset(whole, selection, len(dataset)),
        model=results.EvaluatedModel(name=label, weights=weights, nonzero=nonzero, density=density),
        n=len(dataset),
        seed=seed,
        **_clean(dataset, clean.argmax(dim=1)),
        robust_accuracy=share(standing),
        interval=interval(standing),
        **_headline(trials),
        density=density,
        nonzero=nonzero,
        weights=weights,
        seconds=before + time.perf_counter() - started,
        batch_size=batches.size,
        environment=environment(place),
        attacks=outcomes,
        notices=(*notices, *check_clean(clean.argmax(dim=1), dataset.labels.cpu(), clean.shape[1])),
    )
    if not keep_partial:
        ledger.close()
    return measured


def _batch_size(given: int | None, dataset: DataSet, subject: Subject, ledger: Ledger) -> int:
    if given is not None and given < 1:
        raise ConfigError("batch size", expected="a whole number >= 1", got=given, remedy="write for example 128")
    size = given or ledger.batch_size or fitting_batch_size(subject.attacked, dataset, subject.device)
    ledger.batch_size = size
    return size


def _logits_of(model: nn.Module, example: Tensor) -> list[list[float]]:
    """Return the logits, coarsely, of a model without tensors: what tells one function or file from another."""
    if model.state_dict():
        return []
    return [[float(f"{value:.2g}") for value in row] for row in predict(model, example).tolist()]


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
