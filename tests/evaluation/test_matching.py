import pytest
import torch
from protocol_toys import images, labels, plane

from gossamer.attacks.registry import build
from gossamer.evaluation.matching import compare, matching
from gossamer.evaluation.setting import Setting
from gossamer.evaluation.tables import tell
from gossamer.intervals import paired_difference
from gossamer.threat import ThreatModel

FGSM = build("fgsm", ThreatModel("linf", 0.05))


def setting(n=40):
    model = plane()
    x = images(n)
    return model, Setting(data=(x, labels(model, x)), device="cpu")


def test_a_network_matches_itself():
    model, where = setting()
    (row,) = matching(model, {"sparse": plane()}, where, FGSM).rows
    assert (row.clean.difference, row.clean.gained, row.clean.lost, row.clean.p_value) == (0.0, 0, 0, 1.0)
    assert row.clean.verdict == row.robust.verdict == "matches"


def right(model, where, eps):
    """Return which samples a linear model gets right under FGSM: where the label's side is farther than eps."""
    x, y = where.samples.float(torch.arange(40)), where.samples.labels
    return (model.signed(x).sign() * model.radius(x) * (2 * y - 1)) > eps


def test_clean_outcomes_are_paired_as_counted():
    model, where = setting()
    other = plane(seed=5)
    (row,) = matching(model, {"other": other}, where, FGSM).rows
    wrong = int((~right(other, where, 0.0)).sum())
    assert 0 < wrong < 40
    assert (row.clean.gained, row.clean.lost) == (0, wrong)
    assert row.clean.difference == pytest.approx(-wrong / 40)
    assert row.clean.interval == paired_difference(0, wrong, 40)
    assert row.clean.verdict == "falls short"


def test_robust_outcomes_are_paired_under_attack():
    model, where = setting()
    other = plane(seed=5)
    (row,) = matching(model, {"other": other}, where, FGSM).rows
    mine, theirs = right(other, where, 0.05), right(model, where, 0.05)
    assert row.robust.gained == int((mine & ~theirs).sum())
    assert row.robust.lost == int((theirs & ~mine).sum())


@pytest.mark.parametrize(
    ("sparse", "parent", "verdict"),
    [([1, 1, 0], [1, 0, 1], "matches"), ([0, 1, 1], [1, 1, 1], "undecided"), ([0] * 30, [1] * 30, "falls short")],
)
def test_verdicts_by_hand(sparse, parent, verdict):
    assert compare(sparse, parent).verdict == verdict


def test_it_is_told_with_n_and_intervals():
    model, where = setting()
    told = tell(matching(model, {"sparse": plane()}, where, FGSM, name="dense"))
    assert "beside dense, FGSM, linf" in told
    assert "n = 40" in told
    assert "matches" in told
