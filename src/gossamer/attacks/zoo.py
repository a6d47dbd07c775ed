"""Zeroth order optimisation (Chen et al., AISec 2017): the attack of Carlini & Wagner on the model's outputs alone."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from gossamer.attacks.checks import check_count
from gossamer.attacks.goals import SEED_ZERO, Goal
from gossamer.attacks.queries import Searched
from gossamer.attacks.stepwise import Rows, put, select
from gossamer.attacks.targets import Target
from gossamer.attacks.zoo_coordinates import SPACES, SolverName, SpaceName, move, probe
from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.types import Model

Scores: TypeAlias = Literal["probabilities", "logits"]

COUNTED_AS_SUCCESS = ThreatModel("l2", 20)
"""What the authors' evaluation counts: any l2 distance up to 20, nearly the whole box of a CIFAR image."""

LEAST_PROBABILITY = 1e-30
LARGEST_CONST = 1e10
FIRST_LOSS = 1e6
STALLED = 0.9999
REPEAT_FROM = 10


@dataclass(frozen=True, kw_only=True)
class ZOO:
    """Minimises |x_adv - x|^2 + const * max(0, score_y - max_{i != y} score_i) by coordinate descent.

    An iteration estimates the slopes along `coordinates` random coordinates by differences of +-h, 2 * coordinates
    + 1 forwards of the image, and moves those by Adam, with a step count for each coordinate, or by Newton's
    method. space: of the variables, tanh as Carlini & Wagner, or box, clipped, for images that are mostly black or
    white, where tanh has no slope. scores: logarithms of probabilities, or logits. searches: descents, const rising
    tenfold until one succeeds, then halving the interval; from 10 searches on the last repeats the smallest const
    that succeeded. abort_every: iterations between checks that the loss still falls, 0 for none. target: drives to
    classes instead of away from the label, for one more forward. stop_at_first: stop at the first success, whose
    distance nobody has minimised yet. Defaults: the authors' run on CIFAR-10, untargeted.

    The search knows no radius: `threat` is what the caller judges the nearest point by. batch_size: forwards a
    call. Draws, keyed by sample: "coordinates", search, iteration; U[0, 1) of shape (C * H * W,), the largest of
    which are chosen. Slopes are computed in float64 from the model's logits.

    Raises ConfigError for impossible fields.
    """

    threat: ThreatModel = COUNTED_AS_SUCCESS
    iterations: int = 1000
    coordinates: int = 128
    lr: float = 0.01
    h: float = 1e-4
    const: float = 0.5
    searches: int = 1
    abort_every: int = 100
    solver: SolverName = "adam"
    space: SpaceName = "tanh"
    scores: Scores = "probabilities"
    target: Target | None = None
    stop_at_first: bool = False
    batch_size: int = 257

    def __post_init__(self) -> None:
        for name in ("iterations", "coordinates", "searches", "batch_size"):
            check_count(f"attack {name}", getattr(self, name))
        if self.abort_every != 0:
            check_count("attack abort_every", self.abort_every)
        for name in ("lr", "h", "const"):
            _check_positive(name, getattr(self, name))
        _check_choice("solver", self.solver, get_args(SolverName))
        _check_choice("space", self.space, get_args(SpaceName))
        _check_choice("scores", self.scores, get_args(Scores))

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return the nearest points found, x where none was, for x: (N, C, H, W) in [0, 1] and labels y: (N,)."""
        return self.search(model, x, y, draws=draws).points

    @torch.no_grad()
    def search(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Searched:
        """Return points, distances and queries for x: (N, C, H, W) in [0, 1] with labels y: (N,).

        An iteration's queries are all counted before its success.
        """
        order = torch.arange(len(x), device=x.device)
        keyed = draws.per_sample(order) if draws.rows is None else draws
        record = _blank_record(x)
        target = None if self.target is None else self._aim(model, x, y, record)
        goal = Goal(loss="margin", labels=y, target=target)
        forwards = 2 * min(self.coordinates, math.prod(x.shape[1:])) + 1
        for part in order.split(max(1, self.batch_size // forwards)):
            if len(part):
                found = self._search(model, x[part], goal.select(part), select(record, part), keyed.select(part))
                record = put(record, part, found)
        points, found, spent = record["points"], record["found"], record["spent"]
        distance = torch.linalg.vector_norm((points.double() - x.double()).flatten(1), dim=1)
        return Searched(
            points=points,
            found=found,
            queries=torch.where(found, record["queries"], spent),
            spent=spent,
            distance=distance.where(found, torch.inf),
        )

    def _aim(self, model: Model, x: Tensor, y: Tensor, record: Rows) -> Tensor:
        assert self.target is not None
        record["spent"] += 1
        return self.target(torch.cat([model(part) for part in x.split(self.batch_size)]), y)

    def _search(self, model: Model, x: Tensor, goal: Goal, record: Rows, draws: Draws) -> Rows:
        const = torch.full((len(x),), self.const, dtype=torch.float64, device=x.device)
        lower, upper = torch.zeros_like(const), torch.full_like(const, LARGEST_CONST)
        for search in range(self.searches):
            if self.searches >= REPEAT_FROM and search == self.searches - 1:
                const = upper
            left = (~(record["found"] & self.stop_at_first)).nonzero().flatten()
            if not len(left):
                break
            rows = self._enter(x, const, left)
            record, succeeded = self._descend(model, x, goal, rows, record, draws.at("coordinates", search))
            lower, upper, const = next_const(lower, upper, const, succeeded)
        return record

    def _enter(self, x: Tensor, const: Tensor, left: Tensor) -> Rows:
        w = SPACES[self.space].enter(x[left].flatten(1))
        return {
            "image": left,
            "w": w,
            "first": torch.zeros_like(w),
            "second": torch.zeros_like(w),
            "count": torch.zeros_like(w),
            "const": const[left],
            "previous": torch.full_like(const[left], FIRST_LOSS),
        }

    def _descend(
        self, model: Model, x: Tensor, goal: Goal, rows: Rows, record: Rows, draws: Draws
    ) -> tuple[Rows, Tensor]:
        """Run one descent; return the record and which images succeeded in it: (n,) bool.

        As in the published code, the point of an iteration is judged before it moves, and not where it stalls.
        """
        space = SPACES[self.space]
        origin = space.image(space.enter(x.flatten(1)))
        succeeded = torch.zeros_like(record["found"])
        for iteration in range(self.iterations):
            image = rows["image"]
            if not len(image):
                break
            coordinates = self._draw(x[image], draws.at(iteration).select(image))
            probes = probe(space, rows["w"], coordinates, self.h)
            logits = probes.logits(model, x[image], self.batch_size)
            distance = probes.squared_distance(origin[image])
            loss = self._loss(logits, goal.select(image), rows["const"], distance)
            stalled = torch.zeros_like(image, dtype=torch.bool)
            if self.abort_every and iteration % self.abort_every == 0:
                stalled = loss[:, 0] > rows["previous"] * STALLED
                rows["previous"] = loss[:, 0]
            reached = goal.select(image).reached(logits[:, 0]) & ~stalled
            record = _note(record, image, probes.base.to(x.dtype), reached, distance[:, 0], logits.shape[1])
            succeeded[image] |= reached
            rows = move(rows, coordinates, loss, solver=self.solver, space=space, lr=self.lr, h=self.h)
            rows = select(rows, ~(stalled | (reached & self.stop_at_first)))
        return record, succeeded

    def _draw(self, x: Tensor, draws: Draws) -> Tensor:
        numbers = draws.uniform((len(x), x[0].numel()), device=x.device)
        return numbers.topk(min(self.coordinates, numbers.shape[1]), dim=1).indices

    def _loss(self, logits: Tensor, goal: Goal, const: Tensor, squared_distance: Tensor) -> Tensor:
        """Return the loss of all probes: (n, P), from logits: (n, P, K)."""
        n, probes, classes = logits.shape
        scores = _SCORES[self.scores](logits.double()).view(n * probes, classes)
        each = torch.arange(n, device=logits.device).repeat_interleave(probes)
        short = goal.select(each).value(scores).neg().clamp(min=0).view(n, probes)
        return squared_distance + const[:, None] * short


def next_const(lower: Tensor, upper: Tensor, const: Tensor, succeeded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (lower, upper, const) after descents with const: (n,); succeeded: (n,) bool.

    A success lowers the upper end, a failure raises the lower one; the next const is their middle, or ten times as
    much where there was no success yet (Carlini & Wagner, 2017).
    """
    upper = torch.where(succeeded, torch.minimum(upper, const), upper)
    lower = torch.where(succeeded, lower, torch.maximum(lower, const))
    return lower, upper, torch.where(upper < LARGEST_CONST, (lower + upper) / 2, const * 10)


