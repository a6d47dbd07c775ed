"""A trial is given up where it lies behind at everything, beside finished trials that were no bigger."""

from typing import Any

import pytest

from gossamer.sweep.search.pruning import verdict
from gossamer.sweep.search.spec import Prune


def curve(values: list[float | None], active: int = 100, metric: str = "robust") -> list[dict[str, Any]]:
    return [{metric: value, "active": active} for value in values]


FINISHED = [curve([0.2, 0.4]), curve([0.3, 0.5]), curve([0.4, 0.6])]
RULE = Prune(metric=("robust",), least=3)


def test_below_the_median_is_given_up_with_the_reason():
    why = verdict(RULE, curve([0.3, 0.45]), FINISHED, sized=False)
    assert why == "after epoch 2: robust 0.450, where 3 finished trials had 0.500"
    assert verdict(RULE, curve([0.3, 0.5]), FINISHED, sized=False) is None


def test_its_best_so_far_counts():
    assert verdict(RULE, curve([0.55, 0.1]), FINISHED, sized=False) is None


def test_epochs_before_and_epochs_seen_are_not_judged():
    late = Prune(metric=("robust",), least=3, after=2)
    assert verdict(late, curve([0.0]), FINISHED, sized=False) is None
    assert (verdict(RULE, curve([0.0]), FINISHED, sized=False) or "").startswith("after epoch 1")
    assert verdict(RULE, curve([0.0]), FINISHED, sized=False, seen=1) is None


def test_too_few_trials_judge_nobody():
    assert verdict(RULE, curve([0.0, 0.0]), FINISHED[:2], sized=False) is None
    # None of them trained for a third epoch.
    assert verdict(RULE, curve([0.9, 0.9, 0.0]), FINISHED, sized=False, seen=2) is None


def test_a_small_network_is_not_judged_by_bigger_ones():
    small = curve([0.0, 0.0], active=10)
    assert verdict(RULE, small, FINISHED, sized=True) is None
    assert verdict(RULE, small, FINISHED, sized=False) is not None
    smaller = [curve([0.2, 0.4], active=active) for active in (5, 10, 10)]
    assert verdict(RULE, small, [*FINISHED, *smaller], sized=True) is not None


def test_of_several_metrics_all_have_to_lie_behind():
    rule = Prune(metric=("clean", "robust"), least=1)
    finished = [[{"clean": 0.9, "robust": 0.5, "active": 1}]]
    assert verdict(rule, [{"clean": 0.8, "robust": 0.6, "active": 1}], finished, sized=False) is None
    assert verdict(rule, [{"clean": 0.8, "robust": 0.4, "active": 1}], finished, sized=False) is not None


@pytest.mark.parametrize("missing", [curve([None, None]), curve([0.0, 0.0], metric="clean")])
def test_what_was_not_measured_is_not_judged(missing: list[dict[str, Any]]):
    assert verdict(RULE, missing, FINISHED, sized=False) is None
    assert verdict(RULE, curve([0.0, 0.0]), [missing] * 3, sized=False) is None
