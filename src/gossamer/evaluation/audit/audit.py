"""Can a model's robust accuracy be trusted? Every known sign of a misleading evaluation, each with what settles it."""

import copy
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.data import DataSet
from gossamer.errors import ConfigError
from gossamer.evaluation.adapters import as_module, name_of
from gossamer.evaluation.audit import bounds, opaque, signs
from gossamer.evaluation.audit.budget import Budget, find_budget
from gossamer.evaluation.audit.lab import COMPANY, SQUARE, Lab, holds_opaque, set_up
from gossamer.evaluation.audit.verdict import decide
from gossamer.evaluation.batches import Batches, fitting_batch_size
from gossamer.evaluation.cells import mark_of
from gossamer.evaluation.ledger import Ledger
from gossamer.evaluation.outcomes import interval, share
from gossamer.evaluation.plan import digest, fingerprint
from gossamer.evaluation.samples import Data, as_dataset, check_labels, select_samples
from gossamer.evaluation.standing import Progress
from gossamer.evaluation.subject import at_rest, count_classes, place_of
from gossamer.runs.audits import Audit
from gossamer.runs.environment import environment
from gossamer.runs.results import Dataset
from gossamer.threat import ThreatModel
from gossamer.types import Model

MARKED = 8
"""Images whose logits tell a model from others whose inside is not seen."""


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
    partial: Path | str | None = None,
    save_seconds: float = 30.0,
    keep_partial: bool = False,
) -> Audit:
    """Return whether the robust accuracy that plain PGD gives a model can be trusted, and what is left of it.

    model: anything that `as_module` takes and that maps images (N, C, H, W) in [0, 1] to logits (or, which is a sign,
    to probabilities); a copy of it is audited. n: how many samples, chosen as `evaluate` does; all where None.
    budget: a `Budget`, or quick, standard or thorough. twin: another network of the same classes, whose adversarial
    examples are tried too. layers: names of layers through which gradients are to flow as if they were the identity,
    besides those that are found. Signs and bounds: docs/audit.

    partial: a folder for what is settled so far, saved after each attack and every `save_seconds`; an audit that was
    killed goes on from there with the batch size it began with, and ends in the same record; removed at the end, or
    left to the caller with keep_partial.

    Raises ConfigError for a model that cannot be copied, fewer than 30 samples and impossible arguments, DataError
    for data that do not fit the model, RunError for logits that are not finite and for partial results of another
    audit.
    """
    whole = as_dataset(data)
    dataset, selection = select_samples(whole, n if n is None else min(n, len(whole)), seed=seed)
    _check_samples(len(dataset))
    judged_by = ThreatModel.parse(threat) if isinstance(threat, str) else threat
    spending = find_budget(budget)
    module, other = as_module(model), None if twin is None else as_module(twin)
    place = place_of(module, device)
    _check_layers(module, layers)
    with at_rest(_copy(module), place) as resting:
        example = dataset.float(torch.arange(1), device=place)
        check_labels(dataset, count_classes(resting, example))
        asked = {"threat": str(judged_by), "seed": seed, "budget": asdict(spending), "layers": list(layers)}
        plan = _plan(resting, other, dataset, place) | asked
        ledger = Ledger.open(None if partial is None else Path(partial), plan, seconds=save_seconds)
        lab = set_up(
            resting,
            dataset,
            Batches(_batch_size(batch_size, resting, dataset, place, ledger)),
            threat=judged_by,
            seed=seed,
            budget=spending,
            layers=layers,
            twin=other,
            progress=progress,
            ledger=ledger,
            device=place,
        )
        lab.claim()
        seen = opaque.see_signs(lab) if lab.facts.opaque else signs.see_signs(lab)
    verdict, reason = decide(lab, seen)
    settled = lab.standing & ~lab.union(lab.broken)
    found = Audit(
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
        claimed_attack=_claimed(lab),
        claimed_robust_accuracy=share(lab.standing),
        claimed_interval=interval(lab.standing),
        claimed_robust=_flags(lab.standing),
        settled_robust_accuracy=share(settled),
        settled_interval=interval(settled),
        settled_robust=_flags(settled),
        index=tuple(dataset.index.tolist()),
        signs=seen,
        attacks=tuple(lab.records),
        environment=environment(place),
    )
    if not keep_partial:
        ledger.close()
    return found


def _plan(model: nn.Module, twin: nn.Module | None, dataset: DataSet, place: torch.device) -> dict[str, Any]:
    """Return by what the partial results of an audit are known to be its own, but for plain arguments."""
    few = dataset.float(torch.arange(min(MARKED, len(dataset))))
    return {
        "command": "audit",
        "gossamer": version("gossamer"),
        "model": mark_of(_copy(model), few, place),
        "twin": None if twin is None else fingerprint(twin),
        "data": dataset.checksum,
        "samples": digest(dataset.index.tolist()),
    }


def _batch_size(given: int | None, model: nn.Module, dataset: DataSet, place: torch.device, ledger: Ledger) -> int:
    ledger.batch_size = given or ledger.batch_size or fitting_batch_size(_copy(model), dataset, place)
    return ledger.batch_size


def _claimed(lab: Lab) -> str:
    if lab.standard == SQUARE:
        return f"Square, {lab.budget.queries} queries"
    pgd = f"PGD, {lab.budget.steps} steps of 2.5 eps/n, 1 random start"
    return f"{pgd}, its points from the twin" if lab.facts.opaque else pgd


def _check_layers(model: nn.Module, layers: tuple[str, ...]) -> None:
    if layers and holds_opaque(model):
        raise ConfigError(
            "layers",
            expected="none, as layers of an ONNX file or a NumPy function cannot be reached",
            got=", ".join(layers),
            remedy="leave them out, and give the float network as twin",
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
