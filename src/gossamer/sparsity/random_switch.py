"""A network that is another one at each pass: tickets of several densities, one drawn anew whenever it computes.

Source: the random RST switch of Fu et al., "Drawing Robust Scratch Tickets", NeurIPS 2021.
"""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gossamer.errors import RunError
from gossamer.sparsity.finalize import nonzero_masks, plain_copy
from gossamer.sparsity.masks import Masks
from gossamer.sparsity.protocol import Finalised


class RandomSwitch(nn.Module):
    """Tickets, one of which computes at each forward pass: drawn uniformly from torch's global generator.

    tickets: networks that differ in their masks; the first computes where `noisy` is false.
    """

    # A folded copy would freeze one draw.
    pure = False

    def __init__(self, tickets: Sequence[nn.Module]) -> None:
        super().__init__()
        self.noisy = True
        self.tickets = nn.ModuleList(tickets)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of one ticket for x: (N, C, H, W); the whole batch goes through the same one."""
        drawn = int(torch.randint(len(self.tickets), ())) if self.noisy else 0
        return self.tickets[drawn](x)


def switched(networks: Sequence[nn.Module]) -> Finalised:
    """Return what ships of tickets that share their weights; the first is the twin without draws.

    The masks are the union of theirs: they name which weights of the dense parent are in use. What ships stores every
    ticket in full, so that a count of its tensors counts a weight once for each ticket that keeps it.
    """
    tickets = [plain_copy(network) for network in networks]
    union = nonzero_masks(tickets[0])
    for ticket in tickets[1:]:
        union = Masks({name: mask | union[name] for name, mask in nonzero_masks(ticket).items()})
    return Finalised(
        module=RandomSwitch(tickets).eval(),
        twin=copy.deepcopy(tickets[0]),
        masks=union,
        dense_weights=union.total,
        kind="stochastic",
        form=RANDOM_SWITCH,
    )


def rebuild(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return the switch with its stored tensors; model: the dense network that each ticket is a part of."""
    # No ticket is made whose tensors are not there by name: what is zero costs a file nothing.
    own = model.state_dict().keys()
    count = len(tensors) // len(own)
    if not count or set(tensors) != {f"tickets.{place}.{name}" for place in range(count) for name in own}:
        raise RunError(
            "stored network",
            expected=f"the {len(own):,} tensors of each ticket, by name",
            got=f"{len(tensors):,} tensors such as {next(iter(tensors), 'none')[:80]}",
            remedy="open it with the network it was trained with",
        )
    switch = RandomSwitch([copy.deepcopy(model) for _ in range(count)])
    switch.load_state_dict(dict(tensors))
    return switch.eval()


def first_ticket(model: nn.Module) -> nn.Module:
    """Return the ticket that computes where nothing is drawn."""
    assert isinstance(model, RandomSwitch)
    return model.tickets[0]


RANDOM_SWITCH = "random-switch"
