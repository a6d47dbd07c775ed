"""Does more effort of the attacker still change the number? Robust accuracy over steps and restarts."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gossamer.attacks.registry import adjust, build
from gossamer.evaluation.setting import Setting, check_models, check_rising, clean_share, share_of
from gossamer.evaluation.trials import parameters
from gossamer.runs.protocols import EffortPoint, EffortRow, EffortTable
from gossamer.threat import ThreatModel
from gossamer.types import Attack

STEPS = (10, 20, 50, 100, 250, 500, 2000)
RESTARTS = (1, 10)


def effort(
    models: Mapping[str, nn.Module],
    setting: Setting,
    *,
    threat: ThreatModel,
    attack: Attack | None = None,
    steps: Sequence[int] = STEPS,
    restarts: Sequence[int] = RESTARTS,
) -> EffortTable:
    """Attack every model with every number of steps and restarts, both rising (Ozdenizci & Legenstein, 2021, table 5).

    attack: with fields `steps` and `restarts`; by default PGD with steps of 2.5 eps/n and the final iterate. Draws
    are the same for all, so that restarts are added to those before. Raises ConfigError for impossible arguments
    and what `evaluate` raises.
    """
    check_models(models)
    check_rising("steps", steps)
    check_rising("restarts", restarts)
    base = build("pgd-50-10", threat) if attack is None else attack
    grid = [(count, again) for again in restarts for count in steps]
    attacks = [adjust(base, steps=count, restarts=again) for count, again in grid]
    rows = tuple(_row(name, model, setting, grid, attacks) for name, model in models.items())
    varied = {"steps", "restarts"}
    return EffortTable(
        dataset=setting.dataset,
        seed=setting.seed,
        threat=str(threat),
        eps=threat.eps,
        attack={field: value for field, value in parameters(base).items() if field not in varied},
        steps=tuple(steps),
        restarts=tuple(restarts),
        rows=rows,
        environment=setting.environment_of(next(iter(models.values()))),
    )


def _row(
    name: str, model: nn.Module, setting: Setting, grid: list[tuple[int, int]], attacks: list[Attack]
) -> EffortRow:
    measured = [setting.measure(name, model, {"effort": attack}) for attack in attacks]
    standing = torch.tensor([made.attacks[0].robust for made in measured])
    points = tuple(
        EffortPoint(
            steps=steps,
            restarts=restarts,
            raw=share_of(flags),
            cumulative=share_of(_of_less(standing, grid, steps, restarts)),
            robust=tuple(flags.tolist()),
        )
        for (steps, restarts), flags in zip(grid, standing, strict=True)
    )
    return EffortRow(model=measured[0].model, clean=clean_share(measured[0]), points=points)


def _of_less(standing: Tensor, grid: list[tuple[int, int]], steps: int, restarts: int) -> Tensor:
    """Return what stands under all attacks of at most so many steps and restarts: (N,)."""
    rows = [row for row, (count, again) in enumerate(grid) if count <= steps and again <= restarts]
    return standing[rows].amin(dim=0)
