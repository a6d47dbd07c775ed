"""How robust is an ensemble? Attacked as the one model it is, beside the attacks on its members that flatter it."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gossamer.attacks.transfer import Transfer
from gossamer.errors import ConfigError
from gossamer.evaluation.record import Evaluation
from gossamer.evaluation.setting import Setting, check_models, clean_share, share_of
from gossamer.evaluation.trials import parameters, plan_trials
from gossamer.runs.protocols import EnsembleTable, Member, Share
from gossamer.types import Attack


class SoftmaxMean(nn.Module):
    """The logarithm of the mean of its members' softmax probabilities: (N, K), of which it is the log-softmax too.

    A member alone gives its log-probabilities. All members must have the same classes.
    """

    def __init__(self, *members: nn.Module) -> None:
        super().__init__()
        if not members:
            raise ConfigError("ensemble", expected="at least one member", got="none", remedy="give its networks")
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """Return log(mean_m softmax(z_m)): (N, K) for x: (N, C, H, W)."""
        logs = torch.stack([torch.log_softmax(member(x), dim=1) for member in self.members])
        return torch.logsumexp(logs, dim=0) - math.log(len(self.members))


def ensemble(
    members: Mapping[str, nn.Module], setting: Setting, attack: Attack, *, name: str = "ensemble"
) -> EnsembleTable:
    """Attack the softmax mean of members as one model; and each member alone, judging its examples on the ensemble.

    An ensemble that has only been attacked through one of its members looks stronger than it is. Raises ConfigError
    for fewer than two members and what `evaluate` raises.
    """
    check_models(members, least=2)
    (trial,) = plan_trials(attack)
    whole = SoftmaxMean(*members.values())
    as_one = setting.measure(name, whole, {trial.name: attack})
    alone = {label: setting.measure(label, member, {trial.name: attack}) for label, member in members.items()}
    through = {
        label: setting.measure(
            name, whole, {trial.name: Transfer(attack=attack, source=member)}, source=[label, setting.mark(member)]
        )
        for label, member in members.items()
    }
    broken_by_none = torch.tensor([made.attacks[0].robust for made in through.values()]).amin(dim=0)
    member_wise = share_of(broken_by_none, told=True)
    return EnsembleTable(
        dataset=setting.dataset,
        seed=setting.seed,
        threat=str(trial.threat),
        eps=trial.threat.eps,
        attack=parameters(attack),
        model=as_one.model,
        parameters=sum(parameter.numel() for parameter in whole.parameters()),
        clean=clean_share(as_one, told=True),
        as_one=_robust(as_one),
        member_wise=member_wise,
        flattery=member_wise.value - as_one.robust_accuracy,
        members=tuple(_member(alone[label], through[label]) for label in members),
        environment=setting.environment_of(whole),
    )


def _member(alone: Evaluation, through: Evaluation) -> Member:
    return Member(
        model=alone.model,
        clean=clean_share(alone, told=True),
        robust=_robust(alone),
        ensemble=_robust(through),
    )


def _robust(measured: Evaluation) -> Share:
    return share_of(measured.attacks[0].robust, told=True)
