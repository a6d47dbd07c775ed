"""How is a stored network built again? By the form it was finalised in: plain, or one that needs more than loading."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from gossamer.errors import RunError
from gossamer.sparsity import binary_weights, factor_layers, noisy_weights, random_switch, slim


@dataclass(frozen=True, kw_only=True)
class Form:
    """One form of a finalised network.

    rebuild: (plain dense network, stored tensors) -> the network that ships, in eval mode; takes the dense one over.
    twin: the noise-free form of what ships, the module itself unless it is stochastic.
    """

    rebuild: Callable[[nn.Module, Mapping[str, Tensor]], nn.Module]
    twin: Callable[[nn.Module], nn.Module]


def load_dense(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return the dense network with the tensors loaded strictly, in eval mode."""
    model.load_state_dict(dict(tensors))
    return model.eval()


def itself(model: nn.Module) -> nn.Module:
    """Return the module: nothing in it is random."""
    return model


DENSE = "dense"
PLAIN = (DENSE, slim.SLIM, factor_layers.FACTORISED)
"""Forms whose tensors are those of an ordinary module, so that a sparse file holds them all."""

FORMS: dict[str, Form] = {
    DENSE: Form(rebuild=load_dense, twin=itself),
    slim.SLIM: Form(rebuild=slim.resize, twin=itself),
    factor_layers.FACTORISED: Form(rebuild=factor_layers.rebuild, twin=itself),
    noisy_weights.NOISY: Form(rebuild=noisy_weights.rebuild, twin=noisy_weights.without_noise),
    binary_weights.LATENT_SIGNS: Form(rebuild=binary_weights.rebuild, twin=itself),
    random_switch.RANDOM_SWITCH: Form(rebuild=random_switch.rebuild, twin=random_switch.first_ticket),
}


def form(name: str) -> Form:
    """Return a form by the name that a state was stored with; raises RunError for one this version does not know."""
    if name not in FORMS:
        raise RunError(
            "stored network",
            expected=f"a form among {', '.join(FORMS)}",
            got=name,
            remedy="open it with the version of gossamer that wrote it",
        )
    return FORMS[name]
