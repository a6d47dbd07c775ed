"""How near is the closest adversarial example? The fast adaptive boundary attack (Croce & Hein, ICML 2020).

"Minimally distorted adversarial examples with a fast adaptive boundary attack": the decision boundary is taken for
a hyperplane, the iterate and the original are both projected onto it within the box, the next iterate lies between
the two projections, a little beyond; an iterate that is adversarial is recorded and pulled back towards the original.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gossamer.attacks.checks import check_count
from gossamer.attacks.goals import SEED_ZERO
from gossamer.attacks.hyperplane import dual_norm, length_of, move_to_hyperplane
from gossamer.attacks.stepwise import Rows, attack_batch, put, select
from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.threat import Norm, ThreatModel, per_image
from gossamer.types import Model


@dataclass(frozen=True, kw_only=True)
class FAB:
    """Minimises the distance to x among adversarial points; succeeds where the smallest one is at most eps.

    steps: linearisations an attempt; restarts: the first starts at x, the others at random, eps/2 away in the norm,
    then clipped into the box. targets: None goes for the nearest of all wrong classes at each step; k gives the k
    most likely wrong classes at x `restarts` attempts each, towards the boundary with that class alone (FAB-T), and
    takes any wrong class for success. alpha_max: the largest weight of the projected original; eta: the
    overshoot; beta: what is kept of the perturbation after a success. Defaults: the paper's code.

    A step takes one forward and its backward (untargeted: a backward for each wrong class), whose logits also judge
    the point. A point that is adversarial is left at once, its gradient of no use, so a forward alone judges it
    first where that is likely: where the one before was adversarial. No start is judged, as in the paper's code.
    Draws, keyed by sample and attempt: "start", uniform for linf, else normal, of x's shape, from the second
    restart on.

    Raises ConfigError for impossible fields.
    """

    threat: ThreatModel
    steps: int = 100
    restarts: int = 5
    targets: int | None = None
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9

    def __post_init__(self) -> None:
        check_count("attack steps", self.steps)
        check_count("attack restarts", self.restarts)
        if self.targets is not None:
            check_count("attack targets", self.targets)
        _check_range("attack alpha_max", self.alpha_max, 0, 1)
        _check_range("attack eta", self.eta, 1, 2)
        _check_range("attack beta", self.beta, 0, 1)

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return x_adv for x: (N, C, H, W) in [0, 1] and labels y: (N,); x itself where none is found within eps."""
        return attack_batch(self, model, x, y, draws)

    def attempts(self, classes: int) -> int:
        """Return restarts, times targets, K - 1 at most; raises ConfigError where there is no wrong class."""
        if classes < 2:
            raise ConfigError(
                "attack", expected="a model of at least 2 classes", got=classes, remedy="evaluate a model with more"
            )
        return self.restarts * (1 if self.targets is None else min(self.targets, classes - 1))

    def begin(self, x: Tensor, y: Tensor, clean: Tensor, attempt: Tensor, draws: Draws) -> Rows:
        """Return rows at their start; attempt = target * restarts + restart. See `StepwiseAttack.begin`.

        nearest, distance: the smallest adversarial point of the attempt, within eps or not, and its norm, inf
        where there is none. likely: the next point is expected to be adversarial. judged: whether the point is, is
        known or not asked. An image that is misclassified at x is at its end, with distance 0.
        """
        wrong = clean.argmax(dim=1) != y
        nothing = torch.zeros_like(wrong)
        return {
            "best": x.clone(),
            "hit": nothing,
            "over": nothing,
            "point": self._start(x, attempt % self.restarts, draws),
            "rivals": self._rivals(clean, y, attempt // self.restarts),
            "step": torch.where(wrong, self.steps, torch.zeros_like(attempt)),
            "judged": ~nothing,
            "likely": ~nothing,
            "nearest": x.clone(),
            "distance": torch.where(wrong, 0.0, torch.inf).double(),
        }

    def advance(self, model: Model, x: Tensor, y: Tensor, rows: Rows, draws: Draws) -> Rows:
        """Return the rows one step on. See `StepwiseAttack.advance`."""
        rows = {**rows, "hit": rows["distance"] == 0}
        rows = self._check(model, x, y, rows)
        rows = self._climb(model, x, y, rows)
        return {**rows, "over": rows["judged"] & (rows["step"] == self.steps)}

    def _start(self, x: Tensor, restart: Tensor, draws: Draws) -> Tensor:
        start = x.clone()
        again = (restart > 0).nonzero().flatten()
        if len(again):
            start[again] = self._random_start(x[again], draws.at("start").select(again))
        return start

    def _random_start(self, x: Tensor, draws: Draws) -> Tensor:
        if self.threat.norm == "linf":
            direction = 2 * draws.uniform(x.shape, device=x.device) - 1
        else:
            direction = draws.normal(x.shape, device=x.device)
        direction = direction.to(x.dtype)
        length = length_of(self.threat.norm, direction)
        return (x + self.threat.eps / 2 * direction / per_image(length, x)).clamp_(0, 1)

    def _rivals(self, clean: Tensor, y: Tensor, rank: Tensor) -> Tensor:
        """Return the classes whose boundaries are looked at, for each row: (n, R) int64."""
        wrong = clean.shape[1] - 1
        if self.targets is None:
            others = torch.arange(wrong, device=y.device).expand(len(y), wrong)
            return others + (others >= y[:, None])
        without_label = clean.scatter(1, y[:, None], -torch.inf)
        return without_label.argsort(dim=1, descending=True, stable=True).gather(1, rank[:, None])

    def _check(self, model: Model, x: Tensor, y: Tensor, rows: Rows) -> Rows:
        """Judge, by a forward alone, the final points and those that are likely adversarial."""
        last = rows["step"] == self.steps
        at = (~rows["judged"] & (last | rows["likely"])).nonzero().flatten()
        if not len(at):
            return rows
        asked = torch.zeros_like(last).index_fill(0, at, True)
        wrong = model(_part(rows["point"], at)).argmax(dim=1) != _part(y, at)
        return self._judge(x, rows, asked, torch.zeros_like(last).index_copy(0, at, wrong))

    def _climb(self, model: Model, x: Tensor, y: Tensor, rows: Rows) -> Rows:
        """Linearise at the points and move on, but for those that turn out to be adversarial."""
        climbing = ~rows["hit"] & (rows["step"] < self.steps)
        at = climbing.nonzero().flatten()
        if not len(at):
            return rows
        point, label = _part(rows["point"], at), _part(y, at)
        logits, gap, normal = _nearest_boundary(model, point, label, _part(rows["rivals"], at), self.threat.norm)
        wrong = torch.zeros_like(climbing).index_copy(0, at, logits.argmax(dim=1) != label)
        new = wrong & ~rows["judged"]
        moved = _with(rows["point"], at, self._move(_part(x, at), point, gap, normal))
        rows = self._judge(x, rows, climbing & ~rows["judged"], new)
        going = climbing & ~new
        return {
            **rows,
            "point": torch.where(per_image(new, x), rows["point"], moved) if bool(new.any()) else moved,
            "step": rows["step"] + going.long(),
            "judged": rows["judged"] & ~going,
        }

    def _judge(self, x: Tensor, rows: Rows, asked: Tensor, wrong: Tensor) -> Rows:
        """Record the points of the rows asked; wrong: those found adversarial, which are pulled back; (n,) bool."""
        rows = {
            **rows,
            "hit": rows["hit"] & ~asked,
            "judged": rows["judged"] | asked,
            "likely": torch.where(asked, wrong, rows["likely"]),
        }
        at = wrong.nonzero().flatten()
        if not len(at):
            return rows
        point, original, before = _part(rows["point"], at), _part(x, at), _part(rows["distance"], at)
        distance = self.threat.distance(point, original)
        hit, nearer = distance <= self.threat.eps, distance < before
        return {
            **rows,
            "best": _with_some(rows["best"], at, point, hit),
            "hit": rows["hit"].index_copy(0, at, hit),
            "point": _with(rows["point"], at, original + self.beta * (point - original)),
            "nearest": _with_some(rows["nearest"], at, point, nearer),
            "distance": rows["distance"].index_copy(0, at, torch.where(nearer, distance, before)),
        }

    def _move(self, x: Tensor, point: Tensor, gap: Tensor, normal: Tensor) -> Tensor:
        # The original's gap by the difference: <normal, x> and the offset are large beside what is left of them.
        gap_at_x = gap + ((x - point) * normal).flatten(1).sum(dim=1)
        both, normal = torch.cat([point, x]), torch.cat([normal, normal]).flatten(1)
        move = move_to_hyperplane(self.threat.norm, both.flatten(1), normal, torch.cat([gap, gap_at_x]))
        of_point, of_x = length_of(self.threat.norm, move).clamp(min=1e-8).chunk(2)
        alpha = per_image((of_point / (of_point + of_x)).clamp(max=self.alpha_max), x)
        beyond_point, beyond_x = (both + self.eta * move.view_as(both)).chunk(2)
        return (beyond_point * (1 - alpha) + beyond_x * alpha).clamp_(0, 1)


def fab_distances(
    attack: FAB, model: Model, x: Tensor, y: Tensor, draws: Draws = SEED_ZERO
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the smallest adversarial points that all attempts find, run to their ends whether or not within eps.

    x: (N, C, H, W) in [0, 1]; y: (N,) int64. Returns points: (N, C, H, W), x itself where nothing was found;
    distances: (N,) float64, inf where nothing was found, 0 where x is misclassified; found: (N,) bool. An upper
    bound on the distance to the boundary. eps still scales the random starts.
    """
    points, distances = x.clone(), torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
    if not len(x):
        return points, distances, distances < torch.inf
    order = torch.arange(len(x), device=x.device)
    keyed = draws.per_sample(order) if draws.rows is None else draws
    with torch.no_grad():
        clean = model(x)
        for number in range(attack.attempts(clean.shape[1])):
            attempt = torch.full_like(order, number)
            rows = _run_to_end(
                attack, model, x, y, attack.begin(x, y, clean, attempt, keyed.at_each("attempt", attempt))
            )
            nearer = rows["distance"] < distances
            points = torch.where(per_image(nearer, x), rows["nearest"], points)
            distances = torch.where(nearer, rows["distance"], distances)
    return points, distances, distances < torch.inf


def _run_to_end(attack: FAB, model: Model, x: Tensor, y: Tensor, rows: Rows) -> Rows:
    while not bool(rows["over"].all()):
        left = (~rows["over"]).nonzero().flatten()
        rows = put(rows, left, attack.advance(model, x[left], y[left], select(rows, left), SEED_ZERO))
    return rows


def _nearest_boundary(
    model: Model, point: Tensor, y: Tensor, rivals: Tensor, norm: Norm
) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits: (n, K), and of the rival whose linearised boundary is nearest: gap (n,), normal (n, C, H, W).

    gap: z_s - z_y, normal: its gradient. One forward, and a backward for each of the rivals: (n, R); two
    gradients of a row are held at any time, not all of them.
    """
    leaf = point.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = model(leaf)
        gaps = logits.gather(1, rivals) - logits.gather(1, y[:, None])
        gaps = gaps.to(torch.promote_types(gaps.dtype, torch.float32))
        count = rivals.shape[1]
        slopes = (
            torch.autograd.grad(gaps[:, rival].sum(), leaf, retain_graph=rival + 1 < count)[0] for rival in range(count)
        )
        gap, normal = gaps[:, 0].detach(), next(slopes)
        if count == 1:
            return logits.detach(), gap, normal
        away = gap.abs() / (dual_norm(norm, normal) + 1e-12)
        for rival, slope in enumerate(slopes, start=1):
            other = gaps[:, rival].detach()
            other_away = other.abs() / (dual_norm(norm, slope) + 1e-12)
            nearer = other_away < away
            gap, away = torch.where(nearer, other, gap), torch.where(nearer, other_away, away)
            normal = torch.where(per_image(nearer, slope), slope, normal)
    return logits.detach(), gap, normal


def _part(values: Tensor, at: Tensor) -> Tensor:
    """Return values: (n, ...) at positions, which rise; all of them at no cost."""
    return values if len(at) == len(values) else values[at]


def _with(values: Tensor, at: Tensor, others: Tensor) -> Tensor:
    """Return values: (n, ...) with others: (m, ...) at positions, which rise."""
    return others if len(at) == len(values) else values.index_copy(0, at, others)


def _with_some(values: Tensor, at: Tensor, others: Tensor, some: Tensor) -> Tensor:
    """Return values: (n, ...) with those of others: (m, ...) where some: (m,) bool at their positions."""
    return _with(values, at[some], others[some]) if bool(some.any()) else values


def _check_range(subject: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(
            subject,
            expected=f"a number from {low} to {high}",
            got=repr(value),
            remedy="leave it out for the published value",
        )
