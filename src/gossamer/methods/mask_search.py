"""What HYDRA and HARP share: a network is pretrained, a search finds its mask, and what is left is fine-tuned."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from gossamer.methods.checks import check_epochs, check_rate
from gossamer.methods.sharpness import check_sharpness, with_sharpness
from gossamer.sparsity import HeldMask, Sparsifier
from gossamer.training.phases import PRETRAIN, FromState, Phase, Start


@dataclass(frozen=True, kw_only=True)
class MaskSearch:
    """Three phases: `pretrain`, `prune`, which is the search, and `finetune` under the mask it found.

    prune_epochs: of the search, None for a fifth of the recipe's, as published (20 of 100); finetune_epochs: None for
    the recipe's. prune_lr, finetune_lr: learning rates as shares of the recipe's. score_sharpness, sharpness_warmup:
    see `gossamer.methods.sharpness`.
    """

    density: float
    prune_epochs: int | None = None
    prune_lr: float = 1.0
    finetune_epochs: int | None = None
    finetune_lr: float = 0.1
    score_sharpness: float = 0.0
    sharpness_warmup: int | None = None

    def __post_init__(self) -> None:
        check_sharpness(self.score_sharpness, self.sharpness_warmup)
        check_epochs("method.prune_epochs", self.prune_epochs)
        check_epochs("method.finetune_epochs", self.finetune_epochs)
        check_rate("method.prune_lr", self.prune_lr)
        check_rate("method.finetune_lr", self.finetune_lr)

    def search_phases(
        self,
        base: Phase,
        search: Callable[[], Sparsifier],
        *,
        start: Callable[[str], Start] = FromState,
        held: Callable[[], Sparsifier] = HeldMask,
    ) -> tuple[Phase, Phase, Phase]:
        """Return the three phases; start: from the name of a state; held: keeps the mask that `search` found."""
        prune = replace(
            base,
            name="prune",
            epochs=self.prune_epochs or max(1, round(base.epochs / 5)),
            optimizer=base.optimizer.scaled(self.prune_lr),
            sparsifier=search,
            start=start(f"{PRETRAIN}.end"),
        )
        finetune = replace(
            base,
            name="finetune",
            epochs=self.finetune_epochs or base.epochs,
            optimizer=base.optimizer.scaled(self.finetune_lr),
            sparsifier=held,
            start=start("prune.end"),
        )
        pretrain = replace(base, name=PRETRAIN)
        return pretrain, with_sharpness(prune, self.score_sharpness, self.sharpness_warmup), finetune
