"""Which weights are kept: an immutable mapping from dense parameter name to a bool tensor."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from gossamer.errors import ConfigError
from gossamer.sparsity.targets import targets


class Masks(Mapping[str, Tensor]):
    """Kept weights (True) of every prunable tensor, under the names of the dense model."""

    def __init__(self, masks: Mapping[str, Tensor]) -> None:
        for name, mask in masks.items():
            if mask.dtype != torch.bool:
                raise ConfigError(
                    f"mask of {name}",
                    expected="a bool tensor",
                    got=mask.dtype,
                    remedy="compare it with zero first",
                )
        self._masks = dict(masks)

    def __getitem__(self, name: str) -> Tensor:
        return self._masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def __repr__(self) -> str:
        return f"Masks({self.kept:,} of {self.total:,} weights kept, density {self.density:.4f})"

    @property
    def kept(self) -> int:
        """Number of weights kept."""
        return sum(int(mask.sum()) for mask in self._masks.values())

    @property
    def total(self) -> int:
        """Number of weights of the dense model."""
        return sum(mask.numel() for mask in self._masks.values())

    @property
    def density(self) -> float:
        """Share of weights kept."""
        return self.kept / self.total if self.total else 1.0

    @property
    def kept_per_layer(self) -> dict[str, int]:
        """Number of weights kept, layer by layer."""
        return {name: int(mask.sum()) for name, mask in self._masks.items()}

    @property
    def density_per_layer(self) -> dict[str, float]:
        """Share of weights kept, layer by layer."""
        return {name: float(mask.float().mean()) for name, mask in self._masks.items()}

    def pack(self) -> dict[str, Tensor]:
        """Return the masks as bits: uint8 tensors of ceil(n / 8) bytes."""
        return {
            name: torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1))) for name, mask in self._masks.items()
        }

    @classmethod
    def unpack(cls, packed: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> "Masks":
        """Return the masks that `pack` gave, for tensors of the given shapes."""
        masks: dict[str, Tensor] = {}
        for name, bits in packed.items():
            count = shapes[name].numel()
            flat = np.unpackbits(bits.cpu().numpy(), count=count).astype(bool)
            masks[name] = torch.from_numpy(flat).reshape(shapes[name])
        return cls(masks)


def intersect(first: Masks, second: Masks) -> Masks:
    """Return the weights that both keep; both must name the same tensors."""
    return Masks({name: mask & second[name] for name, mask in first.items()})


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Masks) -> None:
    """Set the weights of a plain model outside the masks to zero."""
    for layer in targets(model):
        layer.parameter.masked_fill_(~masks[layer.name].to(layer.parameter.device), 0.0)
