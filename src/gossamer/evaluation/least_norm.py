"""How far away is the nearest adversarial example? FMN with settings tuned for each model, as a second opinion.

The procedure is HO-FMN's as the adversarial-pruning benchmark uses it (Piras et al., arXiv 2409.01249), but for two
things: settings are drawn at random from its search space instead of proposed by Ax, and, unless the published
behaviour is asked for, its faults are mended. Published, a sample without an adversarial example has distance 0 and
counts as broken; here its distance is infinite and it stands. Published, settings are tuned on the first 64 images
and 128 images at a fixed place are judged; here the tuning samples are drawn by the seed among those that are not
judged, and n is the protocol's.
"""

import math
import statistics
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from gossamer.attacks.checks import check_count
from gossamer.attacks.fmn import LinfFMN
from gossamer.attacks.goals import LossName
from gossamer.attacks.minimal import minimal_norms
from gossamer.data import DataSet
from gossamer.errors import DataError
from gossamer.evaluation.batches import Batches, default_batch_size
from gossamer.evaluation.judge import TOLERANCE
from gossamer.evaluation.setting import Setting, share_of
from gossamer.evaluation.subject import at_rest, place_of
from gossamer.runs.protocols import LeastNormPart, SecondOpinion, TuningTrial
from gossamer.seeding import Draws

PUBLISHED_JUDGED = range(2048, 2176)
PUBLISHED_TUNING = 64
PART = 128
"""Samples a finished cell."""

LR = (8 / 255, 10.0)
MOMENTUM = (0.0, 0.9)
WEIGHT_DECAY = (0.01, 1.0)
DAMPENING = (0.0, 0.2)


@dataclass(frozen=True, kw_only=True)
class Search:
    """How settings are sought: trials of `steps` steps on `samples` images; then `final_steps` on those judged.

    Raises ConfigError for impossible fields.
    """

    trials: int = 32
    samples: int = PUBLISHED_TUNING
    steps: int = 100
    final_steps: int = 200
    loss: LossName = "dlr"

    def __post_init__(self) -> None:
        for name in ("trials", "samples", "steps", "final_steps"):
            check_count(f"search {name}", getattr(self, name))


def second_opinion(
    name: str,
    model: nn.Module,
    setting: Setting,
    *,
    eps: float = 8 / 255,
    search: Search | None = None,
    as_published: bool = False,
) -> SecondOpinion:
    """Tune FMN for a model, then measure the linf distances of the setting's samples; robust: above eps.

    as_published: the benchmark's own samples and its counting of what is not found, whatever the setting's n.
    Raises DataError where the data are too few for the published samples or a loss needs more classes.
    """
    plan = search or Search()
    judged, tuning = _samples(setting, plan, as_published)
    best = min(
        (_try(name, model, setting, plan, tuning, trial, as_published) for trial in range(plan.trials)),
        key=lambda each: math.inf if each.median is None else each.median,
    )
    attack = _attack(plan, best.settings, plan.final_steps, as_published)
    parts = [
        _measure(name, model, setting, attack, judged.subset(rows)) for rows in torch.arange(len(judged)).split(PART)
    ]
    distance = [value for part in parts for value in part.distance]
    far = [_stands(value, eps, as_published) for value in distance]
    return SecondOpinion(
        as_published=as_published,
        eps=eps,
        robust=share_of([int(stands) for stands in far]),
        not_found=sum(value is None for value in distance),
        index=tuple(judged.index.tolist()),
        distance=tuple(distance),
        settings=asdict(attack),
        trials=plan.trials,
        tuning_samples=len(tuning),
        tuned_to=best.median,
    )


def _stands(distance: float | None, eps: float, as_published: bool) -> bool:
    if distance is None:
        return not as_published
    return distance > (eps if as_published else eps + TOLERANCE)


