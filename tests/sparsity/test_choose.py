"""The best-scored weights, of few scores or of many, with ties and without."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.sparsity import choose as room
from gossamer.sparsity.choose import best_of_all


def by_sorting(scores: torch.Tensor, keep: int) -> torch.Tensor:
    """Return the same by a stable sort: equal scores in the order of their positions."""
    order = torch.argsort(scores, descending=True, stable=True)
    return torch.zeros(scores.numel(), dtype=torch.bool).index_fill_(0, order[:keep], True)


@given(
    n=st.integers(1, 600), keep=st.integers(0, 600), levels=st.sampled_from([1, 3, 50, 10**6]), seed=st.integers(0, 99)
)
@settings(deadline=None, max_examples=200)
def test_a_sample_changes_nothing(n: int, keep: int, levels: int, seed: int) -> None:
    keep = min(keep, n)
    scores = torch.randint(levels, (n,), generator=torch.Generator().manual_seed(seed)).float()
    expected = by_sorting(scores, keep)
    with pytest.MonkeyPatch.context() as patch:
        assert torch.equal(best_of_all({"w": scores}, keep)["w"], expected)
        patch.setattr(room, "SAMPLED", 1)
        patch.setattr(room, "STRIDE", 4)
        assert torch.equal(best_of_all({"w": scores}, keep)["w"], expected)


@pytest.mark.parametrize("keep", [10_000, room.SAMPLED - 10_000])
@pytest.mark.parametrize("misleading", [0.0, 1.0, -1.0])
def test_many_scores_are_chosen_exactly_however_they_lie(misleading: float, keep: int) -> None:
    scores = torch.rand(room.SAMPLED + 5, generator=torch.Generator().manual_seed(0))
    scores[:: room.STRIDE] += misleading  # the sample sees the highest, or the lowest, alone
    assert torch.equal(best_of_all({"w": scores}, keep)["w"], by_sorting(scores, keep))
