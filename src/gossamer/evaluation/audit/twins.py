"""What stands in for an audited model? Twins on which points are sought, and judges for models that are no function."""

import copy

import torch
from torch import Tensor, nn


class Graphed(nn.Module):
    """A model given a graph of slope zero from output to input, so that attacks run and find nothing."""

    pure = False

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the model's logits (N, K) for x: (N, C, H, W)."""
        return self.model(x).detach() + 0 * x.flatten(1).sum(dim=1, keepdim=True)


class Rescaled(nn.Module):
    """A model with its logits divided by `scale`: the same predictions, and a cross-entropy that does not saturate."""

    pure = False

    def __init__(self, model: nn.Module, scale: float) -> None:
        super().__init__()
        self.model = model
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Return logits / scale: (N, K) for x: (N, C, H, W)."""
        return self.model(x) / self.scale


class Averaged(nn.Module):
    """The judge of a random model: the mean of its log-probabilities over `passes` calls."""

    pure = False

    def __init__(self, model: nn.Module, passes: int) -> None:
        super().__init__()
        self.model = model
        self.passes = passes

    def forward(self, x: Tensor) -> Tensor:
        """Return mean log-probabilities (N, K) for x: (N, C, H, W)."""
        return torch.stack([self.model(x).log_softmax(dim=1) for _ in range(self.passes)]).mean(dim=0)


class Fresh(nn.Module):
    """A model that answers each call as its first one: everything it keeps, tensors or not, is put back before."""

    pure = False

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the first answer, logits (N, K), to x: (N, C, H, W)."""
        return copy.deepcopy(self.model)(x)


class Accompanied(nn.Module):
    """A model that is given every image by itself among the same clean ones; company: (M, C, H, W)."""

    pure = False

    def __init__(self, model: nn.Module, company: Tensor) -> None:
        super().__init__()
        self.model = model
        self.company = nn.Buffer(company.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K) for x: (N, C, H, W)."""
        return torch.cat([self.model(torch.cat([image[None], self.company]))[:1] for image in x])
