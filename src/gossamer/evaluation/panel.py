"""What do the attacked images look like? A few samples, clean and attacked, and one of them over rising eps."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from gossamer.data import DataSet, balanced
from gossamer.evaluation.judge import admit, predict
from gossamer.evaluation.subject import at_rest, place_of, seed_noise
from gossamer.evaluation.trials import Trial, at_eps, has_eps, plan_trials
from gossamer.runs.panel import Captions, Ladder, Panel
from gossamer.seeding import Draws, derive
from gossamer.threat import ThreatModel
from gossamer.types import Attack

LADDER = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Rungs of the default ladder, in multiples of the threat's eps."""

CANDIDATES = 16
"""Samples looked at for each one shown."""


def make_panel(
    model: nn.Module,
    dataset: DataSet,
    attack: Attack,
    *,
    draws: Draws,
    count: int = 8,
    eps_ladder: Sequence[float] | None = None,
    device: torch.device | str | None = None,
) -> Panel:
    """Return `count` samples (fewer where the set is smaller), clean and attacked, with what the model says of them.

    The choice depends on model and data alone: samples that are right when clean before others, spread over the
    classes. eps_ladder: radii in pixel units of [0, 1] at which the first sample is attacked; by default 0 to 4
    times the attack's eps, where its eps can be changed; () for none. An inadmissible point is shown as the clean
    image.

    Raises ConfigError where the attack names no threat.
    """
    trial = plan_trials(attack)[0]
    rungs = _rungs(trial, eps_ladder)
    place = place_of(model, device)
    with at_rest(model, place) as resting:
        seed_noise(derive(draws.seed, "panel", "noise"), place)
        positions = _choose(resting, dataset, count, place)
        x, y = dataset.float(positions, device=place), dataset.labels[positions].to(place)
        keyed = draws.at("panel", trial.name).per_sample(dataset.index[positions])
        shown, _ = admit(trial.attack(resting, x, y, draws=keyed), x, trial.threat)
        clean, attacked = _opinions(resting, x), _opinions(resting, shown)
        climb = _climber(resting, trial, x[:1], y[:1], keyed.select(torch.tensor([0])))
        ladder = torch.cat([climb(eps) for eps in rungs]) if rungs else None
        said = None if ladder is None else _opinions(resting, ladder)
    return Panel(
        images=(x * 255).round().to(torch.uint8).cpu(),
        adversarial=shown.float().cpu(),
        ladder=None if ladder is None else ladder.float().cpu(),
        captions=Captions(
            attack=trial.name,
            threat=str(trial.threat),
            classes=dataset.classes,
            labels=tuple(y.tolist()),
            clean_predictions=clean[0],
            clean_confidences=clean[1],
            adversarial_predictions=attacked[0],
            adversarial_confidences=attacked[1],
            ladder=None
            if said is None
            else Ladder(eps=rungs, label=int(y[0]), predictions=said[0], confidences=said[1]),
        ),
    )


def _choose(model: nn.Module, dataset: DataSet, count: int, device: torch.device) -> Tensor:
    pool = balanced(dataset, min(len(dataset), CANDIDATES * count))
    where = {index: position for position, index in enumerate(dataset.index.tolist())}
    seen: dict[tuple[bool, int], int] = {}
    ranked: list[tuple[bool, int, int, int]] = []
    for order, (label, index) in enumerate(zip(pool.labels.tolist(), pool.index.tolist(), strict=True)):
        image = dataset.float(torch.tensor([where[index]]), device=device)
        wrong = int(predict(model, image).argmax()) != label
        rank = seen.get((wrong, label), 0)
        seen[wrong, label] = rank + 1
        ranked.append((wrong, rank, label, order))
    chosen = [order for *_, order in sorted(ranked)[:count]]
    return torch.tensor([where[index] for index in pool.index[torch.tensor(chosen)].tolist()])


def _rungs(trial: Trial, eps_ladder: Sequence[float] | None) -> tuple[float, ...]:
    if eps_ladder is not None:
        return tuple(eps_ladder)
    if not has_eps(trial.attack) or not isinstance(trial.threat, ThreatModel):
        return ()
    largest = 1.0 if trial.threat.norm == "linf" else math.inf
    return tuple(dict.fromkeys(min(rung * trial.threat.eps, largest) for rung in LADDER))


def _climber(model: nn.Module, trial: Trial, x: Tensor, y: Tensor, draws: Draws) -> Callable[[float], Tensor]:
    def climb(eps: float) -> Tensor:
        if eps == 0:
            return x
        # An attack whose eps can be changed has a ball.
        assert isinstance(trial.threat, ThreatModel)
        found = at_eps(trial.attack, eps)(model, x, y, draws=draws)
        return admit(found, x, ThreatModel(trial.threat.norm, eps))[0]

    return climb


def _opinions(model: nn.Module, x: Tensor) -> tuple[tuple[int, ...], tuple[float, ...]]:
    confidences, predictions = predict(model, x).softmax(dim=1).max(dim=1)
    return tuple(predictions.tolist()), tuple(confidences.tolist())
