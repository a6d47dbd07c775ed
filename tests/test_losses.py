import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gossamer.errors import ConfigError
from gossamer.losses import best_other_class, cross_entropy, dlr, dlr_targeted, kl, margin, margin_targeted

LOGITS = torch.tensor([[4.0, 1.0, 3.0, 0.0], [1.0, 2.0, 5.0, 4.0]])
Y = torch.tensor([0, 0])


def test_margin_by_hand() -> None:
    assert margin(LOGITS, Y).tolist() == [-1.0, 4.0]
    assert margin_targeted(LOGITS, torch.tensor([2, 2])).tolist() == [-1.0, 1.0]


def test_dlr_by_hand() -> None:
    # Numerators 3 - 4 and 5 - 1, denominators 4 - 1 and 5 - 2.
    torch.testing.assert_close(dlr(LOGITS, Y), torch.tensor([-1 / 3, 4 / 3]))


def test_dlr_targeted_by_hand() -> None:
    # Numerators 3 - 4 and 2 - 1, denominators 4 - (1 + 0) / 2 and 5 - (2 + 1) / 2.
    value = dlr_targeted(LOGITS, Y, torch.tensor([2, 1]))
    torch.testing.assert_close(value, torch.tensor([-1 / 3.5, 1 / 3.5]))


@given(st.floats(0.1, 100), st.floats(-50, 50), st.integers(0, 1000))
def test_dlr_is_invariant_to_scale_and_shift(scale: float, shift: float, seed: int) -> None:
    drawn = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, 6, generator=drawn, dtype=torch.float64)
    y = torch.randint(0, 6, (5,), generator=drawn)
    moved = scale * logits + shift
    torch.testing.assert_close(dlr(moved, y), dlr(logits, y), rtol=1e-6, atol=1e-8)
    target = (y + 1) % 6
    torch.testing.assert_close(dlr_targeted(moved, y, target), dlr_targeted(logits, y, target), rtol=1e-6, atol=1e-8)


def test_cross_entropy_and_kl_by_hand() -> None:
    even, skewed = torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]])
    torch.testing.assert_close(cross_entropy(skewed, torch.tensor([1])), torch.tensor([math.log(4.0)]))
    # KL((1/2, 1/2) || (3/4, 1/4)) = (log(2/3) + log 2) / 2
    torch.testing.assert_close(kl(even, skewed), torch.tensor([(math.log(2 / 3) + math.log(2)) / 2]))
    torch.testing.assert_close(kl(skewed, even), torch.tensor([0.75 * math.log(1.5) + 0.25 * math.log(0.5)]))
    assert kl(skewed, skewed).item() == 0


def test_kl_has_a_gradient_in_both_arguments_and_is_finite_at_certainty() -> None:
    reference = torch.tensor([[300.0, 0.0, 0.0]], requires_grad=True)
    logits = torch.tensor([[0.0, 300.0, 0.0]], requires_grad=True)
    kl(reference, logits).sum().backward()
    for leaf in (reference, logits):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0


def test_best_other_class() -> None:
    assert best_other_class(LOGITS, torch.tensor([0, 0])).tolist() == [2, 2]


def test_too_few_classes() -> None:
    y = torch.tensor([0])
    with pytest.raises(ConfigError, match="at least 3 classes, got 2"):
        dlr(torch.zeros(1, 2), y)
    with pytest.raises(ConfigError, match="at least 4 classes, got 3"):
        dlr_targeted(torch.zeros(1, 3), y, y + 1)
    with pytest.raises(ConfigError, match="at least 2 classes, got 1"):
        margin(torch.zeros(1, 1), y)
