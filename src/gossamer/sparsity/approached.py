"""What may each layer keep while a network is still on its way from dense to the budget that it ends with?"""

import math
from dataclasses import dataclass

from gossamer.sparsity.budgets import Budget, Shapes, divide


@dataclass(frozen=True, kw_only=True)
class Approached:
    """A budget at a density that is still to fall: all layers are as far on their way as the whole network.

    within: the budget at the end, which need not make sense above it (layers named by hand, say); density: of the end.
    """

    within: Budget
    density: float

    def __call__(self, shapes: Shapes, density: float) -> dict[str, int]:
        """Return how many weights each layer keeps; raises what the budget raises at the end."""
        way = (density - self.density) / (1.0 - self.density) if self.density < 1.0 else 1.0
        final = divide(self.within, shapes, self.density)
        return {name: count + int(way * (math.prod(shapes[name]) - count)) for name, count in final.items()}
