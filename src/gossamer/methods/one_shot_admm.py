"""One-shot ADMM under resource constraints (Marshall, 2020): adversary and set tighten while one phase trains."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias, cast

from gossamer.errors import ConfigError
from gossamer.methods.checks import check_epochs
from gossamer.objectives.several import Several
from gossamer.plugins import is_reference
from gossamer.sparsity import Sparsifier
from gossamer.sparsity.admm import Interval
from gossamer.sparsity.approached import Approached
from gossamer.sparsity.budgets import BudgetSpec, check_density, check_scope
from gossamer.sparsity.budgets import budget as make_budget
from gossamer.sparsity.patterns import PatternSpec, most_of
from gossamer.sparsity.patterns import pattern as make_pattern
from gossamer.sparsity.schedules import density_at
from gossamer.sparsity.sets import ConstraintSet, Quantised, Redundant, Sparse, foreign_set
from gossamer.sparsity.tightening import Plan, TightenedADMM
from gossamer.threat import ThreatModel
from gossamer.training.monitors import GO, Metrics, Verdict
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase
from gossamer.training.schedules import Schedule
from gossamer.types import Attack

SetSpec: TypeAlias = str | Mapping[str, object]

SETS = ("irregular", "funnel", "redundant", "quantised")
PUBLISHED_EPS = (1 / 3, 2 / 3, 1.0)
PUBLISHED_STEPS = (7, 14, 21)


@dataclass(frozen=True, kw_only=True)
class Until:
    """Another schedule over the first `epochs`, its last factor from then on."""

    epochs: int
    then: Schedule

    def __call__(self, step: int, total: int, per_epoch: int) -> float:
        """Return the other schedule's factor, of the epochs it was meant for."""
        planned = self.epochs * per_epoch
        return self.then(min(step, planned - 1), planned, per_epoch)


