"""Factors that train under one joint budget: every kernel is W = (B + I) A + C, and A, B and C share K weights.

Source: Gui et al., "Model Compression with Adversarial Robustness: A Unified Optimization Framework" (ATMC), NeurIPS
2019, and its released code. After every step the K entries of largest magnitude among all factors are kept, counted
against the weights of the dense network, and the rest is set to zero; their momentum stays, so that they may come back.
With `bits`, ADMM also draws each factor towards few values.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from gossamer.seeding import Draws
from gossamer.sparsity.admm import Interval, Splitting
from gossamer.sparsity.budgets import Budget, check_density, divide, total_budget
from gossamer.sparsity.choose import best_of_all
from gossamer.sparsity.factor_layers import (
    FACTORISED,
    PARTS,
    can_be_factorised,
    compose,
    factor_shapes,
    identity_inside,
    replace_layer,
)
from gossamer.sparsity.finalize import nonzero_masks, plain_copy
from gossamer.sparsity.masks import Masks
from gossamer.sparsity.none import NoSparsifier
from gossamer.sparsity.protocol import Averaged, BudgetContract, Finalised, Horizon
from gossamer.sparsity.quantise import levels, quantise
from gossamer.sparsity.sets import check_bits
from gossamer.sparsity.targets import Target
from gossamer.sparsity.work import settled

WHOLE = ""


class Factors(nn.Module):
    """Parametrization of a kernel by A, B and the stored tensor C; it starts as A (or B) = W and the others 0."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        first, second = factor_shapes(weight.shape)
        inside = identity_inside(weight.shape)
        start = weight.detach()
        self.a = nn.Parameter(start.new_zeros(first) if inside else start.reshape(first).clone())
        self.b = nn.Parameter(start.reshape(second).clone() if inside else start.new_zeros(second))

    def forward(self, c: Tensor) -> Tensor:
        """Return the effective kernel, in the shape of c."""
        return compose(self.a, self.b, c)


class JointMasks(Masks):
    """Masks of factors and kernels, counted together against the weights of the dense parent."""

    def __init__(self, masks: Mapping[str, Tensor], dense_weights: int) -> None:
        super().__init__(masks)
        self._dense_weights = dense_weights

    @property
    def total(self) -> int:
        """Number of weights of the dense parent."""
        return self._dense_weights


def factorise(target: Target) -> None:
    """Give a layer's kernel its factors; the kernel stays what it is, to the bit."""
    parametrize.register_parametrization(target.module, "weight", Factors(target.weight))
    with torch.no_grad():
        target.parameter.zero_()


def restore(model: nn.Module, layers: tuple[Target, ...], tensors: Mapping[str, Tensor]) -> None:
    """Load a factorised network's stored tensors into the dense network, with factors where it has factor layers."""
    plain = dict(tensors)
    factors = {layer: _taken(plain, _path(layer.name)) for layer in layers if f"{_path(layer.name)}.a.weight" in plain}
    model.load_state_dict(plain)
    for layer, (a, b) in factors.items():
        made = Factors(layer.weight)
        parametrize.register_parametrization(layer.module, "weight", made)
        with torch.no_grad():
            made.a.copy_(a)
            made.b.copy_(b)


