"""How often does an attack that only asks the model succeed, and with how many queries?"""

import math
import statistics
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gossamer.attacks.queries import QueryAttack
from gossamer.errors import ConfigError, DataError
from gossamer.evaluation.batches import Batches, default_batch_size
from gossamer.evaluation.judge import judge, predict
from gossamer.evaluation.samples import Data, as_dataset, check_labels, select_samples
from gossamer.evaluation.subject import at_rest, count_classes, place_of, seed_noise
from gossamer.intervals import wilson
from gossamer.seeding import Draws, derive


@dataclass(frozen=True, kw_only=True)
class BlackBoxResult:
    """What came of a black-box attack on the samples that are right when clean.

    selection: the rule that chose the samples; index: the attacked ones, in the source part; success: the model
    errs at the attack's point, inside the attack's threat; queries: forwards of the image, up to the success; and
    distance: l2 from the image to the point, inf where the attack found none.
    """

    threat: str
    selection: str
    n: int
    index: tuple[int, ...]
    success: tuple[bool, ...]
    queries: tuple[int, ...]
    distance: tuple[float, ...]

    @property
    def attacked(self) -> int:
        """How many of the n samples are right when clean, and so attacked."""
        return len(self.index)

    @property
    def clean_accuracy(self) -> float:
        """The share of the n samples that are right when clean."""
        return self.attacked / self.n

    @property
    def success_rate(self) -> float:
        """The share of the attacked samples that the attack breaks."""
        return sum(self.success) / self.attacked

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of the success rate."""
        return wilson(sum(self.success), self.attacked)

    @property
    def median_queries(self) -> float:
        """The median number of queries of the successes; not a number where there is none."""
        return statistics.median(self._queries_of_successes()) if any(self.success) else math.nan

    @property
    def mean_queries(self) -> float:
        """The mean number of queries of the successes; not a number where there is none."""
        return statistics.fmean(self._queries_of_successes()) if any(self.success) else math.nan

    def _queries_of_successes(self) -> list[int]:
        return [queries for queries, success in zip(self.queries, self.success, strict=True) if success]


def success_rate(
    model: nn.Module,
    data: Data,
    attack: QueryAttack,
    n: int | None = 200,
    seed: int = 0,
    *,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
) -> BlackBoxResult:
    """Measure how often an attack that counts its queries breaks a module that maps images in [0, 1] to logits.

    data: a DataSet, or (x, y); n: how many samples (`select_samples` chooses; all of them where None), of which those
    that are right when clean are attacked. Success is judged on the model, inside the attack's threat. batch_size:
    images side by side; it halves when memory runs out, and changes no result but by rounding of the model. The
    model comes back as it was.

    Raises ConfigError for an attack that counts no queries and impossible arguments, DataError for data that do not
    fit the model and where no sample is right when clean, RunError for logits that are not finite.
    """
    _check_attack(attack)
    dataset, selection = select_samples(as_dataset(data), n, seed=seed)
    place = place_of(model, device)
    size = default_batch_size(math.prod(dataset.image_shape), place) if batch_size is None else batch_size
    if size < 1:
        raise ConfigError("batch size", expected="a whole number >= 1", got=size, remedy="write for example 128")
    batches, draws = Batches(size), Draws(seed).at("blackbox")

    def take(positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = dataset.float(positions, device=place)
        y = dataset.labels[positions.to(dataset.labels.device)].to(place)
        return x, y, dataset.index.cpu()[positions]

    with at_rest(model, place) as resting:
        check_labels(dataset, count_classes(resting, take(torch.arange(1))[0]))
        seed_noise(derive(seed, "blackbox", "noise"), place)

        def look(positions: Tensor) -> Tensor:
            x, y, index = take(positions)
            return (predict(resting, x, index=index).argmax(dim=1) == y).cpu()

        def strike(positions: Tensor) -> Tensor:
            x, y, index = take(positions)
            found = attack.search(resting, x.clone(), y.clone(), draws=draws.per_sample(index))
            outcome = judge(resting, x, found.points, y, attack.threat, index=index)
            return torch.stack([outcome.broken.double(), found.queries.double(), found.distance], dim=1).cpu()

        clean = torch.cat(list(batches.run(look, torch.arange(len(dataset)))))
        attacked = clean.nonzero().flatten()
        if not len(attacked):
            raise DataError(
                "samples to attack",
                expected="at least one that the model classifies correctly",
                got=f"none of {len(dataset)}",
                remedy="train the model first, or give more samples",
            )
        success, queries, distance = torch.cat(list(batches.run(strike, attacked))).unbind(dim=1)
    return BlackBoxResult(
        threat=str(attack.threat),
        selection=selection,
        n=len(dataset),
        index=tuple(dataset.index.cpu()[attacked].tolist()),
        success=tuple(success.bool().tolist()),
        queries=tuple(queries.long().tolist()),
        distance=tuple(distance.tolist()),
    )


def _check_attack(attack: object) -> None:
    if isinstance(attack, QueryAttack):
        return
    raise ConfigError(
        f"attack {type(attack).__name__}",
        expected="an attack that counts its queries: Square or ZOO",
        got="one without search(model, x, y)",
        remedy="measure other attacks with evaluate",
    )
