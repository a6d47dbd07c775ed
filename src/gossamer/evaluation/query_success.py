"""How often does a black-box attack succeed on a number of samples that the model has right? ZOO's protocol, resumable.

Rakin et al. (Robust Sparse Regularization, 2019, section 4.2) report it untargeted, on 200 random test samples.
"""

import math
import statistics
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from gossamer.attacks.checks import check_count
from gossamer.attacks.queries import QueryAttack
from gossamer.attacks.zoo import ZOO
from gossamer.data import DataSet
from gossamer.errors import DataError
from gossamer.evaluation.batches import Batches, default_batch_size
from gossamer.evaluation.blackbox import success_rate
from gossamer.evaluation.judge import predict
from gossamer.evaluation.setting import Setting, check_models, share_of
from gossamer.evaluation.subject import at_rest, place_of, seed_noise
from gossamer.evaluation.trials import parameters
from gossamer.runs.protocols import BlackBoxTable, Queried, QueriedModel, QueriedPart
from gossamer.seeding import Draws, derive
from gossamer.types import Attack

PART = 20
"""Samples a finished cell."""


def zoo_success(models: Mapping[str, nn.Module], setting: Setting, *, n: int = 200) -> BlackBoxTable:
    """Measure ZOO's untargeted success rate on n random correctly classified samples, any l2 distance up to 20.

    Arguments and errors are those of `query_success`; ZOO's fields are those of the authors' run on CIFAR-10.
    """
    return query_success(models, setting, ZOO(), n=n)


def query_success(
    models: Mapping[str, nn.Module], setting: Setting, attack: QueryAttack, *, n: int = 200
) -> BlackBoxTable:
    """Measure how often an attack that counts its queries breaks n random samples that the model has right.

    Samples are asked in one random order, the same for all models, until n are right. The setting's own n is what
    they are drawn from. Raises DataError where there are too few, ConfigError for impossible arguments.
    """
    check_models(models)
    check_count("samples", n)
    rows = tuple(_row(name, model, setting, attack, n) for name, model in models.items())
    return BlackBoxTable(
        dataset=setting.dataset,
        seed=setting.seed,
        threat=str(attack.threat),
        attack=parameters(cast("Attack", attack)),
        rows=rows,
        environment=setting.environment_of(next(iter(models.values()))),
    )


def _row(name: str, model: nn.Module, setting: Setting, attack: QueryAttack, n: int) -> QueriedModel:
    chosen, asked = _right(name, model, setting, n)
    parts = [_part(name, model, setting, attack, chosen.subset(rows)) for rows in torch.arange(n).split(PART)]
    samples = tuple(sample for part in parts for sample in part.samples)
    queries = [sample.queries for sample in samples if sample.success]
    return QueriedModel(
        name=name,
        asked=asked,
        success=share_of([int(sample.success) for sample in samples]),
        median_queries=statistics.median(queries) if queries else None,
        mean_queries=statistics.fmean(queries) if queries else None,
        samples=samples,
    )


def _part(name: str, model: nn.Module, setting: Setting, attack: QueryAttack, samples: DataSet) -> QueriedPart:
    def make() -> QueriedPart:
        found = success_rate(
            model,
            samples,
            attack,
            n=None,
            seed=setting.seed,
            batch_size=setting.batch_size,
            device=setting.device,
        )
        each = zip(found.index, found.success, found.queries, found.distance, strict=True)
        return QueriedPart(
            samples=tuple(
                Queried(
                    index=index,
                    success=success,
                    queries=queries,
                    distance=distance if math.isfinite(distance) else None,
                )
                for index, success, queries, distance in each
            )
        )

    plan = [name, setting.mark(model), samples.checksum, samples.index.tolist(), setting.seed]
    return setting.keep(f"{name}-queries", QueriedPart, make, [*plan, parameters(cast("Attack", attack))])


def _right(name: str, model: nn.Module, setting: Setting, n: int) -> tuple[DataSet, int]:
    """Return the first n samples, in a random order, that the model has right, and how many were asked."""
    samples = setting.samples
    order = torch.randperm(len(samples), generator=Draws(setting.seed, ("black box", "samples")).generator())
    place = place_of(model, setting.device)
    with at_rest(model, place) as resting:
        seed_noise(derive(setting.seed, "black box", "noise"), place)

        def look(positions: Tensor) -> Tensor:
            logits = predict(resting, samples.float(positions, device=place), index=samples.index[positions])
            return logits.argmax(dim=1).cpu() == samples.labels[positions.to(samples.labels.device)].cpu()

        batches = Batches(setting.batch_size or default_batch_size(math.prod(samples.image_shape), place))
        right = torch.cat(list(batches.run(look, order)))
    found = right.nonzero().flatten()[:n]
    if len(found) == n:
        return samples.subset(order[found]), int(found[-1]) + 1
    raise DataError(
        f"samples for {name}",
        expected=f"{n} that the model classifies correctly",
        got=f"{len(found)} of {len(samples)}",
        remedy="ask for fewer, or give more samples",
    )
