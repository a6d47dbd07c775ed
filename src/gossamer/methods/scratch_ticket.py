"""Robust scratch tickets (Fu et al., NeurIPS 2021): robust subnetworks of random weights, tuned or switched at will."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import nn

from gossamer.errors import ConfigError
from gossamer.methods.checks import check_epochs, check_rate
from gossamer.methods.edge_popup import EdgePopup
from gossamer.sparsity import Finalised, HeldMask, NoSparsifier, targets
from gossamer.sparsity.budgets import check_density
from gossamer.sparsity.freezing import plain_batch_norms
from gossamer.sparsity.random_switch import switched
from gossamer.sparsity.targets import fan_in
from gossamer.training.phases import FromState, Phase
from gossamer.training.scene import Scene

SEARCH = "search"
FINETUNE_RATE = {"inherit": 0.1, "reinit": 1.0}


@dataclass(frozen=True, kw_only=True)
class ScratchTicket(EdgePopup):
    """A search as by edge-popup under attack, and what may follow it.

    finetune: `none` ships the ticket as found; `inherit` trains its weights from where they stand, `reinit` from new
    random ones. finetune_epochs: None for the recipe's; finetune_lr: as a share of the search's, None for 0.1
    (inherit) or 1 (reinit); neither without a fine-tuning. switch: further densities; one search for each from the same
    random weights, and what ships draws one ticket anew at every forward pass (the random RST switch), the ticket of
    `density` being its twin without draws. Tickets to switch between share their weights: they are not fine-tuned, and
    no weights are chosen whose size depends on the density.
    """

    finetune: Literal["none", "inherit", "reinit"] = "none"
    finetune_epochs: int | None = None
    finetune_lr: float | None = None
    switch: Sequence[float] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_epochs("method.finetune_epochs", self.finetune_epochs)
        check_rate("method.finetune_lr", self._finetune_rate)
        self._check_idle()
        for density in self.switch:
            check_density(density, "method.switch")
        if len({self.density, *self.switch}) != 1 + len(self.switch):
            raise ConfigError(
                "method.switch",
                expected="densities that differ from method.density and from one another",
                got=list(self.switch),
                remedy="name each further density once",
            )
        if self.switch and self.finetune != "none":
            raise ConfigError(
                "method.finetune",
                expected="none, as tickets to switch between share their weights",
                got=self.finetune,
                remedy="leave out method.switch or method.finetune",
            )
        if self.switch and self.weights == "scaled-signed-constant":
            raise ConfigError(
                "method.weights",
                expected="a size that does not depend on the density, as tickets to switch between share their weights",
                got=self.weights,
                remedy="write weights: signed-constant, or leave out method.switch",
            )

    def _check_idle(self) -> None:
        """Refuse options of a fine-tuning where there is none."""
        for field in ("finetune_epochs", "finetune_lr"):
            value = getattr(self, field)
            if self.finetune == "none" and value is not None:
                raise ConfigError(
                    f"method.{field}",
                    expected="nothing beside finetune: none",
                    got=value,
                    remedy="write finetune: inherit or finetune: reinit, or leave it out",
                )

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return the search; after it fine-tuning, or further searches and the switch between what they found."""
        if self.finetune == "none":
            self.refuse_two_perturbations(base)
        search = replace(self.searching(base, self.density), name=SEARCH)
        if self.switch:
            return self._switching(base, search)
        if self.finetune == "none":
            return (search,)
        start = Tuned(f"{SEARCH}.end", anew=self.finetune == "reinit", plain=self.batch_norm == "plain")
        finetune = replace(
            base,
            name="finetune",
            epochs=self.finetune_epochs or base.epochs,
            optimizer=base.optimizer.scaled(self._finetune_rate),
            sparsifier=partial(HeldMask, contract=self.search(self.density)().contract),
            start=start,
        )
        return (search, finetune)

    @property
    def _finetune_rate(self) -> float:
        return FINETUNE_RATE.get(self.finetune, 1.0) if self.finetune_lr is None else self.finetune_lr

    def _switching(self, base: Phase, first: Phase) -> Sequence[Phase]:
        others = [replace(self.searching(base, density), name=f"{SEARCH}-{density:g}") for density in self.switch]
        tickets = Tickets([f"{each.name}.end" for each in (first, *others)])
        gather = replace(
            base,
            name="switch",
            epochs=0,
            start=tickets.start,
            sparsifier=tickets.sparsifier,
            average=None,
            probes=(),
            monitors=tuple,
            select=None,
        )
        return (first, *others, gather)


@dataclass(frozen=True)
class Tuned(FromState):
    """Start from a ticket, to train its weights.

    anew: draw them from N(0, 2 / fan_in) first, and forget the batch statistics of the old ones; plain: batch norms
    stay without scale and shift.
    """

    anew: bool = False
    plain: bool = True

    def __call__(self, model: nn.Module, scene: Scene) -> None:
        """Load the ticket strictly; raises RunError where no phase gave it."""
        super().__call__(model, scene)
        if self.anew:
            self._draw(model, scene)
        if self.plain:
            plain_batch_norms(model)

    @torch.no_grad()
    def _draw(self, model: nn.Module, scene: Scene) -> None:
        for layer in targets(model):
            drawn = scene.draws.at("weights", layer.name).normal(layer.weight.shape).to(layer.weight)
            scaled = drawn * (2.0 / fan_in(layer.weight)) ** 0.5
            layer.parameter.copy_(torch.where(layer.weight != 0, scaled, 0.0))
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):  # pyright: ignore[reportPrivateUsage]
                module.reset_running_stats()


class Tickets:
    """The tickets of earlier phases, read when the last phase starts and shipped at its end."""

    def __init__(self, states: Sequence[str]) -> None:
        self._states = states
        self._networks: list[nn.Module] = []

    def start(self, model: nn.Module, scene: Scene) -> None:
        """Read every ticket, and put the first one into the model; raises RunError where no phase gave one."""
        self._networks = [scene.network(name) for name in self._states]
        FromState(self._states[0])(model, scene)

    def sparsifier(self) -> NoSparsifier:
        """Return what ships the tickets as one network."""
        return Switching(self._networks)


class Switching(NoSparsifier):
    """Ships given networks as one that switches between them at random."""

    contract = "reported"

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self._networks = networks

    def finalize(self, model: nn.Module) -> Finalised:
        """Return the switch; the model is its first network."""
        return switched(self._networks)