class Factorised(NoSparsifier):
    """Train factors under a joint budget.

    density: K over the dense network's weights; budget: what each layer's factors may keep together, None: the whole
    network competes. bits: None leaves values as they are, otherwise each factor is drawn towards 2^bits nonzero values
    (one fewer with zero_among) by ADMM with rho, updated every `interval` steps, and has them when it ships.
    """

    contract: BudgetContract = "at-most"
    averaged: Averaged = "trainable"

    def __init__(
        self,
        *,
        density: float,
        budget: Budget | None = None,
        bits: int | None = None,
        zero_among: bool = False,
        rho: float = 0.1,
        interval: int = 10,
    ) -> None:
        super().__init__()
        self.density = check_density(density, "method.density")
        self._budget = budget
        self._levels = None if bits is None else levels(check_bits(bits), zero_among=zero_among)
        self._splitting = Splitting(rho)
        self._interval = Interval(interval, "steps").steps(None)
        self._keep: dict[str, int] = {}
        self._dense_weights = 0

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Give every kernel that has none its factors, and keep the largest entries of all."""
        super().attach(model, draws, horizon)
        shapes = {layer.name: tuple(layer.parameter.shape) for layer in self._layers}
        sizes = {layer.name: layer.size for layer in self._layers}
        self._dense_weights = sum(sizes.values())
        self._keep = {WHOLE: total_budget(sizes, self.density)}
        self._budget = settled(self._budget, model, horizon)
        if self._budget is not None:
            self._keep = divide(self._budget, shapes, self.density)
        for layer in self._layers:
            if can_be_factorised(layer.module) and not parametrize.is_parametrized(layer.module, "weight"):
                factorise(layer)
        self._cut(factors_of(self._layers))
        if self._levels is not None:
            self._splitting.start(self._quantised(_detached(factors_of(self._layers))))

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Return what draws the factors towards their quantised copies, where they are to be quantised."""
        return None if self._levels is None else self._splitting.penalty(factors_of(self._layers))

    def after_step(self, step: int, optimizer: Optimizer) -> None:
        """Keep the largest entries of all factors; move copies and duals at the end of an interval."""
        factors = factors_of(self._layers)
        self._cut(factors)
        if self.due(step + 1):
            self._splitting.update(_detached(factors), self._quantised)

    def due(self, done: int) -> bool:
        """Return whether quantised copies and duals move; entries are chosen at every step."""
        return self._levels is not None and done % self._interval == 0

    def measures(self) -> Mapping[str, float]:
        """Return how many entries A, B and C keep, of all layers."""
        factors = factors_of(self._layers)
        return {
            f"kept_{part}": float(
                sum(int(f.count_nonzero()) for name, f in factors.items() if name.endswith(f":{part}"))
            )
            for part in PARTS
        }

    def masks(self) -> Masks:
        """Return what the factors keep."""
        masks = {name: factor.detach() != 0 for name, factor in factors_of(self._layers).items()}
        return JointMasks(masks, self._dense_weights)

    def finalize(self, model: nn.Module) -> Finalised:
        """Return a copy with a factor layer for each kernel, or the folded kernel where that has no more entries.

        A quantised layer is folded only where the kernel has no more values than its factors may have.
        """
        trained = copy.deepcopy(model)
        layers = tuple(Target(layer.name, trained.get_submodule(_path(layer.name))) for layer in self._layers)
        factors = factors_of(layers)
        self._cut(factors)
        if self._levels is not None:
            _write(factors, self._shipped_values(_detached(factors)))
        module = plain_copy(trained)
        for layer in layers:
            own = [factors[name].detach() for name in _names(layer) if name in factors]
            # A bare layer has no place to put another one in.
            if _path(layer.name) and len(own) == 3 and not self._folds(own, layer.weight.detach()):
                made = replace_layer(module, _path(layer.name))
                _write({"a": made.a.weight, "b": made.b.weight, "c": made.c.weight}, dict(zip(PARTS, own, strict=True)))
        masks = JointMasks(nonzero_masks(module), self._dense_weights)
        return Finalised(
            module=module.eval(),
            twin=module,
            masks=masks,
            dense_weights=self._dense_weights,
            kind="restructured",
            form=FACTORISED,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies and duals; the factors are in the model."""
        return {} if self._levels is None else self._splitting.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take copies and duals back."""
        if self._levels is not None:
            self._splitting.load_state_dict(state)

    def _folds(self, factors: list[Tensor], kernel: Tensor) -> bool:
        if kernel.count_nonzero() > sum(int(factor.count_nonzero()) for factor in factors):
            return False
        return self._levels is None or kernel[kernel != 0].unique().numel() <= self._levels

    @torch.no_grad()
    def _cut(self, factors: Mapping[str, Tensor]) -> None:
        for layer, keep in self._keep.items():
            own = {name: each.abs() for name, each in factors.items() if layer in (WHOLE, name.rpartition(":")[0])}
            room = min(keep, sum(magnitude.numel() for magnitude in own.values()))
            for name, mask in best_of_all(own, room).items():
                factors[name].masked_fill_(~mask, 0.0)

    def _quantised(self, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert self._levels is not None
        return {name: quantise(factor, self._levels) for name, factor in factors.items()}

    def _shipped_values(self, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # What the next update would make the copy, on the entries that are kept.
        dual = self._splitting.dual
        moved = {name: torch.where(factor != 0, factor + dual[name], 0.0) for name, factor in factors.items()}
        return self._quantised(moved)


def factors_of(layers: tuple[Target, ...]) -> dict[str, nn.Parameter]:
    """Return the trainable tensors of all layers as "LAYER.weight:a", ":b" and ":c"; c alone without factors."""
    found: dict[str, nn.Parameter] = {}
    for layer in layers:
        names = _names(layer)
        made = _factors(layer)
        if made is not None:
            found[names[0]], found[names[1]] = made.a, made.b
        found[names[2]] = layer.parameter
    return found


def _names(layer: Target) -> tuple[str, str, str]:
    return f"{layer.name}:a", f"{layer.name}:b", f"{layer.name}:c"


def _factors(layer: Target) -> Factors | None:
    if not parametrize.is_parametrized(layer.module, "weight"):
        return None
    made = layer.module.parametrizations["weight"][0]  # type: ignore[union-attr,index]
    return made if isinstance(made, Factors) else None


def _path(name: str) -> str:
    return name.removesuffix("weight").removesuffix(".")


def _taken(tensors: dict[str, Tensor], path: str) -> tuple[Tensor, Tensor]:
    """Return A and B of a stored factor layer, and leave C and its bias under the names of the plain one."""
    for name in ("weight", "bias"):
        if f"{path}.c.{name}" in tensors:
            tensors[f"{path}.{name}"] = tensors.pop(f"{path}.c.{name}")
    return tensors.pop(f"{path}.a.weight"), tensors.pop(f"{path}.b.weight")


def _detached(factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: factor.detach() for name, factor in factors.items()}


@torch.no_grad()
def _write(into: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        into[name].copy_(value)
