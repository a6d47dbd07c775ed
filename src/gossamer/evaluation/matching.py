"""Is a sparse network as good as its dense parent? Both on the same samples, and whether the difference is noise.

The question of lottery tickets under attack (Gilles, MIT 2020): a matching subnetwork meets or exceeds the accuracy of
the full network.
"""

from collections.abc import Mapping, Sequence

from torch import nn

from gossamer.evaluation.setting import Setting, check_models, share_of
from gossamer.evaluation.trials import parameters, plan_trials
from gossamer.intervals import paired
from gossamer.runs.protocols import MatchingRow, MatchingTable, PairedDifference
from gossamer.types import Attack


def matching(
    parent: nn.Module, sparse: Mapping[str, nn.Module], setting: Setting, attack: Attack, *, name: str = "parent"
) -> MatchingTable:
    """Measure a parent and its sparse networks clean and under one attack, and compare them sample by sample.

    name: what the record calls the parent. Errors are those of `evaluate`.
    """
    check_models(sparse)
    (trial,) = plan_trials(attack)
    dense = setting.measure(name, parent, {trial.name: attack})
    rows: list[MatchingRow] = []
    for label, model in sparse.items():
        made = setting.measure(label, model, {trial.name: attack})
        rows.append(
            MatchingRow(
                model=made.model,
                clean=compare(made.samples.clean_correct, dense.samples.clean_correct),
                robust=compare(made.attacks[0].robust, dense.attacks[0].robust),
            )
        )
    return MatchingTable(
        dataset=setting.dataset,
        seed=setting.seed,
        threat=str(trial.threat),
        attack=parameters(attack),
        parent=dense.model,
        rows=tuple(rows),
        environment=setting.environment_of(parent),
    )


def compare(sparse: Sequence[int], parent: Sequence[int]) -> PairedDifference:
    """Compare two networks by their outcomes on the same samples, 1 where right: (n,) each."""
    pair = paired(sparse, parent)
    gained, lost, interval = pair.only_first, pair.only_second, pair.interval
    below = "falls short" if interval[1] < 0 else "undecided"
    return PairedDifference(
        sparse=share_of(sparse),
        parent=share_of(parent),
        difference=pair.value,
        interval=interval,
        gained=gained,
        lost=lost,
        p_value=pair.p_value,
        verdict="matches" if gained >= lost else below,
    )
