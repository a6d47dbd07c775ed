"""Which leaked model endangers which deployed ones? Examples of every source, judged on every target, at every eps."""

from collections.abc import Mapping, Sequence
from itertools import product

from torch import nn

from gossamer.attacks.pgd import PGD
from gossamer.attacks.steps import OverSteps
from gossamer.errors import ConfigError
from gossamer.evaluation.examples import Stored, craft
from gossamer.evaluation.setting import Setting, check_models, check_rising, clean_share, share_of
from gossamer.evaluation.trials import at_eps, parameters
from gossamer.runs.protocols import Danger, MatrixModel, Share, TransferMatrix
from gossamer.threat import Allowance, Norm, ThreatModel, format_eps
from gossamer.types import Attack

HALF = 0.5
"""The share of the white box's damage from which on a leaked source endangers a target."""


def transfer_matrix(
    models: Mapping[str, nn.Module],
    setting: Setting,
    *,
    eps: Sequence[float],
    norm: Norm = "linf",
    attack: Attack | None = None,
    sources: Sequence[str] | None = None,
    architectures: Mapping[str, str] | None = None,
) -> TransferMatrix:
    """Craft examples on each source at each eps of a rising list, and judge them on every model, the source too.

    The protocol of Marshall (algorithm 3): examples of all samples are made once for each source and eps, by PGD of
    50 steps of 2.5 eps/50 unless an attack is given, and stored as float32. A sample stands where the target is
    right on it clean and transferred. sources: names of models, by default all; architectures: a label for each
    model, by default its class. Raises ConfigError for impossible arguments and what `evaluate` raises.
    """
    check_models(models, least=2)
    check_rising("eps list", eps)
    names = list(models)
    chosen = _chosen(names, sources)
    base = attack or PGD(threat=ThreatModel(norm, eps[0]), steps=50, step=OverSteps(2.5))
    columns: dict[str, MatrixModel] = {}
    accuracy: list[tuple[tuple[Share, ...], ...]] = []
    threats: list[Allowance] = []
    for source in chosen:
        stored = [craft(setting, source, models[source], at_eps(base, radius)) for radius in eps]
        threats = [each.threat for each in stored]
        row: list[tuple[Share, ...]] = []
        for target in names:
            column, shares = _judge(models[target], target, stored, setting, architectures or {})
            columns[target] = column
            row.append(shares)
        accuracy.append(tuple(row))
    ordered = tuple(columns[name] for name in names)
    positions = tuple(names.index(source) for source in chosen)
    dangers = _dangers(ordered, positions, tuple(accuracy), tuple(eps))
    return TransferMatrix(
        dataset=setting.dataset,
        seed=setting.seed,
        norm=threats[0].norm,
        eps=tuple(eps),
        attack=parameters(base),
        models=ordered,
        sources=positions,
        accuracy=tuple(accuracy),
        dangers=dangers,
        sentences=tuple(_sentence([danger for danger in dangers if danger.eps == radius], radius) for radius in eps),
        examples=None if setting.folder is None else str(setting.folder),
        environment=setting.environment_of(next(iter(models.values()))),
    )


def _judge(
    model: nn.Module, name: str, stored: list[Stored], setting: Setting, architectures: Mapping[str, str]
) -> tuple[MatrixModel, tuple[Share, ...]]:
    made_of = [each.made_of for each in stored]
    measured = setting.measure(name, model, stored, examples=made_of)
    kind = architectures.get(name, type(model).__name__)
    column = MatrixModel(model=measured.model, kind=kind, clean=clean_share(measured, told=True))
    return column, tuple(share_of(outcome.robust, told=True) for outcome in measured.attacks)


def _chosen(names: list[str], sources: Sequence[str] | None) -> list[str]:
    chosen = names if sources is None else list(sources)
    unknown = [name for name in chosen if name not in names]
    if unknown or not chosen:
        raise ConfigError(
            "sources",
            expected=f"some of {', '.join(names)}",
            got=", ".join(unknown) or "none",
            remedy="name models that are in the table",
        )
    return chosen


def _dangers(
    models: tuple[MatrixModel, ...],
    sources: tuple[int, ...],
    accuracy: tuple[tuple[tuple[Share, ...], ...], ...],
    eps: tuple[float, ...],
) -> tuple[Danger, ...]:
    """Return what every source does to every other model, the largest drop first."""
    own = {position: accuracy[row][position] for row, position in enumerate(sources)}
    found = [
        _danger(models[source], models[target], radius, accuracy[row][target][column], own.get(target, ())[column:])
        for column, radius in enumerate(eps)
        for (row, source), target in product(enumerate(sources), range(len(models)))
        if source != target
    ]
    return tuple(sorted(found, key=lambda danger: (danger.eps, danger.transferred - danger.clean)))


def _danger(source: MatrixModel, target: MatrixModel, eps: float, transferred: Share, own: tuple[Share, ...]) -> Danger:
    """Return what a source does to a target; own: begins with the target's white box where it is known."""
    white_box = own[0] if own else None
    damage = target.clean.value - transferred.value
    most = 0.0 if white_box is None else target.clean.value - white_box.value
    share = damage / most if most > 0 else None
    beyond = transferred.interval[1] < target.clean.interval[0]
    return Danger(
        source=source.model.name,
        target=target.model.name,
        eps=eps,
        clean=target.clean.value,
        transferred=transferred.value,
        white_box=None if white_box is None else white_box.value,
        share_of_damage=share,
        endangers=beyond and (share is None or share >= HALF),
        beats_white_box=white_box is not None and transferred.interval[1] < white_box.interval[0],
    )


def _sentence(dangers: list[Danger], eps: float) -> str:
    where = f"At eps {format_eps(eps)}"
    serious = [danger for danger in dangers if danger.endangers]
    if not serious:
        told = f"{where} no leaked model does half of the white box's damage to another beyond the intervals."
    else:
        told = f"{where} " + "; ".join(
            f"a leaked {danger.source} brings {danger.target} from {danger.clean:.1%} to {danger.transferred:.1%}"
            + ("" if danger.white_box is None else f" (own white box {danger.white_box:.1%})")
            for danger in serious
        )
        told += "."
    doubted = sorted({danger.target for danger in dangers if danger.beats_white_box})
    if doubted:
        told += (
            f" Others' examples beat the white box of {', '.join(doubted)}: its robust accuracy is not to be trusted."
        )
    return told