class WhileFalling:
    """Stop at the first epoch behind the planned ones whose adversarial loss is not noticeably below the one before.

    density: no stop before an epoch that trained towards it, which a plan that waits may put off.
    """

    def __init__(self, epochs: int, least_fall: float, density: float) -> None:
        self._epochs = epochs
        self._least_fall = least_fall
        self._density = density
        self._loss: float | None = None

    def __call__(self, epoch: int, metrics: Metrics) -> Verdict:
        """Return stop from the last planned epoch on (0-based), once the loss falls by less than the least share."""
        adversarial = metrics.get("adversarial_loss")
        loss, before = metrics.get("loss") if adversarial is None else adversarial, self._loss
        self._loss = loss
        present = metrics.get("sparsifier/density")
        if epoch + 1 < self._epochs or (present is not None and present > self._density):
            return GO
        if loss is None or before is None:
            return GO
        if loss < before * (1.0 - self._least_fall):
            return GO
        return Verdict("stop", None, f"the adversarial loss no longer falls by {self._least_fall:.2%} an epoch")

    def state_dict(self) -> dict[str, Any]:
        """Return the last loss."""
        return {"loss": self._loss}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the last loss back."""
        self._loss = state["loss"]


@dataclass(frozen=True, kw_only=True)
class OneShotADMM:
    """One phase: no pretraining, no fine-tuning.

    set: irregular (at most k weights), funnel (each layer denser than the next, `funnel_ratio`), redundant (no two
    filters of a layer nearer than phi), quantised (2^bits values a layer), or another package's
    "package.module:factory", also as {name: ..., its options}; scope, budget, pattern: of k, as in magnitude pruning.
    eps: shares of the threat's radius, one an equal stage (published: thirds); steps: of the attack, from the first on
    anew in each stage, each for `steps_epochs` epochs, the last one to its end (published: 7, 14, 21). For both, None:
    as published where the attack has such a field, whatever it says there, but for an attack of a single step, which
    stays one; empty: the attack's own.
    start_density, tightening, tightened_by: density falls from the first (None: all that the pattern admits) to
    `density` along a schedule, over that share of the epochs. bound: None follows the sequences; a share tightens only
    after an epoch whose adversarial loss rose by no more than that. extra_epochs: at most so many more while the
    adversarial loss falls by `least_fall` an epoch, or while a plan that waited has not come to the density; what is
    still missing at the end, the projection cuts.
    update_steps: steps between two updates of the copy and the dual, None: an epoch.
    """

    density: float
    set: SetSpec = "irregular"
    scope: Literal["global", "layer"] = "global"
    budget: BudgetSpec = "uniform"
    pattern: PatternSpec = "irregular"
    funnel_ratio: float = 0.9
    phi: float = 0.1
    bits: int = 8
    rho: float = 1e-2
    update_steps: int | None = None
    eps: Sequence[float] | None = None
    steps: Sequence[int] | None = None
    steps_epochs: int = 1
    start_density: float | None = None
    tightening: str = "cubic"
    tightened_by: float = 0.5
    bound: float | None = None
    extra_epochs: int = 0
    least_fall: float = 0.01

    def __post_init__(self) -> None:
        if self.start_density is not None:
            check_density(self.start_density, "method.start_density")
        check_scope(self.scope, self.budget)
        self._refuse_idle_options()
        self._sparsifier(1, (), ())
        check_epochs("method.steps_epochs", self.steps_epochs)
        density_at(self.tightening, 0.0, start=self._start, end=self.density)
        if not self.density <= self._start <= self._densest:
            admitted = f"between the density, {self.density}, and what the pattern admits, {self._densest:g}"
            self._refuse("start_density", admitted, "leave it out to start as dense as may be")
        eps, steps = self.eps or (), self.steps or ()
        if any(not 0.0 < share <= 1.0 for share in eps) or list(eps) != sorted(eps):
            self._refuse("eps", "rising shares of the threat's eps in (0, 1]", "write [0.5, 1.0]")
        if any(count < 1 for count in steps) or list(steps) != sorted(steps):
            self._refuse("steps", "rising numbers of attack steps, each at least 1", "write [7, 14, 21]")
        if not 0.0 < self.tightened_by <= 1.0:
            self._refuse("tightened_by", "a share of the epochs in (0, 1]", "write 0.5 for half of them")
        if self.bound is not None and not 0.0 <= self.bound < math.inf:
            self._refuse("bound", "a share >= 0 by which the loss may rise", "write 0.05, or leave it out")
        if self.extra_epochs < 0:
            self._refuse("extra_epochs", "at least 0", "leave it out to end with the schedule")
        if not 0.0 <= self.least_fall < 1.0:
            self._refuse("least_fall", "a share of the loss in [0, 1)", "write 0.01")

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD with lr 0.05, as published, momentum 0.9 and coupled decay 5e-4, which the source leaves open."""
        return OptimizerSpec(lr=0.05)

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return the recipe's phase with the tightening sparsifier; raises ConfigError for an attack without steps."""
        epochs = base.epochs
        monitors, schedule = base.monitors, base.schedule
        if self.extra_epochs:
            monitors, schedule = partial(self._monitors, base), Until(epochs=epochs, then=base.schedule)
        eps, steps = self._radii(base), self._steps(base.attack)
        phase = replace(
            base,
            epochs=epochs + self.extra_epochs,
            schedule=schedule,
            monitors=monitors,
            sparsifier=partial(self._sparsifier, epochs, eps, steps),
            adapt=tighten if eps or steps else None,
        )
        return (phase,)

    def _refuse_idle_options(self) -> None:
        """Refuse an option of another set than the one named."""
        for name, of in (("funnel_ratio", "funnel"), ("phi", "redundant"), ("bits", "quantised")):
            default = type(self).__dataclass_fields__[name].default
            if name_of(self.set) != of and getattr(self, name) != default:
                self._refuse(name, f"nothing beside set: {self.set}", f"leave it out, or write set: {of}")
        own = is_reference(name_of(self.set))
        shaped = own and self.pattern != "irregular"
        if (self.set == "funnel" or own) and (shaped or self.scope != "global" or self.budget != "uniform"):
            raise ConfigError(
                "method.set",
                expected=f"{name_of(self.set)} without scope and budget: it divides the density itself",
                got=f"scope: {self.scope}, budget: {self.budget}" + (f", pattern: {self.pattern}" if shaped else ""),
                remedy="leave them out, or write set: irregular",
            )

    def _monitors(self, base: Phase) -> list[Any]:
        return [*base.monitors(), WhileFalling(base.epochs, self.least_fall, self.density)]

    def _radii(self, base: Phase) -> tuple[float, ...]:
        """Return the radius of each stage; raises ConfigError where the attack has none and stages are asked for."""
        attack = base.attack
        if isinstance(base.objective, Several):
            # It attacks under threats of its own, whatever the attack's.
            return self._none("eps", "the recipe's threat alone", attack)
        threat = getattr(attack, "threat", None)
        if isinstance(threat, ThreatModel):
            return tuple(share * threat.eps for share in (PUBLISHED_EPS if self.eps is None else self.eps))
        return self._none("eps", "a threat in one norm", attack)

    def _steps(self, attack: Attack | None) -> tuple[int, ...]:
        """Return the attack's numbers of steps; raises ConfigError where it has none and they are asked for."""
        own = getattr(attack, "steps", None)
        if isinstance(own, int):
            # Fast adversarial training, and perturbations kept from epoch to epoch, are what they are by one step.
            published = () if own == 1 else PUBLISHED_STEPS
            return tuple(published if self.steps is None else self.steps)
        return self._none("steps", "steps", attack)

    def _none(self, name: str, what: str, attack: Attack | None) -> tuple[()]:
        if getattr(self, name):
            raise ConfigError(
                f"method.{name}",
                expected=f"a training attack with {what}",
                got="no attack" if attack is None else type(attack).__name__,
                remedy=f"leave {name} out, or train with pgd",
            )
        return ()

    def _sparsifier(self, epochs: int, eps: tuple[float, ...], steps: tuple[int, ...]) -> TightenedADMM:
        plan = Plan(epochs=epochs, eps=eps, steps=steps, hold=self.steps_epochs, density=self._density_at)
        return TightenedADMM(
            density=self.density,
            constraint=self._constraint(),
            rho=self.rho,
            interval=Interval(1) if self.update_steps is None else Interval(self.update_steps, "steps"),
            plan=plan,
            bound=self.bound,
        )

    def _density_at(self, share: float) -> float:
        progress = share / self.tightened_by
        return density_at(self.tightening, progress, start=self._start, end=self.density)

    @property
    def _densest(self) -> float:
        return most_of(make_pattern(self.pattern))

    @property
    def _start(self) -> float:
        return self._densest if self.start_density is None else self.start_density

    def _constraint(self) -> ConstraintSet:
        options = {} if isinstance(self.set, str) else {key: each for key, each in self.set.items() if key != "name"}
        if is_reference(name_of(self.set)):
            return foreign_set(name_of(self.set), options)
        if self.set not in SETS:
            self._refuse("set", f"one of {', '.join(SETS)}, or package.module:factory", "choose one of them")
        if self.set == "funnel":
            funnel = make_budget({"name": "funnel", "ratio": self.funnel_ratio})
            return Sparse(pattern=make_pattern(self.pattern), budget=funnel)
        budget = Approached(within=make_budget(self.budget), density=self.density)
        sparse = Sparse(pattern=make_pattern(self.pattern), budget=None if self.scope == "global" else budget)
        if self.set == "redundant":
            return Redundant(within=sparse, phi=self.phi)
        return Quantised(within=sparse, bits=self.bits) if self.set == "quantised" else sparse

    def _refuse(self, name: str, expected: str, remedy: str) -> None:
        raise ConfigError(f"method.{name}", expected=expected, got=getattr(self, name), remedy=remedy)


def name_of(spec: SetSpec) -> str:
    """Return what a set is called, with options or without."""
    return spec if isinstance(spec, str) else str(spec.get("name"))


def tighten(attack: Attack | None, sparsifier: Sparsifier) -> Attack | None:
    """Return the attack with the radius and steps of the epoch that begins."""
    assert isinstance(sparsifier, TightenedADMM)
    setting, changes = sparsifier.setting, dict[str, object]()
    if setting.eps is not None:
        threat: ThreatModel = cast("Any", attack).threat
        changes["threat"] = replace(threat, eps=setting.eps)
    if setting.steps is not None:
        changes["steps"] = setting.steps
    return cast("Attack", replace(cast("Any", attack), **changes))
