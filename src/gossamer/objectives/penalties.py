"""Terms that a recipe adds to the loss for the weights' sake: the lasso, and near-orthonormal (Parseval) kernels."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gossamer.errors import ConfigError
from gossamer.objectives.checks import check_weight
from gossamer.options import construct
from gossamer.sparsity.targets import Target, targets


@dataclass(frozen=True, kw_only=True)
class L1:
    """strength * sum |w| over all convolution and linear kernels, biases and norms apart (the lasso).

    Where noise is drawn in the forward pass, w is the stored kernel without it. Published strengths: 1e-5 (ResNet-18,
    VGG-16) and 5e-5 (ResNet-20) under adversarial training (Rakin et al., 2019).
    """

    strength: float = 1e-5

    def __post_init__(self) -> None:
        check_weight("training.penalties l1.strength", self.strength, "write 1e-5, as published, or 5e-5")

    def __call__(self, model: nn.Module) -> Tensor:
        """Return the term, a scalar with a graph."""
        return self.strength * torch.stack([_kernel(layer).abs().sum() for layer in targets(model)]).sum()


@dataclass(frozen=True, kw_only=True)
class Parseval:
    """strength/2 * sum_l |G_l - I|^2 (Frobenius), G_l the smaller Gram matrix of kernel l (Cisse et al., ICML 2017).

    Where it is 0, no layer stretches distances: kernels are unfolded to (C_out, C_in K) and scaled by sqrt(K), K the
    number of taps, as an input pixel meets up to K of them; groups of channels do not mix, so that each is a kernel of
    its own. The smaller of W W^T and W^T W is the one that can be I. The authors retract towards it after every step;
    here it is a term of the loss.
    """

    strength: float = 1e-4

    def __post_init__(self) -> None:
        check_weight("training.penalties parseval.strength", self.strength, "write 1e-4, say")

    def __call__(self, model: nn.Module) -> Tensor:
        """Return the term, a scalar with a graph."""
        return (
            0.5
            * self.strength
            * torch.stack(
                [_distance(_kernel(layer), getattr(layer.module, "groups", 1)) for layer in targets(model)]
            ).sum()
        )


PENALTIES: Mapping[str, type[L1] | type[Parseval]] = {"l1": L1, "parseval": Parseval}


def build_penalty(name: str, options: Mapping[str, object]) -> L1 | Parseval:
    """Return a penalty by name; raises ConfigError for an unknown name or option and for an impossible value."""
    if name not in PENALTIES:
        raise ConfigError(
            "training.penalties", expected=f"one of {', '.join(PENALTIES)}", got=repr(name), remedy="check its spelling"
        )
    return construct(PENALTIES[name], options, f"training.penalties {name}")


def _kernel(layer: Target) -> Tensor:
    """Return the effective kernel, or the stored one where the forward pass draws noise on it."""
    if not parametrize.is_parametrized(layer.module, "weight"):
        return layer.weight
    chain = layer.module.parametrizations["weight"]  # type: ignore[union-attr,index]
    pure = all(getattr(each, "pure", True) for each in chain)  # pyright: ignore[reportGeneralTypeIssues]
    return layer.weight if pure else layer.parameter


def _distance(kernel: Tensor, groups: int) -> Tensor:
    taps = kernel[0, 0].numel()
    blocks = (kernel.flatten(1) * taps**0.5).unflatten(0, (groups, -1))
    gram = blocks @ blocks.mT if blocks.shape[1] <= blocks.shape[2] else blocks.mT @ blocks
    return (gram - torch.eye(gram.shape[-1], device=gram.device, dtype=gram.dtype)).square().sum()
