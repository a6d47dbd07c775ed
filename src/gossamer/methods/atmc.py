"""ATMC (Gui et al., NeurIPS 2019): prune, factorise and quantise in turn, each under adversarial training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from torch import nn

from gossamer.errors import ConfigError
from gossamer.methods.checks import check_epochs, check_rate
from gossamer.sparsity import targets
from gossamer.sparsity.budgets import Budget, BudgetSpec, check_scope
from gossamer.sparsity.budgets import budget as make_budget
from gossamer.sparsity.factorised import Factorised, restore
from gossamer.sparsity.projected import Projected
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import FromState, Phase
from gossamer.training.scene import Scene
from gossamer.training.schedules import Schedule, Steps


@dataclass(frozen=True)
class FromFactors:
    """Start from a named state of a factorised network, with its factors."""

    name: str

    def __call__(self, model: nn.Module, scene: Scene) -> None:
        """Load the state; raises RunError where no phase gave it."""
        restore(model, targets(model), scene.state(self.name))


@dataclass(frozen=True, kw_only=True)
class ATMC:
    """Phases: dense training, projected training, training of factors, and with `bits` of quantised factors.

    density: kept entries of all factors over the weights of the dense network; scope, budget: whether the whole network
    competes, or each layer has its own share. bits: None, or 1 to 8; zero_among: count zero among the 2^bits values;
    rho, interval: the penalty of quantisation and the steps between two updates. project_epochs, factorise_epochs,
    quantise_epochs: None for the published 200, 200 and 150 where the recipe trains 200; project_lr, factorise_lr,
    quantise_lr: shares of the first phase's rate; schedule: of the rate after the first phase, as published or the
    recipe's.
    """

    density: float
    scope: Literal["global", "layer"] = "global"
    budget: BudgetSpec = "uniform"
    bits: int | None = None
    zero_among: bool = False
    rho: float = 0.1
    interval: int = 10
    project_epochs: int | None = None
    factorise_epochs: int | None = None
    quantise_epochs: int | None = None
    project_lr: float = 0.2
    factorise_lr: float = 0.1
    quantise_lr: float = 0.1
    schedule: Literal["published", "recipe"] = "published"

    def __post_init__(self) -> None:
        self._factorised(self.bits)
        if self.zero_among and self.bits is None:
            raise ConfigError("method.zero_among", expected="bits beside it", got="none", remedy="write bits: 8, say")
        for phase in ("project", "factorise", "quantise"):
            check_epochs(f"method.{phase}_epochs", getattr(self, f"{phase}_epochs"))
            check_rate(f"method.{phase}_lr", getattr(self, f"{phase}_lr"))

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD with lr 0.05, momentum 0.9 and coupled decay 1e-4, as published."""
        return OptimizerSpec(lr=0.05, weight_decay=1e-4)

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return the phases; the first has the recipe's schedule."""
        pretrain = replace(base, name="pretrain")
        project = replace(
            base,
            name="project",
            epochs=self.project_epochs or base.epochs,
            optimizer=base.optimizer.scaled(self.project_lr),
            schedule=self._later(Steps(milestones=(0.15, 0.3, 0.45, 0.6)), base),
            sparsifier=partial(Projected, density=self.density, budget=self._shares()),
            start=FromState("pretrain.end"),
        )
        factorise = replace(
            base,
            name="factorise",
            epochs=self.factorise_epochs or base.epochs,
            optimizer=base.optimizer.scaled(self.factorise_lr),
            schedule=self._later(Steps(milestones=(0.3, 0.4, 0.6)), base),
            sparsifier=partial(self._factorised, None),
            start=FromState("project.end"),
        )
        if self.bits is None:
            return (pretrain, project, factorise)
        quantise = replace(
            factorise,
            name="quantise",
            epochs=self.quantise_epochs or max(1, round(base.epochs * 0.75)),
            optimizer=base.optimizer.scaled(self.quantise_lr),
            sparsifier=partial(self._factorised, self.bits),
            start=FromFactors("factorise.end"),
        )
        return (pretrain, project, factorise, quantise)

    def _later(self, published: Schedule, base: Phase) -> Schedule:
        return base.schedule if self.schedule == "recipe" else published

    def _shares(self) -> Budget | None:
        check_scope(self.scope, self.budget)
        return None if self.scope == "global" else make_budget(self.budget)

    def _factorised(self, bits: int | None) -> Factorised:
        return Factorised(
            density=self.density,
            budget=self._shares(),
            bits=bits,
            zero_among=self.zero_among,
            rho=self.rho,
            interval=self.interval,
        )
