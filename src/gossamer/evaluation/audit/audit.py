"""Can a model's robust accuracy be trusted? Every known sign of a misleading evaluation, each with what settles it."""

import copy
from dataclasses import asdict

import torch
from torch import Tensor, nn

from gossamer.errors import ConfigError
from gossamer.evaluation.adapters import as_module, name_of
from gossamer.evaluation.audit import bounds
from gossamer.evaluation.audit.budget import Budget, find_budget
from gossamer.evaluation.audit.lab import COMPANY, Lab, set_up
from gossamer.evaluation.audit.signs import STANDARD, see_signs
from gossamer.evaluation.audit.verdict import decide
from gossamer.evaluation.batches import Batches, fitting_batch_size
from gossamer.evaluation.outcomes import interval, share
from gossamer.evaluation.samples import Data, as_dataset, check_labels, select_samples
from gossamer.evaluation.standing import Progress
from gossamer.evaluation.subject import at_rest, count_classes, place_of
from gossamer.runs.audits import Audit
from gossamer.runs.environment import environment
from gossamer.runs.results import Dataset
from gossamer.threat import ThreatModel
from gossamer.types import Model


def audit(
    model: nn.Module | Model,
    data: Data,
    *,
    threat: ThreatModel | str,
    n: int | None = 200,
    seed: int = 0,
    budget: str | Budget = "standard",
    twin: nn.Module | Model | None = None,
    layers: tuple[str, ...] = (),
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Return whether the robust accuracy that plain PGD gives a model can be trusted, and what is left of it.

    model: anything that `as_module` takes and that maps images (N, C, H, W) in [0, 1] to logits (or, which is a sign,
    to probabilities); a copy of it is audited. n: how many samples, chosen as `evaluate` does; all where None.
    budget: a `Budget`, or quick, standard or thorough. twin: another network of the same classes, whose adversarial
    examples are tried too. layers: names of layers through which gradients are to flow as if they were the identity,
    besides those that are found. Signs and bounds: docs/audit.

    Raises ConfigError for a model that cannot be copied, fewer than 30 samples and impossible arguments, DataError
    for data that do not fit the model, RunError for logits that are not finite.
    """
    whole = as_dataset(data)
    dataset, selection = select_samples(whole, n if n is None else min(n, len(whole)), seed=seed)
    _check_samples(len(dataset))
    judged_by = ThreatModel.parse(threat) if isinstance(threat, str) else threat
    spending = find_budget(budget)
    module, other = as_module(model), None if twin is None else as_module(twin)
    place = place_of(module, device)
    with at_rest(_copy(module), place) as resting:
        example = dataset.float(torch.arange(1), device=place)
        check_labels(dataset, count_classes(resting, example))
        lab = set_up(
            resting,
            dataset,
            Batches(batch_size or fitting_batch_size(_copy(resting), dataset, place)),
            threat=judged_by,
            seed=seed,
            budget=spending,
            layers=layers,
            progress=progress,
            device=place,
        )
        lab.claim(STANDARD, lab.pgd())
        signs = see_signs(lab, other)
    verdict, reason = decide(lab, signs)
    settled = lab.standing & ~lab.union(lab.broken)
    return Audit(
        run=name or name_of(model),
        verdict=verdict,
        reason=reason,
        dataset=Dataset(name=whole.name, part=whole.part, checksum=whole.checksum, selection=selection, n=len(dataset)),
        n=len(dataset),
        seed=seed,
        threat=str(judged_by),
        budget=asdict(spending),
        bounds=bounds.BOUNDS,
        judge=_judge(lab),
        clean_accuracy=share(lab.correct),
        clean_interval=interval(lab.correct),
        claimed_attack=f"PGD, {spending.steps} steps of 2.5 eps/n, 1 random start",
        claimed_robust_accuracy=share(lab.standing),
        claimed_interval=interval(lab.standing),
        claimed_robust=_flags(lab.standing),
        settled_robust_accuracy=share(settled),
        settled_interval=interval(settled),
        settled_robust=_flags(settled),
        index=tuple(dataset.index.tolist()),
        signs=signs,
        attacks=tuple(lab.records),
        environment=environment(place),
    )


def _check_samples(n: int) -> None:
    if n < bounds.LEAST_SAMPLES:
        raise ConfigError(
            "n",
            expected=f"at least {bounds.LEAST_SAMPLES} samples, so that a verdict is not chance",
            got=n,
            remedy="write n=200",
        )


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    # A user's module may refuse in any way.
    except Exception as error:
        raise ConfigError(
            "model",
            expected="a module that copy.deepcopy takes, so that it can be audited as new",
            got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no copy'}",
            remedy="keep no tensors with a graph and no open files in the module",
        ) from error


def _judge(lab: Lab) -> str:
    if lab.facts.random:
        return f"the mean log-probabilities of {lab.budget.passes} calls"
    ways = [
        *(["the first answer of a fresh copy"] if lab.facts.adapts else []),
        *([f"each image among the same {COMPANY} clean ones"] if lab.facts.company else []),
    ]
    return ", ".join(ways) or "the model"


def _flags(robust: Tensor) -> tuple[int, ...]:
    return tuple(robust.int().tolist())
