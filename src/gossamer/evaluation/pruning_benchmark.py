"""What is a pruned network worth? The adversarial-pruning benchmark's protocol, at its own radius and at 8/255.

The benchmark (Piras et al., arXiv 2409.01249) runs AutoAttack at linf 0.031 on the first 10,000 test images and tells
sparsity alone; here 8/255 stands beside it, as the two are not one, and the kept weights, counted from the tensors,
beside the percentage, as methods change the heads of their networks.
"""

from collections.abc import Mapping, Sequence

from torch import nn

from gossamer.attacks.registry import build
from gossamer.evaluation.least_norm import Search, second_opinion
from gossamer.evaluation.setting import Setting, check_models, check_rising, clean_share, robust_share
from gossamer.evaluation.trials import parameters
from gossamer.runs.protocols import AtRadius, PrunedModel, PruningBenchmark
from gossamer.threat import ThreatModel

PUBLISHED_EPS = 0.031
RADII = (PUBLISHED_EPS, 8 / 255)


def pruning_benchmark(
    models: Mapping[str, nn.Module],
    setting: Setting,
    *,
    attack: str = "autoattack",
    eps: Sequence[float] = RADII,
    search: Search | None = None,
    opinion: bool = True,
    as_published: bool = False,
) -> PruningBenchmark:
    """Measure pruned models under an attack at every eps, rising, and by their distances to adversarial examples.

    search: how the second opinion is tuned; opinion: whether there is one, at 8/255; as_published: with the
    published faults. Raises ConfigError for impossible arguments and what `evaluate` raises.
    """
    check_models(models)
    check_rising("eps list", eps)
    attacks = [build(attack, ThreatModel("linf", radius)) for radius in eps]
    rows: list[PrunedModel] = []
    for name, model in models.items():
        measured = [setting.measure(name, model, {attack: each}) for each in attacks]
        head = measured[0].model
        judged = second_opinion(name, model, setting, search=search, as_published=as_published) if opinion else None
        rows.append(
            PrunedModel(
                model=head,
                sparsity=1 - head.density,
                kept=head.nonzero,
                clean=clean_share(measured[0]),
                radii=tuple(AtRadius(threat=made.threat, eps=made.eps, robust=robust_share(made)) for made in measured),
                second_opinion=judged,
            )
        )
    return PruningBenchmark(
        dataset=setting.dataset,
        seed=setting.seed,
        attack={"name": attack, **parameters(attacks[0])},
        rows=tuple(rows),
        environment=setting.environment_of(next(iter(models.values()))),
    )