def _samples(setting: Setting, plan: Search, as_published: bool) -> tuple[DataSet, DataSet]:
    whole = setting.whole
    if as_published:
        if len(whole) < PUBLISHED_JUDGED.stop:
            raise DataError(
                "the published second opinion",
                expected=f"at least {PUBLISHED_JUDGED.stop} images",
                got=len(whole),
                remedy="leave out as_published",
            )
        judged = torch.arange(PUBLISHED_JUDGED.start, PUBLISHED_JUDGED.stop)
        return whole.subset(judged), whole.subset(torch.arange(plan.samples))
    judged = setting.samples
    others = (~torch.isin(whole.index, judged.index)).nonzero().flatten()
    pool = others if len(others) >= plan.samples else torch.arange(len(whole))
    order = torch.randperm(len(pool), generator=Draws(setting.seed, ("ho-fmn", "samples")).generator())
    return judged, whole.subset(pool[order[: plan.samples]])


def _try(
    name: str,
    model: nn.Module,
    setting: Setting,
    plan: Search,
    tuning: DataSet,
    trial: int,
    as_published: bool,
) -> TuningTrial:
    settings = _drawn(setting.seed, trial)
    attack = _attack(plan, settings, plan.steps, as_published)

    def make() -> TuningTrial:
        distances = _distances(model, setting, attack, tuning)
        # As published, images that the model errs on count as ones for which nothing is found.
        known = [value or math.inf for value in distances] if as_published else _without_errors(distances)
        median = statistics.median_low(known) if known else math.inf
        return TuningTrial(settings=settings, median=median if math.isfinite(median) else None)

    cell = [name, setting.mark(model), tuning.checksum, asdict(attack), as_published]
    return setting.keep(f"{name}-tuning", TuningTrial, make, cell)


def _without_errors(distances: list[float | None]) -> list[float]:
    return [math.inf if value is None else value for value in distances if value != 0]


def _drawn(seed: int, trial: int) -> dict[str, float]:
    """Return the settings of one trial: lr uniform in its logarithm, the others uniform."""
    lr, momentum, decay, dampening = Draws(seed, ("ho-fmn", "trial", trial)).uniform((4,)).tolist()
    return {
        "lr": LR[0] * (LR[1] / LR[0]) ** lr,
        "momentum": MOMENTUM[0] + (MOMENTUM[1] - MOMENTUM[0]) * momentum,
        "weight_decay": WEIGHT_DECAY[0] + (WEIGHT_DECAY[1] - WEIGHT_DECAY[0]) * decay,
        "dampening": DAMPENING[0] + (DAMPENING[1] - DAMPENING[0]) * dampening,
    }


def _attack(plan: Search, settings: dict[str, float], steps: int, as_published: bool) -> LinfFMN:
    return LinfFMN(steps=steps, **settings, loss=plan.loss, judge_final=not as_published)


def _measure(name: str, model: nn.Module, setting: Setting, attack: LinfFMN, samples: DataSet) -> LeastNormPart:
    def make() -> LeastNormPart:
        return LeastNormPart(distance=tuple(_distances(model, setting, attack, samples)))

    cell = [name, setting.mark(model), samples.checksum, asdict(attack)]
    return setting.keep(f"{name}-distances", LeastNormPart, make, cell)


def _distances(model: nn.Module, setting: Setting, attack: LinfFMN, samples: DataSet) -> list[float | None]:
    """Return the distances of samples, None where nothing is found, 0 where the model errs on the clean image."""
    place = place_of(model, setting.device)
    with at_rest(model, place) as resting:

        def work(positions: Tensor) -> Tensor:
            x = samples.float(positions, device=place)
            y = samples.labels[positions.to(samples.labels.device)].to(place)
            return minimal_norms(resting, x, y, attack).distances.cpu()

        pixels = math.prod(samples.image_shape)
        batches = Batches(setting.batch_size or default_batch_size(pixels, place))
        found = torch.cat(list(batches.run(work, torch.arange(len(samples)))))
    return [value if math.isfinite(value) else None for value in found.tolist()]