def _blank_record(x: Tensor) -> Rows:
    none = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    return {
        "points": x.clone(),
        "found": none.bool(),
        "distance": torch.full_like(none, torch.inf, dtype=torch.float64),
        "queries": none,
        "spent": none.clone(),
    }


def _note(record: Rows, image: Tensor, points: Tensor, reached: Tensor, distance: Tensor, forwards: int) -> Rows:
    """Return the record with one iteration of some images: points: (m, d), of which `reached` ones succeed."""
    spent = record["spent"].index_add(0, image, torch.full_like(image, forwards))
    queries, best, nearest = record["queries"].clone(), record["points"].clone(), record["distance"].clone()
    first = image[reached & ~record["found"][image]]
    queries[first] = spent[first]
    nearer = reached & (distance < nearest[image])
    best[image[nearer]] = points[nearer].view(-1, *best.shape[1:])
    nearest[image[nearer]] = distance[nearer]
    found = record["found"].index_fill(0, image[reached], True)
    return {"points": best, "found": found, "distance": nearest, "queries": queries, "spent": spent}


def _floored_log_probabilities(logits: Tensor) -> Tensor:
    # log(p + 1e-30): below it another class has no slope any more, as in the published code.
    logs = torch.log_softmax(logits, dim=-1)
    return torch.logaddexp(logs, torch.full_like(logs, math.log(LEAST_PROBABILITY)))


def _as_they_are(logits: Tensor) -> Tensor:
    return logits


_SCORES: dict[Scores, Callable[[Tensor], Tensor]] = {
    "probabilities": _floored_log_probabilities,
    "logits": _as_they_are,
}


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"attack {name}", expected="a finite number > 0", got=value, remedy="write for example 0.01")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(
            f"attack {name}", expected=" or ".join(choices), got=repr(value), remedy=f"write {choices[0]}"
        )
