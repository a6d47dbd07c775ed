"""Does robustness against one adversary hold against others? Training adversaries by test adversaries."""

from collections.abc import Mapping, Sequence

from torch import nn

from gossamer.attacks.goals import Labels
from gossamer.attacks.pgd import PGD
from gossamer.attacks.starts import RANDOM
from gossamer.attacks.steps import OverSteps
from gossamer.errors import ConfigError
from gossamer.evaluation.setting import Setting, check_models, clean_share, robust_share
from gossamer.evaluation.trials import parameters
from gossamer.runs.protocols import AdversaryMatrix, MatrixModel, Share, TestAdversary
from gossamer.threat import ThreatModel
from gossamer.types import Attack

PAPER_THREAT = ThreatModel("linf", 0.1)
PAPER_STEPS = (1, 2, 4, 8)


def pgd_adversaries(
    threat: ThreatModel = PAPER_THREAT, steps: Sequence[int] = PAPER_STEPS, *, labels: Labels = "true"
) -> dict[str, Attack]:
    """Return PGD of n steps of eps/n from a random start for each n, by name.

    labels: true, or predicted on the clean image, which is the same on the samples that are right when clean, the
    only ones that count here.
    """
    return {
        f"pgd-{count}": PGD(threat=threat, steps=count, step=OverSteps(1), start=RANDOM, labels=labels)
        for count in steps
    }


def adversary_matrix(
    models: Mapping[str, nn.Module],
    setting: Setting,
    adversaries: Mapping[str, Attack],
    *,
    trained: Mapping[str, str] | None = None,
) -> AdversaryMatrix:
    """Attack every model with every adversary; trained: what each was trained under, by default its own name.

    Adversaries may differ in norm. Raises ConfigError for impossible arguments and what `evaluate` raises.
    """
    check_models(models)
    if not adversaries:
        raise ConfigError(
            "adversaries", expected="at least one attack by name", got="none", remedy="give pgd_adversaries(), say"
        )
    rows = [_row(name, model, setting, adversaries) for name, model in models.items()]
    kinds = trained or {}
    return AdversaryMatrix(
        dataset=setting.dataset,
        seed=setting.seed,
        models=tuple(
            MatrixModel(model=head.model, kind=kinds.get(name, name), clean=head.clean)
            for name, (head, _, _) in zip(models, rows, strict=True)
        ),
        adversaries=rows[0][1],
        accuracy=tuple(shares for _, _, shares in rows),
        environment=setting.environment_of(next(iter(models.values()))),
    )


def _row(
    name: str, model: nn.Module, setting: Setting, adversaries: Mapping[str, Attack]
) -> tuple[MatrixModel, tuple[TestAdversary, ...], tuple[Share, ...]]:
    measured = {label: setting.measure(name, model, {label: attack}) for label, attack in adversaries.items()}
    first = next(iter(measured.values()))
    columns = tuple(
        TestAdversary(name=label, threat=made.threat, eps=made.eps, parameters=parameters(adversaries[label]))
        for label, made in measured.items()
    )
    head = MatrixModel(model=first.model, kind=name, clean=clean_share(first))
    return head, columns, tuple(robust_share(made) for made in measured.values())
