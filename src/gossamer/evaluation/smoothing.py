"""Within which radius can no attack succeed? Certificates of randomised smoothing (Cohen et al., ICML 2019).

The smoothed classifier g(x) is the class that the model gives most often to x + N(0, sigma^2 I). Where that class has
at least the probability p > 1/2, g is constant within the l2 radius sigma * Phi^-1(p). p is bounded from below by
counting, so each certificate holds with confidence 1 - alpha. The model should have been trained with such noise.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor, nn

from gossamer.attacks.checks import check_count
from gossamer.data import DataSet
from gossamer.errors import ConfigError
from gossamer.evaluation.batches import Batches, default_batch_size
from gossamer.evaluation.judge import predict
from gossamer.evaluation.samples import check_labels
from gossamer.evaluation.setting import Setting, check_models, share_of
from gossamer.evaluation.subject import at_rest, count_classes, place_of
from gossamer.runs.protocols import Certificate, CertifiedAt, SmoothedModel, SmoothingTable
from gossamer.seeding import Draws

BLOCK = 100
"""Noisy copies that one draw makes: noise depends on the block, not on the batch size."""

CONFIDENCE = 0.999
RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0)


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """Noise of standard deviation sigma, in pixel units of [0, 1]; copies are not clipped into the box.

    n0: copies that choose the class; n: further ones that count it; alpha: how often a certificate may be wrong.
    Raises ConfigError for impossible fields.
    """

    sigma: float
    n0: int = 100
    n: int = 100_000
    alpha: float = 0.001

    def __post_init__(self) -> None:
        check_count("smoothing n0", self.n0)
        check_count("smoothing n", self.n)
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise ConfigError("sigma", expected="a finite number > 0", got=self.sigma, remedy="write 0.25, say")
        if not 0 < self.alpha < 1:
            raise ConfigError("alpha", expected="a share in (0, 1)", got=self.alpha, remedy="write 0.001")


def certify(
    models: Mapping[str, nn.Module],
    setting: Setting,
    smoothing: Smoothing,
    *,
    radii: Sequence[float] = RADII,
) -> SmoothingTable:
    """Certify every sample for every model; certified accuracy at r: right, with a certified radius above r.

    Each sample is a finished cell of the setting's folder. Noise is drawn on the model's device. Raises ConfigError
    for impossible arguments, DataError for data that do not fit a model.
    """
    check_models(models)
    rows = tuple(_row(name, model, setting, smoothing, tuple(radii)) for name, model in models.items())
    return SmoothingTable(
        dataset=setting.dataset,
        seed=setting.seed,
        sigma=smoothing.sigma,
        n0=smoothing.n0,
        n=smoothing.n,
        alpha=smoothing.alpha,
        confidence=CONFIDENCE,
        rows=rows,
        environment=setting.environment_of(next(iter(models.values()))),
    )


def lower_bound(count: int, n: int, alpha: float) -> float:
    """Return the one-sided Clopper-Pearson bound: p is at least this with confidence 1 - alpha, count of n seen."""
    from scipy.stats import beta  # noqa: PLC0415  (slow to import, needed here alone)

    return float(beta.ppf(alpha, count, n - count + 1)) if count else 0.0


def radius_of(lower: float, sigma: float) -> float:
    """Return sigma * Phi^-1(lower), 0 where lower is not above 1/2: the l2 radius of a certificate."""
    return sigma * NormalDist().inv_cdf(lower) if lower > 0.5 else 0.0


def guaranteed(accuracy: float, samples: int, alpha: float, confidence: float = CONFIDENCE) -> float:
    """Return what the true certified accuracy of these samples is at least, with so much confidence.

    Each certificate may be wrong with probability alpha; Bernstein's inequality bounds how many are (Cohen et al.,
    2019, appendix B): (accuracy - alpha - sqrt(2 alpha (1 - alpha) log(1/rho) / m) - log(1/rho) / (3 m)) / (1 - alpha),
    rho = 1 - confidence; at least 0.
    """
    slack = math.log(1 / (1 - confidence))
    wrong = alpha + math.sqrt(2 * alpha * (1 - alpha) * slack / samples) + slack / (3 * samples)
    return max(0.0, (accuracy - wrong) / (1 - alpha))


def _row(
    name: str, model: nn.Module, setting: Setting, smoothing: Smoothing, radii: tuple[float, ...]
) -> SmoothedModel:
    samples, place = setting.samples, place_of(model, setting.device)
    mark = setting.mark(model)
    done: list[Certificate] = []
    with at_rest(model, place) as resting:
        classes = count_classes(resting, samples.float(torch.arange(1), device=place))
        check_labels(samples, classes)
        size = setting.batch_size or default_batch_size(math.prod(samples.image_shape), place)
        batches = Batches(max(1, size // BLOCK))
        for position in range(len(samples)):
            index = int(samples.index[position])

            def make(position: int = position) -> Certificate:
                return _certificate(resting, samples, position, smoothing, setting.seed, batches, classes, place)

            plan = [name, mark, samples.checksum, index, setting.seed, vars(smoothing)]
            done.append(setting.keep(f"{name}-certificate", Certificate, make, plan))
    curve = tuple(_certified_at(radius, done, smoothing.alpha) for radius in radii)
    abstained = sum(each.prediction is None for each in done)
    return SmoothedModel(name=name, abstained=abstained, samples=tuple(done), curve=curve)


def _certificate(
    model: nn.Module,
    samples: DataSet,
    position: int,
    smoothing: Smoothing,
    seed: int,
    batches: Batches,
    classes: int,
    place: torch.device,
) -> Certificate:
    x = samples.float(torch.tensor([position]), device=place)
    index, label = int(samples.index[position]), int(samples.labels[position])
    draws = Draws(seed, ("smoothing", index))

    def count(phase: str, copies: int) -> Tensor:
        """Return how often each class is predicted: (K,)."""

        def look(blocks: Tensor) -> Tensor:
            noise = torch.cat([_block(draws.at(phase, block), x, copies - block * BLOCK) for block in blocks.tolist()])
            return predict(model, x + smoothing.sigma * noise).argmax(dim=1).cpu().bincount(minlength=classes)

        blocks = torch.arange(math.ceil(copies / BLOCK))
        return torch.stack(list(batches.run(look, blocks))).sum(dim=0)

    chosen = int(count("choose", smoothing.n0).argmax())
    lower = lower_bound(int(count("count", smoothing.n)[chosen]), smoothing.n, smoothing.alpha)
    certain = lower > 0.5
    return Certificate(
        index=index,
        label=label,
        prediction=chosen if certain else None,
        radius=radius_of(lower, smoothing.sigma),
        lower=lower,
    )


def _block(draws: Draws, x: Tensor, left: int) -> Tensor:
    return draws.normal((min(BLOCK, left), *x.shape[1:]), device=x.device).to(x.dtype)


def _certified_at(radius: float, done: list[Certificate], alpha: float) -> CertifiedAt:
    accuracy = share_of([int(each.prediction == each.label and each.radius > radius) for each in done])
    return CertifiedAt(radius=radius, accuracy=accuracy, guaranteed=guaranteed(accuracy.value, len(done), alpha))
